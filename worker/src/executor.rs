use std::{panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use windlass_core::{ClaimedJob, Outcome};

use crate::{
    Context, JobError,
    context::{Around, Completion},
    middleware::HandlerService,
    run::{Nature, Registered, Run, Value, guarded, on_thread, panicked},
    session::Session,
    span,
};

type Running = BoxFuture<'static, Result<Value, JobError>>;

/// Why a handler is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Cancelled,
    TimedOut(Duration),
    Deadline,
    Shutdown,
}

/// What is left to do after an attempt.
#[derive(Debug)]
pub(crate) enum Ending {
    /// To be recorded.
    Outcome(Outcome),
    /// Nothing: the handler has committed the job's success itself.
    Committed,
    /// Nothing may be recorded, since the lease is lost or left to run out. The job is still running in the store, so
    /// its claim must stay there for a rescue to find it by.
    Abandoned,
}

/// Runs one attempt to its end.
///
/// `permit` is the place among the running jobs; it goes with a blocking handler's thread, whose end alone frees it. A
/// batch job has none, since its batch has one.
pub(crate) async fn execute(
    session: &Session,
    handler: &Registered,
    job: ClaimedJob,
    deadline: Option<Instant>,
    token: &CancellationToken,
    permit: Option<OwnedSemaphorePermit>,
) -> Ending {
    let span = span::attempt(&job);
    async {
        let around = Around {
            worker: session.id,
            client: session.client.clone(),
            states: session.states.clone(),
            notes: session.notes.clone(),
            result_ttl: handler.result_ttl,
        };
        let (context, running) = match &handler.run {
            Run::Async(call) => {
                let context = Context::new(job, around, token);
                let running = guarded(call.clone(), context.clone());
                (context, running.inspect(move |_| drop(permit)).boxed())
            }
            Run::Blocking(call) => {
                let context = Context::new(job, around, token);
                let running = on_thread(call.clone(), context.clone(), permit);
                (context, running.boxed())
            }
            Run::Service(service) => {
                let context = Context::gated(job, around, token, permit);
                let running = through_layers(service.clone(), context.clone());
                (context, running.boxed())
            }
        };
        let ended = supervise(session, handler, &context, running, token, deadline).await;
        if let Some(gate) = context.gate() {
            gate.release();
        }
        let Some((cause, result)) = ended else { return Ending::Abandoned };
        context.voice().end();
        if context.completion() == Completion::Committed {
            tracing::debug!("succeeded");
            return Ending::Committed;
        }
        let outcome = within(deadline, conclude(&context, handler, cause, result));
        report(&outcome);
        Ending::Outcome(outcome)
    }
    .instrument(span)
    .await
}

/// Calls the layers, whose panics are errors as well, and sees that nothing is left at work behind them.
async fn through_layers(service: HandlerService, context: Context) -> Result<Value, JobError> {
    let attempt = context.clone();
    let ended = AssertUnwindSafe(async move { service.run(attempt).await }).catch_unwind().await;
    if let Some(gate) = context.gate() {
        gate.left().await;
    }
    ended.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// Waits for the handler's end, and sees to it that it comes. `None`: the lease is lost, or the handler left behind.
async fn supervise(
    session: &Session,
    handler: &Registered,
    context: &Context,
    mut running: Running,
    token: &CancellationToken,
    deadline: Option<Instant>,
) -> Option<(Option<Cause>, Option<Result<Value, JobError>>)> {
    let timed_out = async {
        let mut timeout = context.job().timeout.or(handler.timeout);
        if let Some(gate) = context.gate() {
            // Boxed, as below: attempts without a gate, which are most, shall not be larger for it.
            gate.begun().boxed().await;
            timeout = gate.limited(timeout);
        }
        match timeout {
            Some(timeout) => {
                tokio::time::sleep(timeout).await;
                timeout
            }
            None => std::future::pending().await,
        }
    };
    // What has not begun when the worker shall stop does not begin any more.
    let stopped_before = match context.gate() {
        Some(gate) => async {
            session.stop.cancelled().await;
            if !gate.give_up() {
                std::future::pending().await
            }
        }
        .boxed(),
        None => std::future::pending().boxed(),
    };
    let cause = tokio::select! {
        biased;
        result = &mut running => {
            // It may have heeded a cancellation request before it came to be polled here.
            return Some((token.is_cancelled().then_some(Cause::Cancelled), Some(result)));
        }
        () = session.lost.cancelled() => {
            token.cancel();
            return None;
        }
        // Nobody but a cancellation request has cancelled it so far: the handler has a child of it.
        () = token.cancelled() => Cause::Cancelled,
        () = at(deadline) => Cause::Deadline,
        timeout = timed_out => Cause::TimedOut(timeout),
        () = session.abort.cancelled() => Cause::Shutdown,
        () = stopped_before => Cause::Shutdown,
    };
    token.cancel();
    if context.gate().is_some_and(|gate| gate.give_up()) {
        return Some((Some(cause), None));
    }
    let wind_up = async {
        match handler.nature {
            Nature::Async => {}
            // A thread cannot be dropped. Its job stays ours until it ends, or until the process is to: then the lease
            // runs out.
            Nature::Blocking => session.abort.cancelled().await,
            // It sees to that itself, once it is told to stop for all of its jobs.
            Nature::Batch => std::future::pending().await,
        }
        tokio::time::sleep(handler.abort_after).await;
    };
    tokio::select! {
        biased;
        result = &mut running => Some((Some(cause), Some(result))),
        () = session.lost.cancelled() => None,
        () = wind_up => {
            if handler.nature == Nature::Blocking {
                tracing::warn!("a blocking handler outlives the shutdown; its job is rescued when its lease runs out");
                session.leave_behind();
                return None;
            }
            Some((Some(cause), None))
        }
    }
}

/// What is to be recorded. A handler that was told to stop and succeeded all the same has succeeded.
fn conclude(
    context: &Context,
    handler: &Registered,
    cause: Option<Cause>,
    result: Option<Result<Value, JobError>>,
) -> Outcome {
    let job = context.job();
    let failed = |error: JobError| {
        error.outcome(job.attempt, job.max_attempts, &handler.retry, &mut fastrand::Rng::new())
    };
    match (cause, result) {
        (_, Some(Ok(_))) if context.completion() == Completion::Begun => failed(JobError::retry(
            "the handler began ctx.transaction() and returned without completing it, so nothing of it is real; \
             return tx.complete(value).await",
        )),
        (_, Some(Ok(result))) => Outcome::Succeeded { result, keep: handler.result_ttl },
        (Some(Cause::Cancelled), _) => Outcome::Cancelled,
        (Some(Cause::Shutdown), _) => Outcome::Released,
        (Some(Cause::Deadline), _) => {
            Outcome::Dead { error: "expired: its deadline passed during the attempt".into() }
        }
        (Some(Cause::TimedOut(timeout)), _) => {
            let timeout = timeout.as_secs_f64();
            failed(JobError::retry(format!("the attempt took longer than its timeout of {timeout} s")))
        }
        (None, Some(Err(error))) => failed(error),
        (None, None) => Outcome::Released,
    }
}

/// No attempt starts after the job's deadline, so one that would is not waited for.
fn within(deadline: Option<Instant>, outcome: Outcome) -> Outcome {
    let too_late = |after: Duration| {
        deadline.is_some_and(|deadline| Instant::now().checked_add(after).is_none_or(|at| at >= deadline))
    };
    match outcome {
        Outcome::Retry { after, error } if too_late(after) => Outcome::Dead {
            error: format!("{error} (expired: its deadline leaves no time for another attempt)"),
        },
        Outcome::Snoozed { after } if too_late(after) => {
            Outcome::Dead { error: "expired: its deadline passes while it is snoozed".into() }
        }
        outcome => outcome,
    }
}

/// Comes at this instant; never, for none.
pub(crate) async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn report(outcome: &Outcome) {
    match outcome {
        Outcome::Succeeded { .. } => tracing::debug!("succeeded"),
        Outcome::Retry { after, error } => tracing::warn!(error, retry_in = ?after, "attempt failed"),
        Outcome::Dead { error } => tracing::error!(error, "attempt failed for good"),
        Outcome::Cancelled => tracing::info!("cancelled"),
        Outcome::Snoozed { after } => tracing::debug!(?after, "snoozed"),
        Outcome::Released => tracing::info!("released"),
    }
}
