use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::future::join_all;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::ReceivedMessage;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::Lane;

use super::LEASE;
use super::client::Line;
use super::lanes::Lanes;
use super::problem::Problem;
use super::state::{Held, PULLS, State, shares};
use crate::unreadable;

/// Lanes whose pulls share a connection. The service takes a hundred calls at once on each.
const LANES_PER_LINE: usize = 90 / PULLS;
/// Ids in one call, well within its limit of 512 KiB.
const IDS: usize = 1000;
/// How often to look for leases that need extending.
const LOOK: Duration = Duration::from_secs(3);

/// What takes messages for one subscription: two tasks a lane that pull, and one that extends leases. They share the
/// state with the subscription under a lock that is never held across an await.
pub(super) struct Intake {
    lanes: Arc<Lanes>,
    names: Vec<Lane>,
    lines: Vec<Line>,
    state: Mutex<State>,
    /// Tells the subscription of messages, problems and the end.
    news: Notify,
    /// Tells those who pull that they may, and of the end.
    room: Notify,
    /// The end of the subscription, or of the broker.
    over: CancellationToken,
    tasks: Tasks,
}

/// The tasks of all subscriptions.
#[derive(Clone)]
pub(super) struct Tasks {
    pub(super) runtime: Handle,
    /// Pulls go on after their subscription, to give back what they bring. To cut one off would leave with nobody what
    /// it is just being given.
    pub(super) pulls: TaskTracker,
    /// Everything else.
    pub(super) others: TaskTracker,
}

/// What to say of messages.
#[derive(Clone, Copy)]
pub(super) enum Word {
    Done,
    /// They come again after so many seconds.
    Again(i32),
}

impl Intake {
    pub(super) fn start(
        lanes: Arc<Lanes>,
        names: Vec<Lane>,
        capacity: usize,
        over: CancellationToken,
        tasks: Tasks,
    ) -> Arc<Self> {
        let state = Mutex::new(State::new(&shares(&names, capacity)));
        let lines = names.chunks(LANES_PER_LINE).map(|_| Line::new(&lanes.client.address)).collect();
        let intake = Arc::new(Self {
            lanes,
            names,
            lines,
            state,
            news: Notify::new(),
            room: Notify::new(),
            over,
            tasks,
        });
        let Tasks { runtime, pulls, others } = &intake.tasks;
        for side in (0..intake.names.len()).flat_map(|side| [side; PULLS]) {
            pulls.spawn_on(pull(Arc::clone(&intake), side), runtime);
        }
        others.spawn_on(extend(Arc::clone(&intake)), runtime);
        intake
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there may be something new for the subscription.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Lets those who pull look again.
    pub(super) fn room_changed(&self) {
        self.room.notify_waiters();
    }

    /// Gives everything back and ends the tasks.
    pub(super) fn end(self: &Arc<Self>) {
        let held = self.state().end();
        self.over.cancel();
        self.news.notify_one();
        self.room_changed();
        drop(self.settle(held, Word::Again(0)));
    }

    /// Says `word` of messages that were taken out of the state, and then frees their room. Goes on when the answer
    /// is not waited for.
    pub(super) fn settle(
        self: &Arc<Self>,
        held: Vec<Held>,
        word: Word,
    ) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        let intake = Arc::clone(self);
        let task = (!held.is_empty()).then(|| {
            let work = async move {
                let told = intake.tell(&held, word).await;
                {
                    let mut state = intake.state();
                    held.iter().for_each(|held| state.free(held.side, 1));
                }
                intake.room_changed();
                told
            };
            self.tasks.others.spawn_on(work, &self.tasks.runtime)
        });
        async move {
            match task {
                None => Ok(()),
                Some(task) => {
                    task.await.unwrap_or_else(|_| Err(Problem::Outage("the runtime is shutting down".into())))
                }
            }
        }
    }

    /// Waits until the lane may have more messages, and answers with how many. `None` at the end.
    async fn ask(&self, side: usize) -> Option<usize> {
        loop {
            let mut changed = pin!(self.room.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if state.ended {
                    return None;
                }
                if let Some(count) = state.ask(side) {
                    return Some(count);
                }
            }
            changed.await;
        }
    }

    async fn pull(&self, side: usize, count: usize) -> Result<(u64, Vec<ReceivedMessage>), Problem> {
        let lane = &self.names[side];
        // Not held on to: a pull waits for long, and must not keep the lane from being made anew.
        let epoch = self.lanes.place(lane).await?.epoch;
        let client = &self.lanes.client;
        let line = &self.lines[side / LANES_PER_LINE];
        match client.pull(line, client.address.subscription(lane), count).await {
            Ok(messages) => Ok((epoch, messages)),
            Err(problem @ Problem::NotFound(_)) => {
                self.lanes.lost(lane, epoch);
                Err(problem)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Decodes messages and takes them in; gives them back if nobody wants them any more.
    async fn arrived(self: &Arc<Self>, side: usize, epoch: u64, messages: Vec<ReceivedMessage>) {
        let (mut came, mut dropped) = (Vec::with_capacity(messages.len()), Vec::new());
        for received in messages {
            let held = Held::new(side, epoch, received.ack_id);
            let data = received.message.map(|message| message.data).unwrap_or_default();
            match unreadable::read("pubsub", &self.names[side], &data) {
                Some(message) => came.push((held, message)),
                None => dropped.push(held),
            }
        }
        let too_late = self.state().arrived(came);
        self.news.notify_one();
        // An error means that they come again.
        let _ = self.settle(dropped, Word::Done).await;
        let _ = self.settle(too_late, Word::Again(0)).await;
    }

    /// Tells Pub/Sub, lane by lane and side by side. What is of a lane's former life is nobody's any more.
    async fn tell(&self, held: &[Held], word: Word) -> Result<(), Problem> {
        let mut by_lane: HashMap<(usize, u64), Vec<&Held>> = HashMap::new();
        for held in held {
            by_lane.entry((held.side, held.epoch)).or_default().push(held);
        }
        by_lane.retain(|(side, epoch), _| self.lanes.epoch(&self.names[*side]) == *epoch);
        let calls = by_lane.iter().flat_map(|(of, held)| held.chunks(IDS).map(move |group| (*of, group)));
        let calls = calls.map(async |((side, epoch), group)| {
            let (lane, client) = (&self.names[side], &self.lanes.client);
            let subscription = client.address.subscription(lane);
            let ids = group.iter().map(|held| held.ack_id.clone()).collect();
            let told = match word {
                Word::Done => client.acknowledge(subscription, ids).await,
                Word::Again(seconds) => client.modify_ack_deadline(subscription, ids, seconds).await,
            };
            match told {
                Err(Problem::NotFound(_)) => {
                    self.lanes.lost(lane, epoch);
                    Ok(())
                }
                told => told,
            }
        });
        join_all(calls).await.into_iter().collect()
    }
}

/// Pulls for one lane, as long as its subscription lasts.
async fn pull(intake: Arc<Intake>, side: usize) {
    let mut delays = delays();
    while let Some(asked) = intake.ask(side).await {
        let pause = match intake.pull(side, asked).await {
            Ok((epoch, messages)) => {
                delays = self::delays();
                {
                    let mut state = intake.state();
                    state.free(side, asked.saturating_sub(messages.len()));
                    state.problem = None;
                }
                intake.arrived(side, epoch, messages).await;
                continue;
            }
            // The lane is made anew before the next pull.
            Err(Problem::NotFound(_)) => delays.next(),
            Err(problem) => {
                intake.state().problem = Some(problem);
                intake.news.notify_one();
                delays.next()
            }
        };
        intake.state().free(side, asked);
        tokio::select! {
            () = intake.over.cancelled() => return,
            () = sleep(pause.unwrap_or_default()) => {}
        }
    }
}

/// Speaks for messages that are not settled yet. Most are within milliseconds, and cost nothing here.
async fn extend(intake: Arc<Intake>) {
    loop {
        tokio::select! {
            () = intake.over.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        let now = Instant::now();
        let (tags, held) = intake.state().due(now);
        match intake.tell(&held, Word::Again(LEASE)).await {
            Ok(()) => intake.state().extended(&tags, now),
            // Until the next look, unless they come again before.
            Err(problem) => {
                let error = windlass_core::BrokerError::from(problem);
                tracing::debug!(%error, "leases not extended");
            }
        }
    }
}

/// Delays between attempts: fast at first, since most interruptions are short, with jitter so that a fleet does not
/// come back all at once.
fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter()
        .build()
}
