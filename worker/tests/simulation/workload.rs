//! What there is to do: jobs whose handlers do all that handlers do.

use std::collections::VecDeque;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use windlass_core::{Job, JobId, NewJob, Priority, RetryPolicy};

use crate::{
    history::JOBS,
    world::{Ms, timestamp},
};

/// What one run of a job's handler does after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    Succeed,
    Fail,
    Panic,
    Discard,
    RetryAfter(Ms),
    Snooze(Ms),
    /// Takes its process down.
    Crash,
}

/// A payload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// What each run does, and how long it takes; those after the last do as the last.
    pub runs: Vec<(Ms, Deed)>,
    /// Whether it stops when it is told to.
    pub heeds: bool,
    /// Under which fence the attempt was claimed: put in where the claim's answer arrives.
    #[serde(default)]
    pub fence: u32,
}

impl Job for Task {
    const KIND: &'static str = "sim.task";
    const RETRY: RetryPolicy = RetryPolicy::exponential(std::time::Duration::from_millis(200))
        .cap(std::time::Duration::from_secs(2));
}

/// What is asked of the API, and when.
#[derive(Debug, Clone)]
pub enum Wish {
    Accept(Box<NewJob>),
    Cancel(JobId),
}

impl Wish {
    pub fn job(&self) -> JobId {
        match self {
            Self::Accept(job) => job.id,
            Self::Cancel(id) => *id,
        }
    }
}

/// The wishes of a seed, soonest first, and the jobs.
pub fn wishes(rng: &mut Rng, over: Ms) -> VecDeque<(Ms, Wish)> {
    let mut wishes = Vec::new();
    for number in 1..=rng.u64(8..20) {
        let at = rng.u64(..over);
        let job = job(rng, number, at);
        if rng.u32(..6) == 0 {
            let asked = at + rng.u64(..4_000);
            wishes.push((asked, Wish::Cancel(job.id)));
        }
        wishes.push((at, Wish::Accept(Box::new(job))));
    }
    wishes.sort_by_key(|(at, _)| *at);
    wishes.into()
}

fn job(rng: &mut Rng, number: u64, at: Ms) -> NewJob {
    let task = Task { runs: runs(rng), heeds: rng.u32(..3) > 0, fence: 0 };
    let mut job = NewJob::new(Task::KIND.parse().unwrap(), to_raw_value(&task).unwrap());
    job.id = format!("{JOBS}{number:012}").parse().unwrap();
    job.max_attempts = rng.u32(1..8);
    job.priority = Priority::ALL[rng.usize(..4)];
    if rng.u32(..4) == 0 {
        job.run_at = Some(timestamp(at + rng.u64(..4_000)));
    }
    if rng.u32(..8) == 0 {
        job.timeout = Some(std::time::Duration::from_millis(rng.u64(50..2_000)));
    }
    if rng.u32(..8) == 0 {
        job.expires_at = Some(timestamp(at + rng.u64(..8_000)));
    }
    if rng.u32(..10) == 0 {
        job.deadline = Some(timestamp(at + rng.u64(..8_000)));
    }
    job
}

fn runs(rng: &mut Rng) -> Vec<(Ms, Deed)> {
    let takes = |rng: &mut Rng| match rng.u32(..20) {
        0..8 => 0,
        8..16 => rng.u64(1..300),
        16..19 => rng.u64(300..2_000),
        // Longer than the lease.
        _ => rng.u64(2_000..6_000),
    };
    let mut runs = Vec::new();
    for _ in 0..rng.usize(..4) {
        let deed = match rng.u32(..12) {
            0..5 => Deed::Fail,
            5 => Deed::Panic,
            6 => Deed::RetryAfter(rng.u64(..2_000)),
            7 => Deed::Snooze(rng.u64(..2_000)),
            8 => Deed::Crash,
            9 => Deed::Discard,
            _ => Deed::Succeed,
        };
        runs.push((takes(rng), deed));
    }
    // In the end it succeeds, mostly.
    let last = match rng.u32(..24) {
        0 => Deed::Fail,
        1 => Deed::Crash,
        2 => Deed::Discard,
        _ => Deed::Succeed,
    };
    runs.push((takes(rng), last));
    runs
}
