//! The consumer group of each lane, and what is done with it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::future::try_join_all;
use redis::{Script, Value};
use windlass_core::{Lane, Priorities};

use super::DEADLINE;
use super::entry::{Entry, Place, array, entries};
use super::link::{Connection, Link};
use super::problem::{Problem, code};
use crate::rota::{Ask, Rota};

const GROUP: &str = "windlass";
/// Entries that one call of a script settles: Lua passes on a few thousand arguments at most.
const CHUNK: usize = 1_000;

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));
static ACKNOWLEDGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("acknowledge.lua")));
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("give_back.lua")));
static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("leave.lua")));
static DEPTH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("depth.lua")));

/// A consumer of some lanes.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) lanes: Vec<Lane>,
    /// Their names, as keys.
    keys: Vec<String>,
    /// New with every subscription: under a dead one's name, its entries would never look abandoned.
    consumer: String,
}

/// How many messages wait in `lane`.
pub(super) async fn depth(link: &Link, lane: &Lane) -> Result<u64, Problem> {
    let depth =
        |mut redis| async move { DEPTH.key(lane.to_string()).arg(GROUP).invoke_async(&mut redis).await };
    link.run(depth).await
}

impl Group {
    pub(super) fn new(lanes: &[Lane], priorities: Priorities) -> (Arc<Self>, Rota) {
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes, priorities);
        let keys = lanes.iter().map(ToString::to_string).collect();
        let consumer = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        (Arc::new(Self { lanes, keys, consumer }), rota)
    }

    /// Sees to it that the lanes exist.
    pub(super) async fn create(&self, link: &Link) -> Result<(), Problem> {
        let mut create = redis::Pipeline::new();
        for key in &self.keys {
            create.cmd("XGROUP").arg("CREATE").arg(key).arg(GROUP).arg("0").arg("MKSTREAM");
        }
        let count = create.len();
        if count == 0 {
            return Ok(());
        }
        let answers =
            link.run(|mut redis| async move { redis.send_packed_commands(&create, 0, count).await }).await?;
        for answer in answers {
            if let Value::ServerError(error) = answer
                && error.code() != "BUSYGROUP"
            {
                return Err(redis::RedisError::from(error).into());
            }
        }
        Ok(())
    }

    /// What the server has given this consumer, whether it arrived or not.
    pub(super) async fn pending(&self, link: &Link, on: &Connection) -> Result<Vec<Entry>, Problem> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("STREAMS");
        read.arg(&self.keys).arg(vec!["0"; self.keys.len()]);
        self.read(link, on, &read, DEADLINE).await
    }

    /// Takes entries from the lanes as asked for, at once, and with `abandoned` also those that someone left idle for this
    /// long.
    pub(super) async fn take(
        &self,
        link: &Link,
        on: &Connection,
        asks: &[Ask],
        abandoned: Option<Duration>,
    ) -> Result<Vec<Entry>, Problem> {
        let mut take = TAKE.prepare_invoke();
        let idle = abandoned.map_or(0, |idle| idle.as_millis() as u64);
        take.arg(GROUP).arg(&self.consumer).arg(idle);
        for ask in asks {
            take.key(&self.keys[ask.lane]).arg(ask.share);
        }
        let mut redis = on.redis.clone();
        let lists: Vec<Value> = link.run_on(on, DEADLINE, take.invoke_async(&mut redis)).await?;
        let mut found = Vec::new();
        for (ask, list) in asks.iter().zip(lists) {
            found.extend(entries(ask.lane, list).ok_or_else(misunderstood)?);
        }
        Ok(found)
    }

    /// Waits for up to `count` entries from each of these lanes.
    pub(super) async fn wait(
        &self,
        link: &Link,
        on: &Connection,
        lanes: &[usize],
        count: usize,
        patience: Duration,
    ) -> Result<Vec<Entry>, Problem> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(count);
        read.arg("BLOCK").arg(patience.as_millis() as u64).arg("STREAMS");
        for &lane in lanes {
            read.arg(&self.keys[lane]);
        }
        read.arg(vec![">"; lanes.len()]);
        self.read(link, on, &read, patience + DEADLINE).await
    }

    async fn read(
        &self,
        link: &Link,
        on: &Connection,
        command: &redis::Cmd,
        deadline: Duration,
    ) -> Result<Vec<Entry>, Problem> {
        let mut redis = on.redis.clone();
        let call = async {
            match command.query_async(&mut redis).await {
                // Somebody deleted a lane; the next take makes it anew.
                Err(error) if matches!(code(&error), "NOGROUP" | "UNBLOCKED") => Ok(Value::Nil),
                answer => answer,
            }
        };
        let answer = link.run_on(on, deadline, call).await?;
        let mut found = Vec::new();
        for stream in array(answer).ok_or_else(misunderstood)? {
            let pair = array(stream).and_then(|pair| <[Value; 2]>::try_from(pair).ok());
            let Some([Value::BulkString(key), list]) = pair else { return Err(misunderstood()) };
            let lane = self.keys.iter().position(|name| name.as_bytes() == key).ok_or_else(misunderstood)?;
            found.extend(entries(lane, list).ok_or_else(misunderstood)?);
        }
        Ok(found)
    }

    /// Settles entries for good.
    pub(super) async fn acknowledge(&self, link: &Link, places: &[Place]) -> Result<(), Problem> {
        self.settle(link, &ACKNOWLEDGE, places).await
    }

    pub(super) async fn give_back(&self, link: &Link, places: &[Place]) -> Result<(), Problem> {
        self.settle(link, &GIVE_BACK, places).await
    }

    /// Runs `script` on entries, lanes side by side.
    async fn settle(&self, link: &Link, script: &Script, places: &[Place]) -> Result<(), Problem> {
        let lanes = self.by_lane(places);
        let calls = lanes.iter().flat_map(|(key, ids)| {
            ids.chunks(CHUNK).map(move |ids| {
                link.run(move |mut redis| async move {
                    script.key(key).arg(GROUP).arg(ids).invoke_async::<()>(&mut redis).await
                })
            })
        });
        try_join_all(calls).await.map(drop)
    }

    /// Tells the server that entries are in living hands.
    pub(super) async fn touch(&self, link: &Link, places: &[Place]) -> Result<(), Problem> {
        let mut touch = redis::Pipeline::new();
        for (key, ids) in self.by_lane(places) {
            touch
                .cmd("XCLAIM")
                .arg(key)
                .arg(GROUP)
                .arg(&self.consumer)
                .arg(0)
                .arg(ids)
                .arg("JUSTID")
                .ignore();
        }
        let count = touch.len();
        // The answers tell which entries are gone: acknowledged after a take-over, or with their lane. Who holds
        // them finds out by settling them.
        let send = |mut redis: redis::aio::MultiplexedConnection| async move {
            redis.send_packed_commands(&touch, 0, count).await
        };
        if count == 0 { Ok(()) } else { link.run(send).await.map(drop) }
    }

    /// Gives back everything, and leaves the lanes.
    pub(super) async fn leave(&self, link: &Link) -> Result<(), Problem> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let leave = |mut redis| async move {
            LEAVE.key(&self.keys).arg(GROUP).arg(&self.consumer).invoke_async::<()>(&mut redis).await
        };
        link.run(leave).await
    }

    fn by_lane(&self, places: &[Place]) -> BTreeMap<&String, Vec<String>> {
        let mut lanes: BTreeMap<&String, Vec<String>> = BTreeMap::new();
        for place in places {
            lanes.entry(&self.keys[place.lane]).or_default().push(place.id());
        }
        lanes
    }
}

fn misunderstood() -> Problem {
    Problem::Outage("the broker's answer makes no sense".into())
}
