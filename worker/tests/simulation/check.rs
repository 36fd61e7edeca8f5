//! What must be true of every history.

use std::collections::BTreeMap;

use windlass_core::{Event, JobId, JobRecord, State as JobState};

use crate::{
    process::{ABORT_AFTER, REPUBLISH_BOUND, Setup},
    tables::Step,
    world::{End, Ms, Run, State, moment, timestamp},
};

/// How long a leader that has died keeps others from leading, and what it takes to notice.
const SUCCESSION: Ms = 5_000;
/// What calls, slices of time and pauses between looks add up to.
const MARGIN: Ms = 1_500;
/// How long a group that a relay took, and died with, is left alone.
const TAKEN: Ms = 10_000;

struct Check<'a> {
    state: &'a State,
    setup: &'a Setup,
    last_fault: Ms,
    jobs: BTreeMap<JobId, JobRecord>,
    violations: Vec<String>,
}

/// The rules that are broken, by what is written down. The last fault is when nothing of what went wrong before had any more effect to come.
pub fn check(state: &mut State, setup: &Setup, last_fault: Ms, stuck: &[usize]) -> Vec<String> {
    // As after any time: whoever has ended in good order has left nothing behind.
    let leftovers = state.tables.steps.len();
    state.tables.now = timestamp(state.now + 3_600_000);
    state.tables.rescue(setup.crash_limit);
    let left: Vec<Step> = state.tables.steps.split_off(leftovers);
    let jobs = state.tables.all().map(|job| (job.id, job)).collect();
    let mut check = Check { state, setup, last_fault, jobs, violations: Vec::new() };
    for step in left {
        check.broken(format!("a worker has ended and left job {} behind", step.job));
    }
    for number in stuck {
        check.broken(format!("p{number} does not stop"));
    }
    for outrage in &state.book.outrages {
        check.broken(outrage.clone());
    }
    check.jobs();
    check.runs();
    check.steps();
    check.violations
}

impl Check<'_> {
    fn broken(&mut self, rule: String) {
        self.violations.push(rule);
    }

    /// P1: what was accepted is there, and over; nothing else is there.
    fn jobs(&mut self) {
        for id in &self.state.book.accepted {
            if !self.jobs.contains_key(id) {
                self.broken(format!("job {id} was accepted and does not exist"));
            }
        }
        let found: Vec<(JobId, JobState)> = self.jobs.values().map(|job| (job.id, job.state)).collect();
        for (id, state) in found {
            if !self.state.book.sent.contains(&id) {
                self.broken(format!("nobody has enqueued job {id}"));
            }
            if !state.is_terminal() {
                self.broken(format!("job {id} never ends: it is {state}"));
            }
        }
    }

    /// P2: what ran was claimed, once, and no longer than the lease.
    fn runs(&mut self) {
        let runs: Vec<Run> = self.state.book.runs.clone();
        for (place, run) in runs.iter().enumerate() {
            let (job, fence) = (run.job, run.fence);
            let of_fence = |event| {
                let steps = self.state.tables.steps.iter();
                steps.filter(move |step| step.job == job && step.fence == fence && step.event == event)
            };
            if !of_fence(Event::Claim).any(|step| moment(step.at) <= run.begun) {
                self.broken(format!("job {job} runs under fence {fence} without a claim"));
            }
            if run.attempt == 0 || run.attempt > run.max_attempts {
                self.broken(format!(
                    "job {job} runs for the {}th of {} times",
                    run.attempt, run.max_attempts
                ));
            }
            let lost = [Event::LeaseLost, Event::Quarantine].into_iter().flat_map(of_fence).next();
            if let Some(lost) = lost.map(|step| moment(step.at))
                && self.alive(run, lost, Ms::MAX) > 0
            {
                self.broken(format!(
                    "job {job} goes on under fence {fence} after its lease was lost at {lost}"
                ));
            }
            for other in &runs[..place] {
                if other.job == job && other.fence == fence {
                    self.broken(format!("job {job} runs twice under fence {fence}"));
                }
                if other.job == job && self.at_once(run, other) > 0 {
                    self.broken(format!("job {job} runs under fences {} and {fence} at once", other.fence));
                }
            }
            self.ends_in_time(run);
        }
    }

    /// A handler that is told to stop has stopped soon after.
    fn ends_in_time(&mut self, run: &Run) {
        let job = self.jobs[&run.job].clone();
        let abort = ABORT_AFTER.as_millis() as Ms;
        let lived = self.alive(run, 0, Ms::MAX);
        if let Some(timeout) = self.state.tables.timeout_of(run.job)
            && lived > timeout.as_millis() as Ms + abort + 1
        {
            self.broken(format!("job {} runs for {lived} ms, more than its timeout of {timeout:?}", job.id));
        }
        if let Some(deadline) = job.deadline.map(moment)
            && self.alive(run, deadline, Ms::MAX) > abort + 1
        {
            self.broken(format!("job {} runs on after its deadline", job.id));
        }
        let requests = self.state.tables.requests.iter();
        let asked = requests.filter(|(_, id)| *id == run.job).map(|(at, _)| moment(*at)).min();
        if let Some(asked) = asked {
            let told = asked.max(self.last_fault).max(run.begun) + self.setup.lease.as_millis() as Ms / 3;
            if self.alive(run, told + abort + MARGIN, Ms::MAX) > 0 {
                self.broken(format!("job {} runs on though someone wants it cancelled", job.id));
            }
        }
    }

    /// For how long a run goes on between two times, not counting when its process stood still.
    fn alive(&self, run: &Run, from: Ms, until: Ms) -> Ms {
        let (from, until) = (run.begun.max(from), run.ended.map_or(Ms::MAX, |(at, _)| at).min(until));
        let mut time = until.saturating_sub(from);
        for (paused, resumed) in &self.state.processes[run.process].pauses {
            time -= (*resumed).min(until).saturating_sub((*paused).max(from)).min(time);
        }
        time
    }

    /// For how long two runs go on at once.
    fn at_once(&self, one: &Run, other: &Run) -> Ms {
        let from = one.begun.max(other.begun);
        let until = [one, other].map(|run| run.ended.map_or(Ms::MAX, |(at, _)| at));
        let until = until[0].min(until[1]);
        if from >= until {
            return 0;
        }
        // Both must be awake; one that stands still is no live attempt.
        let mut edges = vec![from, until];
        for run in [one, other] {
            edges.extend(self.state.processes[run.process].pauses.iter().flat_map(|(a, b)| [*a, *b]));
        }
        edges.retain(|at| (from..=until).contains(at));
        edges.sort_unstable();
        let both = |pair: &[Ms]| [one, other].map(|run| self.alive(run, pair[0], pair[1])).into_iter().min();
        edges.windows(2).filter_map(both).sum()
    }

    /// For how long no handler runs between two times: while some do, others may have to wait for a place.
    fn idle(&self, from: Ms, until: Ms) -> Ms {
        let mut runs: Vec<(Ms, Ms)> = self
            .state
            .book
            .runs
            .iter()
            .map(|run| (run.begun, run.ended.map_or(Ms::MAX, |(at, _)| at)))
            .collect();
        runs.sort_unstable();
        let (mut idle, mut at) = (0, from);
        for (begun, ended) in runs {
            idle += begun.min(until).saturating_sub(at);
            at = at.max(ended.min(until));
        }
        idle + until.saturating_sub(at)
    }

    /// Every change of a state has its reason, and comes in time.
    fn steps(&mut self) {
        let mut by_job: BTreeMap<JobId, Vec<Step>> = BTreeMap::new();
        for step in &self.state.tables.steps {
            by_job.entry(step.job).or_default().push(*step);
        }
        for (id, steps) in by_job {
            let job = self.jobs[&id].clone();
            let mut since = moment(job.created_at);
            let mut before: Option<Step> = None;
            for step in steps {
                if step.from.after(step.event) != Some(step.to) || step.from.is_terminal() {
                    self.broken(format!(
                        "job {id} goes from {} to {} by {:?}",
                        step.from, step.to, step.event
                    ));
                }
                if before.is_some_and(|before| before.to != step.from) {
                    self.broken(format!("job {id} is {} and goes on from {}", before.unwrap().to, step.from));
                }
                self.has_reason(&job, step);
                self.comes_in_time(&job, step, since);
                since = moment(step.at);
                before = Some(step);
            }
        }
    }

    fn has_reason(&mut self, job: &JobRecord, step: Step) {
        let id = job.id;
        let run = self.state.book.runs.iter().find(|run| run.job == id && run.fence == step.fence);
        let end = run.and_then(|run| run.ended).filter(|(at, _)| *at <= moment(step.at)).map(|(_, end)| end);
        let used_up = step.attempt >= job.max_attempts;
        let fits = match step.event {
            Event::Succeed => end == Some(End::Succeeded),
            Event::Snooze => end == Some(End::Snoozed),
            Event::Fail => end.is_some_and(|end| end != End::Succeeded),
            Event::Die => match end {
                Some(End::Discarded) => true,
                Some(End::Succeeded) => false,
                Some(_) => used_up || job.deadline.is_some(),
                None => false,
            },
            Event::Release => end != Some(End::Succeeded),
            Event::Cancel | Event::Abort => self.state.book.cancels.contains(&id),
            _ => true,
        };
        if !fits {
            let (event, fence, attempt) = (step.event, step.fence, step.attempt);
            self.broken(format!(
                "job {id} has no reason to {event:?} after attempt {attempt}, fence {fence}: its handler ended with {end:?}"
            ));
        }
    }

    /// After the last fault nothing waits for longer than it takes to notice what was lost.
    fn comes_in_time(&mut self, job: &JobRecord, step: Step, since: Ms) {
        let (id, at) = (job.id, moment(step.at));
        // A handler may have taken its process down since.
        let deaths = self.state.processes.iter().filter_map(|process| process.died);
        let died = deaths.filter(|died| *died <= at).max().unwrap_or_default();
        let from = since.max(self.last_fault).max(died);
        let lease = self.setup.lease.as_millis() as Ms;
        let (waited, most) = match step.event {
            // Since its time has come, which may have been before.
            Event::Due => return,
            Event::Claim => {
                let look = self.setup.republish_after.as_millis() as Ms;
                // Groups that were published again wait for as long again as they are old.
                let doubled = self.last_fault;
                (self.idle(from, at), look + doubled + TAKEN + REPUBLISH_BOUND.as_millis() as Ms)
            }
            Event::LeaseLost
            | Event::Quarantine
            | Event::Succeed
            | Event::Fail
            | Event::Die
            | Event::Snooze
            | Event::Abort => {
                let run = self.state.book.runs.iter().find(|run| run.job == id && run.fence == step.fence);
                let ended = run.and_then(|run| run.ended).map_or(from, |(at, _)| at.max(from));
                (at - ended.min(at), lease + SUCCESSION + MARGIN)
            }
            _ => return,
        };
        if waited > most {
            self.broken(format!(
                "job {id} waits {waited} ms for {:?} though nothing has gone wrong since {}; {most} ms would be enough",
                step.event, self.last_fault
            ));
        }
    }
}
