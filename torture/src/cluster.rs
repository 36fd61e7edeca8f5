//! Real servers, and the processes of Windlass before them, each pair with a proxy between.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};
use windlass_e2e::{Process, Services, free_port};

use crate::{
    Failure,
    disk::Disk,
    jobs::{LOG_VARIABLE, VERSION_VARIABLE},
    journal::{Event, Journal},
    plan::Process as Place,
    proxy::Proxy,
};

/// The schema of everything.
pub(crate) const SCHEMA: &str = "torture";
/// How often it is looked which processes have ended.
const WATCH: Duration = Duration::from_millis(20);
/// After how long one that ended by itself is started again, as what runs them in production would;
const RESTART: Duration = Duration::from_millis(500);
/// and if it ends soon each time, as a worker does that does not find its broker, the longest that this grows to.
const LONGEST_RESTART: Duration = Duration::from_secs(4);
/// How soon that is.
const SOON: Duration = Duration::from_secs(30);
/// How long a process may take to end in good order.
const PATIENCE: Duration = Duration::from_secs(25);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// What `scripts/services` knows, or `postgres`: then the store's database is the broker as well.
    pub(crate) broker: String,
    pub(crate) apis: usize,
    pub(crate) workers: usize,
    pub(crate) lease: Duration,
    /// Whether Postgres has a replica that each commit waits for.
    pub(crate) replica: bool,
    /// The library by which the processes' wall clocks can be set.
    pub(crate) faketime: Option<PathBuf>,
}

impl Shape {
    /// Kafka tells its clients where to come, so all of them come by the same proxy.
    pub(crate) fn one_link(&self) -> bool {
        self.broker == "kafka"
    }
}

pub(crate) struct Cluster {
    folder: PathBuf,
    shape: Shape,
    pub(crate) journal: Journal,
    /// The torture's own connections to Postgres, by a proxy to which nothing is done.
    pub(crate) pool: PgPool,
    own: Proxy,
    replica_url: Option<String>,
    slots: Vec<Slot>,
    lives: AtomicU32,
    /// Of the processes that are started from now on.
    version: AtomicU32,
    ending: AtomicBool,
    store_url: String,
    broker_url: Option<String>,
    pub(crate) database: Server,
    pub(crate) broker: Option<Server>,
    /// Of the database and its replica; unmounted after those have ended.
    pub(crate) disks: Vec<Disk>,
}

/// A server of `scripts/services`.
pub(crate) struct Server {
    pub(crate) services: Services,
    /// Whoever holds this does something to it.
    pub(crate) standing: Mutex<Standing>,
}

/// How things stand with a server.
pub(crate) struct Standing {
    pub(crate) name: String,
    /// When it was last ready.
    pub(crate) ready: Instant,
}

impl Server {
    fn new(services: Services, name: &str) -> Self {
        Self { services, standing: Mutex::new(Standing { name: name.to_owned(), ready: Instant::now() }) }
    }
}

/// The place of one process, which may live many times.
pub(crate) struct Slot {
    pub(crate) name: String,
    place: Place,
    /// Where an API listens.
    port: Option<u16>,
    /// Between it and its clients.
    pub(crate) front: Option<Proxy>,
    pub(crate) to_database: Arc<Proxy>,
    pub(crate) to_broker: Option<Arc<Proxy>>,
    life: Mutex<Life>,
}

/// The process of a slot.
#[derive(Default)]
pub(crate) struct Life {
    number: u32,
    process: Option<Process>,
    /// A fault keeps it down.
    pub(crate) down: bool,
    /// Not before.
    restart: Option<Instant>,
    since: Option<Instant>,
    /// Before it was started.
    pause: Duration,
}

impl Life {
    /// When to start one that has ended by itself.
    fn restart(&mut self) {
        let soon = self.since.is_some_and(|since| since.elapsed() < SOON);
        self.pause = if soon { (self.pause * 2).clamp(RESTART, LONGEST_RESTART) } else { RESTART };
        self.restart = Some(Instant::now() + self.pause);
    }
}

impl Cluster {
    /// Starts the servers, makes the tables, and starts the processes.
    pub(crate) async fn start(folder: &Path, shape: Shape) -> Result<Arc<Self>, Failure> {
        let journal = Journal::open(folder)?;
        let servers: &[&str] = if shape.replica { &["postgres", "replica"] } else { &["postgres"] };
        let disks = Disk::under(&folder.join("database"), servers)?;
        let database = Services::in_folder(&folder.join("database"));
        let store_url = database.up("postgres", &[]).await?;
        let database = Server::new(database, "postgres");
        let (mut broker, mut broker_url) = (None, None);
        let mut one_link = None;
        if shape.broker != "postgres" {
            let services = Services::in_folder(&folder.join("broker"));
            let mut environment = Vec::new();
            let advertised;
            if shape.one_link() {
                let proxy = Proxy::before(([127, 0, 0, 1], 1).into()).await?;
                advertised = proxy.address().port().to_string();
                environment.push(("WINDLASS_KAFKA_ADVERTISED_PORT", &*advertised));
                one_link = Some(Arc::new(proxy));
            }
            let url = services.up(&shape.broker, &environment).await?;
            if let Some(proxy) = &one_link {
                proxy.retarget(address(&url)?);
            }
            broker_url = Some(url);
            broker = Some(Server::new(services, &shape.broker));
        }
        let own = Proxy::before(address(&store_url)?).await?;
        let patience = Duration::from_secs(60);
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(patience);
        let pool = pool.connect_lazy(&through(&store_url, own.address())?)?;
        let mut replica_url = None;
        if shape.replica {
            replica_url = Some(add_replica(&pool, &database.services).await?);
        }
        let mut slots = Vec::new();
        let places = (0..shape.apis).map(Place::Api).chain((0..shape.workers).map(Place::Worker));
        for place in places {
            let (mut port, mut front) = (None, None);
            if let Place::Api(_) = place {
                let chosen = free_port()?;
                (port, front) = (Some(chosen), Some(Proxy::before(([127, 0, 0, 1], chosen).into()).await?));
            }
            let to_broker = match &broker_url {
                Some(_) if one_link.is_some() => one_link.clone(),
                Some(url) => Some(Arc::new(Proxy::before(address(url)?).await?)),
                None => None,
            };
            slots.push(Slot {
                name: place.to_string(),
                place,
                port,
                front,
                to_database: Arc::new(Proxy::before(address(&store_url)?).await?),
                to_broker,
                life: Mutex::default(),
            });
        }
        let cluster = Arc::new(Self {
            folder: folder.to_owned(),
            shape,
            journal,
            pool,
            own,
            replica_url,
            slots,
            lives: AtomicU32::new(0),
            version: AtomicU32::new(1),
            ending: AtomicBool::new(false),
            store_url,
            broker_url,
            database,
            broker,
            disks,
        });
        cluster.make_tables().await?;
        for slot in &cluster.slots {
            let mut life = slot.life.lock().await;
            cluster.spawn(slot, &mut life)?;
        }
        tokio::spawn(cluster.clone().watch());
        Ok(cluster)
    }

    async fn make_tables(&self) -> Result<(), Failure> {
        let mut command = self.command("migrate");
        command.env("WINDLASS_STORE_URL", &self.store_url).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            return Err(format!("migrate failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let statement = format!("CREATE TABLE {SCHEMA}.payments (job_id uuid NOT NULL, run uuid NOT NULL)");
        sqlx::query(AssertSqlSafe(statement)).execute(&self.pool).await?;
        Ok(())
    }

    fn command(&self, role: &str) -> Command {
        let program = std::env::current_exe().unwrap_or_else(|_| "windlass-torture".into());
        let mut command = Command::new(program);
        command.arg(role).current_dir(&self.folder).env("WINDLASS_STORE_SCHEMA", SCHEMA);
        let settings = [
            ("WORKER_LEASE", humantime::format_duration(self.shape.lease).to_string()),
            ("WORKER_CONCURRENCY", "40".to_owned()),
            // A kill takes one of a job's attempts, which is enough; whom nobody may run again is not what is tested.
            ("WORKER_CRASH_LIMIT", "1000".to_owned()),
            ("WORKER_GRACE", "5s".to_owned()),
            ("WORKER_ABORT_AFTER", "2s".to_owned()),
            ("REPUBLISH_AFTER", "2s".to_owned()),
            ("STORE_TIMEOUT", "5s".to_owned()),
            ("LOG", "info".to_owned()),
        ];
        command.envs(settings.map(|(name, value)| (format!("WINDLASS_{name}"), value)));
        command
    }

    fn spawn(&self, slot: &Slot, life: &mut Life) -> Result<(), Failure> {
        let number = self.lives.fetch_add(1, Ordering::Relaxed);
        let name = &slot.name;
        let mut command = match slot.port {
            Some(port) => {
                let mut command = self.command("api");
                command.args(["--listen", &format!("127.0.0.1:{port}")]);
                command
            }
            None => {
                let mut command = self.command("worker");
                command.env(LOG_VARIABLE, self.folder.join(effects_file(number)));
                command.env("WINDLASS_WORKER_LABEL", name);
                command.env(VERSION_VARIABLE, self.version.load(Ordering::Relaxed).to_string());
                command
            }
        };
        let store = through(&self.store_url, slot.to_database.address())?;
        let cut = if store.contains('?') { '&' } else { '?' };
        command.env("WINDLASS_STORE_URL", format!("{store}{cut}application_name={name}"));
        if let (Some(url), Some(proxy)) = (&self.broker_url, &slot.to_broker) {
            command.env("WINDLASS_BROKER_URL", through(url, proxy.address())?);
        }
        if let Some(library) = &self.shape.faketime {
            std::fs::write(self.clock_file(slot), "+0")?;
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", self.clock_file(slot));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        }
        let process = Process::spawn(command, &self.folder.join(format!("{name}.log")))?;
        let event = Event::Spawned { process: name.clone(), life: number, pid: process.pid() };
        self.journal.note(event);
        let (since, pause) = (Some(Instant::now()), life.pause);
        *life = Life { number, process: Some(process), since, pause, ..Life::default() };
        Ok(())
    }

    /// Notes which processes have ended, and starts those that are wanted.
    async fn watch(self: Arc<Self>) {
        while !self.ending.load(Ordering::Relaxed) {
            for slot in &self.slots {
                // A fault is at work at it.
                let Ok(mut life) = slot.life.try_lock() else { continue };
                if let Some(process) = &mut life.process {
                    if let Ok(Some(status)) = process.ended() {
                        self.journal.note(Event::Died { life: life.number, how: status.to_string() });
                        life.process = None;
                        life.restart();
                    }
                } else if !life.down
                    && life.restart.is_none_or(|at| Instant::now() >= at)
                    && let Err(error) = self.spawn(slot, &mut life)
                {
                    self.journal.say(format!("{} cannot be started: {error}", slot.name));
                    life.restart = Some(Instant::now() + RESTART);
                }
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    pub(crate) fn slot(&self, place: Place) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.place == place)
    }

    /// Where the clients find each API.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.slots.iter().filter_map(|slot| slot.front.as_ref()).map(Proxy::address).collect()
    }

    /// `kill -9`; the process stays down until [`Life::down`] is taken back.
    pub(crate) async fn kill(&self, slot: &Slot) {
        let mut life = slot.life.lock().await;
        life.down = true;
        self.end(&mut life);
    }

    fn end(&self, life: &mut Life) {
        if let Some(mut process) = life.process.take() {
            process.kill();
            self.journal.note(Event::Died { life: life.number, how: "killed".to_owned() });
        }
    }

    pub(crate) async fn life<'a>(&self, slot: &'a Slot) -> MutexGuard<'a, Life> {
        slot.life.lock().await
    }

    /// Stops the process of `slot` for a time, if it runs. It may be killed meanwhile.
    pub(crate) async fn freeze(&self, slot: &Slot, time: Duration) -> Result<(), Failure> {
        let number = {
            let life = slot.life.lock().await;
            let Some(process) = &life.process else { return Ok(()) };
            // Before, and below after: what is allowed to a frozen process is allowed a moment too long, not too short.
            self.journal.note(Event::Frozen { life: life.number });
            process.signal("STOP")?;
            life.number
        };
        tokio::time::sleep(time).await;
        let life = slot.life.lock().await;
        if let (Some(process), true) = (&life.process, life.number == number) {
            process.signal("CONT")?;
            self.journal.note(Event::Thawed { life: number });
        }
        Ok(())
    }

    fn clock_file(&self, slot: &Slot) -> PathBuf {
        self.folder.join(format!("{}.clock", slot.name))
    }

    /// Sets the wall clock of a slot's process apart from the machine's; it is noticed within a second.
    pub(crate) fn set_clock(&self, slot: &Slot, apart_seconds: i64) -> Result<(), Failure> {
        if self.shape.faketime.is_none() {
            return Err("libfaketime is not here: scripts/services install faketime".into());
        }
        Ok(std::fs::write(self.clock_file(slot), format!("{apart_seconds:+}"))?)
    }

    /// The id of a slot's process, while it lives.
    pub(crate) async fn pid(&self, slot: &Slot) -> Option<u32> {
        slot.life.lock().await.process.as_ref().map(Process::pid)
    }

    /// Whether processes of a new version may be there.
    pub(crate) fn is_new(&self) -> bool {
        self.version.load(Ordering::Relaxed) > 1
    }

    /// Replaces all processes by those of a new version, one after the other, as a deployment does.
    pub(crate) async fn roll(&self) -> Result<(), Failure> {
        self.version.fetch_add(1, Ordering::Relaxed);
        // Workers before what enqueues.
        for slot in self.slots.iter().rev() {
            let mut life = slot.life.lock().await;
            if let Some(process) = &life.process {
                process.signal("TERM")?;
            }
            self.ended(slot, &mut life, Instant::now() + PATIENCE).await;
            if !life.down {
                self.spawn(slot, &mut life)?;
            }
        }
        Ok(())
    }

    /// Waits for a process that has been told to end, and kills it if it does not.
    async fn ended(&self, slot: &Slot, life: &mut Life, patience: Instant) {
        while let Some(process) = &mut life.process {
            if let Ok(Some(status)) = process.ended() {
                self.journal.note(Event::Died { life: life.number, how: status.to_string() });
                life.process = None;
            } else if Instant::now() >= patience {
                self.journal.say(format!("{} did not end within {PATIENCE:?} of SIGTERM", slot.name));
                self.end(life);
            } else {
                tokio::time::sleep(WATCH).await;
            }
        }
    }

    /// Where to publish past all processes and proxies.
    pub(crate) fn publish_url(&self) -> String {
        // Where the store delivers, that is the schema it does so in.
        self.broker_url.clone().unwrap_or_else(|| {
            let url = self.own_store_url();
            let mark = if url.contains('?') { '&' } else { '?' };
            format!("{url}{mark}schema={SCHEMA}_broker")
        })
    }

    /// The database's URL by the proxy to which nothing is done.
    pub(crate) fn own_store_url(&self) -> String {
        through(&self.store_url, self.own.address()).unwrap_or_else(|_| self.store_url.clone())
    }

    /// Makes the replica the database of all, as whoever watches over a real one would. The old one must be down.
    pub(crate) async fn fail_over(&self) -> Result<(), Failure> {
        let url = self.replica_url.as_ref().ok_or("there is no replica")?;
        let replica = PgPoolOptions::new().max_connections(1).connect(url).await?;
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote(true, 60)").fetch_one(&replica).await?;
        replica.close().await;
        if !promoted {
            return Err("the replica was not promoted within a minute".into());
        }
        let target = address(url)?;
        for proxy in self.slots.iter().map(|slot| &*slot.to_database).chain([&self.own]) {
            proxy.retarget(target);
        }
        Ok(())
    }

    /// Has the database commit without its replica.
    pub(crate) async fn stand_alone(&self) -> Result<(), Failure> {
        sqlx::query("ALTER SYSTEM RESET synchronous_standby_names").execute(&self.pool).await?;
        sqlx::query("SELECT pg_reload_conf()").execute(&self.pool).await?;
        Ok(())
    }

    /// Ends all processes in good order, and kills those that do not end.
    pub(crate) async fn end_processes(&self) {
        self.ending.store(true, Ordering::Relaxed);
        for slot in &self.slots {
            if let Some(process) = &slot.life.lock().await.process {
                let _ = process.signal("TERM");
            }
        }
        let patience = Instant::now() + PATIENCE;
        for slot in &self.slots {
            let mut life = slot.life.lock().await;
            self.ended(slot, &mut life, patience).await;
        }
    }
}

/// Adds a replica that each commit waits for, so that it has all that was ever confirmed.
async fn add_replica(pool: &PgPool, services: &Services) -> Result<String, Failure> {
    // Its settings are a copy of the primary's. Else it would wait for five seconds before it looks for a primary again.
    sqlx::query("ALTER SYSTEM SET wal_retrieve_retry_interval = '200ms'").execute(pool).await?;
    let url = services.up("replica", &[]).await?;
    sqlx::query("ALTER SYSTEM SET synchronous_standby_names = '*'").execute(pool).await?;
    sqlx::query("SELECT pg_reload_conf()").execute(pool).await?;
    Ok(url)
}

/// The log of effects of a worker's life.
pub(crate) fn effects_file(life: u32) -> String {
    format!("effects-{life}.jsonl")
}

/// Where in a server's URL its address is: all of them are on this machine.
fn place(url: &str) -> Result<std::ops::Range<usize>, Failure> {
    let host = "127.0.0.1:";
    let start = url.find(host).ok_or_else(|| format!("no {host} in the URL of a server"))?;
    let digits = url[start + host.len()..].bytes().take_while(u8::is_ascii_digit).count();
    Ok(start..start + host.len() + digits)
}

pub(crate) fn address(url: &str) -> Result<SocketAddr, Failure> {
    Ok(url[place(url)?].parse()?)
}

/// The URL with another address in it.
fn through(url: &str, address: SocketAddr) -> Result<String, Failure> {
    let mut url = url.to_owned();
    url.replace_range(place(&url)?, &address.to_string());
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_in_a_url_is_found_and_replaced() {
        let url = "sqs://us-east-1?endpoint=http://127.0.0.1:9324&wait=1";
        assert_eq!(address(url).unwrap(), ([127, 0, 0, 1], 9324).into());
        let other = through(url, ([127, 0, 0, 1], 81).into()).unwrap();
        assert_eq!(other, "sqs://us-east-1?endpoint=http://127.0.0.1:81&wait=1");
        assert!(address("postgres://elsewhere/x").is_err());
    }
}
