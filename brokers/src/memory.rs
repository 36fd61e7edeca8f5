use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use windlass_core::{
    Broker, BrokerError, Capabilities, Delivery, DeliveryTag, Lane, Message, Priorities, Subscription,
};

use crate::rota::Rota;

/// A broker within the process: for the embedded mode and for tests. Its messages go with the process; the store
/// publishes them again.
pub struct Memory {
    hub: Arc<Hub>,
    /// Tells this handle's subscriptions from those of other handles.
    handle: u64,
}

impl Memory {
    /// A broker with no lanes yet.
    #[must_use]
    pub fn new() -> Self {
        Self { hub: Arc::default(), handle: 0 }
    }

    /// Another handle on the same lanes with a life of its own: closing one leaves the others open, as with
    /// two processes on one broker.
    #[must_use]
    pub fn attach(&self) -> Self {
        let mut state = self.hub.state();
        state.last_id += 1;
        Self { hub: Arc::clone(&self.hub), handle: state.last_id }
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.hub.state();
        if state.closed.contains(&self.handle) { Err(BrokerError::Closed) } else { Ok(state) }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: false, depth: true, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        let Ok(mut state) = self.open() else {
            return messages.iter().map(|_| Err(BrokerError::Closed)).collect();
        };
        for message in messages {
            state.lane(&message.lane).push(message.clone());
        }
        messages.iter().map(|_| Ok(())).collect()
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes, priorities);
        let capacity = capacity.max(lanes.len());
        let wake = Arc::new(Notify::new());
        let mut state = self.open()?;
        state.last_id += 1;
        let id = state.last_id;
        for lane in &lanes {
            state.lane(lane).takers.insert(id, Arc::clone(&wake));
        }
        let holding =
            Holding { handle: self.handle, wake: Arc::clone(&wake), unacknowledged: BTreeMap::new() };
        state.holdings.insert(id, holding);
        drop(state);
        let hub = Arc::clone(&self.hub);
        Ok(Box::new(MemorySubscription { hub, id, lanes, rota, capacity, wake, last_tag: 0 }))
    }

    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError> {
        let waiting = self.open()?.lanes.get(lane).map_or(0, |lane| lane.waiting.len());
        Ok(Some(waiting as u64))
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError> {
        let mut state = self.open()?;
        for lane in lanes {
            // The lane's takers stay: when it is published to again, they get the messages.
            if let Some(lane) = state.lanes.get_mut(lane) {
                lane.waiting.clear();
            }
            state.lanes.retain(|name, state| name != lane || !state.takers.is_empty());
            for holding in state.holdings.values_mut() {
                holding.unacknowledged.retain(|_, message| message.lane != *lane);
            }
        }
        Ok(())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.open().map(drop)
    }

    async fn close(&self) {
        let mut state = self.hub.state();
        state.closed.push(self.handle);
        let mine: Vec<u64> =
            state.holdings.iter().filter(|(_, h)| h.handle == self.handle).map(|(id, _)| *id).collect();
        for id in mine {
            state.end(id);
        }
    }
}

/// What all handles and subscriptions of one broker share. A lock suffices: it is held for moves within memory
/// only, never across an await.
#[derive(Default)]
struct Hub(Mutex<State>);

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    lanes: HashMap<Lane, LaneState>,
    holdings: HashMap<u64, Holding>,
    closed: Vec<u64>,
    last_id: u64,
}

#[derive(Default)]
struct LaneState {
    waiting: VecDeque<Message>,
    takers: HashMap<u64, Arc<Notify>>,
}

/// What one subscription has been handed. It lives here and not in the subscription, so that closing the handle
/// can give it back.
struct Holding {
    handle: u64,
    wake: Arc<Notify>,
    unacknowledged: BTreeMap<u64, Message>,
}

impl State {
    fn lane(&mut self, lane: &Lane) -> &mut LaneState {
        self.lanes.entry(lane.clone()).or_default()
    }

    fn give_back(&mut self, messages: impl DoubleEndedIterator<Item = Message>) {
        // Backwards to the front: they come again in their order, before what came later.
        for message in messages.rev() {
            let lane = self.lane(&message.lane);
            lane.waiting.push_front(message);
            lane.wake();
        }
    }

    fn end(&mut self, id: u64) {
        let Some(holding) = self.holdings.remove(&id) else { return };
        for lane in self.lanes.values_mut() {
            lane.takers.remove(&id);
        }
        self.give_back(holding.unacknowledged.into_values());
        holding.wake.notify_one();
    }
}

impl LaneState {
    fn push(&mut self, message: Message) {
        self.waiting.push_back(message);
        self.wake();
    }

    fn wake(&self) {
        for taker in self.takers.values() {
            taker.notify_one();
        }
    }
}

struct MemorySubscription {
    hub: Arc<Hub>,
    id: u64,
    lanes: Vec<Lane>,
    rota: Rota,
    capacity: usize,
    wake: Arc<Notify>,
    last_tag: u64,
}

impl MemorySubscription {
    fn take(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut state = self.hub.state();
        let State { lanes, holdings, .. } = &mut *state;
        let holding = holdings.get_mut(&self.id).ok_or(BrokerError::Closed)?;
        let room = self.capacity.saturating_sub(holding.unacknowledged.len()).min(max);
        let (names, last_tag) = (&self.lanes, &mut self.last_tag);
        let mut deliveries = Vec::new();
        self.rota.hand_out(room, |index, most| {
            let Some(lane) = lanes.get_mut(&names[index]) else { return 0 };
            let count = lane.waiting.len().min(most);
            for message in lane.waiting.drain(..count) {
                *last_tag += 1;
                holding.unacknowledged.insert(*last_tag, message.clone());
                deliveries.push(Delivery { tag: DeliveryTag(*last_tag), message });
            }
            count
        });
        Ok(deliveries)
    }
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let deliveries = self.take(max)?;
            if !deliveries.is_empty() || max == 0 {
                return Ok(deliveries);
            }
            // A wake-up between the look and this wait is kept by the Notify.
            self.wake.notified().await;
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        if let Some(holding) = self.hub.state().holdings.get_mut(&self.id) {
            for tag in tags {
                holding.unacknowledged.remove(&tag.0);
            }
        }
        Ok(())
    }

    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        let mut state = self.hub.state();
        let Some(holding) = state.holdings.get_mut(&self.id) else { return Ok(()) };
        let messages: Vec<Message> =
            tags.iter().filter_map(|tag| holding.unacknowledged.remove(&tag.0)).collect();
        state.give_back(messages.into_iter());
        Ok(())
    }

    async fn park(&mut self) -> Result<(), BrokerError> {
        // Messages leave their lanes only when handed out: there is nothing to give back.
        Ok(())
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        self.hub.state().end(self.id);
    }
}

impl fmt::Debug for MemorySubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySubscription").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}
