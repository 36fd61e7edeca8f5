use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::types::Message as Received;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{BrokerError, Delivery, DeliveryTag, Lane, Message};

use super::api::{Settle, body};
use super::problem::Problem;
use super::queues::Queues;
use super::settle::{Settling, settle};
use super::{BATCH, VISIBILITY, delays};
use crate::rota::Rota;

/// Receives of one lane at once, at most.
const RECEIVES: usize = 16;
/// How often to look for messages that are held for long.
const LOOK: Duration = Duration::from_secs(VISIBILITY.as_secs() / 3);

/// What a subscription has asked for and holds. Receives and settlements are tasks, each for one call; whatever ends
/// or begins something looks under the lock what may start next. The lock is held for moves within memory only.
pub(super) struct Intake {
    queues: Arc<Queues>,
    capacity: usize,
    state: Mutex<State>,
    /// Something for the caller of `receive` to look at.
    wake: Notify,
    tasks: TaskTracker,
    ended: CancellationToken,
}

struct State {
    rota: Rota,
    lanes: Vec<LaneState>,
    /// Everything received and not settled, by tag.
    held: HashMap<u64, Held>,
    last_tag: u64,
    /// Not parked.
    taking: bool,
    ended: bool,
    /// To be reported by the next `receive`.
    failure: Option<Problem>,
}

struct LaneState {
    lane: Lane,
    /// Tags of what was not handed out yet.
    buffer: VecDeque<u64>,
    /// Messages that are unacknowledged, or may be by the answer to a receive.
    load: usize,
    /// Receives under way.
    receives: usize,
    /// Receives that may be under way.
    limit: usize,
    /// Messages for the next receive to ask for. It keeps room for as many while it waits.
    want: usize,
    deletes: Settling,
    releases: Settling,
}

struct Held {
    lane: usize,
    receipt: String,
    message: Message,
    handed_out: bool,
    /// When SQS gives it to others.
    until: Instant,
}

impl Intake {
    pub(super) fn start(
        queues: Arc<Queues>,
        lanes: &[Lane],
        capacity: usize,
        tasks: TaskTracker,
        ended: CancellationToken,
    ) -> Arc<Self> {
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes);
        let capacity = capacity.max(lanes.len());
        let share = (capacity / lanes.len().max(1)).min(BATCH);
        let lanes = lanes.into_iter().map(|lane| LaneState::new(lane, share)).collect();
        let state = State {
            rota,
            lanes,
            held: HashMap::new(),
            last_tag: 0,
            taking: true,
            ended: false,
            failure: None,
        };
        let intake =
            Arc::new(Self { queues, capacity, state: Mutex::new(state), wake: Notify::new(), tasks, ended });
        intake.top_up(&mut intake.state());
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
        let now = Instant::now();
        let mut deliveries = Vec::new();
        let State { rota, lanes, held, failure, .. } = &mut *state;
        for index in rota.turn() {
            let lane = &mut lanes[index];
            while deliveries.len() < max
                && let Some(tag) = lane.buffer.pop_front()
            {
                let Some(message) = held.get_mut(&tag) else { continue };
                if message.until <= now {
                    // It could not be kept, and comes again, to whomever.
                    held.remove(&tag);
                    lane.load -= 1;
                    continue;
                }
                message.handed_out = true;
                deliveries.push(Delivery { tag: DeliveryTag(tag), message: message.message.clone() });
            }
        }
        let failure = if deliveries.is_empty() { failure.take() } else { None };
        self.top_up(&mut state);
        failure.map_or(Ok(deliveries), |problem| Err(problem.into()))
    }

    /// Settles what was handed out under `tags`. Others are stale.
    pub(super) fn settle(self: &Arc<Self>, tags: &[DeliveryTag], how: Settle) {
        let mut state = self.state();
        for tag in tags {
            if state.held.get(&tag.0).is_some_and(|held| held.handed_out) {
                state.discard(tag.0, how);
            }
        }
        self.flush(&mut state);
    }

    /// Stops taking, and releases what was not handed out. A receive under way goes on, since SQS knows no way to take
    /// one back; what it brings is released as well.
    pub(super) fn park(self: &Arc<Self>) {
        let mut state = self.state();
        state.taking = false;
        for index in 0..state.lanes.len() {
            while let Some(tag) = state.lanes[index].buffer.pop_front() {
                state.discard(tag, Settle::Release);
            }
        }
        self.flush(&mut state);
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
        self.flush(&mut state);
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

    /// Starts the receives that there is room for, the most urgent lanes first.
    fn top_up(self: &Arc<Self>, state: &mut State) {
        if !state.taking || state.ended {
            return;
        }
        let order: Vec<usize> = state.rota.turn().collect();
        for index in order {
            while let Some(count) = state.room(index, self.capacity) {
                let lane = &mut state.lanes[index];
                // Only one waits: more of them would keep room for messages that may not come.
                let waits = lane.receives == 0;
                lane.receives += 1;
                lane.load += count;
                let receive = Arc::clone(self).receive(index, lane.lane.clone(), count, waits);
                self.tasks.spawn(receive);
            }
        }
    }

    /// One receive, until it is answered or not wanted any more.
    async fn receive(self: Arc<Self>, index: usize, lane: Lane, count: usize, waits: bool) {
        let mut delays = delays();
        let (mut failures, mut answer) = (0, None);
        while self.wanted() {
            match self.receive_once(&lane, count, waits).await {
                Ok(messages) => {
                    answer = Some(messages);
                    break;
                }
                Err(problem) => {
                    failures += 1;
                    // Once is nothing: a connection that was closed, a queue that was deleted.
                    if failures == 2 || matches!(problem, Problem::Config { .. }) {
                        let error = BrokerError::from(problem.clone());
                        tracing::warn!(%lane, %error, "cannot receive; trying on");
                    }
                    if failures > 1 || matches!(problem, Problem::Config { .. }) {
                        self.state().failure = Some(problem);
                        self.wake.notify_one();
                    }
                    tokio::select! {
                        () = self.ended.cancelled() => {}
                        () = sleep(delays.next().unwrap_or(LOOK)) => {}
                    }
                }
            }
        }
        if failures > 1 && answer.is_some() {
            tracing::info!(%lane, "receiving again");
        }
        self.arrived(index, count, waits, answer);
    }

    async fn receive_once(&self, lane: &Lane, count: usize, waits: bool) -> Result<Vec<Received>, Problem> {
        let url = self.queues.url(lane).await?;
        let wait = if waits { self.queues.api.address.wait } else { Duration::ZERO };
        let answer = self.queues.api.receive(&url, count, wait).await;
        if matches!(answer, Err(Problem::NoQueue)) {
            self.queues.forget(lane);
        }
        answer
    }

    fn wanted(&self) -> bool {
        let state = self.state();
        state.taking && !state.ended
    }

    fn arrived(self: &Arc<Self>, index: usize, count: usize, waited: bool, answer: Option<Vec<Received>>) {
        let mut state = self.state();
        let idle = (self.capacity / state.lanes.len() / 8).clamp(1, BATCH);
        let lane = &mut state.lanes[index];
        lane.receives -= 1;
        lane.load -= count;
        match &answer {
            Some(messages) if messages.is_empty() => {
                lane.limit = 1;
                if waited {
                    lane.want = idle;
                }
            }
            Some(messages) => {
                lane.want = BATCH;
                if messages.len() >= count {
                    lane.limit = (2 * lane.limit).min(RECEIVES);
                }
            }
            None => {}
        }
        for received in answer.unwrap_or_default() {
            state.hold(index, &received);
        }
        self.flush(&mut state);
        self.wake.notify_one();
    }

    /// Sends out what is to be settled, and starts what there is room for.
    fn flush(self: &Arc<Self>, state: &mut State) {
        for index in 0..state.lanes.len() {
            for how in [Settle::Delete, Settle::Release] {
                while let Some(batch) = state.lanes[index].settling(how).next_batch() {
                    let lane = state.lanes[index].lane.clone();
                    self.tasks.spawn(Arc::clone(self).settle_batch(index, lane, batch, how));
                }
            }
        }
        self.top_up(state);
    }

    async fn settle_batch(self: Arc<Self>, index: usize, lane: Lane, batch: Vec<String>, how: Settle) {
        let count = batch.len();
        if let Err(problem) = settle(&self.queues, &lane, batch, how).await {
            // They come again when SQS stops to wait for us.
            let error = BrokerError::from(problem);
            tracing::debug!(%lane, count, ?how, %error, "could not settle messages");
        }
        let mut state = self.state();
        let lane = &mut state.lanes[index];
        lane.load -= count;
        lane.settling(how).calls -= 1;
        self.flush(&mut state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many messages one more receive of this lane may ask for.
    fn room(&self, index: usize, capacity: usize) -> Option<usize> {
        let lane = &self.lanes[index];
        if lane.receives >= lane.limit {
            return None;
        }
        // Every lane has room for one message that no other takes.
        let taken: usize = self.lanes.iter().map(|lane| lane.load.max(1)).sum();
        let room = capacity.saturating_sub(taken) + usize::from(lane.load == 0);
        // With something at hand, or on its way, a small receive is not worth its price.
        let at_hand = lane.receives > 0 || !lane.buffer.is_empty();
        let least = if at_hand { (capacity / self.lanes.len() / 2).clamp(1, BATCH) } else { 1 };
        (room >= least).then(|| room.min(lane.want))
    }

    /// Takes in a message, unless it is not wanted any more or makes no sense.
    fn hold(&mut self, index: usize, received: &Received) {
        let lane = &mut self.lanes[index];
        let Some(receipt) = received.receipt_handle().map(str::to_owned) else { return };
        lane.load += 1;
        let bytes = body(received);
        match Message::decode(&bytes) {
            Ok(message) if self.taking && !self.ended => {
                self.last_tag += 1;
                let until = Instant::now() + VISIBILITY;
                let held = Held { lane: index, receipt, message, handed_out: false, until };
                self.held.insert(self.last_tag, held);
                lane.buffer.push_back(self.last_tag);
            }
            Ok(_) => lane.releases.pending.push(receipt),
            Err(error) => {
                // No redelivery makes it readable. If it was a job's, the store publishes it again, in the format of
                // whoever does so.
                let (lane_name, size) = (&lane.lane, received.body().unwrap_or_default().len());
                tracing::warn!(lane = %lane_name, size, %error, "dropped a message that cannot be read");
                lane.deletes.pending.push(receipt);
            }
        }
    }

    /// Notes that a held message is to be settled.
    fn discard(&mut self, tag: u64, how: Settle) {
        if let Some(held) = self.held.remove(&tag) {
            self.lanes[held.lane].settling(how).pending.push(held.receipt);
        }
    }
}

impl LaneState {
    fn new(lane: Lane, want: usize) -> Self {
        Self {
            lane,
            buffer: VecDeque::new(),
            load: 0,
            receives: 0,
            limit: 1,
            want,
            deletes: Settling::default(),
            releases: Settling::default(),
        }
    }

    fn settling(&mut self, how: Settle) -> &mut Settling {
        if how == Settle::Delete { &mut self.deletes } else { &mut self.releases }
    }
}
