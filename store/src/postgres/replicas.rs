//! Streaming replicas, for reads that may be a little behind.
//!
//! How far one is behind is measured by positions in the primary's log: whoever asks for the primary's position and later finds
//! a replica beyond it knows that the replica has all that was committed before the question. That needs no clocks that
//! agree, holds on an idle server, and tells of a replica that is cut off, whose own view of its lag would be zero.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use sqlx::Row;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use windlass_core::StoreError;

use super::{PostgresStore, classify, connections::Connections};

/// How often positions are compared within the time that a replica may be behind.
const LOOKS: u32 = 10;
/// The least time between two looks, and the most that one takes.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How long after the last read that might have gone to a replica their positions are still compared.
const IDLE: Duration = Duration::from_secs(10);

const PRIMARY: &str = "
SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::int8, system_identifier FROM pg_control_system()";

/// Null where the server is not a replica at all.
const REPLICA: &str = "
SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::int8, system_identifier FROM pg_control_system()";

/// The replicas of one store.
pub(super) struct Replicas {
    replicas: Vec<Replica>,
    max_lag: Duration,
    next: AtomicUsize,
    /// When one was last asked for.
    wanted: Mutex<Instant>,
    begin: Arc<Notify>,
}

struct Replica {
    store: Arc<PostgresStore>,
    /// For people: the server, without the login.
    name: String,
    // Never held across an await.
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing is known yet, or no longer.
    Unknown,
    /// It has all that was committed before then.
    AsOf(Instant),
    /// It is of no use, which has been said.
    Useless,
}

/// Where the primary's log stood at a time or a little later.
struct Position {
    at: Instant,
    position: i64,
}

impl Replicas {
    /// Begins to measure, within a Tokio runtime, for as long as what it returns lives.
    pub(super) fn start(
        primary: Connections,
        replicas: Vec<(String, PostgresStore)>,
        max_lag: Duration,
    ) -> Option<Arc<Self>> {
        if replicas.is_empty() {
            return None;
        }
        let replica =
            |(name, store)| Replica { store: Arc::new(store), name, state: Mutex::new(State::Unknown) };
        let replicas = Arc::new(Self {
            replicas: replicas.into_iter().map(replica).collect(),
            max_lag,
            next: AtomicUsize::new(0),
            wanted: Mutex::new(Instant::now()),
            begin: Arc::default(),
        });
        tokio::spawn(measure(primary, Arc::downgrade(&replicas)));
        Some(replicas)
    }

    /// One that is near enough, in turns.
    pub(super) fn pick(&self) -> Option<Arc<PostgresStore>> {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.begin.notify_one();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.replicas.len();
        let near =
            |replica: &&Replica| matches!(replica.state(), State::AsOf(at) if at.elapsed() <= self.max_lag);
        let found = (0..count).map(|n| &self.replicas[first.wrapping_add(n) % count]).find(near)?;
        Some(found.store.clone())
    }

    fn idle(&self) -> bool {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > IDLE
    }

    async fn look(&self, primary: &Connections, positions: &mut VecDeque<Position>) {
        let at = Instant::now();
        let (position, system) = match ask(primary, PRIMARY).await {
            Ok((Some(position), system)) => (position, system),
            // Reads that the primary cannot answer either may still be answered by a replica that was near a moment ago.
            Ok((None, _)) => return,
            Err(error) => return tracing::debug!(%error, "the primary's position is not known"),
        };
        positions.push_back(Position { at, position });
        while positions.front().is_some_and(|oldest| oldest.at.elapsed() > self.max_lag) {
            positions.pop_front();
        }
        let positions = &*positions;
        join_all(self.replicas.iter().map(|replica| replica.look(system, positions, self.max_lag))).await;
    }
}

impl Replica {
    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, system: i64, positions: &VecDeque<Position>, max_lag: Duration) {
        let as_of = match ask(&self.store.connections, REPLICA).await {
            Ok((_, other)) if other != system => Err("it belongs to another primary".to_owned()),
            Ok((None, _)) => Err("it is not a streaming replica".to_owned()),
            Ok((Some(replayed), _)) => {
                let reached = positions.iter().rev().find(|past| past.position <= replayed);
                let watched = positions.front().map(|oldest| oldest.at.elapsed()).unwrap_or_default();
                match reached {
                    Some(past) => Ok(past.at),
                    // Too early to tell.
                    None if watched < max_lag / 2 => return,
                    None => Err(format!("it is more than {watched:?} behind")),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *state;
        *state = as_of.as_ref().map_or(State::Useless, |at| State::AsOf(*at));
        drop(state);
        match (before, as_of) {
            (State::Useless, Err(_)) => {}
            (_, Err(reason)) => {
                tracing::warn!(
                    replica = self.name,
                    reason,
                    "a replica of the store is not read from; the primary is"
                );
                metrics::gauge!("windlass_replica_lag_seconds", "replica" => self.name.clone())
                    .set(f64::INFINITY);
            }
            (before, Ok(at)) => {
                if matches!(before, State::Useless) {
                    tracing::info!(replica = self.name, "a replica of the store is read from again");
                }
                let lag = at.elapsed().as_secs_f64();
                metrics::gauge!("windlass_replica_lag_seconds", "replica" => self.name.clone()).set(lag);
            }
        }
    }
}

async fn measure(primary: Connections, replicas: Weak<Replicas>) {
    let mut positions = VecDeque::new();
    loop {
        let Some(replicas) = replicas.upgrade() else { return };
        if replicas.idle() {
            for replica in &replicas.replicas {
                *replica.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Unknown;
            }
            positions.clear();
            let begin = replicas.begin.clone();
            drop(replicas);
            let _ = timeout(IDLE, begin.notified()).await;
            continue;
        }
        replicas.look(&primary, &mut positions).await;
        let pause = (replicas.max_lag / LOOKS).clamp(LOOK.0, LOOK.1);
        drop(replicas);
        tokio::time::sleep(pause).await;
    }
}

async fn ask(connections: &Connections, statement: &'static str) -> Result<(Option<i64>, i64), StoreError> {
    let asked = async {
        let mut connection = connections.acquire().await?;
        // Without a name, as a pooler may be between.
        sqlx::query(statement).persistent(false).fetch_one(&mut *connection).await
    };
    let row = timeout(LOOK.1, asked).await.map_err(|_| StoreError::Timeout(LOOK.1))?;
    let row = row.map_err(classify)?;
    Ok((row.try_get(0).map_err(classify)?, row.try_get(1).map_err(classify)?))
}
