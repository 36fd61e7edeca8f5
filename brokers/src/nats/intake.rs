use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message as Frame, Subscriber};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{OptionFuture, join_all};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use windlass_core::{Delivery, DeliveryTag, Lane, Priorities};

use super::api::request;
use super::lane::{create, next_subject, subject};
use super::link::{Link, State};
use super::problem::Problem;
use super::publish::publish_raw;
use super::pulls::Pulls;
use crate::handle::{Answer, Desk, Request};
use crate::rota::{Ask, Rota};
use crate::unreadable;

/// How long one request for messages waits: not long, since it cannot be taken back, and a parked subscription
/// returns what comes of it.
const WAIT: Duration = Duration::from_secs(2);
/// The same when there is room for fewer messages than there are lanes, so that only some lanes can be waited on.
const SHORT_WAIT: Duration = Duration::from_millis(100);
/// A request for messages is always answered, if only to say that there are none. After this, there is no consumer. Nor
/// is it worth waiting longer for the server's word on what was settled.
const SILENCE: Duration = Duration::from_secs(1);
/// How often to say that what is held is in living hands: thrice before it is delivered to others.
const BEAT: Duration = Duration::from_secs(10);

/// The task behind a subscription. It alone knows what is held and what is asked for, speaks for what is held, and
/// outlives the subscription to give it back.
pub(super) struct Intake {
    link: Arc<Link>,
    lanes: Vec<Lane>,
    /// The place of each lane by its subject.
    places: HashMap<String, usize>,
    rota: Rota,
    /// What the lanes were asked for last, until it is handed out.
    asks: Vec<Ask>,
    capacity: usize,
    /// What the subscription waits for.
    demand: Option<usize>,
    /// Whether there is reason to ask for messages.
    due: bool,
    /// While parked, what still comes goes back.
    parked: bool,
    inbox: Option<Inbox>,
    pulls: Pulls,
    /// Lanes known to exist.
    created: Vec<bool>,
    /// Which stream that was.
    stream: Option<String>,
    /// Taken and not answered, by lane.
    ready: Vec<VecDeque<Delivery>>,
    held: BTreeMap<u64, Held>,
    last_tag: u64,
    /// After a failure: when to ask again.
    resume: Option<Instant>,
    delays: ExponentialBackoff,
}

/// Where messages arrive.
struct Inbox {
    client: Client,
    prefix: String,
    subscriber: Subscriber,
}

/// A message that is ready or handed out.
struct Held {
    lane: usize,
    /// The subject that settles it.
    settle: String,
    payload: Bytes,
}

impl Intake {
    pub(super) fn new(link: Arc<Link>, lanes: &[Lane], capacity: usize, priorities: Priorities) -> Self {
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes, priorities);
        let places = lanes.iter().enumerate().map(|(place, lane)| (subject(lane), place)).collect();
        Self {
            link,
            places,
            rota,
            asks: Vec::new(),
            capacity: capacity.max(lanes.len()),
            demand: None,
            due: false,
            parked: false,
            inbox: None,
            pulls: Pulls::new(lanes.len()),
            created: vec![false; lanes.len()],
            stream: None,
            ready: lanes.iter().map(|_| VecDeque::new()).collect(),
            lanes,
            held: BTreeMap::new(),
            last_tag: 0,
            resume: None,
            delays: delays(),
        }
    }

    /// In the order of their urgency.
    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Sees to it that the lanes exist, asking once per connection.
    pub(super) async fn create_lanes(&mut self) -> Result<(), Problem> {
        if self.created.iter().all(|created| *created) {
            return Ok(());
        }
        let missing = self.lanes.iter().zip(&self.created).filter(|(_, created)| !**created);
        let stream = Some(create(&self.link, missing.map(|(lane, _)| lane)).await?);
        self.created.fill(true);
        if std::mem::replace(&mut self.stream, stream.clone()).is_some_and(|before| Some(before) != stream) {
            // What was held is gone with the old stream, and to settle it would settle the new one's messages, which are
            // numbered from 1 again.
            self.held.clear();
            self.ready.iter_mut().for_each(VecDeque::clear);
        }
        Ok(())
    }

    /// Serves the subscription until it is dropped or the broker closed.
    pub(super) async fn run(mut self, desk: Desk) {
        let Desk { mut requests, answers, closing } = desk;
        let mut state = self.link.state();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(answer) = self.advance().await {
                self.demand = None;
                // Nobody is there to hear it when the subscription has just been dropped, which ends the task next.
                let _ = answers.send(answer);
            }
            let wake = OptionFuture::from(self.wake().map(sleep_until));
            // Cancel-safe: a frame is either taken or stays with the subscriber.
            tokio::select! {
                () = closing.cancelled() => break,
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => break,
                },
                Some(frame) = next(&mut self.inbox) => self.arrived(frame).await,
                Ok(()) = state.changed() => self.link_changed(&state.borrow_and_update().clone()),
                Some(()) = wake => {}
                _ = beat.tick() => self.touch().await,
            }
        }
        // What was asked for before the end still counts.
        requests.close();
        while let Some(request) = requests.recv().await {
            self.serve(request).await;
        }
        self.end().await;
    }

    /// Does what can be done for the demand, and answers it if it can.
    async fn advance(&mut self) -> Option<Answer> {
        let now = Instant::now();
        self.resume = self.resume.filter(|resume| *resume > now);
        self.give_up(now);
        let max = self.demand?;
        if self.due && self.resume.is_none() && self.ready.iter().all(VecDeque::is_empty) {
            self.due = false;
            if let Err(problem) = self.take(max).await {
                self.stumble();
                return Some(Err(problem.into()));
            }
        }
        let mut deliveries = Vec::new();
        let mut taken = Vec::with_capacity(self.ready.len());
        for ready in &mut self.ready {
            let count = ready.len().min(max - deliveries.len());
            deliveries.extend(ready.drain(..count));
            taken.push(count);
        }
        if deliveries.is_empty() {
            return None;
        }
        self.rota.took(&std::mem::take(&mut self.asks), &taken);
        Some(Ok(deliveries))
    }

    /// When to look again without anything having happened. What ends while nothing is wanted can wait.
    fn wake(&self) -> Option<Instant> {
        self.demand?;
        let now = (self.due && self.resume.is_none()).then(Instant::now);
        [self.pulls.next_deadline(), self.resume, now].into_iter().flatten().min()
    }

    /// Takes up to `max` messages that are at hand. Where there are none, waits on the lanes.
    async fn take(&mut self, max: usize) -> Result<(), Problem> {
        self.open_inbox().await?;
        self.create_lanes().await?;
        self.asks = self.rota.ask(self.room().min(max));
        let mut count = 0;
        for Ask { lane, share } in self.asks.clone() {
            count += share;
            // A lane that is waited on is empty.
            if count > 0 && self.pulls.deadline(lane).is_none() {
                self.pull(lane, count, None).await?;
                self.finish(lane).await;
                count = count.saturating_sub(self.ready[lane].len());
            }
        }
        if self.ready.iter().any(|ready| !ready.is_empty()) || self.created.contains(&false) {
            self.due = true;
            return Ok(());
        }
        let idle: Vec<usize> =
            (0..self.lanes.len()).filter(|&lane| self.pulls.deadline(lane).is_none()).collect();
        let room = self.room();
        let wait = if idle.len() <= room { WAIT } else { SHORT_WAIT };
        let count = (room.min(max) / idle.len().max(1)).max(1);
        for lane in idle.into_iter().take(room) {
            self.pull(lane, count, Some(wait)).await?;
        }
        Ok(())
    }

    async fn open_inbox(&mut self) -> Result<(), Problem> {
        if self.inbox.is_none() {
            let client = self.link.client().await?;
            let prefix = client.new_inbox();
            let subscriber = client.subscribe(format!("{prefix}.>")).await;
            let subscriber = subscriber.map_err(|error| Problem::Outage(error.to_string()))?;
            self.inbox = Some(Inbox { client, prefix, subscriber });
        }
        Ok(())
    }

    /// Asks for messages of a lane: those at hand, or where there are none and `wait` is given, the next to come.
    async fn pull(&mut self, lane: usize, count: usize, wait: Option<Duration>) -> Result<(), Problem> {
        let Some(inbox) = &self.inbox else { return Ok(()) };
        let deadline = Instant::now() + wait.unwrap_or_default() + SILENCE;
        let reply = format!("{}.{}", inbox.prefix, self.pulls.start(lane, count, deadline));
        let mut pull = json!({ "batch": count, "no_wait": true });
        if let Some(wait) = wait {
            pull["expires"] = (wait.as_nanos() as u64).into();
        }
        let pull = pull.to_string().into();
        let asked = inbox.client.publish_with_reply(next_subject(&self.lanes[lane]), reply, pull).await;
        asked.map_err(|error| Problem::Outage(error.to_string()))
    }

    /// Sees a lane's pull to its end.
    async fn finish(&mut self, lane: usize) {
        while let Some(deadline) = self.pulls.deadline(lane) {
            match timeout_at(deadline, next(&mut self.inbox)).await {
                Ok(Some(frame)) => self.arrived(frame).await,
                Ok(None) => return,
                Err(_) => self.give_up(deadline),
            }
        }
    }

    /// Gives up pulls that the server does not know of, since it would have answered.
    fn give_up(&mut self, now: Instant) {
        for lane in self.pulls.give_up(now) {
            self.created[lane] = false;
            self.due = true;
        }
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.held.len() + self.pulls.outstanding())
    }

    /// Deals with what has come into the inbox: a message, or the end of a pull.
    async fn arrived(&mut self, frame: Frame) {
        if let Some(status) = frame.status {
            self.pull_ended(&frame, status.as_u16());
            return;
        }
        let (Some(&lane), Some(settle)) = (self.places.get(frame.subject.as_str()), frame.reply) else {
            return;
        };
        self.due |= self.pulls.came(lane);
        self.delays = delays();
        let held = Held { lane, settle: settle.to_string(), payload: frame.payload };
        match unreadable::read("nats", &self.lanes[lane], &held.payload) {
            Some(_) if self.parked => self.give_back(vec![held]).await,
            Some(message) => {
                self.last_tag += 1;
                self.ready[lane].push_back(Delivery { tag: DeliveryTag(self.last_tag), message });
                self.held.insert(self.last_tag, held);
            }
            None => self.acknowledge(vec![held.settle]).await,
        }
    }

    fn pull_ended(&mut self, frame: &Frame, status: u16) {
        let Some(lane) = self.pulls.ended(&frame.subject) else { return };
        self.due = true;
        // No messages, or no more in time.
        if !matches!(status, 404 | 408) {
            let (lane_name, reason) = (&self.lanes[lane], frame.description.as_deref().unwrap_or_default());
            tracing::debug!(lane = %lane_name, status, reason, "the broker gave up a request for messages");
            self.created[lane] = false;
            if !reason.contains("Consumer Deleted") {
                self.stumble();
            }
        }
    }

    fn stumble(&mut self) {
        self.due = true;
        self.resume = self.delays.next().map(|delay| Instant::now() + delay);
    }

    fn link_changed(&mut self, state: &State) {
        // The server forgets what a lost connection asked for; a new one may lead to an emptied server.
        self.pulls.clear();
        self.created.fill(false);
        self.due = true;
        if matches!(state, State::Up(_)) {
            self.resume = None;
        }
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Receive(max) => {
                self.demand = Some(max);
                self.parked = false;
                self.due = true;
            }
            Request::Acknowledge(tags) => {
                let settled = self.settle(&tags).await;
                self.acknowledge(settled.into_iter().map(|held| held.settle).collect()).await;
            }
            Request::Release(tags) => {
                let settled = self.settle(&tags).await;
                self.give_back(settled).await;
            }
            Request::Park(parked) => {
                self.park().await;
                let _ = parked.send(());
            }
        }
    }

    /// What is behind `tags`, which is held no longer. Tags that were settled before have nothing.
    async fn settle(&mut self, tags: &[DeliveryTag]) -> Vec<Held> {
        self.due = true;
        let sure = self.create_lanes().await;
        let settled: Vec<Held> = tags.iter().filter_map(|tag| self.held.remove(&tag.0)).collect();
        match sure {
            Ok(()) => settled,
            Err(problem) => {
                tracing::debug!(?problem, "messages not settled; they come again");
                Vec::new()
            }
        }
    }

    async fn park(&mut self) {
        self.demand = None;
        self.parked = true;
        let ready: Vec<DeliveryTag> =
            self.ready.iter_mut().flat_map(|ready| ready.drain(..)).map(|d| d.tag).collect();
        let ready = self.settle(&ready).await;
        self.give_back(ready).await;
    }

    async fn acknowledge(&self, settled: Vec<String>) {
        if settled.is_empty() {
            return;
        }
        let acknowledge = |client: Client| async move {
            let all = settled.into_iter().map(|settle| request(&client, settle, b"+ACK".to_vec()));
            join_all(all).await.into_iter().collect::<Result<Vec<_>, _>>()
        };
        // Where nothing listens, the lane is gone, and its messages with it. Silence is for what was settled before.
        if let Err(problem) = self.link.run_within(SILENCE, acknowledge).await {
            tracing::debug!(?problem, "messages not acknowledged; they come again");
        }
    }

    async fn give_back(&self, settled: Vec<Held>) {
        if settled.is_empty() {
            return;
        }
        let again = |held: &Held| (subject(&self.lanes[held.lane]), held.payload.to_vec());
        let again: Vec<_> = settled.iter().map(again).collect();
        let published = publish_raw(&self.link, &again).await;
        // What could not be published anew stays unsettled, and is delivered again after a while.
        let done = settled
            .into_iter()
            .zip(published)
            .filter_map(|(held, published)| published.ok().map(|()| held.settle));
        self.acknowledge(done.collect()).await;
    }

    async fn touch(&self) {
        let Ok(client) = self.link.client().await else { return };
        if self.created.contains(&false) {
            return;
        }
        for held in self.held.values() {
            if client.publish(held.settle.clone(), Bytes::from_static(b"+WPI")).await.is_err() {
                return;
            }
        }
    }

    /// Gives back everything: what is held at once, and then what pulls under way may yet bring.
    async fn end(mut self) {
        self.park().await;
        let held: Vec<DeliveryTag> = self.held.keys().map(|tag| DeliveryTag(*tag)).collect();
        let held = self.settle(&held).await;
        self.give_back(held).await;
        for lane in 0..self.lanes.len() {
            self.finish(lane).await;
        }
    }
}

async fn next(inbox: &mut Option<Inbox>) -> Option<Frame> {
    match inbox {
        Some(inbox) => inbox.subscriber.next().await,
        None => std::future::pending().await,
    }
}

/// Pauses between attempts to take messages: fast at first, since most interruptions are short, with jitter so that
/// a fleet does not come back all at once.
fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter()
        .build()
}
