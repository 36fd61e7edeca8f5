//! Schedules, with schedulers that are killed at the tick: each tick fires once.

use std::collections::HashMap;

use serde_json::json;
use uuid::Uuid;

use crate::support::{Cluster, Process, until};

/// When the leader is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The tick has come, and the leader is about to see it.
    Due,
    /// Its transaction is open.
    Amid,
    /// It has committed.
    After,
}

/// Notes which ticks each transaction fires for and which jobs it makes, and gives it time to be caught.
const NOTES: [&str; 6] = [
    "CREATE TABLE {schema}.fired (transaction xid8, first timestamptz, last timestamptz)",
    "CREATE TABLE {schema}.made (transaction xid8, job_id uuid)",
    "CREATE FUNCTION {schema}.note_fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         IF NEW.last_at IS DISTINCT FROM OLD.last_at THEN
             INSERT INTO {schema}.fired VALUES (pg_current_xact_id(), OLD.next_at, NEW.last_at);
             PERFORM pg_sleep(0.2);
         END IF;
         RETURN NULL;
     END $$",
    "CREATE FUNCTION {schema}.note_made() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         INSERT INTO {schema}.made VALUES (pg_current_xact_id(), NEW.id);
         RETURN NULL;
     END $$",
    "CREATE TRIGGER note_fired AFTER UPDATE ON {schema}.schedules
     FOR EACH ROW EXECUTE FUNCTION {schema}.note_fired()",
    "CREATE TRIGGER note_made AFTER INSERT ON {schema}.jobs FOR EACH ROW EXECUTE FUNCTION {schema}.note_made()",
];

struct Schedulers {
    cluster: Cluster,
    /// By their labels.
    workers: HashMap<String, Process>,
    started: usize,
}

impl Schedulers {
    async fn start_one(&mut self) {
        let label = format!("scheduler-{}", self.started);
        self.started += 1;
        self.cluster.set("WORKER_LABEL", &label);
        let process = self.cluster.worker().await;
        self.workers.insert(label, process);
    }

    /// The label of the scheduler that leads, once it does and has fired for a tick.
    async fn leader(&self) -> String {
        loop {
            let fired = self.fired().await;
            until("a leader has fired", || async { self.fired().await > fired }).await;
            let leader = "SELECT w.label FROM {schema}.leases l JOIN {schema}.workers w ON w.id = l.holder
                          WHERE l.name = 'maintenance' AND l.expires_at > clock_timestamp()";
            let leader = sqlx::query_scalar::<_, String>(self.cluster.sql(leader));
            let leader = leader.fetch_optional(&self.cluster.pool).await.unwrap();
            if let Some(leader) = leader.filter(|label| self.workers.contains_key(label)) {
                return leader;
            }
        }
    }

    /// How many transactions have fired.
    async fn fired(&self) -> i64 {
        self.cluster.count("SELECT count(*) FROM {schema}.fired").await
    }

    async fn wait_for(&self, moment: Moment) {
        let fired = self.fired().await;
        until("the moment has come", || async {
            let there = match moment {
                Moment::Due => "SELECT count(*) FROM {schema}.schedules WHERE next_at <= clock_timestamp()",
                Moment::Amid => {
                    "SELECT count(*) FROM pg_locks
                     WHERE relation = '{schema}.fired'::regclass AND mode = 'RowExclusiveLock' AND granted"
                }
                Moment::After => return self.fired().await > fired,
            };
            self.cluster.count(there).await > 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tick_fires_once_while_leaders_are_killed_at_it() {
    let folder = tempfile::tempdir().unwrap();
    let broker = format!("sqlite:{}", folder.path().join("broker.db").display());
    let cluster = Cluster::on(&broker, &[("WORKER_LEASE", "2s"), ("WORKER_CRASH_LIMIT", "100")]).await;
    for statement in NOTES {
        cluster.execute(statement).await;
    }
    let api = cluster.api().await;
    let mut schedulers = Schedulers { cluster, workers: HashMap::new(), started: 0 };
    for _ in 0..3 {
        schedulers.start_one().await;
    }
    let mut job = schedulers.cluster.job("e2e.work", json!({}));
    job["max_attempts"] = json!(20);
    let schedule = json!({"cron": "* * * * * *", "zone": "UTC", "missed": "all", "job": job});
    let url = format!("{}/v1/schedules/second", api.url);
    let answer = schedulers.cluster.http.put(&url).json(&schedule).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());

    let mut killed = Vec::new();
    for moment in [Moment::Due, Moment::Amid, Moment::After, Moment::Amid] {
        let leader = schedulers.leader().await;
        schedulers.wait_for(moment).await;
        schedulers.workers.remove(&leader).expect("those that are dead do not lead").kill();
        killed.push(leader);
        schedulers.start_one().await;
    }
    schedulers.leader().await;
    let disabled = schedulers.cluster.http.post(format!("{url}/disable")).send().await.unwrap();
    assert!(disabled.status().is_success());

    // Each transaction made as many jobs as it passed ticks; they follow each other without a gap, and never overlap.
    let cluster = &schedulers.cluster;
    let uneven = "SELECT count(*) FROM {schema}.fired f
        WHERE (SELECT count(*) FROM {schema}.made m WHERE m.transaction = f.transaction)
            <> extract(epoch FROM f.last - f.first)::int8 + 1";
    assert_eq!(cluster.count(uneven).await, 0);
    let ticks =
        "FROM {schema}.fired f CROSS JOIN LATERAL generate_series(f.first, f.last, '1 second') t (tick)";
    let [fired, different, span, jobs] = [
        format!("SELECT count(*) {ticks}"),
        format!("SELECT count(DISTINCT tick) {ticks}"),
        "SELECT extract(epoch FROM max(last) - min(first))::int8 + 1 FROM {schema}.fired".to_owned(),
        "SELECT count(*) FROM {schema}.jobs".to_owned(),
    ];
    let fired = cluster.count(&fired).await;
    assert_eq!(cluster.count(&different).await, fired, "a tick has fired twice");
    assert_eq!(cluster.count(&span).await, fired, "a tick has not fired");
    assert_eq!(cluster.count(&jobs).await, fired);
    assert!(fired >= 10, "{fired} ticks in which {killed:?} were killed");
    let ids = sqlx::query_scalar::<_, Uuid>(cluster.sql("SELECT id FROM {schema}.jobs"));
    cluster.all_succeed(&ids.fetch_all(&cluster.pool).await.unwrap()).await;
    drop(schedulers.workers);
    schedulers.cluster.clean_up().await;
}
