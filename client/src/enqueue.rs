use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};
use windlass_core::{
    Idempotency, InsertOutcome, Job, JobId, NewJob, Priority, QueueName, Timestamp, TraceParent,
};

use crate::{Client, ClientError};

/// How long an idempotency key is remembered unless said otherwise.
const KEY_TTL: Duration = Duration::from_secs(24 * 3600);

/// A job about to be enqueued: set what differs from its type's defaults, then `.await` it.
#[must_use = "nothing is enqueued before this is awaited"]
#[derive(Debug)]
pub struct Enqueue<J> {
    client: Client,
    job: J,
    queue: Option<QueueName>,
    priority: Priority,
    run_at: RunAt,
    max_attempts: u32,
    timeout: Option<Duration>,
    labels: Vec<(String, String)>,
    trace: Option<TraceParent>,
    key: Option<(String, Duration)>,
}

#[derive(Debug, Clone, Copy)]
enum RunAt {
    Now,
    At(Timestamp),
    After(Duration),
}

impl<J: Job> Enqueue<J> {
    pub(crate) fn new(client: Client, job: J) -> Self {
        Self {
            client,
            job,
            queue: None,
            priority: Priority::default(),
            run_at: RunAt::Now,
            max_attempts: J::MAX_ATTEMPTS,
            timeout: None,
            labels: Vec::new(),
            trace: None,
            key: None,
        }
    }

    /// Puts it into another queue than its type's.
    pub fn queue(mut self, queue: QueueName) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Makes it more or less urgent than normal.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Not to be run before this time has passed, by this machine's clock.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.run_at = RunAt::After(delay);
        self
    }

    /// Not to be run before this instant.
    pub fn run_at(mut self, at: Timestamp) -> Self {
        self.run_at = RunAt::At(at);
        self
    }

    /// How many attempts may be started; 0 counts as 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// How long one attempt may run.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Adds a label to find it by.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Makes the enqueue part of a trace.
    pub fn trace(mut self, trace: TraceParent) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Makes the enqueue repeatable: for a day, the same key with the same job gives the first one's id, and with
    /// another job [`ClientError::KeyReused`]. Time settings may differ between repeats.
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        self.idempotency_key_for(key, KEY_TTL)
    }

    /// As [`idempotency_key`](Self::idempotency_key), remembered for `ttl`.
    pub fn idempotency_key_for(mut self, key: impl Into<String>, ttl: Duration) -> Self {
        self.key = Some((key.into(), ttl));
        self
    }

    /// Enqueues it in your own Postgres transaction: it becomes real with your commit, or not at all.
    ///
    /// # Errors
    /// See [`ClientError`]; also when the store is not Postgres.
    #[cfg(feature = "postgres")]
    pub async fn within(self, transaction: &mut sqlx::PgConnection) -> Result<JobId, ClientError> {
        let client = self.client.clone();
        let mut job = self.into_new_job()?;
        client.envelope().seal_job(&mut job)?;
        let store = client
            .store()
            .as_any()
            .downcast_ref::<windlass_store::PostgresStore>()
            .ok_or(ClientError::NeedsPostgres { what: "enqueueing in your own transaction" })?;
        let inserted = store.insert_in(transaction, std::slice::from_ref(&job)).await?;
        // One job, one answer.
        inserted.outcomes.first().map_or(Ok(job.id), |outcome| answer(job.id, *outcome))
    }

    fn into_new_job(self) -> Result<NewJob, ClientError> {
        let payload = to_raw_value(&self.job).map_err(ClientError::Payload)?;
        let mut job = NewJob::new(J::KIND.parse()?, payload);
        job.queue = match self.queue {
            Some(queue) => queue,
            None => J::QUEUE.parse()?,
        };
        job.priority = self.priority;
        job.max_attempts = self.max_attempts;
        job.timeout = self.timeout;
        job.run_at = match self.run_at {
            RunAt::Now => None,
            RunAt::At(at) => Some(at),
            // A delay beyond what the calendar holds is for ever.
            RunAt::After(delay) => Some(
                chrono::TimeDelta::from_std(delay)
                    .ok()
                    .and_then(|delay| chrono::Utc::now().checked_add_signed(delay))
                    .unwrap_or(Timestamp::MAX_UTC),
            ),
        };
        job.labels = self.labels.into_iter().collect();
        job.trace = self.trace;
        job.idempotency = self.key.map(|(key, ttl)| Idempotency { key, fingerprint: fingerprint(&job), ttl });
        Ok(job)
    }
}

impl<J: Job> IntoFuture for Enqueue<J> {
    type Output = Result<JobId, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let client = self.client.clone();
            let job = self.into_new_job()?;
            let id = job.id;
            answer(id, client.accept(job).await?.outcome)
        })
    }
}

fn answer(id: JobId, outcome: InsertOutcome) -> Result<JobId, ClientError> {
    match outcome {
        InsertOutcome::Created(_) => Ok(id),
        InsertOutcome::Existing(id) => Ok(id),
        InsertOutcome::KeyReused => Err(ClientError::KeyReused),
    }
}

fn fingerprint(job: &NewJob) -> [u8; 32] {
    let mut hash = Sha256::new();
    let max_attempts = job.max_attempts.to_string();
    let priority = (job.priority as u8).to_string();
    let parts =
        [job.kind.as_str(), job.queue.as_str(), &priority, &max_attempts, RawValue::get(&job.payload)];
    let labels = job.labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    for part in parts.into_iter().chain(labels) {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
