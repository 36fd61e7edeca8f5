//! What is written of gates, and of those who wait at them.

use std::collections::HashMap;
use std::future::Future;

use sqlx::Error;
use windlass_core::{Gating, JobId, Limit, State};

/// The books of the gates, inside of a transaction that nobody else is in.
pub(crate) trait Books: Send {
    fn rules(&mut self) -> impl Future<Output = Result<Rules, Error>> + Send;

    /// Those of these gates that hold something.
    fn gates(&mut self, keys: &[String]) -> impl Future<Output = Result<Vec<Gate>, Error>> + Send;
    /// Up to `limit` gates that are to be looked at by now.
    fn due_gates(&mut self, now: i64, limit: usize) -> impl Future<Output = Result<Vec<Gate>, Error>> + Send;
    fn write_gates(&mut self, used: &[Gate], idle: &[Gate])
    -> impl Future<Output = Result<(), Error>> + Send;
    fn write_slots(
        &mut self,
        left: &[(JobId, String)],
        taken: &[(JobId, String)],
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The line with these gates.
    fn find_line(&mut self, gates: &str) -> impl Future<Output = Result<Option<Line>, Error>> + Send;
    /// The first of the lines that wait at this gate.
    fn best_line(&mut self, gate: &str) -> impl Future<Output = Result<Option<Line>, Error>> + Send;
    fn add_line(&mut self, gates: &str, waits_at: &str) -> impl Future<Output = Result<i64, Error>> + Send;
    fn move_line(
        &mut self,
        line: i64,
        waits_at: &str,
        place: Place,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    fn drop_line(&mut self, line: i64) -> impl Future<Output = Result<(), Error>> + Send;
    /// Where a line waits, and its first job.
    fn first_in(&mut self, line: i64) -> impl Future<Output = Result<Option<(JobId, Place)>, Error>> + Send;

    /// Lets a job join a line; answers its number in the order of all.
    fn join(
        &mut self,
        job: JobId,
        urgency: i16,
        rank: i64,
        line: i64,
    ) -> impl Future<Output = Result<i64, Error>> + Send;
    /// Takes jobs out of their lines, through the gates or not. Those that are new get numbers, in this order.
    fn leave(&mut self, jobs: &[JobId], admitted: bool) -> impl Future<Output = Result<(), Error>> + Send;
    fn forget(&mut self, jobs: &[JobId]) -> impl Future<Output = Result<(), Error>> + Send;

    fn call(&mut self, job: JobId) -> impl Future<Output = Result<Option<Call>, Error>> + Send;
    fn share(&mut self, queue: &str, tenant: &str)
    -> impl Future<Output = Result<Option<i64>, Error>> + Send;
    fn write_shares(
        &mut self,
        shares: &HashMap<(String, String), i64>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// What operators and code have said.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub limits: HashMap<String, Limit>,
    pub queues: HashMap<String, QueueRule>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueRule {
    pub limit: Limit,
    pub window: Option<u32>,
}

#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub key: String,
    /// How many jobs are behind it.
    pub taken: u32,
    /// By when its bucket would be full again; a single number for all a bucket has to know.
    pub full_at: i64,
    /// When to look at it again, though nothing leaves it.
    pub next_at: Option<i64>,
    /// The rank of the newest job let through to a fair queue.
    pub rank: i64,
}

impl Gate {
    /// Whether it differs in nothing from one that was never used.
    pub(super) fn is_idle(&self, now: i64) -> bool {
        self.taken == 0 && self.next_at.is_none() && self.rank == 0 && self.full_at <= now
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub id: i64,
    pub gates: Vec<String>,
    pub waits_at: String,
    pub place: Place,
}

/// The order of jobs in a line, and of lines at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub urgency: i16,
    pub rank: i64,
    pub seq: i64,
}

/// What a job wants at the gates.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub id: JobId,
    pub queue: String,
    /// The smaller, the sooner.
    pub urgency: i16,
    pub gating: Gating,
}

impl Call {
    pub(super) fn order(&self) -> Option<String> {
        let key = self.gating.ordering_key.as_ref()?;
        Some(match &self.gating.tenant {
            // Each tenant has keys of its own. No key has a line break.
            Some(tenant) => format!("order:{tenant}\n{key}"),
            None => format!("order:{key}"),
        })
    }

    pub(super) fn queue(&self) -> String {
        format!("queue:{}", self.queue)
    }

    pub(super) fn share(&self) -> String {
        format!("share:{}", self.queue)
    }
}

/// A job of which something was noted, as it is now.
#[derive(Debug)]
pub(crate) struct Noted {
    pub call: Call,
    pub state: State,
    /// Whether it is through.
    pub admitted: bool,
    pub line: Option<i64>,
    pub slots: Vec<String>,
}
