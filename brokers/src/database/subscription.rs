use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;
use windlass_core::{BrokerError, Delivery, DeliveryTag, Lane, Priorities, Subscription};

use super::{Changes, DEADLINE, Listener, POLL, Parcel, Shared};
use crate::rota::{Ask, Rota};
use crate::unreadable;

type Taken = Result<Vec<(Lane, Parcel)>, sqlx::Error>;

/// Takes only what it can hand out at once, so that it has nothing to keep from others.
pub(super) struct DatabaseSubscription {
    shared: Arc<Shared>,
    runtime: Handle,
    holder: Uuid,
    lanes: Vec<Lane>,
    rota: Rota,
    capacity: usize,
    wake: Arc<Notify>,
    /// A task of its own, so that a dropped `receive` loses nothing of what it takes, and what it asks for.
    taking: Option<(JoinHandle<Taken>, Vec<Ask>)>,
    /// After a failure: when to try again.
    pause: Option<Instant>,
    /// After a failure: the database may hold parcels for us of which we have not heard.
    doubtful: bool,
    parcels: HashMap<i64, Held>,
    /// Where the message of a tag is: its parcel, and its place in it.
    tags: HashMap<DeliveryTag, (i64, usize)>,
    last_tag: u64,
    /// Taken, and not handed out since the `receive` that asked for it was dropped.
    ready: VecDeque<Delivery>,
    /// Not written down yet: more than nothing only after a failure.
    changes: Changes,
}

/// A parcel with the messages that are not settled.
struct Held {
    lane: Lane,
    messages: Vec<Option<Vec<u8>>>,
}

impl Held {
    fn left(&self) -> Vec<Vec<u8>> {
        self.messages.iter().flatten().cloned().collect()
    }
}

impl DatabaseSubscription {
    pub(super) fn new(
        shared: Arc<Shared>,
        runtime: Handle,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Self {
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes, priorities);
        let (holder, wake) = (Uuid::now_v7(), Arc::new(Notify::new()));
        let listener = Listener { lanes: lanes.clone(), wake: Arc::clone(&wake) };
        shared.listeners.lock().insert(holder, listener);
        Self {
            shared,
            runtime,
            holder,
            capacity: capacity.max(lanes.len()),
            lanes,
            rota,
            wake,
            taking: None,
            pause: None,
            doubtful: false,
            parcels: HashMap::new(),
            tags: HashMap::new(),
            last_tag: 0,
            ready: VecDeque::new(),
            changes: Changes::default(),
        }
    }

    /// Starts to take, or goes on with what is under way.
    async fn take(&mut self, room: usize) -> Result<bool, BrokerError> {
        let (taking, _) = self.taking.get_or_insert_with(|| {
            let (shared, holder) = (Arc::clone(&self.shared), self.holder);
            let asks = self.rota.ask(room);
            let lanes: Vec<_> = asks.iter().map(|ask| (self.lanes[ask.lane].clone(), ask.share)).collect();
            let take = async move { shared.table.take(holder, &lanes).await };
            (self.shared.tasks.spawn_on(take, &self.runtime), asks)
        });
        let taken = timeout(DEADLINE, &mut *taking).await;
        if taken.is_err() {
            taking.abort();
        }
        let asks = self.taking.take().map(|(_, asks)| asks).unwrap_or_default();
        let parcels = match taken {
            Ok(Ok(parcels)) => parcels.map_err(|error| self.shared.table.classify(error)),
            Ok(Err(panic)) => Err(BrokerError::Unavailable(Box::new(panic))),
            Err(_) => Err(BrokerError::Timeout(DEADLINE)),
        };
        self.doubtful = parcels.is_err();
        let parcels = parcels?;
        let any = !parcels.is_empty();
        let mut counts = vec![0; self.lanes.len()];
        for (lane, parcel) in parcels {
            if let Some(place) = self.lanes.iter().position(|known| *known == lane) {
                counts[place] += parcel.messages.len();
            }
            self.unpack(lane, parcel);
        }
        self.rota.took(&asks, &counts);
        Ok(any)
    }

    fn unpack(&mut self, lane: Lane, parcel: Parcel) {
        let mut dropped = Vec::new();
        for (place, bytes) in parcel.messages.iter().enumerate() {
            self.last_tag += 1;
            let tag = DeliveryTag(self.last_tag);
            self.tags.insert(tag, (parcel.id, place));
            match unreadable::read(self.shared.table.kind(), &lane, bytes) {
                Some(message) => self.ready.push_back(Delivery { tag, message }),
                None => dropped.push(tag),
            }
        }
        let messages = parcel.messages.into_iter().map(Some).collect();
        self.parcels.insert(parcel.id, Held { lane, messages });
        self.note(&dropped, false);
    }

    /// Notes what is to become of these messages.
    fn note(&mut self, tags: &[DeliveryTag], give_back: bool) {
        let mut touched = HashSet::new();
        let mut returned: HashMap<i64, Vec<Vec<u8>>> = HashMap::new();
        for (id, place) in tags.iter().filter_map(|tag| self.tags.remove(tag)) {
            let Some(held) = self.parcels.get_mut(&id) else { continue };
            if let Some(bytes) = held.messages[place].take() {
                touched.insert(id);
                if give_back {
                    returned.entry(id).or_default().push(bytes);
                }
            }
        }
        for id in touched {
            let Some(held) = self.parcels.get(&id) else { continue };
            let (left, returned) = (held.left(), returned.remove(&id).unwrap_or_default());
            if left.is_empty() {
                self.parcels.remove(&id);
                if returned.is_empty() {
                    self.changes.shrunk.remove(&id);
                    self.changes.gone.push(id);
                } else {
                    // The row itself goes back, with what of it is not settled.
                    self.changes.shrunk.insert(id, returned);
                    self.changes.freed.push(id);
                }
            } else {
                self.changes.shrunk.insert(id, left);
                if !returned.is_empty() {
                    self.changes.returned.push((held.lane.clone(), returned));
                }
            }
        }
    }

    /// Writes down what was noted. What cannot be written stays noted.
    async fn write(&mut self) -> Result<(), BrokerError> {
        if self.doubtful {
            let known: Vec<i64> =
                self.parcels.keys().copied().chain(self.changes.gone.iter().copied()).collect();
            self.shared.call(self.shared.table.abandon(self.holder, &known)).await?;
            self.doubtful = false;
        }
        if self.changes.is_empty() {
            return Ok(());
        }
        self.shared.call(self.shared.table.settle(self.holder, &self.changes)).await?;
        let changes = std::mem::take(&mut self.changes);
        // Those of ours as well: another subscription of this process may wait for them.
        if !changes.freed.is_empty() || !changes.returned.is_empty() {
            self.shared.listeners.wake_all();
        }
        Ok(())
    }

    fn closed(&self) -> Result<(), BrokerError> {
        if self.shared.closed.is_cancelled() { Err(BrokerError::Closed) } else { Ok(()) }
    }

    async fn receive_some(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            if max == 0 || !self.ready.is_empty() {
                let count = self.ready.len().min(max);
                return Ok(self.ready.drain(..count).collect());
            }
            if let Some(at) = self.pause {
                sleep_until(at).await;
                self.pause = None;
            }
            let room = self.capacity.saturating_sub(self.tags.len()).min(max);
            if room == 0 {
                // Until the caller gives up and settles something.
                std::future::pending::<()>().await;
            }
            let taken = match self.write().await {
                Ok(()) => self.take(room).await,
                Err(error) => Err(error),
            };
            match taken {
                Ok(true) => {}
                // A wake-up between the look and this wait is kept by the Notify.
                Ok(false) => drop(timeout(POLL, self.wake.notified()).await),
                Err(error) => {
                    self.pause = Some(Instant::now() + POLL / 2);
                    return Err(error);
                }
            }
        }
    }
}

#[async_trait]
impl Subscription for DatabaseSubscription {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let closed = self.shared.closed.clone();
        closed.run_until_cancelled(self.receive_some(max)).await.unwrap_or(Err(BrokerError::Closed))
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        self.closed()?;
        self.note(tags, false);
        self.write().await
    }

    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        self.closed()?;
        self.note(tags, true);
        self.write().await
    }

    async fn park(&mut self) -> Result<(), BrokerError> {
        self.closed()?;
        if self.taking.is_some() {
            self.take(0).await?;
        }
        let tags: Vec<_> = self.ready.drain(..).map(|delivery| delivery.tag).collect();
        self.release(&tags).await
    }
}

impl Drop for DatabaseSubscription {
    fn drop(&mut self) {
        let (shared, holder) = (Arc::clone(&self.shared), self.holder);
        let (taking, changes) = (self.taking.take(), std::mem::take(&mut self.changes));
        shared.listeners.lock().remove(&holder);
        let give_back = async move {
            if let Some((taking, _)) = taking {
                let _ = taking.await;
            }
            let all = async {
                if !changes.is_empty() {
                    shared.table.settle(holder, &changes).await?;
                }
                shared.table.abandon(holder, &[]).await
            };
            // Otherwise the lease runs out.
            if let Ok(Ok(())) = timeout(DEADLINE, all).await {
                shared.listeners.wake_all();
            }
        };
        self.shared.tasks.spawn_on(give_back, &self.runtime);
    }
}

impl fmt::Debug for DatabaseSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseSubscription").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}
