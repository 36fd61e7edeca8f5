//! A small run in which all is as it must be, for the tests of rules to spoil.

use std::time::Duration;

use uuid::Uuid;
use windlass::JobState;

use crate::{
    clock::Instant,
    evidence::{Evidence, Life, Payment, Run, Stored, Terms},
    history::{Answer, Call, Request, Seen, Wish},
    jobs::{How, Told},
};

pub(super) const SECOND: Instant = 1_000_000_000;

pub(super) struct Sample {
    pub(super) evidence: Evidence,
    ids: u128,
    now: Instant,
}

impl Sample {
    /// Two jobs, `a` and the transactional `b`, each accepted under a key, run once, and polled.
    pub(super) fn good() -> Self {
        let life = |number: u32| Life {
            number,
            process: format!("worker-{number}"),
            from: 0,
            until: 1000 * SECOND,
            killed: false,
            frozen: Vec::new(),
        };
        let evidence = Evidence {
            terms: Terms { lease: Duration::from_secs(8), busy: false },
            calls: Vec::new(),
            jobs: Vec::new(),
            payments: Vec::new(),
            runs: Vec::new(),
            lives: vec![life(0), life(1)],
            faults: Vec::new(),
            strays: Vec::new(),
        };
        let mut sample = Self { evidence, ids: 1, now: SECOND };
        let wish = sample.wish("a");
        sample.done(wish);
        let mut wish = sample.wish("b");
        wish.transactional = true;
        sample.done(wish);
        sample
    }

    /// Lets a wish come true: accepted under the key `k` and its tag, and succeeded by one run.
    pub(super) fn done(&mut self, wish: Wish) -> Uuid {
        let id = self.job(&wish.tag);
        let transactional = wish.transactional;
        let job = self.evidence.jobs.len() - 1;
        self.evidence.jobs[job].kind = wish.kind().to_owned();
        self.evidence.jobs[job].max_attempts = wish.max_attempts;
        let key = Some(format!("k{}", wish.tag));
        self.accepted(Request::Enqueue { wish, key }, &[id]);
        let run = self.run(id, 0, self.now + SECOND, self.now + 2 * SECOND);
        self.now += 3 * SECOND;
        self.evidence.jobs[job].run = Some(run);
        if transactional {
            self.evidence.payments.push(Payment { job: id, run });
        }
        self.shown(id, "succeeded", 1, Some(run));
        id
    }

    pub(super) fn wish(&self, tag: &str) -> Wish {
        Wish {
            tag: tag.to_owned(),
            max_attempts: 20,
            told: Told { millis: 5, ..Told::default() },
            ..Wish::default()
        }
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    /// A job in the store, succeeded in its first attempt, of which nothing else is known.
    pub(super) fn job(&mut self, tag: &str) -> Uuid {
        let id = self.id();
        let at = i64::try_from(self.now / 1000).unwrap();
        self.evidence.jobs.push(Stored {
            id,
            tag: tag.to_owned(),
            kind: "torture.work".to_owned(),
            state: JobState::Succeeded,
            fence: 1,
            uncounted: 0,
            max_attempts: 20,
            run: None,
            created: at,
            finished: Some(at + 2_000_000),
            error: None,
        });
        id
    }

    pub(super) fn run(&mut self, job: Uuid, life: u32, start: Instant, end: Instant) -> Uuid {
        let id = self.id();
        let attempt = 1;
        let (how, effects) = (Some(How::Returned), vec![start]);
        self.evidence.runs.push(Run { id, job, attempt, life, start, end, how, effects });
        id
    }

    /// A call that takes a millisecond, from now.
    fn call(&mut self, request: Request, answer: Answer) {
        let (sent, received) = (self.now, self.now + SECOND / 1000);
        self.now = received + 1;
        self.evidence.calls.push(Call { sent, received, api: 0, request, answer });
    }

    pub(super) fn refused(&mut self, request: Request, status: u16, problem: &str) {
        self.call(request, Answer::Refused { status, problem: problem.to_owned() });
    }

    pub(super) fn accepted(&mut self, request: Request, ids: &[Uuid]) {
        let jobs = ids.iter().map(|id| Some(seen(*id, "queued", 0, None))).collect();
        self.call(request, Answer::Done { status: 202, jobs, existing: false, replayed: false });
    }

    /// A poll that shows the job so.
    pub(super) fn shown(&mut self, id: Uuid, state: &str, attempt: u32, run: Option<Uuid>) {
        let jobs = vec![Some(seen(id, state, attempt, run))];
        self.call(Request::Get { id }, Answer::Done { status: 200, jobs, existing: false, replayed: false });
    }
}

fn seen(id: Uuid, state: &str, attempt: u32, run: Option<Uuid>) -> Seen {
    Seen { id, state: Some(state.to_owned()), attempt, kind: None, max_attempts: None, run }
}
