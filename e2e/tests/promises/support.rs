//! A cluster of real processes over real servers, under a schema and a queue of its own.

use std::{
    future::Future,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, Row};
use uuid::Uuid;
pub(crate) use windlass_e2e::Process;
use windlass_e2e::{Services, free_port};

/// How long anything that must come may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Cluster {
    pub(crate) pool: PgPool,
    pub(crate) schema: String,
    pub(crate) http: reqwest::Client,
    environment: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// An empty cluster on the shared RabbitMQ. `settings` are `WINDLASS_` variables without the prefix.
    pub(crate) async fn new(settings: &[(&str, &str)]) -> Self {
        Self::on(&server("WINDLASS_TEST_RABBITMQ_URL"), settings).await
    }

    /// An empty cluster on the RabbitMQ at `broker_url`.
    pub(crate) async fn on(broker_url: &str, settings: &[(&str, &str)]) -> Self {
        let schema = format!("e2e_{}", Uuid::new_v4().simple());
        let store_url = server("WINDLASS_TEST_POSTGRES_URL");
        // The test's own connections are not to be among those it cuts.
        let pool = PgPool::connect(&store_url).await.unwrap();
        let cut = if store_url.contains('?') { '&' } else { '?' };
        let mut environment = vec![
            ("STORE_URL".to_owned(), format!("{store_url}{cut}application_name={schema}")),
            ("STORE_SCHEMA".to_owned(), schema.clone()),
            ("BROKER_URL".to_owned(), broker_url.to_owned()),
            ("WORKER_QUEUES".to_owned(), schema.clone()),
            // Longer than a busy machine stalls: a worker that loses its lease runs its jobs again, rightly.
            ("WORKER_LEASE".to_owned(), "15s".to_owned()),
            ("WORKER_CONCURRENCY".to_owned(), "20".to_owned()),
            ("REPUBLISH_AFTER".to_owned(), "2s".to_owned()),
            ("LOG".to_owned(), "info".to_owned()),
        ];
        environment.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let folder = tempfile::tempdir().unwrap();
        // Among the features of this build is one by which reqwest leaves the choice to the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = Self { pool, schema, http: reqwest::Client::new(), environment, folder };

        let migrated = cluster.command(&["migrate"]).output().unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
        cluster.execute("CREATE TABLE {schema}.trail (job_id uuid, attempt int, what text, pid bigint, at timestamptz DEFAULT clock_timestamp())").await;
        cluster.execute("CREATE TABLE {schema}.payments (job_id uuid, amount bigint)").await;
        cluster
    }

    /// Gives the processes started from now on another value of a setting.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts an API process and waits until it answers.
    pub(crate) async fn api(&self) -> Api {
        let port = free_port().unwrap();
        let api = Api { url: format!("http://127.0.0.1:{port}"), port, process: self.start_api(port) };
        self.api_ready(&api).await;
        api
    }

    /// Starts the API process again at the same address.
    pub(crate) async fn restart_api(&self, api: &mut Api) {
        api.process.kill();
        api.process = self.start_api(api.port);
        self.api_ready(api).await;
    }

    fn start_api(&self, port: u16) -> Process {
        self.spawn("api", &["api", "--listen", &format!("127.0.0.1:{port}")])
    }

    async fn api_ready(&self, api: &Api) {
        until("the API answers", || async {
            let answer = self.http.get(format!("{}/readyz", api.url)).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    /// Starts a worker process and waits until it is registered.
    pub(crate) async fn worker(&self) -> Process {
        let before = self.workers().await;
        let process = self.spawn("worker", &["worker"]);
        // Others may be declared dead meanwhile.
        until("the worker is registered", || async {
            self.workers().await.iter().any(|worker| !before.contains(worker))
        })
        .await;
        process
    }

    async fn workers(&self) -> Vec<Uuid> {
        let rows = sqlx::query(self.sql("SELECT id FROM {schema}.workers")).fetch_all(&self.pool).await;
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Starts a worker process without waiting for anything.
    pub(crate) fn spawn_worker(&self) -> Process {
        self.spawn("worker", &["worker"])
    }

    /// The body of an enqueue of `payload` under `kind` into this cluster's queue.
    pub(crate) fn job(&self, kind: &str, payload: Value) -> Value {
        json!({"kind": kind, "queue": self.schema, "payload": payload})
    }

    /// Enqueues, and answers the id if, and only if, the API said 202.
    pub(crate) async fn enqueue(&self, api: &Api, body: &Value) -> Option<Uuid> {
        let answer = self.http.post(format!("{}/v1/jobs", api.url)).json(body).send().await.ok()?;
        if answer.status() != 202 {
            return None;
        }
        // The answer counts once its status line is here: that is when a client believes it.
        let location = answer.headers().get("location")?.to_str().ok()?.to_owned();
        Some(location.rsplit('/').next()?.parse().unwrap())
    }

    /// Enqueues `count` jobs, some at a time, and answers the ids accepted.
    pub(crate) async fn enqueue_many(&self, api: &Api, body: &Value, count: usize) -> Vec<Uuid> {
        use futures::StreamExt as _;
        let ids = futures::stream::iter(0..count).map(|_| self.enqueue(api, body)).buffer_unordered(50);
        ids.filter_map(std::future::ready).collect().await
    }

    /// The job as the API shows it.
    pub(crate) async fn get(&self, api: &Api, id: Uuid) -> Value {
        let answer = self.http.get(format!("{}/v1/jobs/{id}", api.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Waits until each of `ids` has succeeded.
    pub(crate) async fn all_succeed(&self, ids: &[Uuid]) {
        self.all_reach(ids, &[4]).await;
    }

    /// Waits until each of `ids` is in one of the states with these codes.
    pub(crate) async fn all_reach(&self, ids: &[Uuid], codes: &[i16]) {
        let statement = "SELECT state, count(*) FROM {schema}.jobs WHERE id = ANY($1) GROUP BY state";
        let started = Instant::now();
        loop {
            let rows = sqlx::query(self.sql(statement)).bind(ids).fetch_all(&self.pool).await.unwrap();
            let states: Vec<(i16, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            let there: i64 = states.iter().filter(|(code, _)| codes.contains(code)).map(|(_, n)| n).sum();
            if there == i64::try_from(ids.len()).unwrap() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "of {} jobs, by state: {states:?}", ids.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How often the handlers of these jobs have started.
    pub(crate) async fn starts(&self, ids: &[Uuid]) -> i64 {
        self.trail("start", ids).await
    }

    /// How often the handlers of these jobs ran to their end.
    pub(crate) async fn ends(&self, ids: &[Uuid]) -> i64 {
        self.trail("end", ids).await
    }

    async fn trail(&self, what: &str, ids: &[Uuid]) -> i64 {
        let statement = self.sql("SELECT count(*) FROM {schema}.trail WHERE what = $1 AND job_id = ANY($2)");
        sqlx::query(statement).bind(what).bind(ids).fetch_one(&self.pool).await.unwrap().get(0)
    }

    /// Cuts every connection that the cluster's processes have to Postgres; answers how many.
    pub(crate) async fn cut_connections(&self) -> i64 {
        sqlx::query(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1",
        )
        .bind(&self.schema)
        .fetch_one(&self.pool)
        .await
        .unwrap()
        .get(0)
    }

    pub(crate) async fn count(&self, statement: &str) -> i64 {
        sqlx::query(self.sql(statement)).fetch_one(&self.pool).await.unwrap().get(0)
    }

    pub(crate) async fn execute(&self, statement: &str) {
        sqlx::query(self.sql(statement)).execute(&self.pool).await.unwrap();
    }

    pub(crate) fn sql(&self, statement: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(statement.replace("{schema}", &self.schema))
    }

    /// What the processes started as `name` have logged, all together.
    pub(crate) fn logs(&self, name: &str) -> String {
        let mut logs = String::new();
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)) {
                logs += &std::fs::read_to_string(path).unwrap();
            }
        }
        logs
    }

    /// Removes what the test left on the servers. After a failure it stays, to be looked at.
    pub(crate) async fn clean_up(self) {
        let broker = windlass::driver::open_broker(&self.setting("BROKER_URL")).await.unwrap();
        self.delete_lanes(&*broker).await;
        broker.close().await;
        self.execute("DROP SCHEMA {schema} CASCADE").await;
    }

    /// Deletes the lanes of the test's queue, as often as it takes a server that is kept busy.
    pub(crate) async fn delete_lanes(&self, broker: &dyn windlass::driver::Broker) {
        let lanes: Vec<_> = windlass::driver::Lane::of(&self.schema.parse().unwrap()).collect();
        until("the lanes are deleted", || async {
            match broker.delete(&lanes).await {
                Err(error) if error.retryable() => false,
                answer => {
                    answer.unwrap();
                    true
                }
            }
        })
        .await;
    }

    /// A setting of the cluster's processes.
    pub(crate) fn setting(&self, name: &str) -> String {
        let setting = self.environment.iter().rev().find(|(key, _)| key == name);
        setting.map(|(_, value)| value.clone()).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass-e2e"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (format!("WINDLASS_{name}"), value)));
        command
    }

    /// Runs a process to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        self.run_on(&self.setting("BROKER_URL"), arguments).await
    }

    /// Runs a process with another broker to its end.
    pub(crate) async fn run_on(&self, broker_url: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.env("WINDLASS_BROKER_URL", broker_url);
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> Process {
        let log = self.folder.path().join(format!("{name}-{}.log", Uuid::new_v4().simple()));
        Process::spawn(self.command(arguments), &log).unwrap()
    }
}

pub(crate) struct Api {
    pub(crate) url: String,
    port: u16,
    pub(crate) process: Process,
}

/// Waits for a process to end by itself, and answers whether it ended well.
pub(crate) async fn ends_well(process: &mut Process) -> bool {
    let started = Instant::now();
    loop {
        if let Some(status) = process.ended().unwrap() {
            return status.success();
        }
        assert!(started.elapsed() < PATIENCE, "the process does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server of the test's own, to be stopped, killed and wiped.
pub(crate) struct Server {
    name: &'static str,
    // Taken down before the folder goes.
    services: Services,
    _folder: tempfile::TempDir,
    pub(crate) url: String,
}

impl Server {
    /// Starts a RabbitMQ with these lines added to its configuration.
    pub(crate) async fn rabbitmq(configuration: &'static str) -> Self {
        let environment = [
            ("WINDLASS_RABBITMQ_CONF", configuration),
            // How often timeouts are looked for; once a minute by default. The configuration file has no key for it.
            ("RABBITMQ_SERVER_START_ARGS", "-rabbit channel_tick_interval 500"),
        ];
        Self::start("rabbitmq", &environment).await
    }

    /// Starts what `scripts/services` knows as `name`.
    pub(crate) async fn start(name: &'static str, environment: &[(&'static str, &'static str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let services = Services::in_folder(&folder.path().join("servers"));
        let url = services.up(name, environment).await.unwrap();
        Self { name, services, _folder: folder, url }
    }

    /// The URL of another server in the same folder, which is started unless it runs.
    pub(crate) async fn beside(&self, name: &str) -> String {
        self.services.up(name, &[]).await.unwrap()
    }

    /// Does `action` (`start`, `stop`, `kill`, `wipe`, `settle`) to the server.
    pub(crate) async fn order(&self, action: &str) {
        self.services.order(action, self.name).await.unwrap();
    }
}

/// Waits for a condition, as long as anyone would.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run the tests by scripts/test"))
}
