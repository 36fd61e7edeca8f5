//! Replicas are read while they are near enough, and what was accepted is found whether or not they have it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{json, value::to_raw_value};
use sqlx::{Executor as _, PgPool};
use windlass::{
    Client, ClientOptions, JobId, JobState, NewJob,
    driver::{self, ClaimId, Finish, NewWorker, Outcome, Store, StoreOptions, WorkerId},
};

use crate::support::{Server, until};

/// A primary and a replica of its own.
struct Pair {
    replica: Server,
    primary_url: String,
    at_replica: PgPool,
}

impl Pair {
    async fn start() -> Self {
        let replica = Server::start("replica", &[]).await;
        let primary = replica.beside("postgres").await;
        let at_replica = PgPool::connect_lazy(&replica.url).unwrap();
        Self { replica, primary_url: primary, at_replica }
    }

    async fn open(&self, replicas: &[&str], max_lag: Duration) -> Arc<dyn Store> {
        let options = StoreOptions {
            replicas: replicas.iter().map(|url| (*url).to_owned()).collect(),
            replica_max_lag: max_lag,
            ..StoreOptions::default()
        };
        let store = driver::open_store(&self.primary_url, &options).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    async fn hold_back(&self) {
        self.at_replica.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    }

    async fn let_go(&self) {
        self.at_replica.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    }
}

fn job() -> NewJob {
    NewJob::new("test.kind".parse().unwrap(), to_raw_value(&json!({})).unwrap())
}

async fn insert(store: &dyn Store) -> JobId {
    let job = job();
    store.insert(std::slice::from_ref(&job)).await.unwrap();
    job.id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_read_while_it_is_near_enough() {
    let pair = Pair::start().await;
    let max_lag = Duration::from_secs(1);
    // The first is no replica at all, and so never read.
    let store = pair.open(&[&pair.primary_url, &pair.replica.url], max_lag).await;
    let near = || async { store.replica().is_some() };

    let first = insert(&*store).await;
    until("the replica is near", near).await;
    let replica = store.replica().unwrap();
    // At first it may not even have the tables yet.
    let has = |jobs: Vec<windlass::JobRecord>| !jobs.is_empty();
    until("the replica has the job", || async { replica.get(&[first]).await.is_ok_and(has) }).await;
    assert!((0..10).filter_map(|_| store.replica()).all(|other| Arc::ptr_eq(&other, &replica)));

    // On an idle server nothing is replayed, and nothing is missing.
    let idle = Instant::now();
    while idle.elapsed() < 3 * max_lag {
        until("an idle replica is near", near).await;
        tokio::time::sleep(max_lag / 20).await;
    }

    // A replica that does not go on is read for as long as it may be behind, and no longer.
    pair.hold_back().await;
    let missing = insert(&*store).await;
    let since = Instant::now();
    loop {
        let asked = Instant::now();
        if store.replica().is_none() {
            break;
        }
        assert!(asked - since <= max_lag, "read though it was behind for {:?}", asked - since);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(replica.get(&[missing]).await.unwrap().is_empty(), "it was not behind");
    pair.let_go().await;
    until("the replica is near again", near).await;

    pair.replica.order("kill").await;
    insert(&*store).await;
    until("a dead replica is not read", || async { store.replica().is_none() }).await;
    pair.replica.order("start").await;
    until("the replica is near after its restart", near).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_find_what_was_accepted_and_never_a_wrong_end() {
    let pair = Pair::start().await;
    // So far behind that it is read all the while.
    let store = pair.open(&[&pair.replica.url], Duration::from_secs(3600)).await;
    let broker = driver::open_broker("memory:").await.unwrap();
    let options = ClientOptions { relays: false, ..ClientOptions::default() };
    let client = Client::new(store.clone(), broker, options);
    until("the replica is near", || async { store.replica().is_some() }).await;
    let replica = store.replica().unwrap();
    let recent = async |id| client.get_recent(id).await.unwrap().unwrap().state;
    let now = async |id| client.get(id).await.unwrap().unwrap().state;

    let [ended, live] = [insert(&*store).await, insert(&*store).await];
    let worker = WorkerId::new();
    let lease = Duration::from_secs(3600);
    store.register(&NewWorker { id: worker, label: "test".into(), lease, kinds: vec![] }).await.unwrap();
    let claim = ClaimId::new();
    let claimed = store.claim(worker, claim, &[ended]).await.unwrap();
    let outcome = Outcome::Dead { error: "test".into() };
    let finish = Finish { id: ended, fence: claimed[0].fence, outcome };
    store.finish(worker, &[finish], &[claim]).await.unwrap();
    until("the replica has the end", || async {
        let jobs = replica.get(&[ended, live]).await.unwrap_or_default();
        jobs.len() == 2 && jobs.iter().any(|job| job.state == JobState::Dead)
    })
    .await;
    assert_eq!((recent(ended).await, recent(live).await), (JobState::Dead, JobState::Queued));

    pair.hold_back().await;
    let new = insert(&*store).await;
    assert!(replica.get(&[new]).await.unwrap().is_empty(), "it was not behind");
    assert_eq!(recent(new).await, JobState::Queued, "one accepted just now is found");
    assert_eq!(client.get_many_recent(&[new, live]).await.unwrap().len(), 2);

    // A job that is not over may be shown as it was; the caller who wants it as it is gets that.
    store.claim(worker, ClaimId::new(), &[live]).await.unwrap();
    assert_eq!((recent(live).await, now(live).await), (JobState::Queued, JobState::Running));
    assert_eq!(client.get_many(&[live]).await.unwrap()[0].state, JobState::Running);

    // An operator has made another thing of an end that the replica still shows.
    assert_eq!(client.retry(&[ended], &[JobState::Dead]).await.unwrap(), [ended]);
    assert_eq!(replica.get(&[ended]).await.unwrap()[0].state, JobState::Dead);
    assert_eq!((recent(ended).await, now(ended).await), (JobState::Queued, JobState::Queued));
    assert_eq!(client.get_many_recent(&[ended]).await.unwrap()[0].state, JobState::Queued);

    // Without the replica, reads go on.
    pair.let_go().await;
    pair.replica.order("kill").await;
    assert_eq!((recent(new).await, recent(live).await), (JobState::Queued, JobState::Running));
    client.close().await;
}
