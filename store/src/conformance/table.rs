use std::time::Duration;

use windlass_core::{CancelOutcome, Event, NewJob, Outcome, State};

use super::support::{Case, Running, dead, retry, snoozed, succeeded};

/// What can happen to any job.
const EVENTS: [Event; 12] = [
    Event::Due,
    Event::Claim,
    Event::Succeed,
    Event::Fail,
    Event::Die,
    Event::Snooze,
    Event::Release,
    Event::LeaseLost,
    Event::Quarantine,
    Event::Cancel,
    Event::Abort,
    Event::Retry,
];

/// For every state and every event, the store does what the state table says, and nothing else.
pub async fn the_state_table_decides(case: Case) {
    for state in State::ALL.into_iter().filter(|state| *state != State::Waiting) {
        for event in EVENTS {
            let job = case.bring_to(state).await;
            let before = case.picture(&[job.id]).await;
            case.happen(event, job).await;
            match state.after(event) {
                Some(next) => {
                    let found = case.get(job.id).await;
                    assert_eq!(found.state, next, "{state} and {event:?}");
                    assert_eq!(found.finished_at.is_some(), next.is_terminal(), "{state} and {event:?}");
                }
                // A request, which the attempt may follow.
                None if (state, event) == (State::Running, Event::Cancel) => {
                    let found = case.get(job.id).await;
                    assert_eq!((found.state, found.cancel_requested), (State::Running, true));
                }
                None => assert_eq!(case.picture(&[job.id]).await, before, "{state} and {event:?}"),
            }
            case.end(job).await;
        }
    }
}

/// What is over stays as it is, whatever happens to it, in any order, short of an operator's retry.
pub async fn terminal_states_stay(case: Case) {
    for state in State::ALL.into_iter().filter(|state| state.is_terminal()) {
        let job = case.bring_to(state).await;
        let before = case.picture(&[job.id]).await;
        let events = EVENTS.into_iter().filter(|event| *event != Event::Retry);
        for event in events.clone().chain(events.rev()) {
            case.happen(event, job).await;
            assert_eq!(case.picture(&[job.id]).await, before, "{state} after {event:?}");
        }
        let again = case.store.insert(&[NewJob { id: job.id, ..super::support::job() }]).await.unwrap();
        assert_eq!(again.outbox, None);
        assert_eq!(case.picture(&[job.id]).await, before, "{state} after a repeated insert");
        let messages = case.take_all().await;
        assert!(!super::support::announced(&messages).contains(&job.id));
    }
}

impl Case {
    /// A job in `state`, as far as possible by way of an attempt that is over, whose worker holds the claim still and
    /// is dead by now.
    async fn bring_to(&self, state: State) -> Running {
        let job = self.running_for(Duration::ZERO, 1).await[0];
        let outcome = match state {
            State::Running => return job,
            State::Scheduled => snoozed(),
            State::Queued => Outcome::Released,
            State::Retrying => retry(),
            State::Succeeded => succeeded(),
            State::Cancelled => Outcome::Cancelled,
            State::Dead => dead(),
            State::Waiting => unreachable!("only gated jobs wait"),
        };
        assert!(self.finish(job, outcome).await);
        assert_eq!(self.state(job.id).await, state);
        job
    }

    /// Does what brings `event` about where it is allowed.
    async fn happen(&self, event: Event, job: Running) {
        let outcome = match event {
            Event::Due => {
                self.store.promote_due(1000).await.unwrap();
                return;
            }
            Event::Claim => {
                let worker = self.worker().await;
                self.claim(worker, &[job.id]).await;
                return;
            }
            Event::LeaseLost => {
                self.store.rescue(1000).await.unwrap();
                return;
            }
            Event::Quarantine => {
                self.store.rescue(1).await.unwrap();
                return;
            }
            Event::Retry => {
                let over = self.state(job.id).await.is_terminal();
                let retried = self.store.operations().retry(&[job.id], &State::TERMINAL).await.unwrap();
                assert_eq!(retried.len(), usize::from(over));
                return;
            }
            Event::Cancel => {
                let state = self.state(job.id).await;
                let expected = match state {
                    State::Running => CancelOutcome::Requested,
                    state if state.is_terminal() => CancelOutcome::Finished(state),
                    _ => CancelOutcome::Cancelled,
                };
                assert_eq!(self.store.cancel(job.id).await.unwrap(), expected);
                return;
            }
            Event::Succeed => succeeded(),
            Event::Fail => retry(),
            Event::Die => dead(),
            Event::Snooze => snoozed(),
            Event::Release => Outcome::Released,
            Event::Abort => Outcome::Cancelled,
            Event::Hold | Event::Admit | Event::Expire => unreachable!("not among EVENTS"),
        };
        assert_eq!(outcome.event(), event);
        let runs = self.state(job.id).await == State::Running;
        assert_eq!(self.finish(job, outcome).await, runs);
    }

    /// Leaves nothing of `job` that the next combination could stumble on.
    async fn end(&self, job: Running) {
        if self.store.cancel(job.id).await.unwrap() == CancelOutcome::Requested {
            let mut ended = false;
            for fence in [job.fence, job.fence + 1] {
                ended |= self.finish(Running { fence, ..job }, Outcome::Cancelled).await;
            }
            assert!(ended, "the job was claimed once or twice");
        }
        self.store.rescue(1000).await.unwrap();
    }
}
