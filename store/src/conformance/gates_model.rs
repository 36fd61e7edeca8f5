use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fastrand::Rng;
use windlass_core::{
    ClaimId, Finish, Gating, JobId, JobRecord, Limit, NewJob, OnFailure, Outcome, QueueName, State,
};

use super::support::{Case, dead, job, retry, snoozed, succeeded, worker};

const STEPS: usize = 250;
const LIMITS: [&str; 3] = ["a", "b", "c"];

/// Whatever is done, in whatever order: no gate ever lets too many through, no ordering key two at once; and when all is
/// followed up, nobody waits for whom there is room.
pub async fn any_history_keeps_the_gates(case: Case) {
    follow(&case, fastrand::u64(..)).await;
}

/// The same, on a way gone before.
pub async fn a_known_history_keeps_the_gates(case: Case) {
    follow(&case, 3).await;
}

async fn follow(case: &Case, seed: u64) {
    let mut history = History {
        case,
        rng: Rng::with_seed(seed),
        seed,
        jobs: Vec::new(),
        limits: HashMap::new(),
        queue: 0,
        before: BTreeMap::new(),
        runs: HashMap::new(),
    };
    for limit in 0..LIMITS.len() {
        history.change_limit(limit).await;
    }
    history.change_queue().await;
    for step in 0..STEPS {
        history.step().await;
        history.nothing_is_exceeded(step).await;
        if step % 5 == 4 {
            while case.store.follow_up(3).await.unwrap() > 0 {}
            history.nothing_is_exceeded(step).await;
            history.nobody_waits_in_vain(step).await;
        }
    }
    history.all_end().await;
}

struct History<'a> {
    case: &'a Case,
    rng: Rng,
    seed: u64,
    jobs: Vec<JobId>,
    limits: HashMap<&'static str, u32>,
    queue: u32,
    /// How many were through each gate before the step, which a lowered limit leaves there.
    before: BTreeMap<String, u32>,
    /// Whose fence is known, and by whom they run.
    runs: HashMap<JobId, (windlass_core::WorkerId, u32)>,
}

/// Through its gates, and not over.
fn is_out(job: &JobRecord) -> bool {
    matches!(job.state, State::Queued | State::Running)
}

impl History<'_> {
    async fn step(&mut self) {
        let store = if self.rng.bool() { &self.case.store } else { &self.case.other };
        match self.rng.u8(..20) {
            0..5 => {
                let jobs: Vec<NewJob> = (0..self.rng.usize(1..4)).map(|_| self.job()).collect();
                store.insert(&jobs).await.unwrap();
                self.jobs.extend(jobs.iter().map(|job| job.id));
            }
            5..9 => drop(store.follow_up(self.rng.usize(1..5)).await.unwrap()),
            9..13 => {
                // Some of these workers are dead as soon as somebody looks.
                let lease = if self.rng.u8(..4) == 0 { Duration::ZERO } else { Duration::from_secs(3600) };
                let worker = worker(lease);
                store.register(&worker).await.unwrap();
                let mut ids = self.jobs.clone();
                self.rng.shuffle(&mut ids);
                ids.truncate(ids.len() / 2);
                for job in store.claim(worker.id, ClaimId::new(), &ids).await.unwrap() {
                    self.runs.insert(job.id, (worker.id, job.fence));
                }
            }
            13..17 => {
                let Some(id) = self.any_run() else { return };
                let (worker, fence) = self.runs[&id];
                self.runs.remove(&id);
                let outcome = match self.rng.u8(..8) {
                    0 | 1 => retry(),
                    2 => snoozed(),
                    3 => dead(),
                    4 => Outcome::Released,
                    _ => succeeded(),
                };
                store.finish(worker, &[Finish { id, fence, outcome }], &[]).await.unwrap();
            }
            17 => drop(store.promote_due(3).await.unwrap()),
            18 => match self.rng.u8(..3) {
                0 => drop(store.rescue(u32::MAX).await.unwrap()),
                1 => {
                    let Some(id) = self.rng.choice(&self.jobs).copied() else { return };
                    store.cancel(id).await.unwrap();
                }
                _ => self.change_queue().await,
            },
            _ => {
                let limit = self.rng.usize(..LIMITS.len());
                self.change_limit(limit).await;
            }
        }
    }

    fn job(&mut self) -> NewJob {
        let mut gating = Gating::default();
        for limit in LIMITS {
            if self.rng.u8(..3) == 0 {
                gating.limits.push(format!("{limit}/{}", self.rng.u8(..2)).parse().unwrap());
            }
        }
        if self.rng.u8(..3) == 0 {
            gating.ordering_key = Some(self.rng.u8(..2).to_string().parse().unwrap());
            gating.on_failure = if self.rng.bool() { OnFailure::Skip } else { OnFailure::Block };
        }
        if self.rng.bool() {
            gating.tenant = Some(self.rng.u8(..3).to_string().parse().unwrap());
        }
        let priority = self.rng.u8(..4).try_into().unwrap();
        NewJob { gating, priority, max_attempts: 100, ..job() }
    }

    fn any_run(&mut self) -> Option<JobId> {
        let mut runs: Vec<JobId> = self.runs.keys().copied().collect();
        runs.sort_unstable();
        self.rng.choice(runs)
    }

    async fn change_limit(&mut self, at: usize) {
        let most = self.rng.u32(1..4);
        self.limits.insert(LIMITS[at], most);
        let operations = self.case.store.operations();
        operations.set_limit(&LIMITS[at].parse().unwrap(), Limit::concurrent(most)).await.unwrap();
    }

    async fn change_queue(&mut self) {
        self.queue = self.rng.u32(2..8);
        let window = self.rng.bool().then_some(100);
        let operations = self.case.store.operations();
        let limit = Limit::concurrent(self.queue);
        operations.limit_queue(&QueueName::default(), limit, window).await.unwrap();
    }

    /// The limits behind which this job has or wants a place, with how many each lets through.
    fn gates(&self, job: &JobRecord) -> Vec<(String, u32)> {
        let limits =
            job.gating.limits.iter().map(|limit| (format!("limit {limit}"), self.limits[limit.name()]));
        limits.chain([("queue".to_owned(), self.queue)]).collect()
    }

    async fn counted(&self) -> (Vec<JobRecord>, BTreeMap<String, u32>) {
        let jobs = self.case.other.get(&self.jobs).await.unwrap();
        let mut out = BTreeMap::new();
        for job in jobs.iter().filter(|job| is_out(job)) {
            let tenant = &job.gating.tenant;
            let turn = job.gating.ordering_key.as_ref().map(|key| (format!("order {tenant:?} {key}"), 1));
            for (gate, _) in self.gates(job).into_iter().chain(turn) {
                *out.entry(gate).or_default() += 1;
            }
        }
        (jobs, out)
    }

    async fn nothing_is_exceeded(&mut self, step: usize) {
        let (jobs, out) = self.counted().await;
        for (gate, most) in jobs.iter().flat_map(|job| self.gates(job)) {
            let before = self.before.get(&gate).copied().unwrap_or(0);
            let now = out.get(&gate).copied().unwrap_or(0);
            assert!(
                now <= most.max(before),
                "{now} through {gate} of {most}, seed {} step {step}",
                self.seed
            );
        }
        for (gate, now) in out.iter().filter(|(gate, _)| gate.starts_with("order")) {
            assert_eq!(*now, 1, "{gate}, seed {} step {step}", self.seed);
        }
        self.before = out;
    }

    /// Each job that waits finds one of its gates full, or another job before it in its ordering key.
    async fn nobody_waits_in_vain(&self, step: usize) {
        let (jobs, out) = self.counted().await;
        let full = |job: &&JobRecord| {
            self.gates(job).iter().any(|(gate, most)| out.get(gate).is_some_and(|now| now >= most))
        };
        let waiting: Vec<&JobRecord> = jobs.iter().filter(|job| job.state == State::Waiting).collect();
        for job in &waiting {
            let Some(key) = &job.gating.ordering_key else {
                assert!(full(job), "{} waits in vain, seed {} step {step}", job.id, self.seed);
                continue;
            };
            let has_turn = |other: &&JobRecord| {
                let paused = matches!(other.state, State::Retrying | State::Scheduled);
                is_out(other) || paused && other.gating.on_failure == OnFailure::Block
            };
            let of_key = |other: &&JobRecord| {
                other.gating.ordering_key.as_ref() == Some(key) && other.gating.tenant == job.gating.tenant
            };
            let held = jobs.iter().filter(of_key).any(|other| has_turn(&other));
            let stuck = waiting.iter().copied().filter(of_key).any(|other| full(&other));
            assert!(held || stuck, "nobody of {key} goes on, seed {} step {step}", self.seed);
        }
    }

    /// Worked off without trouble, all come to an end, and none too early.
    async fn all_end(&mut self) {
        let store = &self.case.store;
        let worker = self.case.worker().await;
        for (id, (worker, fence)) in std::mem::take(&mut self.runs) {
            store.finish(worker, &[Finish { id, fence, outcome: succeeded() }], &[]).await.unwrap();
        }
        store.rescue(u32::MAX).await.unwrap();
        loop {
            while store.promote_due(100).await.unwrap() > 0 {}
            while store.follow_up(100).await.unwrap() > 0 {}
            let claimed = store.claim(worker, ClaimId::new(), &self.jobs).await.unwrap();
            if claimed.is_empty() {
                break;
            }
            self.nothing_is_exceeded(STEPS).await;
            let done = |job: &windlass_core::ClaimedJob| Finish {
                id: job.id,
                fence: job.fence,
                outcome: succeeded(),
            };
            let done: Vec<_> = claimed.iter().map(done).collect();
            store.finish(worker, &done, &[]).await.unwrap();
        }
        let (jobs, _) = self.counted().await;
        let left: Vec<_> = jobs.iter().filter(|job| !job.state.is_terminal()).collect();
        assert!(left.is_empty(), "{left:?}, seed {}", self.seed);
    }
}
