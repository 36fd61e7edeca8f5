//! The store's tables in memory, and what each call does to them: small, and by the state table of core alone. That it does
//! what the real ones do is shown by their conformance suite.

mod attempts;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::value::RawValue;
use windlass_core::{
    CancelOutcome, ClaimId, ErrorRecord, Event, InsertOutcome, Inserted, JobId, JobRecord, KindInfo, Lane,
    Message, NewJob, OutboxGroup, OutboxId, State, StoreError, Timestamp, WorkerId,
};

/// How long the process that accepted a group has to publish it, before a relay does.
const GRACE: Duration = Duration::from_secs(5);
/// How long a group that a relay has taken is left alone by others.
const TAKEN: Duration = Duration::from_secs(10);
/// When the timer of a job that is running is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Everything that a store keeps.
#[derive(Debug, Default)]
pub struct Tables {
    /// The store's clock.
    pub now: Timestamp,
    jobs: BTreeMap<JobId, Row>,
    outbox: BTreeMap<OutboxId, Group>,
    last_group: i64,
    /// In the order in which they registered: their ids are random.
    workers: Vec<WorkerRow>,
    claims: BTreeMap<ClaimId, (WorkerId, Vec<JobId>)>,
    leases: BTreeMap<String, (WorkerId, Timestamp)>,
    kinds: BTreeMap<String, KindInfo>,
    /// When to look whether a job is over by its expiry, or (`true`) its deadline.
    timers: BTreeMap<(JobId, bool), Timestamp>,
    revision: u64,
    /// Every change of a state, oldest first.
    pub steps: Vec<Step>,
    /// Every request to cancel a job that was not over.
    pub requests: Vec<(Timestamp, JobId)>,
}

/// A change of a job's state.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub at: Timestamp,
    pub job: JobId,
    pub from: State,
    pub event: Event,
    pub to: State,
    /// The job's fence, after it.
    pub fence: u32,
    /// The attempt as the user counts it, after it.
    pub attempt: u32,
}

#[derive(Debug)]
struct Row {
    new: NewJob,
    state: State,
    fence: u32,
    uncounted: u32,
    crashes: u32,
    created_at: Timestamp,
    run_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    cancel_requested: bool,
    result: Option<Box<RawValue>>,
    result_until: Option<Timestamp>,
    errors: Vec<ErrorRecord>,
    worker: Option<WorkerId>,
}

#[derive(Debug)]
struct Group {
    created_at: Timestamp,
    due_at: Timestamp,
    published: bool,
    jobs: Vec<JobId>,
}

#[derive(Debug)]
struct WorkerRow {
    id: WorkerId,
    label: String,
    lease: Duration,
    /// `None`: it has said goodbye.
    heard_of: Option<Timestamp>,
}

impl Row {
    fn attempt(&self) -> u32 {
        self.fence - self.uncounted
    }

    /// Whether it was not started in time, and in which way.
    fn is_over(&self, now: Timestamp) -> Option<&'static str> {
        let past = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if past(self.new.deadline) {
            return Some("expired: its deadline passed");
        }
        (past(self.new.expires_at) && self.attempt() == 0).then_some("expired: it was not started in time")
    }
}

impl Tables {
    fn after(&self, time: Duration) -> Timestamp {
        let time = chrono::TimeDelta::from_std(time).ok();
        time.and_then(|time| self.now.checked_add_signed(time)).unwrap_or(Timestamp::MAX_UTC)
    }

    fn before(&self, time: Duration) -> Timestamp {
        let time = chrono::TimeDelta::from_std(time).ok();
        time.and_then(|time| self.now.checked_sub_signed(time)).unwrap_or(Timestamp::MIN_UTC)
    }

    /// Moves a job as the state table says, if it allows that.
    fn step(&mut self, id: JobId, event: Event) -> Option<State> {
        let row = self.jobs.get_mut(&id)?;
        let (from, to) = (row.state, row.state.after(event)?);
        row.state = to;
        row.finished_at = to.is_terminal().then_some(self.now);
        if !matches!(to, State::Scheduled | State::Retrying) {
            row.run_at = None;
        }
        let (fence, attempt) = (row.fence, row.attempt());
        self.steps.push(Step { at: self.now, job: id, from, event, to, fence, attempt });
        Some(to)
    }

    fn announce(&mut self, jobs: Vec<JobId>, grace: Duration) -> Option<OutboxId> {
        if jobs.is_empty() {
            return None;
        }
        self.last_group += 1;
        let id = OutboxId(self.last_group);
        let group = Group { created_at: self.now, due_at: self.after(grace), published: false, jobs };
        self.outbox.insert(id, group);
        Some(id)
    }

    fn note_error(&mut self, id: JobId, worker: Option<WorkerId>, message: String) {
        let label = |id: WorkerId| {
            self.workers.iter().find(|row| row.id == id).map_or(id.to_string(), |row| row.label.clone())
        };
        let worker = worker.map(label).unwrap_or_default();
        let at = self.now;
        if let Some(row) = self.jobs.get_mut(&id) {
            row.errors.push(ErrorRecord { attempt: row.attempt(), at, worker, message });
        }
    }

    fn set_timers(&mut self, id: JobId) {
        let Some(row) = self.jobs.get(&id) else { return };
        let times = [(false, row.new.expires_at), (true, row.new.deadline)];
        for (deadline, at) in times {
            if let Some(at) = at {
                self.timers.insert((id, deadline), at);
            }
        }
    }

    // ---- accept and read ----

    /// Refuses jobs that have what is not simulated.
    pub fn insert(&mut self, jobs: &[NewJob]) -> Result<Inserted, StoreError> {
        if let Some(what) = jobs.iter().find_map(extra) {
            return Err(crate::absent::not_simulated(what));
        }
        let now = self.now;
        let mut queued = Vec::new();
        for job in jobs {
            if self.jobs.contains_key(&job.id) {
                continue;
            }
            let state = job.first_state(now);
            let row = Row {
                new: job.clone(),
                state,
                fence: 0,
                uncounted: 0,
                crashes: 0,
                created_at: now,
                run_at: job.run_at.filter(|_| state == State::Scheduled),
                started_at: None,
                finished_at: None,
                cancel_requested: false,
                result: None,
                result_until: None,
                errors: Vec::new(),
                worker: None,
            };
            self.jobs.insert(job.id, row);
            self.set_timers(job.id);
            if state == State::Queued {
                queued.push(job.id);
            }
        }
        let outbox = self.announce(queued, GRACE);
        let outcomes = jobs.iter().map(|job| InsertOutcome::Created(job.first_state(now))).collect();
        Ok(Inserted { at: now, outcomes, outbox })
    }

    pub fn get(&self, ids: &[JobId]) -> Vec<JobRecord> {
        let ids: BTreeSet<JobId> = ids.iter().copied().collect();
        ids.iter().filter_map(|id| Some(self.record(*id, self.jobs.get(id)?))).collect()
    }

    /// Every job.
    pub fn all(&self) -> impl Iterator<Item = JobRecord> {
        self.jobs.iter().map(|(id, row)| self.record(*id, row))
    }

    fn record(&self, id: JobId, row: &Row) -> JobRecord {
        let kept = row.result_until.is_none_or(|until| until > self.now);
        JobRecord {
            id,
            kind: row.new.kind.clone(),
            queue: row.new.queue.clone(),
            priority: row.new.priority,
            state: row.state,
            attempt: row.attempt(),
            max_attempts: row.new.max_attempts,
            created_at: row.created_at,
            run_at: row.run_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            expires_at: row.new.expires_at,
            deadline: row.new.deadline,
            version: row.new.version,
            result: row.result.clone().filter(|_| kept),
            result_until: row.result_until,
            errors: row.errors.clone(),
            progress: None,
            labels: row.new.labels.clone(),
            gating: row.new.gating.clone(),
            cancel_requested: row.cancel_requested,
        }
    }

    /// How long an attempt of this job may take.
    pub fn timeout_of(&self, id: JobId) -> Option<Duration> {
        self.jobs.get(&id)?.new.timeout
    }

    /// Whether every job is over.
    pub fn all_over(&self) -> bool {
        self.jobs.values().all(|row| row.state.is_terminal())
    }

    pub fn payloads(&self, ids: &[JobId]) -> Vec<(JobId, Box<RawValue>)> {
        let ids: BTreeSet<JobId> = ids.iter().copied().collect();
        ids.into_iter().filter_map(|id| Some((id, self.jobs.get(&id)?.new.payload.clone()))).collect()
    }

    pub fn cancel(&mut self, id: JobId) -> CancelOutcome {
        let Some(row) = self.jobs.get_mut(&id) else { return CancelOutcome::NotFound };
        if row.state.is_terminal() {
            return CancelOutcome::Finished(row.state);
        }
        row.cancel_requested = true;
        self.requests.push((self.now, id));
        match self.step(id, Event::Cancel) {
            Some(_) => CancelOutcome::Cancelled,
            None => CancelOutcome::Requested,
        }
    }

    pub fn cancel_many(&mut self, ids: &[JobId], from: &[State]) -> Vec<JobId> {
        let wanted = |id: &&JobId| {
            self.jobs.get(id).is_some_and(|row| !row.state.is_terminal() && from.contains(&row.state))
        };
        let ids: Vec<JobId> = ids.iter().filter(wanted).copied().collect();
        for id in &ids {
            self.cancel(*id);
        }
        ids
    }

    /// What an operator's retry does.
    pub fn retry(&mut self, ids: &[JobId], from: &[State]) -> Vec<JobId> {
        let mut retried = Vec::new();
        for id in ids {
            let Some(row) = self.jobs.get_mut(id).filter(|row| from.contains(&row.state)) else { continue };
            if row.state.after(Event::Retry).is_none() {
                continue;
            }
            (row.uncounted, row.crashes, row.cancel_requested) = (row.fence, 0, false);
            (row.result, row.result_until) = (None, None);
            for time in [&mut row.new.expires_at, &mut row.new.deadline] {
                *time = time.filter(|at| *at > self.now);
            }
            self.step(*id, Event::Retry);
            self.set_timers(*id);
            retried.push(*id);
        }
        self.revision += u64::from(!retried.is_empty());
        self.announce(retried.clone(), Duration::ZERO);
        retried
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    // ---- outbox ----

    pub fn outbox_take(&mut self, limit: usize) -> Vec<OutboxGroup> {
        let due = self.outbox.iter().filter(|(_, group)| group.due_at <= self.now);
        let mut due: Vec<_> = due.map(|(id, group)| (group.due_at, *id)).collect();
        due.sort();
        let taken = self.after(TAKEN);
        let mut groups = Vec::new();
        for (_, id) in due.into_iter().take(limit) {
            let Some(group) = self.outbox.get_mut(&id) else { continue };
            let queued = |id: &JobId| self.jobs.get(id).filter(|row| row.state == State::Queued);
            let messages: Vec<_> = group.jobs.iter().filter_map(queued).map(message).collect();
            if messages.is_empty() {
                self.outbox.remove(&id);
                continue;
            }
            group.due_at = taken;
            let age = (self.now - group.created_at).to_std().unwrap_or_default();
            groups.push(OutboxGroup { id, published: group.published, age, messages });
        }
        groups
    }

    pub fn outbox_published(&mut self, groups: &[OutboxId], verify_after: Duration) {
        let due = self.after(verify_after);
        for id in groups {
            if let Some(group) = self.outbox.get_mut(id) {
                (group.published, group.due_at) = (true, due);
            }
        }
    }

    // ---- maintenance ----

    pub fn lead(&mut self, name: &str, holder: WorkerId, ttl: Duration) -> bool {
        let latest = if ttl.is_zero() { Timestamp::MAX_UTC } else { self.after(ttl.saturating_mul(2)) };
        let now = self.now;
        let known = self.leases.get(name).copied();
        let set_back = known.is_some_and(|(_, ends)| ends > latest);
        if set_back {
            for row in &mut self.workers {
                row.heard_of = row.heard_of.map(|at| at.min(now));
            }
            for group in self.outbox.values_mut() {
                group.due_at = group.due_at.min(now);
            }
        }
        let free = known.is_none_or(|(leader, ends)| leader == holder || ends <= now || set_back);
        if free {
            let ends = self.after(ttl);
            self.leases.insert(name.to_owned(), (holder, ends));
        }
        free
    }

    pub fn promote_due(&mut self, limit: usize) -> usize {
        let due =
            self.jobs.iter().filter_map(|(id, row)| Some((row.run_at.filter(|at| *at <= self.now)?, *id)));
        let mut due: Vec<_> = due.collect();
        due.sort();
        due.truncate(limit);
        let promoted: Vec<JobId> = due.into_iter().map(|(_, id)| id).collect();
        for id in &promoted {
            self.step(*id, Event::Due);
        }
        let count = promoted.len();
        self.announce(promoted, Duration::ZERO);
        count
    }

    pub fn expire(&mut self, limit: usize) -> usize {
        let now = self.now;
        let mut due: Vec<_> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, at)| (*at, *timer)).collect();
        due.sort();
        due.truncate(limit);
        for (_, (id, _)) in &due {
            let Some(row) = self.jobs.get_mut(id) else { continue };
            if row.state.after(Event::Expire).is_none() {
                continue;
            }
            if let Some(why) = row.is_over(now) {
                // The fence goes up with the claims that do not count.
                row.fence += 1;
                row.uncounted += 1;
                self.step(*id, Event::Expire);
                self.note_error(*id, None, why.to_owned());
            }
        }
        for (_, (id, deadline)) in &due {
            let may_come_back = self.jobs.get(id).is_some_and(|row| {
                !row.state.is_terminal() && (*deadline || row.state == State::Running || row.attempt() == 0)
            });
            if may_come_back {
                let at = self.after(LOOK_AGAIN);
                self.timers.insert((*id, *deadline), at);
            } else {
                self.timers.remove(&(*id, *deadline));
            }
        }
        due.len()
    }
}

/// What a job has that is not simulated.
fn extra(job: &NewJob) -> Option<&'static str> {
    [
        (job.idempotency.is_some(), "an idempotency key"),
        (job.unique.is_some(), "a unique key"),
        (job.is_gated(), "a limit or ordering key"),
        (job.has_parents || job.has_children, "a workflow"),
    ]
    .into_iter()
    .find_map(|(has, what)| has.then_some(what))
}

fn message(row: &Row) -> Message {
    Message {
        attempt: row.fence + 1,
        lane: Lane { queue: row.new.queue.clone(), priority: row.new.priority },
        ..row.new.message()
    }
}
