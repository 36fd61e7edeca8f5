use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use windlass_core::{
    BrokerError, ClaimId, ClaimedJob, Delivery, DeliveryTag, JobId, Kind, Lane, Priorities, StoreError,
    Subscription,
};

use crate::{completer::Ended, pauses::Paused, session::Session};

/// The largest group of deliveries claimed in one statement.
const GROUP: usize = 500;
/// Claims under way at once: while one commits, the next group gathers.
const IN_FLIGHT: usize = 2;
/// How long a full worker keeps what the broker has sent ahead before it gives it back.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// How long a message of a kind without handler is kept from coming straight back.
const ASIDE: Duration = Duration::from_secs(1);

/// Takes messages from the broker while there is room, claims their jobs, and starts the attempts.
///
/// A message is acknowledged once its claim has committed. One whose claim did not is never acknowledged, and comes
/// again.
pub(crate) struct Intake {
    session: Arc<Session>,
    subscription: Box<dyn Subscription>,
    claims: JoinSet<Option<Claimed>>,
    /// Messages of kinds without handler, and when to give them back for another worker.
    aside: VecDeque<(Instant, DeliveryTag)>,
    most_aside: usize,
    named: HashSet<Kind>,
    /// Since when there has been no place for another job, and whether the subscription is parked because of it.
    full_since: Option<Instant>,
    parked: bool,
    failing: bool,
}

struct Claimed {
    claim: ClaimId,
    tags: Vec<DeliveryTag>,
    jobs: Vec<ClaimedJob>,
    places: tokio::sync::OwnedSemaphorePermit,
}

/// Runs until the session stops taking or is lost; the broker's outages are waited out. Takes nothing from the lanes of
/// paused queues.
pub(crate) async fn run(
    session: Arc<Session>,
    lanes: Vec<Lane>,
    priorities: Priorities,
    capacity: usize,
    mut paused: Paused,
) {
    let ended = async {
        tokio::select! {
            biased;
            () = session.stop.cancelled() => {}
            () = session.lost.cancelled() => {}
        }
    };
    tokio::pin!(ended);
    let mut failing = false;
    loop {
        let open: Vec<Lane> = {
            let paused = paused.borrow_and_update();
            lanes.iter().filter(|lane| !paused.contains(&lane.queue)).cloned().collect()
        };
        let subscription = tokio::select! {
            biased;
            () = &mut ended => return,
            changed = paused.changed() => match changed {
                Ok(()) => continue,
                // Only the end of the session ends the watch.
                Err(_) => return,
            },
            subscription = subscribe(&session, &open, priorities, capacity, &mut failing) => subscription,
        };
        let mut intake = Intake {
            session: session.clone(),
            subscription,
            claims: JoinSet::new(),
            aside: VecDeque::new(),
            most_aside: capacity / 2,
            named: HashSet::new(),
            full_since: None,
            parked: false,
            failing,
        };
        let over = loop {
            // A step that is dropped loses no message: those taken and not acknowledged come again.
            tokio::select! {
                biased;
                () = &mut ended => break true,
                changed = paused.changed() => break changed.is_err(),
                () = intake.step() => {}
            }
        };
        failing = intake.failing;
        intake.end().await;
        if over {
            return;
        }
    }
}

/// Subscribes to these lanes, however often that takes. To none: never comes back.
async fn subscribe(
    session: &Session,
    lanes: &[Lane],
    priorities: Priorities,
    capacity: usize,
    failing: &mut bool,
) -> Box<dyn Subscription> {
    if lanes.is_empty() {
        std::future::pending::<()>().await;
    }
    loop {
        match session.client.broker().subscribe(lanes, capacity, priorities).await {
            Ok(subscription) => return subscription,
            Err(error) => {
                note_outage(failing, &error);
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

impl Intake {
    /// Waits for one thing to happen and deals with it.
    async fn step(&mut self) {
        if self.claims.len() >= IN_FLIGHT {
            self.settle_one().await;
            return;
        }
        let room = self.session.places.available_permits();
        if room == 0 {
            self.wait_for_room().await;
            return;
        }
        self.full_since = None;
        self.parked = false;
        let release_at = self.aside.front().map(|(at, _)| *at);
        let release = async {
            match release_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(claimed) = self.claims.join_next(), if !self.claims.is_empty() => self.start(claimed).await,
            () = release => self.release_aside().await,
            received = self.subscription.receive(room.min(GROUP)) => match received {
                Ok(deliveries) => self.take(deliveries).await,
                Err(error) => {
                    note_outage(&mut self.failing, &error);
                    // The subscription paces its own reconnects; this is for errors that no reconnect mends.
                    sleep(Duration::from_millis(200)).await;
                }
            },
        }
    }

    async fn settle_one(&mut self) {
        if let Some(claimed) = self.claims.join_next().await {
            self.start(claimed).await;
        }
    }

    /// Waits for a place, and gives back after a while what others could be doing meanwhile.
    async fn wait_for_room(&mut self) {
        let full_since = *self.full_since.get_or_insert_with(Instant::now);
        let places = self.session.places.clone();
        tokio::select! {
            biased;
            Some(claimed) = self.claims.join_next(), if !self.claims.is_empty() => self.start(claimed).await,
            _ = places.acquire() => {}
            () = sleep_until(full_since + PARK_AFTER), if !self.parked => {
                self.parked = true;
                self.give_back_aside().await;
                if let Err(error) = self.subscription.park().await {
                    note_outage(&mut self.failing, &error);
                }
            }
        }
    }

    /// Claims what there is a handler for.
    async fn take(&mut self, deliveries: Vec<Delivery>) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("messages arrive again");
        }
        self.session.client.note_arrivals(deliveries.iter().map(|delivery| &delivery.message));
        let (known, unknown): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|d| self.session.handlers.contains_key(&d.message.kind));
        self.put_aside(unknown).await;
        let count = u32::try_from(known.len()).unwrap_or(u32::MAX);
        // Only this task takes places, so they are still free.
        let Ok(places) = self.session.places.clone().try_acquire_many_owned(count) else { return };
        if !known.is_empty() {
            let session = self.session.clone();
            self.claims.spawn(claim(session, known, places));
        }
    }

    async fn put_aside(&mut self, unknown: Vec<Delivery>) {
        let mut leave = Vec::new();
        for delivery in unknown {
            if self.named.insert(delivery.message.kind.clone()) {
                tracing::warn!(kind = %delivery.message.kind, "no handler for this kind; its jobs are left to other workers");
            }
            if self.aside.len() < self.most_aside {
                self.aside.push_back((Instant::now() + ASIDE, delivery.tag));
            } else {
                leave.push(delivery.tag);
            }
        }
        // More than we can hold: the outbox publishes them again.
        if !leave.is_empty() {
            self.ack(&leave).await;
            give_way().await;
        }
    }

    async fn release_aside(&mut self) {
        let now = Instant::now();
        let due = self.aside.iter().take_while(|(at, _)| *at <= now).count();
        let tags: Vec<_> = self.aside.drain(..due).map(|(_, tag)| tag).collect();
        self.release(&tags).await;
        give_way().await;
    }

    async fn give_back_aside(&mut self) {
        let tags: Vec<_> = self.aside.drain(..).map(|(_, tag)| tag).collect();
        self.release(&tags).await;
    }

    async fn start(&mut self, claimed: Result<Option<Claimed>, tokio::task::JoinError>) {
        let claimed = match claimed {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return,
            Err(error) => {
                // Cannot happen short of a bug; the lease is the way out that always works.
                tracing::error!(%error, "a claim panicked; giving up the lease");
                self.session.lost.cancel();
                return;
            }
        };
        if claimed.jobs.iter().any(|job| job.followed) {
            // In a fair queue, their start is another's turn.
            self.session.follow_up.notify_one();
        }
        start(&self.session, claimed.claim, claimed.jobs, claimed.places);
        self.ack(&claimed.tags).await;
    }

    /// Sees the claims under way to their end, since they may have committed, and gives the rest back.
    async fn end(mut self) {
        while let Some(claimed) = self.claims.join_next().await {
            self.start(claimed).await;
        }
        self.give_back_aside().await;
        // Dropping the subscription gives back what it has not handed out.
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) {
        if !tags.is_empty()
            && let Err(error) = self.subscription.ack(tags).await
        {
            // They come again, and are dropped as duplicates.
            tracing::debug!(%error, "messages not acknowledged");
        }
    }

    async fn release(&mut self, tags: &[DeliveryTag]) {
        if !tags.is_empty()
            && let Err(error) = self.subscription.release(tags).await
        {
            tracing::debug!(%error, "messages not released");
        }
    }
}

/// Claims a group. `None`: the lease is lost.
async fn claim(
    session: Arc<Session>,
    deliveries: Vec<Delivery>,
    places: tokio::sync::OwnedSemaphorePermit,
) -> Option<Claimed> {
    let claim = ClaimId::new();
    session.opens(claim);
    let ids: Vec<JobId> = deliveries.iter().map(|d| d.message.job_id).collect();
    let tags = deliveries.iter().map(|d| d.tag).collect();
    let jobs = claim_under(&session, claim, &ids).await?;
    if jobs.is_empty() {
        session.closes(claim);
    }
    Some(Claimed { claim, tags, jobs, places })
}

/// Claims, however often that takes. `None`: the lease is lost.
///
/// A claim whose answer was lost may have committed, so it is repeated under the same id until the store has
/// answered.
pub(crate) async fn claim_under(session: &Session, claim: ClaimId, ids: &[JobId]) -> Option<Vec<ClaimedJob>> {
    let mut pause = Duration::from_millis(50);
    let mut failing = false;
    loop {
        let sent = Instant::now();
        let claimed = tokio::select! {
            biased;
            () = session.lost.cancelled() => return None,
            claimed = session.client.store().claim(session.id, claim, ids) => claimed,
        };
        match claimed {
            Ok(mut jobs) => {
                if failing {
                    tracing::info!("jobs can be claimed again");
                }
                // The answer may have taken long, or this process stood still.
                let took = sent.elapsed();
                for left in jobs.iter_mut().filter_map(|job| job.time_left.as_mut()) {
                    *left = left.saturating_sub(took);
                }
                return Some(jobs);
            }
            Err(StoreError::WorkerUnknown(_)) => {
                tracing::error!(worker = %session.id, "lease lost: this worker was silent for too long; its handlers are stopped");
                session.lost.cancel();
                return None;
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, jobs = ids.len(), "jobs cannot be claimed; trying again");
                }
            }
        }
        tokio::select! {
            biased;
            () = session.lost.cancelled() => return None,
            // What a claim may have taken is rescued once the worker has said goodbye.
            () = session.abort.cancelled() => return None,
            () = sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
        }
    }
}

fn start(
    session: &Arc<Session>,
    claim: ClaimId,
    jobs: Vec<ClaimedJob>,
    mut places: tokio::sync::OwnedSemaphorePermit,
) {
    if jobs.is_empty() {
        return;
    }
    // Before any attempt can end; the completer is there as long as the session.
    let _ = session.ended.send(Ended::Claimed { claim, jobs: jobs.len() });
    for job in jobs {
        // As many places as were asked for; a claim never answers more.
        if let Some(place) = places.split(1) {
            session.start(claim, job, place);
        }
    }
}

/// Lets other workers of this process at messages that are not for us. One that is always at once where messages are
/// would take them all, again and again.
async fn give_way() {
    tokio::task::yield_now().await;
}

fn note_outage(failing: &mut bool, error: &BrokerError) {
    if !std::mem::replace(failing, true) {
        tracing::warn!(%error, "no messages can be taken from the broker; trying again");
    }
}
