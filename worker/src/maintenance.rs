use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use windlass_core::StoreError;

use crate::session::Session;

/// How often the leader looks for jobs whose time has come.
const SCHEDULE: Duration = Duration::from_millis(500);
/// How often the lease of the leader is taken or renewed, and dead workers are looked for.
const LEAD: Duration = Duration::from_secs(1);
/// How long a leader leads without renewing.
const LEAD_TTL: Duration = Duration::from_secs(3);
/// How often the leader keeps house.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Jobs promoted in one statement.
const BATCH: usize = 1000;

/// Ends and pauses of jobs followed up in one transaction.
const FOLLOW_UPS: usize = 200;

/// Sees to what the ends of this worker's jobs leave to do for others, as soon as they are recorded. Whatever fails here is
/// seen to by the leader.
pub(crate) async fn follow_up(session: Arc<Session>) {
    loop {
        session.follow_up.notified().await;
        if let Err(error) = follow_up_all(&session).await {
            tracing::debug!(%error, "follow-ups are left to the leader");
        }
    }
}

async fn follow_up_all(session: &Session) -> Result<(), StoreError> {
    loop {
        let done = session.client.store().follow_up(FOLLOW_UPS).await?;
        if done > 0 {
            session.client.nudge_relay();
        }
        if done < FOLLOW_UPS {
            return Ok(());
        }
    }
}

/// The duties of which a fleet needs one at a time: promoting what is due, rescuing from dead workers, housekeeping.
/// Every worker offers to lead; two leaders at once would do no harm.
pub(crate) async fn run(session: Arc<Session>, crash_limit: u32) {
    let mut duties = Duties {
        session,
        crash_limit,
        led: None,
        kept_house: None,
        keeping_house: JoinSet::new(),
        failing: false,
    };
    let mut ticks = interval(SCHEDULE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let done = duties.perform().await;
        duties.note_outage(done.err());
    }
}

struct Duties {
    session: Arc<Session>,
    crash_limit: u32,
    /// When leadership was last taken or tried, and whether it was got.
    led: Option<(Instant, bool)>,
    kept_house: Option<Instant>,
    /// Beside the other duties, since it may have days of jobs to remove.
    keeping_house: JoinSet<Result<(), StoreError>>,
    failing: bool,
}

impl Duties {
    async fn perform(&mut self) -> Result<(), StoreError> {
        let store = self.session.client.store().clone();
        let now = Instant::now();
        if self.led.is_none_or(|(at, _)| now - at >= LEAD) {
            // Until the answer is here, we do not lead.
            self.led = Some((now, false));
            let leads = store.lead("maintenance", self.session.id, LEAD_TTL).await?;
            self.led = Some((now, leads));
            if leads {
                self.rescue().await?;
            }
        }
        if !self.led.is_some_and(|(_, leads)| leads) {
            return Ok(());
        }
        loop {
            let promoted = store.promote_due(BATCH).await?;
            if promoted > 0 {
                self.session.client.nudge_relay();
            }
            if promoted < BATCH {
                break;
            }
        }
        follow_up_all(&self.session).await?;
        if self.keeping_house.is_empty() && self.kept_house.is_none_or(|at| now - at >= HOUSEKEEPING) {
            self.kept_house = Some(now);
            self.keeping_house.spawn(async move { store.maintain().await });
        }
        match self.keeping_house.try_join_next() {
            Some(Ok(kept)) => kept?,
            Some(Err(error)) => tracing::error!(%error, "housekeeping panicked"),
            None => {}
        }
        Ok(())
    }

    async fn rescue(&self) -> Result<(), StoreError> {
        let rescued = self.session.client.store().rescue(self.crash_limit).await?;
        if rescued.requeued + rescued.dead > 0 {
            let (requeued, dead) = (rescued.requeued, rescued.dead);
            tracing::warn!(workers = ?rescued.workers, requeued, dead, "rescued the jobs of lost workers");
            self.session.client.nudge_relay();
        }
        Ok(())
    }

    /// Says once when an outage begins, and once when it is over.
    fn note_outage(&mut self, error: Option<StoreError>) {
        match error {
            Some(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, "maintenance failed; trying again");
            }
            None if std::mem::take(&mut self.failing) => tracing::info!("maintenance works again"),
            _ => {}
        }
    }
}
