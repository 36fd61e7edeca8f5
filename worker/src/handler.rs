use std::{any::TypeId, future::Future};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use windlass_core::Job;

use crate::{Context, FromContext, JobError, run::Value};

/// An async function that handles one kind of job: the payload first, then up to four of [`Context`] and
/// [`State<T>`](crate::State). It returns `Result<R, E>` with an `R` that can be serialised and any error.
#[diagnostic::on_unimplemented(
    message = "this is not a job handler",
    label = "expected `async fn(payload, …) -> Result<R, E>`",
    note = "the payload comes first and derives `Job`; after it, only `Context` and `State<T>`, at most four",
    note = "`R` must be `Serialize`, `E` an error or `JobError`, and the future must be `Send`"
)]
pub trait Handler<Arguments>: Clone + Send + Sync + 'static {
    /// The payload.
    type Job: Job;

    /// Runs one attempt.
    fn call(self, job: Self::Job, context: Context) -> impl Future<Output = Result<Value, JobError>> + Send;

    /// The states it asks for.
    fn needs() -> Vec<(TypeId, &'static str)>;
}

/// A plain function that handles one kind of job and may block its thread; otherwise as [`Handler`].
#[diagnostic::on_unimplemented(
    message = "this is not a blocking job handler",
    label = "expected `fn(payload, …) -> Result<R, E>`",
    note = "the payload comes first and derives `Job`; after it, only `Context` and `State<T>`, at most four",
    note = "an `async fn` goes to `.handle(…)`"
)]
pub trait BlockingHandler<Arguments>: Clone + Send + Sync + 'static {
    /// The payload.
    type Job: Job;

    /// Runs one attempt on this thread.
    ///
    /// # Errors
    /// The handler's.
    fn call(self, job: Self::Job, context: Context) -> Result<Value, JobError>;

    /// The states it asks for.
    fn needs() -> Vec<(TypeId, &'static str)>;
}

macro_rules! handlers {
    ($($argument:ident),*) => {
        #[allow(non_snake_case, unused_variables, reason = "one macro for any number of arguments")]
        impl<F, Fut, J, R, E, $($argument),*> Handler<(J, $($argument,)*)> for F
        where
            F: Fn(J, $($argument),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Result<R, E>> + Send,
            J: Job,
            R: Serialize,
            E: Into<JobError>,
            $($argument: FromContext + Send,)*
        {
            type Job = J;

            async fn call(self, job: J, context: Context) -> Result<Value, JobError> {
                $(let $argument = $argument::from_context(&context)?;)*
                value(self(job, $($argument),*).await.map_err(Into::into)?)
            }

            fn needs() -> Vec<(TypeId, &'static str)> {
                Vec::<Option<(TypeId, &'static str)>>::from([$($argument::needs()),*]).into_iter().flatten().collect()
            }
        }

        #[allow(non_snake_case, unused_variables, reason = "one macro for any number of arguments")]
        impl<F, J, R, E, $($argument),*> BlockingHandler<(J, $($argument,)*)> for F
        where
            F: Fn(J, $($argument),*) -> Result<R, E> + Clone + Send + Sync + 'static,
            J: Job,
            R: Serialize,
            E: Into<JobError>,
            $($argument: FromContext,)*
        {
            type Job = J;

            fn call(self, job: J, context: Context) -> Result<Value, JobError> {
                $(let $argument = $argument::from_context(&context)?;)*
                value(self(job, $($argument),*).map_err(Into::into)?)
            }

            fn needs() -> Vec<(TypeId, &'static str)> {
                Vec::<Option<(TypeId, &'static str)>>::from([$($argument::needs()),*]).into_iter().flatten().collect()
            }
        }
    };
}

handlers!();
handlers!(A);
handlers!(A, B);
handlers!(A, B, C);
handlers!(A, B, C, D);

pub(crate) fn value(result: impl Serialize) -> Result<Value, JobError> {
    let value = to_raw_value(&result)?;
    Ok((value.get() != "null").then_some(value))
}

/// Reads the payload, by way of an upgrade if it is of an older version. One that cannot be read is retried by policy as
/// any failure: in a rollout, the next worker may understand it.
pub(crate) fn decode<J: Job>(context: &Context) -> Result<J, JobError> {
    read(context.job().version, &context.job().payload)
}

/// As [`decode`], of a payload of this version.
pub(crate) fn read<J: Job>(version: u16, payload: &RawValue) -> Result<J, JobError> {
    let misfit = |error| JobError::retry(format!("the payload does not fit {}: {error}", J::KIND));
    if version >= J::VERSION {
        return serde_json::from_str(payload.get()).map_err(misfit);
    }
    let old = serde_json::from_str(payload.get()).map_err(misfit)?;
    let new = J::upgrade(version, old).map_err(JobError::retry)?;
    serde_json::from_value(new).map_err(misfit)
}
