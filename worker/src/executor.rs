use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use windlass_core::{ClaimedJob, Outcome};

use crate::{
    Context, JobError,
    context::Completion,
    handler::{Registered, Run, Value},
    session::Session,
};

/// How long a handler that was told to stop may take to do so before it is dropped.
const WIND_UP: Duration = Duration::from_secs(5);

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
/// `permit` is the place among the running jobs; it goes with a blocking handler's thread, whose end alone frees it.
pub(crate) async fn execute(
    session: &Session,
    handler: Registered,
    job: ClaimedJob,
    deadline: Option<Instant>,
    token: CancellationToken,
    permit: OwnedSemaphorePermit,
) -> Ending {
    let span = tracing::info_span!(
        "attempt",
        job_id = %job.id, kind = %job.kind, queue = %job.queue, attempt = job.attempt,
        traceparent = job.trace.as_ref().map(|trace| trace.as_str()),
    );
    let timeout = job.timeout.or(handler.timeout);
    let context =
        Context::new(job, session.id, session.client.clone(), session.states.clone(), token.child_token());
    let blocking = matches!(handler.run, Run::Blocking(_));
    let running = start(&handler.run, context.clone(), permit);
    async {
        let Some((cause, result)) = supervise(session, running, &token, timeout, deadline, blocking).await
        else {
            return Ending::Abandoned;
        };
        if context.completion() == Completion::Committed {
            tracing::debug!("succeeded");
            return Ending::Committed;
        }
        let outcome = within(deadline, conclude(&context, &handler, cause, result));
        report(&outcome);
        Ending::Outcome(outcome)
    }
    .instrument(span)
    .await
}

/// Starts the handler, with its panics made into errors.
fn start(run: &Run, context: Context, permit: OwnedSemaphorePermit) -> Running {
    match run {
        Run::Async(handler) => {
            // Calling it may panic as well as polling it.
            let handler = handler.clone();
            let running = AssertUnwindSafe(async move { handler(context).await }).catch_unwind();
            running
                .map(move |ended| {
                    drop(permit);
                    ended.unwrap_or_else(|panic| Err(panicked(&*panic)))
                })
                .boxed()
        }
        Run::Blocking(handler) => {
            let handler = handler.clone();
            let span = tracing::Span::current();
            let thread = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                span.in_scope(|| std::panic::catch_unwind(AssertUnwindSafe(|| handler(context))))
            });
            thread
                .map(|ended| match ended {
                    Ok(Ok(result)) => result,
                    Ok(Err(panic)) => Err(panicked(&*panic)),
                    Err(error) => Err(JobError::retry(error)),
                })
                .boxed()
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> JobError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    JobError::retry(format!("the handler panicked: {}", text.unwrap_or("(no message)")))
}

/// Waits for the handler's end, and sees to it that it comes. `None`: the lease is lost, or the handler left behind.
async fn supervise(
    session: &Session,
    mut running: Running,
    token: &CancellationToken,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    blocking: bool,
) -> Option<(Option<Cause>, Option<Result<Value, JobError>>)> {
    let timed_out = async {
        match timeout {
            Some(timeout) => {
                tokio::time::sleep(timeout).await;
                timeout
            }
            None => std::future::pending().await,
        }
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
    };
    token.cancel();
    let wind_up = async {
        // A thread cannot be dropped. Its job stays ours until it ends, or until the process is to: then the lease runs
        // out.
        if blocking {
            session.abort.cancelled().await;
        }
        tokio::time::sleep(WIND_UP).await;
    };
    tokio::select! {
        biased;
        result = &mut running => Some((Some(cause), Some(result))),
        () = session.lost.cancelled() => None,
        () = wind_up => {
            if blocking {
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
        (_, Some(Ok(result))) => Outcome::Succeeded { result },
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
