use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{Gating, InvalidUnique, KindInfo, RetryPolicy, Source, Unique};

/// A payload type, bound once to its kind and to the defaults of its jobs.
///
/// Usually derived: `#[derive(Serialize, Deserialize, Job)] #[job(kind = "email.send", queue = "mail")]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a job payload",
    label = "this type has no kind",
    note = "add `#[derive(Serialize, Deserialize, Job)]` and `#[job(kind = \"…\")]` to `{Self}`"
)]
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind, unique among all payload types.
    const KIND: &'static str;
    /// The queue its jobs wait in, unless the enqueue says otherwise.
    const QUEUE: &'static str = "default";
    /// How many attempts its jobs get, unless the enqueue says otherwise.
    const MAX_ATTEMPTS: u32 = KindInfo::DEFAULT_MAX_ATTEMPTS;
    /// How long one attempt may run, unless the enqueue says otherwise; `None` is without limit.
    const TIMEOUT: Option<Duration> = None;
    /// When a failed attempt is tried again.
    const RETRY: RetryPolicy = RetryPolicy::DEFAULT;
    /// How long the results of its jobs are kept; `None` leaves it to the worker's setting `result_ttl`.
    const RESULT_TTL: Option<Duration> = None;
    /// Which form of the payload this type is. Raise it with every change that older workers could not read: they leave
    /// jobs of a newer version to newer workers, so that both may run side by side during a rollout.
    const VERSION: u16 = 1;

    /// Brings the payload of an older version up to [`VERSION`](Self::VERSION), before it is read.
    ///
    /// # Errors
    /// A version that it does not know, which is any unless a type says otherwise. The attempt fails.
    fn upgrade(from: u16, payload: serde_json::Value) -> Result<serde_json::Value, Source> {
        let _ = payload;
        Err(format!(
            "{} knows version {} of its payload and has no `upgrade` from version {from}",
            Self::KIND,
            Self::VERSION
        )
        .into())
    }

    /// Whether this job is to be the only one of its kind, and for how long; the enqueue may say otherwise.
    ///
    /// # Errors
    /// A key or field that breaks the rules. The job is not enqueued.
    fn unique(&self) -> Result<Option<Unique>, InvalidUnique> {
        Ok(None)
    }

    /// The JSON Schema of the payload in this [`VERSION`](Self::VERSION), if there is one. Workers publish it, and the API
    /// then refuses what could never be read.
    ///
    /// The derive finds it where the type implements `schemars::JsonSchema` and the feature `schema` of `windlass` is on.
    fn schema() -> Option<serde_json::Value> {
        None
    }

    /// What this job may have to wait for when it is due: limits, its ordering key, its tenant's turn. The enqueue may add
    /// to it.
    fn gating(&self) -> Gating {
        Gating::default()
    }
}
