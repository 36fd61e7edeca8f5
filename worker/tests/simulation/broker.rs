//! A broker that keeps no more than the contract: each message at least once, unless it is lost.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use tokio::sync::Notify;
use windlass_core::{
    Broker, BrokerError, Capabilities, Delivery, DeliveryTag, JobId, Lane, Message, Priorities, Subscription,
};

use crate::{
    history::JOBS,
    world::{DEADLINE, Errand, Ms, Side, State, Trouble, Wire},
};

/// What waits at the broker, and what it has handed out.
#[derive(Debug, Default)]
pub struct Lanes {
    waiting: BTreeMap<Lane, VecDeque<Message>>,
    subscriptions: BTreeMap<u64, Holding>,
    last_subscription: u64,
    last_tag: u64,
    /// What was published once, to come again at the wrong time.
    old: Vec<Message>,
}

#[derive(Debug)]
struct Holding {
    process: usize,
    lanes: Vec<Lane>,
    capacity: usize,
    held: BTreeMap<u64, Message>,
    parked: bool,
    mailbox: Arc<Mutex<Mailbox>>,
    wake: Arc<Notify>,
}

/// Where a subscription's deliveries arrive.
#[derive(Debug, Default)]
struct Mailbox {
    deliveries: VecDeque<Delivery>,
    connected: bool,
    /// The connection was lost, and this is yet to be reported.
    broken: bool,
}

impl State {
    /// A message arrives at the broker.
    fn publish(&mut self, message: Message) {
        if self.lanes.old.len() < 64 {
            self.lanes.old.push(message.clone());
        }
        if self.chance(self.weather.drop) {
            return;
        }
        if self.chance(self.weather.duplicate) {
            let (later, again) = (self.now + self.rng.u64(1..3_000), message.clone());
            self.at(later, None, move |state| state.enter(again));
        }
        if self.chance(self.weather.delay) {
            let later = self.now + self.rng.u64(100..5_000);
            self.at(later, None, move |state| state.enter(message));
        } else {
            self.enter(message);
        }
    }

    fn enter(&mut self, message: Message) {
        self.lanes.waiting.entry(message.lane.clone()).or_default().push_back(message);
        self.deliver();
    }

    /// Hands out what waits, to whoever has room.
    fn deliver(&mut self) {
        let lanes: Vec<Lane> = self.lanes.waiting.keys().rev().cloned().collect();
        for lane in lanes {
            loop {
                let free = |(_, sub): &(&u64, &Holding)| {
                    sub.lanes.contains(&lane) && sub.held.len() < sub.capacity && !sub.parked
                };
                let free: Vec<u64> =
                    self.lanes.subscriptions.iter().filter(free).map(|(id, _)| *id).collect();
                let count = self.lanes.waiting.get(&lane).map_or(0, VecDeque::len);
                if free.is_empty() || count == 0 {
                    break;
                }
                let place = if self.chance(self.weather.reorder) { self.rng.usize(..count) } else { 0 };
                let to = free[self.rng.usize(..free.len())];
                let Some(message) = self.lanes.waiting.get_mut(&lane).and_then(|lane| lane.remove(place))
                else {
                    break;
                };
                self.hand_out(to, message);
            }
        }
    }

    fn hand_out(&mut self, to: u64, message: Message) {
        self.lanes.last_tag += 1;
        let tag = self.lanes.last_tag;
        let Some(sub) = self.lanes.subscriptions.get_mut(&to) else { return };
        let process = sub.process;
        sub.held.insert(tag, message.clone());
        let at = self.now.max(self.unreachable_until(process, Side::Broker)) + self.rng.u64(1..8);
        self.at(at, None, move |state| {
            // It may have been given back meanwhile.
            let Some(sub) = state.lanes.subscriptions.get(&to).filter(|sub| sub.held.contains_key(&tag))
            else {
                return;
            };
            let said = (message.job_id, message.attempt);
            sub.mailbox.lock().unwrap().deliveries.push_back(Delivery { tag: DeliveryTag(tag), message });
            sub.wake.notify_one();
            let now = state.now;
            state.note(now, || format!("Broker: delivers {} ({}) to p{process}", said.0, said.1));
        });
    }

    fn give_back(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            self.lanes.waiting.entry(message.lane.clone()).or_default().push_front(message);
        }
        self.deliver();
    }

    fn end_subscription(&mut self, id: u64) {
        let Some(sub) = self.lanes.subscriptions.remove(&id) else { return };
        {
            let mut mailbox = sub.mailbox.lock().unwrap();
            mailbox.deliveries.clear();
            (mailbox.connected, mailbox.broken) = (false, true);
        }
        sub.wake.notify_one();
        self.give_back(sub.held.into_values());
    }

    /// The broker loses its connections to a process.
    pub fn disconnect(&mut self, process: usize) {
        let subs = self.lanes.subscriptions.iter().filter(|(_, sub)| sub.process == process);
        let subs: Vec<u64> = subs.map(|(id, _)| *id).collect();
        for id in subs {
            self.end_subscription(id);
        }
    }

    /// The broker goes down; what it had is there afterwards, or not.
    pub fn stop_broker(&mut self, until: Ms, wiped: bool) {
        self.down[Side::Broker as usize] = until;
        let subs: Vec<u64> = self.lanes.subscriptions.keys().copied().collect();
        for id in subs {
            self.end_subscription(id);
        }
        if wiped {
            self.lanes.waiting.clear();
        }
    }

    /// A message comes that nobody has sent now: an old one, or one of no job at all.
    pub fn stray(&mut self) {
        let message = match self.lanes.old.len() {
            0 => return,
            count => self.lanes.old[self.rng.usize(..count)].clone(),
        };
        let message = match self.rng.u32(..4) {
            0 => {
                let id = format!("{JOBS}{:012x}", 0xffff_0000_u64 + self.rng.u64(..100));
                Message { job_id: id.parse::<JobId>().unwrap(), ..message }
            }
            1 => Message { kind: "nobody.knows".parse().unwrap(), ..message },
            _ => message,
        };
        self.enter(message);
    }
}

/// A process's handle on the broker.
#[derive(Debug)]
pub struct SimBroker {
    wire: Wire,
    /// Whether it can tell how many messages wait.
    counts: bool,
}

impl SimBroker {
    pub fn new(wire: Wire, counts: bool) -> Self {
        Self { wire, counts }
    }
}

fn error(trouble: Trouble) -> BrokerError {
    match trouble {
        Trouble::Unavailable => BrokerError::Unavailable("the connection was lost".into()),
        Trouble::Timeout => BrokerError::Timeout(DEADLINE),
    }
}

#[async_trait]
impl Broker for SimBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: false, depth: self.counts, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (given, sent) = (answers.clone(), messages.to_vec());
        let what: Vec<_> = messages.iter().map(|message| (message.job_id, message.attempt)).collect();
        let errand: Errand = Box::new(move |state, _| {
            for message in sent {
                let refused = state.chance(state.weather.reject);
                given.lock().unwrap().push(refused);
                if !refused {
                    state.publish(message);
                }
            }
        });
        let published = self.wire.call(Side::Broker, &move || format!("publish {what:?}"), errand).await;
        match published {
            Ok(()) => {
                let refused = std::mem::take(&mut *answers.lock().unwrap());
                let answer = |refused| {
                    if refused { Err(BrokerError::Refused("it does not like it".into())) } else { Ok(()) }
                };
                refused.into_iter().map(answer).collect()
            }
            Err(Trouble::Unavailable) => messages.iter().map(|_| Err(error(Trouble::Unavailable))).collect(),
            Err(Trouble::Timeout) => messages.iter().map(|_| Err(error(Trouble::Timeout))).collect(),
        }
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        _: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let id = {
            let mut state = self.wire.world.lock();
            state.lanes.last_subscription += 1;
            state.lanes.last_subscription
        };
        let subscription = SimSubscription {
            wire: self.wire.clone(),
            id,
            lanes: lanes.to_vec(),
            capacity,
            mailbox: Arc::default(),
            wake: Arc::default(),
            handed_out: BTreeSet::new(),
            parked: false,
            last_sent: 0,
        };
        subscription.connect().await?;
        Ok(Box::new(subscription))
    }

    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError> {
        if !self.counts {
            return Ok(None);
        }
        let (depth, lane) = (Arc::new(Mutex::new(0)), lane.clone());
        let (counted, what) = (depth.clone(), lane.clone());
        let errand: Errand = Box::new(move |state, told| {
            let count = state.lanes.waiting.get(&lane).map_or(0, VecDeque::len);
            *counted.lock().unwrap() = count as u64;
            if let Some(told) = told {
                *told = count.to_string();
            }
        });
        self.wire.call(Side::Broker, &move || format!("depth {what}"), errand).await.map_err(error)?;
        let depth = *depth.lock().unwrap();
        Ok(Some(depth))
    }

    async fn delete(&self, _: &[Lane]) -> Result<(), BrokerError> {
        let (problem, remedy) =
            ("the simulated broker deletes no lanes".into(), "test that with a real broker".into());
        Err(BrokerError::Config { problem, remedy })
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.wire.call(Side::Broker, &|| "ping".into(), Box::new(|_, _| {})).await.map_err(error)
    }

    async fn close(&self) {
        let process = self.wire.process;
        self.wire.tell(
            Side::Broker,
            0,
            &|| "close".into(),
            Box::new(move |state, _| state.disconnect(process)),
        );
    }
}

struct SimSubscription {
    wire: Wire,
    id: u64,
    lanes: Vec<Lane>,
    capacity: usize,
    mailbox: Arc<Mutex<Mailbox>>,
    wake: Arc<Notify>,
    /// What the worker has been given and has not settled.
    handed_out: BTreeSet<u64>,
    parked: bool,
    /// When what was sent last arrives: nothing overtakes it.
    last_sent: Ms,
}

impl SimSubscription {
    /// Begins to take. Repeated, it changes nothing, so it may be dropped anywhere.
    async fn connect(&self) -> Result<(), BrokerError> {
        let (id, process, lanes, capacity) =
            (self.id, self.wire.process, self.lanes.clone(), self.capacity.max(self.lanes.len()));
        let (mailbox, wake) = (Arc::downgrade(&self.mailbox), self.wake.clone());
        let errand: Errand = Box::new(move |state, _| {
            // Should it come late, whoever has closed the connection meanwhile gets nothing by it.
            let Some(mailbox) = mailbox.upgrade().filter(|_| state.processes[process].alive) else { return };
            mailbox.lock().unwrap().connected = true;
            let held = BTreeMap::new();
            let sub = Holding { process, lanes, capacity, held, parked: false, mailbox, wake };
            state.lanes.subscriptions.entry(id).or_insert(sub);
            state.deliver();
        });
        self.wire.call(Side::Broker, &|| format!("subscribe {id}"), errand).await.map_err(error)
    }

    /// Sends what nobody waits for.
    fn tell(&mut self, what: &'static str, tags: Vec<u64>, work: fn(&mut State, u64, &[u64])) {
        let id = self.id;
        let said = tags.clone();
        let errand: Errand = Box::new(move |state, _| work(state, id, &tags));
        let what = move || format!("{what} {id} {said:?}");
        self.last_sent = self.wire.tell(Side::Broker, self.last_sent, &what, errand);
    }

    fn settled(&mut self, tags: &[DeliveryTag]) -> Vec<u64> {
        tags.iter().map(|tag| tag.0).filter(|tag| self.handed_out.remove(tag)).collect()
    }
}

#[async_trait]
impl Subscription for SimSubscription {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        if std::mem::take(&mut self.parked) {
            self.tell("take up", Vec::new(), |state, id, _| {
                if let Some(sub) = state.lanes.subscriptions.get_mut(&id) {
                    sub.parked = false;
                }
                state.deliver();
            });
        }
        loop {
            let connected = {
                let mut mailbox = self.mailbox.lock().unwrap();
                if std::mem::take(&mut mailbox.broken) {
                    return Err(error(Trouble::Unavailable));
                }
                mailbox.connected
            };
            if !connected {
                self.connect().await?;
            }
            {
                let mut mailbox = self.mailbox.lock().unwrap();
                let count = mailbox.deliveries.len().min(max);
                let deliveries: Vec<Delivery> = mailbox.deliveries.drain(..count).collect();
                if !deliveries.is_empty() || max == 0 {
                    self.handed_out.extend(deliveries.iter().map(|delivery| delivery.tag.0));
                    return Ok(deliveries);
                }
            }
            self.wake.notified().await;
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        let tags = self.settled(tags);
        self.tell("ack", tags, |state, id, tags| {
            if let Some(sub) = state.lanes.subscriptions.get_mut(&id) {
                tags.iter().for_each(|tag| drop(sub.held.remove(tag)));
            }
            state.deliver();
        });
        Ok(())
    }

    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        let tags = self.settled(tags);
        self.tell("release", tags, |state, id, tags| {
            let Some(sub) = state.lanes.subscriptions.get_mut(&id) else { return };
            let messages: Vec<_> = tags.iter().filter_map(|tag| sub.held.remove(tag)).collect();
            state.give_back(messages);
        });
        Ok(())
    }

    async fn park(&mut self) -> Result<(), BrokerError> {
        self.parked = true;
        self.mailbox.lock().unwrap().deliveries.clear();
        let kept: Vec<u64> = self.handed_out.iter().copied().collect();
        self.tell("park, keeping", kept, |state, id, kept| {
            let Some(sub) = state.lanes.subscriptions.get_mut(&id) else { return };
            sub.parked = true;
            sub.mailbox.lock().unwrap().deliveries.clear();
            let (held, back) =
                std::mem::take(&mut sub.held).into_iter().partition(|(tag, _)| kept.contains(tag));
            sub.held = held;
            let back: BTreeMap<u64, Message> = back;
            state.give_back(back.into_values());
        });
        Ok(())
    }
}

impl Drop for SimSubscription {
    fn drop(&mut self) {
        // The end of a process is noticed otherwise.
        let alive = self.wire.world.lock().processes[self.wire.process].alive;
        if alive {
            self.tell("unsubscribe", Vec::new(), |state, id, _| state.end_subscription(id));
        }
    }
}

impl fmt::Debug for SimSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSubscription({})", self.id)
    }
}
