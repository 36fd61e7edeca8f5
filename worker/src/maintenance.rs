use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use windlass_client::Client;
use windlass_core::StoreError;

use crate::session::Session;

/// How often the leader looks for jobs whose time has come.
const SCHEDULE: Duration = Duration::from_millis(500);
/// The shortest pause between starts that rates allow: what is due meanwhile starts together.
const BREATH: Duration = Duration::from_millis(20);
/// How often the lease of the leader is taken or renewed, and dead workers are looked for.
const LEAD: Duration = Duration::from_secs(1);
/// How long a leader leads without renewing.
const LEAD_TTL: Duration = Duration::from_secs(3);
/// How often the leader keeps house.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How often the leader removes results past their time from the object store.
const SWEEP: Duration = Duration::from_secs(3600);
/// How often it looks there for whatever no job refers to.
const THOROUGH_SWEEP: Duration = Duration::from_secs(86_400);
/// Jobs promoted in one statement.
const BATCH: usize = 1000;

/// Schedules fired in one transaction.
const SCHEDULES: usize = 20;

/// Ends and pauses of jobs followed up in one transaction.
const FOLLOW_UPS: usize = 200;

/// Sees to what the ends of this worker's jobs leave to do for others, as soon as they are recorded. Whatever fails here is
/// seen to by the leader.
pub(crate) async fn follow_up(session: Arc<Session>) {
    loop {
        session.follow_up.notified().await;
        if let Err(error) = follow_up_all(&session.client).await {
            tracing::debug!(%error, "follow-ups are left to the leader");
        }
    }
}

/// Does all that is due now: promotes, fires, expires, follows up. Answers how much that was.
pub(crate) async fn catch_up(client: &Client) -> Result<usize, StoreError> {
    let (store, timetable) = (client.store(), client.store().timetable());
    let promoted = repeat(client, BATCH, || store.promote_due(BATCH)).await?;
    let fired = repeat(client, SCHEDULES, || timetable.fire_schedules(SCHEDULES)).await?;
    let expired = repeat(client, BATCH, || timetable.expire(BATCH)).await?;
    Ok(promoted + fired + expired + follow_up_all(client).await?)
}

async fn follow_up_all(client: &Client) -> Result<usize, StoreError> {
    repeat(client, FOLLOW_UPS, || client.store().follow_up(FOLLOW_UPS)).await
}

/// Does something in batches until no more remains, and has published what that queues.
async fn repeat<F>(client: &Client, batch: usize, work: impl Fn() -> F) -> Result<usize, StoreError>
where
    F: Future<Output = Result<usize, StoreError>>,
{
    let mut all = 0;
    loop {
        let done = work().await?;
        all += done;
        if done > 0 {
            client.nudge_relay();
        }
        if done < batch {
            return Ok(all);
        }
    }
}

/// The duties of which a fleet needs one at a time: promoting what is due, firing schedules, expiring, rescuing from dead workers, housekeeping.
/// Every worker offers to lead; two leaders at once would do no harm.
pub(crate) async fn run(session: Arc<Session>, crash_limit: u32) {
    let mut duties = Duties {
        session,
        crash_limit,
        led: None,
        kept_house: None,
        swept: None,
        swept_thoroughly: None,
        next_start: None,
        keeping_house: JoinSet::new(),
        sweeping: JoinSet::new(),
        failing: false,
    };
    let mut ticks = interval(SCHEDULE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let start = async {
            match duties.next_start {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            biased;
            _ = ticks.tick() => duties.perform().await,
            () = start => {
                duties.next_start = None;
                duties.start_waiting().await
            }
        };
        duties.note_outage(done.err());
    }
}

struct Duties {
    session: Arc<Session>,
    crash_limit: u32,
    /// When leadership was last taken or tried, and whether it was got.
    led: Option<(Instant, bool)>,
    kept_house: Option<Instant>,
    swept: Option<Instant>,
    swept_thoroughly: Option<Instant>,
    /// When a rate lets a waiting job start, if that is before the next tick.
    next_start: Option<Instant>,
    /// Beside the other duties, since it may have days of jobs to remove.
    keeping_house: JoinSet<Result<(), StoreError>>,
    sweeping: JoinSet<()>,
    failing: bool,
}

impl Duties {
    async fn perform(&mut self) -> Result<(), StoreError> {
        let store = self.session.client.store().clone();
        let now = Instant::now();
        self.next_start = None;
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
        catch_up(&self.session.client).await?;
        self.look_ahead().await?;
        if self.keeping_house.is_empty() && self.kept_house.is_none_or(|at| now - at >= HOUSEKEEPING) {
            self.kept_house = Some(now);
            self.keeping_house.spawn(async move { store.maintain().await });
        }
        self.sweep(now);
        match self.keeping_house.try_join_next() {
            Some(Ok(kept)) => kept?,
            Some(Err(error)) => tracing::error!(%error, "housekeeping panicked"),
            None => {}
        }
        Ok(())
    }

    /// Beside the other duties as well.
    fn sweep(&mut self, now: Instant) {
        let client = self.session.client.clone();
        while let Some(swept) = self.sweeping.try_join_next() {
            if let Err(error) = swept {
                tracing::error!(%error, "sweeping the object store panicked");
            }
        }
        let due = |last: Option<Instant>, every| last.is_none_or(|at| now - at >= every);
        if client.envelope().object_store().is_none() || !self.sweeping.is_empty() || !due(self.swept, SWEEP)
        {
            return;
        }
        self.swept = Some(now);
        let thorough = due(self.swept_thoroughly, THOROUGH_SWEEP);
        if thorough {
            self.swept_thoroughly = Some(now);
        }
        self.sweeping.spawn(async move {
            let Some(objects) = client.envelope().object_store() else { return };
            match objects.sweep(&**client.store(), chrono::Utc::now(), thorough).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "removed objects that no job needs"),
                Err(error) => {
                    tracing::warn!(%error, "the object store could not be swept; trying again later")
                }
            }
        });
    }

    async fn look_ahead(&mut self) -> Result<(), StoreError> {
        let next = self.session.client.store().operations().next_start().await?;
        self.next_start = next.filter(|left| *left < SCHEDULE).map(|left| Instant::now() + left.max(BREATH));
        Ok(())
    }

    /// Lets through what a rate allows to start now.
    async fn start_waiting(&mut self) -> Result<(), StoreError> {
        follow_up_all(&self.session.client).await?;
        self.look_ahead().await
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
