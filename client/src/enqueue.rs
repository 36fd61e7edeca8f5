use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    str::FromStr,
    time::Duration,
};

use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};
use windlass_core::{
    Gating, Idempotency, InsertOutcome, InvalidKey, InvalidUnique, Job, JobId, NewJob, OnFailure, Priority,
    QueueName, Timestamp, TraceParent, Unique,
};

use crate::{Client, ClientError};

/// How long an idempotency key is remembered unless said otherwise.
pub(crate) const KEY_TTL: Duration = Duration::from_secs(24 * 3600);

/// A job about to be enqueued: set what differs from its type's defaults, then `.await` it.
#[must_use = "nothing is enqueued before this is awaited"]
#[derive(Debug)]
pub struct Enqueue<J> {
    client: Client,
    job: J,
    queue: Option<QueueName>,
    priority: Priority,
    run_at: When,
    max_attempts: u32,
    timeout: Option<Duration>,
    gating: Result<Gating, InvalidKey>,
    labels: Vec<(String, String)>,
    trace: Option<TraceParent>,
    key: Option<(String, Duration)>,
    expires: When,
    deadline: When,
    unique: Result<Option<Unique>, InvalidUnique>,
}

#[derive(Debug, Clone, Copy)]
enum When {
    Unsaid,
    At(Timestamp),
    After(Duration),
}

impl When {
    fn instant(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Unsaid => None,
            Self::At(at) => Some(at),
            // A delay beyond what the calendar holds is for ever.
            Self::After(delay) => Some(
                chrono::TimeDelta::from_std(delay)
                    .ok()
                    .and_then(|delay| now.checked_add_signed(delay))
                    .unwrap_or(Timestamp::MAX_UTC),
            ),
        }
    }
}

impl<J: Job> Enqueue<J> {
    pub(crate) fn new(client: Client, job: J) -> Self {
        let mut gating = job.gating();
        gating.tenant = gating.tenant.or_else(|| client.tenant().cloned());
        Self {
            client,
            gating: Ok(gating),
            unique: job.unique(),
            job,
            queue: None,
            priority: Priority::default(),
            run_at: When::Unsaid,
            max_attempts: J::MAX_ATTEMPTS,
            timeout: None,
            labels: Vec::new(),
            trace: None,
            key: None,
            expires: When::Unsaid,
            deadline: When::Unsaid,
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
        self.run_at = When::After(delay);
        self
    }

    /// Not to be run before this instant.
    pub fn run_at(mut self, at: Timestamp) -> Self {
        self.run_at = When::At(at);
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

    /// Not to be started after this instant: then it is `dead`. Once an attempt has started, it counts no more.
    pub fn expires_at(mut self, at: Timestamp) -> Self {
        self.expires = When::At(at);
        self
    }

    /// As [`expires_at`](Self::expires_at), after this time, by this machine's clock.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires = When::After(time);
        self
    }

    /// To be over by this instant: no attempt starts or goes on after it, and the job is `dead`.
    pub fn deadline(mut self, at: Timestamp) -> Self {
        self.deadline = When::At(at);
        self
    }

    /// As [`deadline`](Self::deadline), after this time, by this machine's clock.
    pub fn deadline_in(mut self, time: Duration) -> Self {
        self.deadline = When::After(time);
        self
    }

    /// Makes it the only one of its key, or has it debounced or throttled. Where another job has the key, the id answered is
    /// that one's, or the error [`ClientError::NotUnique`] if the rule is to refuse.
    pub fn unique(mut self, unique: Unique) -> Self {
        self.unique = Ok(Some(unique));
        self
    }

    /// Not unique, whatever its type says: needed in a workflow, where a job cannot give way to another.
    pub fn not_unique(mut self) -> Self {
        self.unique = Ok(None);
        self
    }

    /// Lets it wait for room under a limit: `name`, or `name/key` for a key of its own, as in `customer/42`.
    pub fn limit(self, limit: impl AsRef<str>) -> Self {
        self.gated(limit, |gating, limit| gating.limits.push(limit))
    }

    /// Has it run after all jobs of this key that were accepted before, and before those accepted later.
    pub fn ordering_key(self, key: impl AsRef<str>) -> Self {
        self.gated(key, |gating, key| gating.ordering_key = Some(key))
    }

    /// Whether the successors of its ordering key wait until it is over, or pass it while it waits for a retry.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        if let Ok(gating) = &mut self.gating {
            gating.on_failure = on_failure;
        }
        self
    }

    /// On whose behalf it runs, in a queue that tenants share fairly.
    pub fn tenant(self, tenant: impl AsRef<str>) -> Self {
        self.gated(tenant, |gating, tenant| gating.tenant = Some(tenant))
    }

    /// The first key that breaks the rule is told when the job is enqueued.
    fn gated<K: FromStr<Err = InvalidKey>>(
        mut self,
        key: impl AsRef<str>,
        set: impl FnOnce(&mut Gating, K),
    ) -> Self {
        self.gating = self.gating.and_then(|mut gating| {
            set(&mut gating, key.as_ref().parse()?);
            Ok(gating)
        });
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
        client.envelope().seal_job(&mut job).await?;
        let store = client
            .store()
            .as_any()
            .downcast_ref::<windlass_store::PostgresStore>()
            .ok_or(ClientError::NeedsPostgres { what: "enqueueing in your own transaction" })?;
        let inserted = store.insert_in(transaction, std::slice::from_ref(&job)).await?;
        // One job, one answer.
        inserted
            .outcomes
            .first()
            .map_or(Ok(job.id), |outcome| answer(job.id, &job.queue, &job.gating, *outcome))
    }

    pub(crate) fn into_new_job(self) -> Result<NewJob, ClientError> {
        let payload = to_raw_value(&self.job).map_err(ClientError::Payload)?;
        let mut job = NewJob::new(J::KIND.parse()?, payload);
        job.queue = match self.queue {
            Some(queue) => queue,
            None => J::QUEUE.parse()?,
        };
        job.priority = self.priority;
        job.max_attempts = self.max_attempts;
        job.timeout = self.timeout;
        let now = self.client.now();
        job.run_at = self.run_at.instant(now);
        job.expires_at = self.expires.instant(now);
        job.deadline = self.deadline.instant(now);
        job.version = J::VERSION;
        job.unique = self.unique?.map(Box::new);
        job.gating = self.gating?;
        if job.gating.limits.len() > Gating::MAX_LIMITS {
            return Err(ClientError::TooManyLimits);
        }
        job.labels = self.labels.into_iter().collect();
        job.trace = self.trace;
        let tenant = job.gating.tenant.as_ref();
        let idempotency = self.key.map(|(key, ttl)| Idempotency::new(tenant, key, fingerprint(&job), ttl));
        job.idempotency = idempotency.map(Box::new);
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
            // What a refusal names.
            let (id, queue, gating) = (job.id, job.queue.clone(), job.gating.clone());
            let accepted = client.accept(job).await?;
            answer(id, &queue, &gating, accepted.outcome)
        })
    }
}

pub(crate) fn answer(
    id: JobId,
    queue: &QueueName,
    gating: &Gating,
    outcome: InsertOutcome,
) -> Result<JobId, ClientError> {
    match outcome {
        InsertOutcome::Created(_) => Ok(id),
        InsertOutcome::Existing(id) | InsertOutcome::Held(id) | InsertOutcome::Replaced(id) => Ok(id),
        InsertOutcome::Refused(holder) => Err(ClientError::NotUnique(holder)),
        InsertOutcome::KeyReused => Err(ClientError::KeyReused),
        InsertOutcome::QueueDraining => Err(ClientError::QueueDraining(queue.clone())),
        InsertOutcome::UnknownLimit(at) => match gating.limits.get(at) {
            Some(limit) => Err(ClientError::UnknownLimit(limit.clone())),
            None => Err(ClientError::TooManyLimits),
        },
        InsertOutcome::OverQuota => Err(match &gating.tenant {
            Some(tenant) => ClientError::OverQuota(tenant.clone()),
            None => ClientError::Overloaded,
        }),
    }
}

/// A hash of everything that decides what the job is.
pub(crate) fn fingerprint(job: &NewJob) -> [u8; 32] {
    let mut hash = Sha256::new();
    let max_attempts = job.max_attempts.to_string();
    let priority = (job.priority as u8).to_string();
    // It consists of texts only, so it always can be written.
    let gating = serde_json::to_string(&job.gating).unwrap_or_default();
    let parts = [
        job.kind.as_str(),
        job.queue.as_str(),
        &priority,
        &max_attempts,
        RawValue::get(&job.payload),
        &gating,
    ];
    let labels = job.labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    for part in parts.into_iter().chain(labels) {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    // As it was before there were versions, so that repeats are known across an upgrade.
    if job.version != 1 {
        hash.update(job.version.to_be_bytes());
    }
    hash.finalize().into()
}
