use std::{any::TypeId, fmt, future::Future, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use windlass_client::Client;
use windlass_core::Job;

use crate::{
    Context, FromContext, JobError, State,
    gathering::Slot,
    handler::{decode, value},
};

/// Many jobs of a kind, given to their handler at once. Each is an attempt of its own, and wants an outcome of its own.
///
/// ```no_run
/// # use windlass_worker::{Batch, JobError, State};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Row {}
/// # impl windlass_core::Job for Row { const KIND: &'static str = "row"; }
/// # struct Table;
/// # impl Table { async fn insert(&self, rows: &[&Row]) -> Result<Vec<bool>, std::io::Error> { Ok(vec![]) } }
/// async fn insert_rows(rows: Batch<Row>, table: State<Table>) -> Result<(), JobError> {
///     let payloads: Vec<_> = rows.payloads().collect();
///     let new = table.insert(&payloads).await?; // an error is that of every row
///     for (row, new) in rows.into_iter().zip(new) {
///         if new { row.succeed(()) } else { row.fail(JobError::discard("it is there already")) }
///     }
///     Ok(())
/// }
/// ```
///
/// A job without outcome when the handler ends has failed: with the handler's error, or its panic, or because it has been
/// left out. An outcome counts from the moment it is given, whatever becomes of the others.
#[derive(Debug)]
pub struct Batch<J> {
    jobs: Vec<BatchJob<J>>,
    client: Client,
    cancelled: CancellationToken,
}

/// One job of a batch.
pub struct BatchJob<J> {
    payload: J,
    slot: Arc<Slot>,
}

/// How jobs gather to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// The most jobs in one, at which it waits for no more: 1 to 10,000.
    pub max_size: usize,
    /// How long its first job may wait for company. It may have to wait for longer until the batch has its place
    /// among the running handlers, and until then it takes more company.
    pub max_wait: Duration,
}

impl<J> Batch<J> {
    /// How many there are; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a batch has at least one job")]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The jobs.
    pub fn iter(&self) -> std::slice::Iter<'_, BatchJob<J>> {
        self.jobs.iter()
    }

    /// Their payloads, in the same order.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &J> {
        self.jobs.iter().map(BatchJob::payload)
    }

    /// All have succeeded, with nothing to tell.
    pub fn succeed(self) {
        self.jobs.into_iter().for_each(|job| job.succeed(()));
    }

    /// Cancelled when each job without outcome has been told to stop: by a cancellation request, its timeout, or the
    /// end of a shutdown's grace. A handler that does not stop is dropped after its
    /// [`abort_after`](crate::Handling::abort_after).
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// The client, to enqueue more jobs.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl<J> IntoIterator for Batch<J> {
    type Item = BatchJob<J>;
    type IntoIter = std::vec::IntoIter<BatchJob<J>>;

    fn into_iter(self) -> Self::IntoIter {
        self.jobs.into_iter()
    }
}

impl<'a, J> IntoIterator for &'a Batch<J> {
    type Item = &'a BatchJob<J>;
    type IntoIter = std::slice::Iter<'a, BatchJob<J>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<J> BatchJob<J> {
    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &J {
        &self.payload
    }

    /// The job's attempt. Its token is cancelled when this job shall stop: give it an outcome without delay, and the
    /// others are not disturbed.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.slot.context()
    }

    /// It has succeeded, with this result.
    pub fn succeed<R: Serialize>(self, result: R) {
        self.slot.settle(value(result));
    }

    /// It has failed.
    pub fn fail(self, error: impl Into<JobError>) {
        self.slot.settle(Err(error.into()));
    }
}

impl<J: fmt::Debug> fmt::Debug for BatchJob<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchJob").field("payload", &self.payload).field("context", self.context()).finish()
    }
}

/// An async function that handles many jobs of one kind at once: a [`Batch`] first, then up to four of
/// [`State<T>`](crate::State). It returns `Result<(), E>` with any error; each job has its own outcome.
#[diagnostic::on_unimplemented(
    message = "this is not a batch handler",
    label = "expected `async fn(Batch<payload>, …) -> Result<(), E>`",
    note = "the batch comes first, its payload derives `Job`; after it, only `State<T>`, at most four",
    note = "`E` must be an error or `JobError`, and the future must be `Send`"
)]
pub trait BatchHandler<Arguments>: Clone + Send + Sync + 'static {
    /// The payload.
    type Job: Job;

    /// Runs the batch; `first` is one of its jobs' attempts.
    fn call(
        self,
        batch: Batch<Self::Job>,
        first: Context,
    ) -> impl Future<Output = Result<(), JobError>> + Send;

    /// The states it asks for.
    fn needs() -> Vec<(TypeId, &'static str)>;
}

macro_rules! batch_handlers {
    ($($argument:ident),*) => {
        #[allow(non_snake_case, unused_variables, reason = "one macro for any number of arguments")]
        impl<F, Fut, J, E, $($argument),*> BatchHandler<(J, $($argument,)*)> for F
        where
            F: Fn(Batch<J>, $(State<$argument>),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Result<(), E>> + Send,
            J: Job,
            E: Into<JobError>,
            $($argument: Send + Sync + 'static,)*
        {
            type Job = J;

            async fn call(self, batch: Batch<J>, first: Context) -> Result<(), JobError> {
                $(let $argument = State::<$argument>::from_context(&first)?;)*
                drop(first);
                self(batch, $($argument),*).await.map_err(Into::into)
            }

            fn needs() -> Vec<(TypeId, &'static str)> {
                let needs = [$(State::<$argument>::needs()),*];
                Vec::<Option<(TypeId, &'static str)>>::from(needs).into_iter().flatten().collect()
            }
        }
    };
}

batch_handlers!();
batch_handlers!(A);
batch_handlers!(A, B);
batch_handlers!(A, B, C);
batch_handlers!(A, B, C, D);

/// A batch handler without its types: it gets the jobs, and the token that it hears of the end by.
pub(crate) type BatchFn =
    Arc<dyn Fn(Vec<Arc<Slot>>, CancellationToken) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

pub(crate) struct Batches {
    pub(crate) run: BatchFn,
    pub(crate) options: BatchOptions,
}

impl Batches {
    pub(crate) fn new<A, H: BatchHandler<A>>(handler: H, mut options: BatchOptions) -> Self {
        options.max_size = options.max_size.clamp(1, 10_000);
        let run = move |slots: Vec<Arc<Slot>>, cancelled| {
            let handler = handler.clone();
            async move {
                let jobs: Vec<_> = slots.into_iter().filter_map(read).collect();
                let Some(first) = jobs.first().map(|job| job.context().clone()) else { return Ok(()) };
                // The jobs of a batch may be of several tenants.
                let client = first.client().on_behalf_of(None);
                handler.call(Batch { jobs, client, cancelled }, first).await
            }
            .boxed()
        };
        Self { run: Arc::new(run), options }
    }
}

/// A payload that cannot be read is the failure of its own job only.
fn read<J: Job>(slot: Arc<Slot>) -> Option<BatchJob<J>> {
    match decode(slot.context()) {
        Ok(payload) => Some(BatchJob { payload, slot }),
        Err(error) => {
            slot.settle(Err(error));
            None
        }
    }
}
