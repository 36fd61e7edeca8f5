use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use windlass_core::{
    CancelOutcome, ClaimId, Event, Finish, InsertOutcome, JobId, NewJob, OutboxGroup, Outcome, Rescued,
    State, StoreError, Timestamp, WorkerId,
};

use super::support::{Case, announced, dead, job, retry, set, snoozed, succeeded};

const STEPS: usize = 400;
const CRASH_LIMIT: u32 = 2;

/// Whatever is done, in whatever order: after each step the store is where a model in memory is, which knows little
/// more than the state table. In the end every queued job is in the outbox.
pub async fn a_known_history_follows_the_model(case: Case) {
    follow(&case, 1).await;
}

/// The same, on a way that nobody went before.
pub async fn any_history_follows_the_model(case: Case) {
    follow(&case, fastrand::u64(..)).await;
}

async fn follow(case: &Case, seed: u64) {
    let mut history = History::new(case, seed);
    for _ in 0..STEPS {
        history.step().await;
        history.compare().await;
    }
    history.every_queued_job_is_announced().await;
}

#[derive(Debug, Clone)]
struct Model {
    state: State,
    fence: u32,
    uncounted: u32,
    crashes: u32,
    max_attempts: u32,
    cancel_requested: bool,
    /// Who runs it, or ran it last, and under which claim.
    holder: Option<(WorkerId, ClaimId)>,
    /// The attempts that left an error.
    errors: Vec<u32>,
    /// Whether its time, if it waits for one, has come.
    due: bool,
}

impl Model {
    fn happen(&mut self, event: Event) {
        self.state = self.state.after(event).unwrap();
    }

    fn attempt(&self) -> u32 {
        self.fence - self.uncounted
    }
}

struct History<'a> {
    case: &'a Case,
    rng: Rng,
    seed: u64,
    /// The last steps, newest last.
    trail: Vec<String>,
    jobs: BTreeMap<JobId, Model>,
    workers: Vec<WorkerId>,
    /// Workers that said goodbye while they held claims.
    gone: BTreeSet<WorkerId>,
    /// Claims that are open, with their worker.
    claims: BTreeMap<ClaimId, (WorkerId, Vec<JobId>)>,
    /// Every attempt there ever was.
    attempts: Vec<(WorkerId, JobId, u32)>,
}

impl<'a> History<'a> {
    fn new(case: &'a Case, seed: u64) -> Self {
        Self {
            case,
            rng: Rng::with_seed(seed),
            seed,
            trail: Vec::new(),
            jobs: BTreeMap::new(),
            workers: Vec::new(),
            gone: BTreeSet::new(),
            claims: BTreeMap::new(),
            attempts: Vec::new(),
        }
    }

    async fn step(&mut self) {
        match self.rng.u32(..100) {
            0..15 => self.insert().await,
            15..40 => self.claim().await,
            40..45 => self.claim_again().await,
            45..65 => self.finish().await,
            65..70 => self.close().await,
            70..78 => self.cancel().await,
            78..84 => self.promote().await,
            84..88 => self.goodbye().await,
            88..92 => self.rescue().await,
            92..94 => self.heartbeat().await,
            94..96 => self.retry().await,
            _ => drop(self.relay().await),
        }
    }

    async fn insert(&mut self) {
        let run_ats = [None, Some(Timestamp::MIN_UTC), Some(Timestamp::MAX_UTC)];
        let new: Vec<NewJob> = (0..self.rng.usize(1..4))
            .map(|_| NewJob {
                run_at: run_ats[self.rng.usize(..3)],
                max_attempts: self.rng.u32(1..4),
                ..job()
            })
            .collect();
        self.note(format!("insert {:?}", new.iter().map(|job| (job.id, job.run_at)).collect::<Vec<_>>()));
        let inserted = self.case.insert(&new).await;
        for (job, outcome) in new.iter().zip(inserted.outcomes) {
            let state = if job.run_at == Some(Timestamp::MAX_UTC) { State::Scheduled } else { State::Queued };
            assert_eq!(outcome, InsertOutcome::Created(state), "{}", self.at());
            let model = Model {
                state,
                fence: 0,
                uncounted: 0,
                crashes: 0,
                max_attempts: job.max_attempts,
                cancel_requested: false,
                holder: None,
                errors: Vec::new(),
                due: false,
            };
            self.jobs.insert(job.id, model);
        }
        if let Some(group) = inserted.outbox {
            // The time of its publisher is up.
            self.case.store.outbox_published(&[group], Duration::ZERO).await.unwrap();
        }
    }

    async fn claim(&mut self) {
        if self.workers.is_empty() || self.rng.u32(..8) == 0 {
            self.workers.push(self.case.worker().await);
        }
        let worker = self.workers[self.rng.usize(..self.workers.len())];
        let claim = ClaimId::new();
        let mut ids = self.some_jobs(4);
        ids.push(JobId::new());
        self.note(format!("{worker} claims {ids:?}"));
        let claimed = self.case.store.claim(worker, claim, &ids).await.unwrap();
        let expected: Vec<JobId> = ids
            .into_iter()
            .filter(|id| self.jobs.get(id).is_some_and(|job| job.state == State::Queued))
            .collect();
        assert_eq!(set(claimed.iter().map(|job| job.id)), set(expected.clone()), "{}", self.at());
        for job in claimed {
            let Some(model) = self.jobs.get_mut(&job.id) else { continue };
            model.happen(Event::Claim);
            model.fence += 1;
            model.holder = Some((worker, claim));
            assert_eq!((job.fence, job.attempt), (model.fence, model.attempt()), "{}", self.at());
            self.attempts.push((worker, job.id, job.fence));
        }
        if !expected.is_empty() {
            self.claims.insert(claim, (worker, expected));
        }
    }

    async fn claim_again(&mut self) {
        let Some(&claim) = pick(&mut self.rng, self.claims.keys()) else { return };
        let (worker, ids) = self.claims[&claim].clone();
        // Only while nothing of the claim was queued again: a worker repeats a call before it does anything else.
        let same = |id: &JobId| {
            let job = &self.jobs[id];
            job.holder == Some((worker, claim)) && job.state != State::Queued
        };
        if self.gone.contains(&worker) || !ids.iter().all(same) {
            return;
        }
        self.note(format!("{worker} repeats claim {claim}"));
        let claimed = self.case.store.claim(worker, claim, &ids).await.unwrap();
        let running = ids.into_iter().filter(|id| self.jobs[id].state == State::Running);
        assert_eq!(set(claimed.iter().map(|job| job.id)), set(running), "{}", self.at());
        for job in claimed {
            assert_eq!(job.fence, self.jobs[&job.id].fence, "{}", self.at());
        }
    }

    /// Outcomes of any attempts, most of which are over.
    async fn finish(&mut self) {
        let mut group: BTreeMap<JobId, Finish> = BTreeMap::new();
        let mut speaker = None;
        for _ in 0..4 {
            let recent = self.attempts.len().saturating_sub(12);
            let Some(&(worker, id, fence)) = pick(&mut self.rng, self.attempts[recent..].iter()) else {
                return;
            };
            let outcome = match self.rng.u32(..6) {
                0 => succeeded(),
                1 => retry(),
                2 => dead(),
                3 => Outcome::Cancelled,
                4 => snoozed(),
                _ => Outcome::Released,
            };
            speaker = Some(worker);
            group.insert(id, Finish { id, fence, outcome });
        }
        let Some(worker) = speaker else { return };
        let group: Vec<Finish> = group.into_values().collect();
        self.note(format!("{worker} finishes {group:?}"));
        let recorded = self.case.store.finish(worker, &group, &[]).await.unwrap();
        let mut expected = BTreeSet::new();
        for finish in &group {
            let Some(job) = self.jobs.get_mut(&finish.id) else { continue };
            if job.state != State::Running || job.fence != finish.fence {
                continue;
            }
            expected.insert(finish.id);
            job.uncounted += u32::from(!finish.outcome.counts());
            if matches!(finish.outcome, Outcome::Retry { .. } | Outcome::Dead { .. }) {
                job.errors.push(job.attempt());
            }
            let stands = matches!(finish.outcome, Outcome::Succeeded { .. } | Outcome::Dead { .. });
            job.happen(if job.cancel_requested && !stands { Event::Abort } else { finish.outcome.event() });
            job.due = true;
        }
        assert_eq!(set(recorded), expected, "{}", self.at());
    }

    /// Closes a claim whose jobs have all ended.
    async fn close(&mut self) {
        let over = |(claim, (worker, ids)): &(&ClaimId, &(WorkerId, Vec<JobId>))| {
            ids.iter().all(|id| {
                let job = &self.jobs[id];
                job.state != State::Running || job.holder != Some((*worker, **claim))
            })
        };
        let candidates = self.claims.iter().filter(over).map(|(claim, _)| claim);
        let Some(&claim) = pick(&mut self.rng, candidates) else { return };
        let Some((worker, _)) = self.claims.remove(&claim) else { return };
        self.note(format!("{worker} closes {claim}"));
        self.case.store.finish(worker, &[], &[claim]).await.unwrap();
    }

    async fn cancel(&mut self) {
        let Some(id) = self.some_jobs(1).pop() else { return };
        self.note(format!("cancel {id}"));
        let answer = self.case.store.cancel(id).await.unwrap();
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let expected = if job.state == State::Running {
            job.cancel_requested = true;
            CancelOutcome::Requested
        } else if job.state.is_terminal() {
            CancelOutcome::Finished(job.state)
        } else {
            job.cancel_requested = true;
            job.happen(Event::Cancel);
            CancelOutcome::Cancelled
        };
        assert_eq!(answer, expected, "{}", self.at());
    }

    async fn promote(&mut self) {
        self.note("promote");
        let promoted = self.case.store.promote_due(1000).await.unwrap();
        let mut expected = 0;
        for job in self.jobs.values_mut() {
            if job.due && matches!(job.state, State::Scheduled | State::Retrying) {
                job.happen(Event::Due);
                expected += 1;
            }
        }
        assert_eq!(promoted, expected, "{}", self.at());
    }

    async fn goodbye(&mut self) {
        if self.workers.is_empty() {
            return;
        }
        let worker = self.workers.swap_remove(self.rng.usize(..self.workers.len()));
        self.note(format!("{worker} says goodbye"));
        self.case.store.deregister(worker).await.unwrap();
        if self.claims.values().any(|(holder, _)| *holder == worker) {
            self.gone.insert(worker);
        }
    }

    async fn rescue(&mut self) {
        self.note("rescue");
        let mut rescued = self.case.store.rescue(CRASH_LIMIT).await.unwrap();
        rescued.workers.sort();
        let gone = std::mem::take(&mut self.gone);
        let mut expected = Rescued { workers: gone.iter().copied().collect(), requeued: 0, dead: 0 };
        self.claims.retain(|_, (worker, _)| !gone.contains(worker));
        for job in self.jobs.values_mut() {
            let lost = job.holder.is_some_and(|(worker, _)| gone.contains(&worker));
            if !lost || job.state != State::Running {
                continue;
            }
            job.crashes += 1;
            job.errors.push(job.attempt());
            if job.cancel_requested {
                job.happen(Event::Abort);
                expected.requeued += 1;
            } else if job.crashes >= CRASH_LIMIT || job.attempt() >= job.max_attempts {
                job.happen(Event::Quarantine);
                expected.dead += 1;
            } else {
                job.happen(Event::LeaseLost);
                expected.requeued += 1;
            }
        }
        assert_eq!(rescued, expected, "{}", self.at());
    }

    async fn heartbeat(&mut self) {
        let Some(&worker) = pick(&mut self.rng, self.workers.iter().chain(&self.gone)) else { return };
        self.note(format!("{worker} lives"));
        let reply = self.case.store.heartbeat(worker).await;
        if self.gone.contains(&worker) {
            assert!(matches!(reply, Err(StoreError::WorkerUnknown(_))), "{reply:?} {}", self.at());
            return;
        }
        let asked = self.jobs.iter().filter(|(_, job)| {
            let runs = job.state == State::Running && job.holder.is_some_and(|(holder, _)| holder == worker);
            runs && job.cancel_requested
        });
        assert_eq!(set(reply.unwrap().cancel), set(asked.map(|(id, _)| *id)), "{}", self.at());
    }

    /// An operator wants some jobs to be run again.
    async fn retry(&mut self) {
        let ids = self.some_jobs(4);
        self.note(format!("retry {ids:?}"));
        let retried = self.case.store.operations().retry(&ids, &State::TERMINAL).await.unwrap();
        let over = ids.into_iter().filter(|id| self.jobs[id].state.is_terminal());
        let expected = set(over.collect::<Vec<_>>());
        for id in &expected {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            job.happen(Event::Retry);
            job.uncounted = job.fence;
            job.crashes = 0;
            job.cancel_requested = false;
        }
        assert_eq!(set(retried), expected, "{}", self.at());
    }

    /// Takes groups, checks their messages and makes the groups due again.
    async fn relay(&mut self) -> Vec<OutboxGroup> {
        self.note("relay");
        let groups = self.case.take_all().await;
        for message in groups.iter().flat_map(|group| &group.messages) {
            let job = &self.jobs[&message.job_id];
            let expected = (State::Queued, job.fence + 1);
            assert_eq!((job.state, message.attempt), expected, "{message:?} {}", self.at());
        }
        assert!(groups.iter().all(|group| !group.messages.is_empty()));
        let all: Vec<_> = groups.iter().map(|group| group.id).collect();
        self.case.store.outbox_published(&all, Duration::ZERO).await.unwrap();
        groups
    }

    async fn compare(&self) {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        let found = self.case.other.get(&ids).await.unwrap();
        assert_eq!(found.len(), ids.len(), "{}", self.at());
        for job in found {
            let model = &self.jobs[&job.id];
            let waits = matches!(model.state, State::Scheduled | State::Retrying);
            let errors: Vec<u32> = job.errors.iter().map(|error| error.attempt).collect();
            let seen = (job.state, job.attempt, job.cancel_requested, errors);
            let expected = (model.state, model.attempt(), model.cancel_requested, model.errors.clone());
            assert_eq!(seen, expected, "{} {}", job.id, self.at());
            let times = (job.run_at.is_some(), job.started_at.is_some(), job.finished_at.is_some());
            let expected = (waits, model.fence > 0, model.state.is_terminal());
            assert_eq!(times, expected, "run_at, started_at, finished_at of {} {}", job.id, self.at());
        }
    }

    async fn every_queued_job_is_announced(&mut self) {
        let groups = self.relay().await;
        let queued = self.jobs.iter().filter(|(_, job)| job.state == State::Queued).map(|(id, _)| *id);
        assert_eq!(announced(&groups), set(queued), "{}", self.at());
    }

    /// Jobs to do something with, rather the new ones.
    fn some_jobs(&mut self, most: usize) -> Vec<JobId> {
        let recent: Vec<JobId> = self.jobs.keys().rev().take(12).copied().collect();
        (0..most).filter_map(|_| self.rng.choice(recent.iter()).copied()).collect()
    }

    fn note(&mut self, step: impl Into<String>) {
        if self.trail.len() == 30 {
            self.trail.remove(0);
        }
        self.trail.push(step.into());
    }

    /// What to look for when this fails.
    fn at(&self) -> String {
        format!("seed {}; the last steps were:\n{}", self.seed, self.trail.join("\n"))
    }
}

fn pick<'a, T>(rng: &mut Rng, from: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    rng.choice(from.collect::<Vec<_>>())
}
