use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::types::Message as Received;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{BrokerError, Delivery, DeliveryTag, Lane, Priorities};

use super::api::Settle;
use super::problem::Problem;
use super::queues::Queues;
use super::settle::settle;
use super::state::{Receive, State};
use super::{BATCH, VISIBILITY, delays};

/// How often to look for messages that are held for long.
const LOOK: Duration = Duration::from_secs(VISIBILITY.as_secs() / 3);

/// The calls of a subscription. Each is a task; whatever begins or ends something looks under the lock which calls are
/// to be made next. The lock is held for moves within memory only.
pub(super) struct Intake {
    queues: Arc<Queues>,
    state: Mutex<State>,
    /// Something for the caller of `receive` to look at.
    wake: Notify,
    tasks: TaskTracker,
    ended: CancellationToken,
}

impl Intake {
    /// Takes from `lanes` until `ended`.
    pub(super) fn start(
        queues: Arc<Queues>,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
        tasks: TaskTracker,
        ended: CancellationToken,
    ) -> Arc<Self> {
        let state = Mutex::new(State::new(lanes, capacity, priorities));
        let intake = Arc::new(Self { queues, state, wake: Notify::new(), tasks, ended });
        intake.call(&mut intake.state());
        intake.tasks.spawn(Arc::clone(&intake).mind());
        intake
    }

    /// Waits until there may be something new to [take](Self::take).
    pub(super) async fn changed(&self) {
        // A wake-up between the look and this wait is kept by the Notify.
        self.wake.notified().await;
    }

    /// Up to `max` messages at hand. None is no error.
    pub(super) fn take(self: &Arc<Self>, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut state = self.state();
        if state.ended {
            return Err(BrokerError::Closed);
        }
        state.taking = true;
        let deliveries = state.take(max);
        self.call(&mut state);
        match state.failure.take_if(|_| deliveries.is_empty()) {
            Some(problem) => Err(problem.into()),
            None => Ok(deliveries),
        }
    }

    /// Settles what was handed out under `tags`. Others are stale.
    pub(super) fn settle(self: &Arc<Self>, tags: &[DeliveryTag], how: Settle) {
        let mut state = self.state();
        for tag in tags {
            if state.held.get(&tag.0).is_some_and(|held| held.handed_out) {
                state.discard(tag.0, how);
            }
        }
        self.call(&mut state);
    }

    /// Stops taking, and releases what was not handed out. A receive under way goes on, since SQS knows no way to take
    /// one back; what it brings is released as well.
    pub(super) fn park(self: &Arc<Self>) {
        let mut state = self.state();
        state.taking = false;
        state.release_buffers();
        self.call(&mut state);
    }

    /// Keeps from others what is held for long, and at the end releases everything.
    async fn mind(self: Arc<Self>) {
        loop {
            let keep = async {
                sleep(LOOK).await;
                self.keep().await;
            };
            tokio::select! {
                () = self.ended.cancelled() => break,
                // Dropped halfway, it has kept some for longer than needed, and they are released now.
                () = keep => {}
            }
        }
        let mut state = self.state();
        state.ended = true;
        let tags: Vec<u64> = state.held.keys().copied().collect();
        for tag in tags {
            state.discard(tag, Settle::Release);
        }
        self.call(&mut state);
        self.wake.notify_one();
    }

    async fn keep(&self) {
        let now = Instant::now();
        let mut due: HashMap<usize, Vec<(u64, String)>> = HashMap::new();
        for (tag, held) in &self.state().held {
            if held.until < now + 2 * LOOK {
                due.entry(held.lane).or_default().push((*tag, held.receipt.clone()));
            }
        }
        for (index, messages) in due {
            let lane = self.state().lanes[index].lane.clone();
            for batch in messages.chunks(BATCH) {
                let receipts = batch.iter().map(|(_, receipt)| receipt.clone()).collect();
                let now = Instant::now();
                let Ok(gone) = settle(&self.queues, &lane, receipts, Settle::Keep).await else { continue };
                let mut state = self.state();
                for (place, (tag, _)) in batch.iter().enumerate() {
                    if let Some(held) = state.held.get_mut(tag) {
                        held.until = if gone.contains(&place) { now } else { now + VISIBILITY };
                    }
                }
            }
        }
    }

    /// Makes the calls that are due.
    fn call(self: &Arc<Self>, state: &mut State) {
        for index in 0..state.lanes.len() {
            for how in [Settle::Delete, Settle::Release] {
                while let Some(batch) = state.lanes[index].settling(how).next_batch() {
                    let lane = state.lanes[index].lane.clone();
                    self.tasks.spawn(Arc::clone(self).settle_batch(index, lane, batch, how));
                }
            }
        }
        for receive in state.next_receives() {
            self.tasks.spawn(Arc::clone(self).receive(receive));
        }
    }

    async fn settle_batch(self: Arc<Self>, index: usize, lane: Lane, batch: Vec<String>, how: Settle) {
        let count = batch.len();
        if let Err(problem) = settle(&self.queues, &lane, batch, how).await {
            // They come again when SQS stops to wait for us.
            let error = BrokerError::from(problem);
            tracing::debug!(%lane, count, ?how, %error, "could not settle messages");
        }
        let mut state = self.state();
        let settled = &mut state.lanes[index];
        settled.load -= count;
        settled.settling(how).calls -= 1;
        self.call(&mut state);
    }

    /// One receive, until it is answered or not wanted any more.
    async fn receive(self: Arc<Self>, receive: Receive) {
        let lane = &receive.lane;
        let (mut delays, mut failures, mut reported, mut answer) = (delays(), 0, false, None);
        while self.wanted() {
            let problem = match self.receive_once(&receive).await {
                Ok(messages) => {
                    answer = Some(messages);
                    break;
                }
                Err(problem) => problem,
            };
            failures += 1;
            // Once is nothing: a connection that was closed, a queue that was deleted.
            if failures > 1 || matches!(problem, Problem::Config { .. }) {
                if !reported {
                    reported = true;
                    let error = BrokerError::from(problem.clone());
                    tracing::warn!(%lane, %error, "cannot receive; trying on");
                }
                self.state().failure = Some(problem);
                self.wake.notify_one();
            }
            tokio::select! {
                () = self.ended.cancelled() => {}
                () = sleep(delays.next().unwrap_or(LOOK)) => {}
            }
        }
        if reported && answer.is_some() {
            tracing::info!(%lane, "receiving again");
        }
        let mut state = self.state();
        state.received(&receive, answer);
        self.call(&mut state);
        self.wake.notify_one();
    }

    async fn receive_once(&self, receive: &Receive) -> Result<Vec<Received>, Problem> {
        let queue = self.queues.open(&receive.lane).await?;
        let wait = if receive.waits { self.queues.api.address.wait } else { Duration::ZERO };
        let answer = tokio::select! {
            answer = self.queues.api.receive(queue.url(), receive.count, wait) => answer,
            // Nothing can come any more.
            () = queue.gone() => Err(Problem::NoQueue),
        };
        if matches!(answer, Err(Problem::NoQueue)) {
            self.queues.forget(&receive.lane, &queue);
        }
        answer
    }

    fn wanted(&self) -> bool {
        let state = self.state();
        state.taking && !state.ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
