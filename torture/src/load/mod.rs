//! The clients' doings.

mod client;
mod wishes;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

pub(crate) use client::Client;
use wishes::{Deed, ORDERS, deed, ordered};

use crate::{
    Failure,
    history::{Call, LIMIT, MAX_RUNNING, Request},
    jobs::{PAY, WORK},
};

/// How many deeds may be under way; beyond, new ones wait, as a real client's threads would.
const UNDER_WAY: usize = 400;
/// How long a client insists after the end of the load.
const INSIST: Duration = Duration::from_secs(60);

pub(crate) struct Load {
    client: Client,
    seed: u64,
    /// Deeds a second.
    rate: f64,
    until: Mutex<Instant>,
    /// What has been accepted.
    ids: Mutex<HashSet<Uuid>>,
    /// Whether workers of a new version may be there.
    is_new: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Load {
    pub(crate) fn new(
        client: Client,
        seed: u64,
        rate: f64,
        time: Duration,
        is_new: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        let until = Mutex::new(Instant::now() + time);
        let (ids, is_new) = (Mutex::default(), Box::new(is_new));
        Arc::new(Self { client, seed, rate, until, ids, is_new })
    }

    /// Waits until the kinds are known, and sets the limit.
    pub(crate) async fn prepare(client: &Client, patience: Duration) -> Result<(), Failure> {
        let until = Instant::now() + patience;
        while !client.knows(&[WORK, PAY]).await {
            if Instant::now() > until {
                return Err("the workers did not make their kinds known; see their logs".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        let limit =
            client.put(0, &format!("/v1/limits/{LIMIT}"), &json!({"max_running": MAX_RUNNING})).await?;
        if limit { Ok(()) } else { Err("the limit was refused".into()) }
    }

    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on for longer than planned.
    pub(crate) fn extend(&self, by: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// Runs until the time is over and every client has an answer or has given up.
    pub(crate) async fn run(self: &Arc<Self>) {
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        let mut doing = JoinSet::new();
        for key in 0..ORDERS {
            let load = self.clone();
            doing.spawn(async move { load.in_order(key).await });
        }
        let mut next = Instant::now();
        let mut rng = fastrand::Rng::with_seed(self.seed);
        for number in 0.. {
            let Ok(place) = places.clone().acquire_owned().await else { break };
            // What could not be done in time is not made up for.
            next = next.max(Instant::now() - Duration::from_secs(1));
            next += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / self.rate);
            tokio::time::sleep_until(next).await;
            if Instant::now() >= self.until() {
                break;
            }
            let load = self.clone();
            doing.spawn(async move {
                load.act(number).await;
                drop(place);
            });
            while doing.try_join_next().is_some() {}
        }
        while doing.join_next().await.is_some() {}
    }

    /// Reads each accepted job once more.
    pub(crate) async fn read_all(&self, rng: &mut fastrand::Rng) {
        let ids: Vec<Uuid> = self.accepted().into_iter().collect();
        for ids in ids.chunks(100) {
            self.client.call(self.client.any(rng), Request::List { ids: ids.to_vec() }).await;
        }
    }

    pub(crate) fn accepted(&self) -> Vec<Uuid> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    async fn act(&self, number: u64) {
        let mut rng = fastrand::Rng::with_seed(self.seed.rotate_left(17) ^ number);
        let key = format!("k{number}");
        let mut deed = deed(self.seed, number);
        if let Deed::Enqueue { wish, .. } = &mut deed {
            // From a new version's first process on, clients may be new as well.
            wish.new = !wish.transactional && wish.unique.is_none() && rng.bool() && (self.is_new)();
        }
        let call = match deed {
            Deed::Enqueue { wish, keyed: true } => {
                self.insist(&mut rng, Request::Enqueue { wish, key: Some(key) }).await
            }
            Deed::Enqueue { wish, keyed: false } => {
                let api = self.client.any(&mut rng);
                Some(self.client.call(api, Request::Enqueue { wish, key: None }).await)
            }
            Deed::Twins { wish, other } => {
                let request = Request::Enqueue { wish, key: Some(key.clone()) };
                let mut twin = rng.fork();
                let (first, second) =
                    tokio::join!(self.insist(&mut rng, request.clone()), self.insist(&mut twin, request));
                let first = first.or(second);
                if first.as_ref().is_some_and(|call| call.accepted().next().is_some()) {
                    let api = self.client.any(&mut rng);
                    self.client.call(api, Request::Conflict { wish: other, key }).await;
                }
                first
            }
            Deed::Cancel { wish, after } => {
                let call = self.insist(&mut rng, Request::Enqueue { wish, key: Some(key) }).await;
                self.note(call.as_ref());
                sleep(Duration::from_millis(after)).await;
                for id in ids(call.as_ref()) {
                    let api = self.client.any(&mut rng);
                    self.client.call(api, Request::Cancel { id }).await;
                }
                call
            }
            Deed::Batch { wishes } => self.insist(&mut rng, Request::Batch { wishes, key }).await,
            Deed::Workflow { wishes } => self.insist(&mut rng, Request::Workflow { wishes, key }).await,
        };
        self.note(call.as_ref());
        // Some are looked at while they are on their way, and after.
        for id in ids(call.as_ref()).into_iter().take(2) {
            for _ in 0..rng.usize(..3) {
                sleep(Duration::from_millis(rng.u64(20..2500))).await;
                let api = self.client.any(&mut rng);
                self.client.call(api, Request::Get { id }).await;
            }
        }
    }

    /// Enqueues the jobs of one ordering key, each after the one before has been accepted.
    async fn in_order(&self, key: u64) {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ key);
        for place in 0.. {
            sleep(Duration::from_millis(rng.u64(100..1500))).await;
            if Instant::now() >= self.until() {
                return;
            }
            let wish = ordered(self.seed, key, place);
            let request = Request::Enqueue { wish, key: Some(format!("o{key}-{place}")) };
            let call = self.insist(&mut rng, request).await;
            if call.is_none() {
                // Whether it is in the order is not known, so neither is where the next one would be.
                return;
            }
            self.note(call.as_ref());
        }
    }

    async fn insist(&self, rng: &mut fastrand::Rng, request: Request) -> Option<Call> {
        self.client.insist(rng, request, self.until() + INSIST).await
    }

    fn note(&self, call: Option<&Call>) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).extend(ids(call));
    }
}

fn ids(call: Option<&Call>) -> Vec<Uuid> {
    call.into_iter().flat_map(Call::seen).map(|job| job.id).collect()
}
