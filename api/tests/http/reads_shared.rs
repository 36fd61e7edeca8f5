//! Jobs that are over, kept for all instances in a real Redis.

#[path = "../../../store/tests/support/postgres.rs"]
mod scratch;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusBuilder;
use redis::{AsyncCommands as _, aio::MultiplexedConnection};
use serde_json::{json, value::to_raw_value};
use tokio::net::TcpListener;
use windlass_brokers::Memory;
use windlass_client::{
    Client, ClientOptions, EncryptionKey, Envelope, SharedReads, SharedUrlError, namespace,
};
use windlass_core::{
    ClaimId, Finish, JobId, JobRecord, NewJob, NewProgress, NewWorker, Note, Outcome, State, Store,
    StoreError, WorkerId,
};
use windlass_store::{
    Call, Intercept, Intercepted, Keep, PostgresStore, Retention, StoreOptions, VirtualClock,
};

use self::scratch::Scratch;
use crate::{
    rates_shared::{Way, redis},
    support::{Api, soon},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// How long entries may be kept.
const KEEP: Duration = Duration::from_secs(600);

/// Counts how often jobs are read from a store.
#[derive(Debug)]
struct Counting(Arc<AtomicUsize>);

#[async_trait]
impl Intercept for Counting {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        if matches!(call, Call::Get) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// A system with a clock that the test moves.
struct System {
    scratch: Scratch,
    clock: VirtualClock,
    store: Arc<PostgresStore>,
    worker: WorkerId,
    redis: MultiplexedConnection,
}

/// An instance that keeps nothing in memory.
struct Instance {
    client: Client,
    gets: Arc<AtomicUsize>,
}

impl System {
    async fn new() -> Self {
        let (scratch, clock) = (Scratch::new(), VirtualClock::default());
        let store = Arc::new(open(&scratch, &clock));
        store.migrate().await.unwrap();
        let worker = WorkerId::new();
        let lease = 1000 * DAY;
        store.register(&NewWorker { id: worker, label: "w".into(), lease, kinds: vec![] }).await.unwrap();
        let client = redis::Client::open(redis()).unwrap();
        let redis = client.get_multiplexed_async_connection().await.unwrap();
        Self { scratch, clock, store, worker, redis }
    }

    fn instance_with(&self, url: &str, envelope: Envelope) -> Instance {
        let gets = Arc::new(AtomicUsize::new(0));
        let store = Intercepted::new(Arc::new(open(&self.scratch, &self.clock)), Counting(gets.clone()));
        let options = ClientOptions {
            relays: false,
            read_cache: 0,
            shared_reads: Some(SharedReads::open(url, KEEP).unwrap()),
            ..ClientOptions::default()
        };
        let client = Client::with_envelope(Arc::new(store), Arc::new(Memory::new()), options, envelope);
        Instance { client, gets }
    }

    fn instance(&self) -> Instance {
        self.instance_with(&redis(), Envelope::default())
    }

    /// An instance that is connected with Redis.
    async fn at_work(&self) -> Instance {
        let instance = self.instance();
        let known = self.ended(succeeded("1")).await;
        instance.shares(known).await;
        instance
    }

    async fn insert(&self) -> JobId {
        let job = NewJob {
            labels: BTreeMap::from([("customer".into(), "c1".into())]),
            ..NewJob::new("mail".parse().unwrap(), to_raw_value(&json!({"to": "a"})).unwrap())
        };
        self.store.insert(std::slice::from_ref(&job)).await.unwrap();
        job.id
    }

    /// Ends the job's next attempt.
    async fn end(&self, id: JobId, outcome: Outcome) {
        let claim = ClaimId::new();
        let fence = self.store.claim(self.worker, claim, &[id]).await.unwrap()[0].fence;
        let progress = NewProgress { value: 0.1, message: "begun".into(), age: Duration::ZERO };
        let note = Note { id, fence, attempt: 1, progress: Some(progress), lines: Vec::new() };
        self.store.notes().note(&[note]).await.unwrap();
        let finish = Finish { id, fence, outcome };
        assert_eq!(self.store.finish(self.worker, &[finish], &[claim]).await.unwrap(), [id]);
    }

    /// A job that has been over for a minute.
    async fn ended(&self, outcome: Outcome) -> JobId {
        let id = self.insert().await;
        self.end(id, outcome).await;
        self.clock.advance(MINUTE);
        id
    }

    /// What the store says.
    async fn truth(&self, id: JobId) -> JobRecord {
        self.store.get(&[id]).await.unwrap().pop().unwrap()
    }

    async fn namespace(&self) -> String {
        namespace(&self.store.operations().system().await.unwrap())
    }

    /// Where the job lies in Redis.
    async fn key(&self, id: JobId) -> String {
        format!("{}:job.1:{id}", self.namespace().await)
    }

    /// What the job's key holds.
    async fn lying(&mut self, id: JobId) -> Option<Vec<u8>> {
        let key = self.key(id).await;
        self.redis.get(key).await.unwrap()
    }

    /// Waits until all that has been given up for writing so far is written: by another job, which is the last.
    async fn all_written(&mut self, by: &Instance) {
        let last = self.ended(succeeded("1")).await;
        by.client.get(last).await.unwrap();
        let key = self.key(last).await;
        soon("the write", async { while !self.redis.exists::<_, bool>(&key).await.unwrap() {} }).await;
    }

    async fn clear(mut self) {
        let pattern = format!("{}:*", self.namespace().await);
        let keys: Vec<String> = self.redis.keys(pattern).await.unwrap();
        if !keys.is_empty() {
            self.redis.del::<_, ()>(keys).await.unwrap();
        }
    }
}

impl Instance {
    async fn get(&self, id: JobId) -> JobRecord {
        self.client.get(id).await.unwrap().unwrap()
    }

    fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }

    /// Reads a job until Redis has answered; what it says.
    async fn shares(&self, id: JobId) -> JobRecord {
        let reading = async {
            loop {
                let before = self.gets();
                let job = self.get(id).await;
                if self.gets() == before {
                    return job;
                }
            }
        };
        soon("Redis to have the job", reading).await
    }
}

fn open(scratch: &Scratch, clock: &VirtualClock) -> PostgresStore {
    let keep = Keep { succeeded: Some(5 * DAY), ..Keep::default() };
    let options = StoreOptions {
        schema: scratch.schema.clone(),
        connections: 4,
        clock: Some(clock.clone()),
        retention: Retention { any: keep, ..Retention::default() },
        ..StoreOptions::default()
    };
    PostgresStore::open(&scratch.url, &options).unwrap()
}

fn succeeded(result: &str) -> Outcome {
    Outcome::Succeeded { result: Some(to_raw_value(&json!(result)).unwrap()), keep: None }
}

fn dead() -> Outcome {
    Outcome::Dead { error: "no more".into() }
}

fn shown(job: &JobRecord) -> String {
    format!("{job:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_instance_has_read_the_others_do_not_ask_the_store_for() {
    let system = System::new().await;
    let (one, other) = (system.at_work().await, system.at_work().await);
    for outcome in [succeeded("done"), dead(), Outcome::Cancelled] {
        let id = system.ended(outcome).await;
        one.shares(id).await;
        let before = other.gets();
        let job = other.get(id).await;
        assert_eq!(other.gets(), before, "the store was asked");
        assert_eq!(shown(&job), shown(&system.truth(id).await));
        assert!(job.labels.len() == 1 && job.progress.is_some());
    }
    system.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_over_or_only_just_is_not_shared() {
    let mut system = System::new().await;
    let instance = system.at_work().await;
    let [queued, running, just] = [system.insert().await, system.insert().await, system.insert().await];
    system.store.claim(system.worker, ClaimId::new(), &[running]).await.unwrap();
    system.end(just, succeeded("1")).await;
    for id in [queued, running, just, JobId::new()] {
        instance.client.get(id).await.unwrap();
    }
    system.all_written(&instance).await;
    for id in [queued, running, just] {
        assert_eq!(system.lying(id).await, None);
    }
    system.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_last_no_longer_than_they_may() {
    let mut system = System::new().await;
    let instance = system.at_work().await;
    let with_end = |keep| Outcome::Succeeded { result: Some(to_raw_value("r").unwrap()), keep: Some(keep) };
    let brief = system.ended(with_end(10 * MINUTE)).await;
    let briefer = system.ended(succeeded("1")).await;
    system.clock.advance(4 * MINUTE);
    let old = system.ended(succeeded("1")).await;
    system.clock.advance(DAY);
    // It counts from the read, as late as it may be.
    let recent = system.ended(with_end(10 * MINUTE)).await;
    for id in [brief, briefer, old, recent] {
        instance.shares(id).await;
    }
    for (id, most) in [(old, KEEP), (briefer, KEEP), (recent, MINUTE)] {
        let key = system.key(id).await;
        let left = Duration::from_millis(system.redis.pttl::<_, u64>(key).await.unwrap());
        assert!(left <= most && left > most / 2, "{left:?} of {most:?}");
    }
    assert!(instance.get(brief).await.result.is_none(), "its time is over");
    system.clock.advance(8 * MINUTE);
    system.redis.del::<_, ()>(system.key(recent).await).await.unwrap();
    instance.shares(recent).await;
    let left = system.redis.pttl::<_, u64>(system.key(recent).await).await.unwrap();
    assert!(left <= 60_000, "longer than its result: {left}");
    system.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_make_of_a_job_is_seen_at_once() {
    let system = System::new().await;
    let (one, other) = (system.at_work().await, system.at_work().await);
    let operations = system.store.operations();
    let id = system.ended(dead()).await;
    one.shares(id).await;
    assert_eq!(operations.retry(&[id], &[State::Dead]).await.unwrap(), [id]);
    assert_eq!((one.get(id).await.state, other.get(id).await.state), (State::Queued, State::Queued));
    system.end(id, succeeded("2")).await;
    system.clock.advance(MINUTE);
    assert_eq!(one.shares(id).await.state, State::Succeeded);
    assert_eq!(other.get(id).await.result.unwrap().get(), "\"2\"");
    assert_eq!(operations.delete(&[id], &[State::Succeeded]).await.unwrap(), [id]);
    assert!(one.client.get(id).await.unwrap().is_none() && other.client.get(id).await.unwrap().is_none());

    // Retention is no different.
    let id = system.ended(succeeded("3")).await;
    one.shares(id).await;
    system.clock.advance(7 * DAY);
    assert_eq!(other.get(id).await.state, State::Succeeded);
    system.store.maintain().await.unwrap();
    assert!(one.client.get(id).await.unwrap().is_none() && other.client.get(id).await.unwrap().is_none());
    system.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_ever_sees_less_than_was_acknowledged() {
    let system = Arc::new(System::new().await);
    let id = system.ended(succeeded("0")).await;
    let (ended, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let instance = system.at_work().await;
        let (ended, begun) = (ended.clone(), begun.clone());
        readers.spawn(async move {
            let mut shared = 0;
            while ended.load(Ordering::SeqCst) < 40 {
                let (least, gets) = (ended.load(Ordering::SeqCst), instance.gets());
                let job = instance.get(id).await;
                shared += usize::from(instance.gets() == gets);
                match job.result {
                    Some(result) => {
                        let number: usize =
                            serde_json::from_str::<String>(result.get()).unwrap().parse().unwrap();
                        assert!(number >= least, "{number}, and {least} was acknowledged");
                    }
                    None => assert!(begun.load(Ordering::SeqCst) > least, "{:?}", job.state),
                }
            }
            shared
        });
    }
    let reading = system.at_work().await;
    for number in 1..=40_usize {
        // So that there is something to be wrong.
        reading.shares(id).await;
        begun.store(number, Ordering::SeqCst);
        assert_eq!(system.store.operations().retry(&[id], &State::TERMINAL).await.unwrap(), [id]);
        system.end(id, succeeded(&number.to_string())).await;
        ended.store(number, Ordering::SeqCst);
        system.clock.advance(MINUTE);
    }
    let shared: usize = soon("the readers", readers.join_all()).await.into_iter().sum();
    assert!(shared > 0, "nothing came from Redis");
    drop(reading);
    Arc::into_inner(system).unwrap().clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_store_answers() {
    let system = System::new().await;
    // Nobody listens there; one takes connections, and says nothing.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let id = system.ended(succeeded("1")).await;
    for address in [closed, silent.local_addr().unwrap()] {
        let instance = system.instance_with(&format!("redis://{address}"), Envelope::default());
        for reads in 1..=20 {
            let job = tokio::time::timeout(5 * SECOND, instance.get(id)).await.unwrap();
            assert_eq!((shown(&job), instance.gets()), (shown(&system.truth(id).await), reads));
        }
    }
    system.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_falls_silent_is_done_without_until_it_is_back() {
    let system = System::new().await;
    let way = Way::to_redis().await;
    let instance = system.instance_with(&way.url, Envelope::default());
    let id = system.ended(succeeded("1")).await;
    instance.shares(id).await;
    // The connection stands, and nothing comes through.
    way.held.send_replace(true);
    for _ in 0..20 {
        let before = instance.gets();
        let job = tokio::time::timeout(5 * SECOND, instance.get(id)).await.unwrap();
        assert_eq!((job.state, instance.gets()), (State::Succeeded, before + 1));
    }
    way.held.send_replace(false);
    instance.shares(id).await;
    system.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_passed_over() {
    let mut system = System::new().await;
    let instance = system.at_work().await;
    let (id, other) = (system.ended(succeeded("mine")).await, system.ended(succeeded("other")).await);
    instance.shares(id).await;
    instance.shares(other).await;
    let (good, others) = (system.lying(id).await.unwrap(), system.lying(other).await.unwrap());
    let key = system.key(id).await;
    let truth = shown(&system.truth(id).await);
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let text = String::from_utf8_lossy(&good[48..]).into_owned();
    assert!(text.contains("\"mine\""), "{text}");
    let forged = [&good[..48], text.replace("mine", "ours").as_bytes()].concat();
    let mut tries = vec![vec![], b"{}".to_vec(), good[..47].to_vec(), good[..60].to_vec(), others, forged];
    tries.extend([0, 15, 16, 47, 48, good.len() - 1].map(changed));
    for garbage in tries {
        system.redis.set::<_, _, ()>(&key, &garbage).await.unwrap();
        assert_eq!(shown(&instance.get(id).await), truth, "{}", String::from_utf8_lossy(&garbage));
        // What the read has written.
        soon("the good entry", async { while system.lying(id).await.as_ref() != Some(&good) {} }).await;
    }
    // Something else altogether.
    system.redis.del::<_, ()>(&key).await.unwrap();
    system.redis.lpush::<_, _, ()>(&key, "a").await.unwrap();
    assert_eq!(shown(&instance.get(id).await), truth);
    system.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_in_the_store_is_sealed_in_redis() {
    let mut system = System::new().await;
    let key: EncryptionKey = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap();
    let envelope = || Envelope::new(vec![key.clone()], 1 << 20);
    let (one, other) =
        (system.instance_with(&redis(), envelope()), system.instance_with(&redis(), envelope()));
    let known = system.ended(succeeded("1")).await;
    other.shares(known).await;
    let id = system.insert().await;
    let secret = Some(to_raw_value("hunter2").unwrap());
    system.end(id, one.client.envelope().seal_result(id, secret, None).unwrap()).await;
    system.clock.advance(MINUTE);
    one.shares(id).await;
    let before = other.gets();
    assert_eq!(other.get(id).await.result.unwrap().get(), "\"hunter2\"");
    assert_eq!(other.gets(), before);
    let entry = String::from_utf8_lossy(&system.lying(id).await.unwrap()).into_owned();
    assert!(!entry.contains("hunter2") && entry.contains("$windlass"), "{entry}");
    // Nor is there anything by which someone could make entries.
    let secret = system.store.operations().system().await.unwrap();
    let uuid = secret.expose().split('/').next().unwrap();
    assert!(!entry.contains(uuid) && !system.key(id).await.contains(uuid));
    system.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn systems_that_share_a_redis_do_not_see_each_others_jobs() {
    let (one, other) = (System::new().await, System::new().await);
    let (near, far) = (one.at_work().await, other.at_work().await);
    let id = one.ended(succeeded("mine")).await;
    near.shares(id).await;
    assert!(far.client.get(id).await.unwrap().is_none());
    // A copy of the tables is another system, whatever number it has.
    let mut connection = one.scratch.connect().await;
    let copy = format!(
        "UPDATE {{schema}}.revision SET (number, system) = (SELECT number, system FROM {}.revision)",
        one.scratch.schema
    );
    other.scratch.run(&mut connection, &copy).await;
    let far = other.instance();
    assert!(far.client.get(id).await.unwrap().is_none());
    let mine = other.ended(succeeded("1")).await;
    far.shares(mine).await;
    assert!(far.client.get(id).await.unwrap().is_none());
    one.clear().await;
    other.clear().await;
}

#[tokio::test]
async fn an_edition_is_not_believed_once_its_history_has_changed() {
    let system = System::new().await;
    let instance = system.at_work().await;
    let id = system.ended(succeeded("1")).await;
    instance.shares(id).await;
    // As after a backup has been put back: the job had not ended then, and the number is the same.
    let mut connection = system.scratch.connect().await;
    let back = "UPDATE {schema}.jobs SET state = 0, finished_at = NULL, result = NULL; \
                UPDATE {schema}.revision SET number = number";
    system
        .scratch
        .run(&mut connection, &back.replace("state = 0", &format!("state = {}", State::Queued.code())))
        .await;
    assert_eq!(instance.get(id).await.state, State::Queued);
    system.clear().await;
}

#[tokio::test]
async fn what_is_shared_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // All that this test does runs on its thread.
    let _here = metrics::set_default_local_recorder(&recorder);
    let mut system = System::new().await;
    let instance = system.at_work().await;
    let id = system.ended(dead()).await;
    instance.shares(id).await;
    let value = |series: &str| -> f64 {
        let page = handle.render();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or(0.0)
    };
    let counts = || {
        [
            value(r#"windlass_reads_total{source="shared"}"#),
            value(r#"windlass_shared_reads_total{outcome="hit"}"#),
            value(r#"windlass_shared_reads_total{outcome="miss"}"#),
            value(r#"windlass_shared_reads_total{outcome="error"}"#),
        ]
    };
    let [reads, hits, misses, errors] = counts();
    assert!(reads > 0.0 && hits == reads && misses > 0.0 && errors == 0.0, "{}", handle.render());
    assert!(value(r#"windlass_shared_writes_total{outcome="stored"}"#) >= 2.0, "{}", handle.render());
    instance.get(id).await;
    assert_eq!(counts(), [reads + 1.0, hits + 1.0, misses, errors]);
    instance.client.get(JobId::new()).await.unwrap();
    assert_eq!(counts(), [reads + 1.0, hits + 1.0, misses + 1.0, errors]);
    system.redis.set::<_, _, ()>(system.key(id).await, "garbage").await.unwrap();
    instance.get(id).await;
    let [now_reads, .., now_misses, now_errors] = counts();
    assert!(now_reads == reads + 1.0 && now_misses + now_errors == misses + errors + 2.0);
    system.clear().await;
}

#[tokio::test]
async fn a_store_that_cannot_tell_its_editions_shares_nothing() {
    let mut api = Api::new().await;
    let options = ClientOptions {
        shared_reads: Some(SharedReads::open(&redis(), KEEP).unwrap()),
        ..ClientOptions::default()
    };
    let (store, broker) = (api.client.store().clone(), api.client.broker().clone());
    api.router = windlass_api::router(Client::new(store, broker, options), Default::default());
    let id = api.job().await;
    api.finish(id, dead()).await;
    for _ in 0..20 {
        assert_eq!(api.get(&format!("/v1/jobs/{id}")).await.json()["state"], "dead");
    }
}

#[test]
fn what_is_no_redis_is_refused_and_no_password_shown() {
    for (url, error) in [
        ("http://user:s3cret@host", SharedUrlError::Url),
        ("rediss://user:s3cret@host/#insecure", SharedUrlError::Insecure),
    ] {
        assert_eq!(SharedReads::open(url, KEEP).unwrap_err(), error);
    }
    let shown = format!("{:?}", SharedReads::open("redis://user:s3cret@host/1", KEEP).unwrap());
    assert!(!shown.contains("s3cret"), "{shown}");
}
