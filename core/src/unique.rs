use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use sha2::{Digest as _, Sha256};

use crate::{JobId, Kind, NewJob, State, Tenant, Timestamp};

/// Makes a job the only one of its key, and says what becomes of another.
///
/// ```
/// # use windlass_core::{OnConflict, Unique};
/// # use std::time::Duration;
/// // One at a time for each customer, of the same kind:
/// let unique = Unique::by_fields(["/customer"])?;
/// // Once an hour for this key, whatever the kind; another is refused:
/// let unique = Unique::by_key("report")?.within(Duration::from_secs(3600)).on_conflict(OnConflict::Refuse);
/// // However often it is asked for, it runs half a minute after the last time:
/// let unique = Unique::debounce("index", Duration::from_secs(30))?.max_wait(Duration::from_secs(300));
/// # Ok::<_, windlass_core::InvalidUnique>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    by: By,
    hold: Hold,
    on_conflict: OnConflict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    debounce: Option<Debounce>,
}

/// What two jobs must share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// A key, in one of the name spaces that keep different uses of one key apart.
    Key(char, String),
    /// Their kind, and the fields of their payloads at these JSON pointers.
    Fields(Vec<String>),
    /// The key that their fields gave before the payload was [changed](Unique::bind).
    Fixed([u8; 32]),
}

/// How long a job has its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Hold {
    /// Until it is over.
    Unfinished,
    /// Until its first attempt starts, or it is over.
    Unstarted,
    /// For a time from its acceptance, whatever becomes of it.
    Period(Duration),
}

/// What becomes of a job whose key another has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// It is not stored; the answer is the other job.
    #[default]
    Existing,
    /// The other job gets its payload, if that has not been started yet; otherwise as `Existing`.
    Replace,
    /// The other job gets its payload and, as long as it waits for its time, its time as well.
    ReplaceAll,
    /// It is refused.
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Debounce {
    delay: Duration,
    max_wait: Option<Duration>,
}

/// A rule of uniqueness that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnique {
    /// The key is empty or too long.
    #[error("a key has 1 to 255 bytes")]
    Key,
    /// No field, or too many of them.
    #[error("name 1 to 16 fields")]
    Fields,
    /// A field is not named by a JSON pointer.
    #[error(
        "name a field by a JSON pointer (RFC 6901) of up to 255 bytes, such as \"/customer\"; \"\" is the whole payload"
    )]
    Pointer,
}

/// Who has a key, as a store sees it while nobody else can change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// The job.
    pub id: JobId,
    /// Its state; `None` if there is no such job any more.
    pub state: Option<State>,
    /// Whether an attempt of it has ever been claimed.
    pub claimed: bool,
    /// Until when it has the key, if that does not depend on its state.
    pub until: Option<Timestamp>,
    /// When it was accepted.
    pub created_at: Timestamp,
}

/// What becomes of a job that wants a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyVerdict {
    /// It gets the key.
    Take,
    /// The other keeps it.
    Held,
    /// The other keeps it, and gets this one's payload.
    Replace,
    /// It is refused.
    Refuse,
}

const LONGEST: usize = 255;
const MOST_FIELDS: usize = 16;

impl Unique {
    /// One job of this key, whatever the kinds.
    ///
    /// # Errors
    /// A key that is empty or longer than 255 bytes.
    pub fn by_key(key: impl Into<String>) -> Result<Self, InvalidUnique> {
        Self::keyed('k', key.into(), Hold::Unfinished, OnConflict::Existing)
    }

    /// One job of its kind for the values at these JSON pointers into the payload; what is not there counts as null, and
    /// `""` is the whole payload.
    ///
    /// # Errors
    /// No field, more than 16, or one that is no JSON pointer.
    pub fn by_fields<P: Into<String>>(fields: impl IntoIterator<Item = P>) -> Result<Self, InvalidUnique> {
        let fields: Vec<String> = fields.into_iter().map(Into::into).collect();
        if !(1..=MOST_FIELDS).contains(&fields.len()) {
            return Err(InvalidUnique::Fields);
        }
        let pointer = |field: &String| field.len() <= LONGEST && (field.is_empty() || field.starts_with('/'));
        if !fields.iter().all(pointer) {
            return Err(InvalidUnique::Pointer);
        }
        let (hold, on_conflict) = (Hold::Unfinished, OnConflict::Existing);
        Ok(Self { by: By::Fields(fields), hold, on_conflict, debounce: None })
    }

    /// The job starts `delay` after the last enqueue with this key, with the payload of that.
    ///
    /// # Errors
    /// As [`by_key`](Self::by_key).
    pub fn debounce(key: impl Into<String>, delay: Duration) -> Result<Self, InvalidUnique> {
        let unique = Self::keyed('d', key.into(), Hold::Unstarted, OnConflict::ReplaceAll)?;
        Ok(Self { debounce: Some(Debounce { delay, max_wait: None }), ..unique })
    }

    /// At most one job of this key in each `period`, which begins with the first.
    ///
    /// # Errors
    /// As [`by_key`](Self::by_key).
    pub fn throttle(key: impl Into<String>, period: Duration) -> Result<Self, InvalidUnique> {
        Self::keyed('t', key.into(), Hold::Period(period), OnConflict::Existing)
    }

    fn keyed(space: char, key: String, hold: Hold, on_conflict: OnConflict) -> Result<Self, InvalidUnique> {
        if !(1..=LONGEST).contains(&key.len()) {
            return Err(InvalidUnique::Key);
        }
        Ok(Self { by: By::Key(space, key), hold, on_conflict, debounce: None })
    }

    /// For this long from its acceptance, whatever becomes of the job, and not just until it is over.
    #[must_use]
    pub fn within(mut self, period: Duration) -> Self {
        self.hold = Hold::Period(period);
        self
    }

    /// What becomes of a job whose key another has.
    #[must_use]
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.on_conflict = on_conflict;
        self
    }

    /// A debounced job starts this long after the first enqueue at the latest.
    #[must_use]
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        if let Some(debounce) = &mut self.debounce {
            debounce.max_wait = Some(max_wait);
        }
        self
    }

    /// Whether the start of the job is for the store to say.
    #[must_use]
    pub fn is_debounced(&self) -> bool {
        self.debounce.is_some()
    }

    /// The job's key as stores keep it: each tenant has keys of its own. A payload that is no JSON has no fields.
    #[must_use]
    pub fn key_of(&self, job: &NewJob) -> [u8; 32] {
        self.key_for(job.gating.tenant.as_ref(), &job.kind, &job.payload)
    }

    /// Fixes the key that this payload gives, before it is encrypted or kept elsewhere, where no field can be seen any more.
    pub fn bind(&mut self, tenant: Option<&Tenant>, kind: &Kind, payload: &RawValue) {
        if let By::Fields(_) = self.by {
            self.by = By::Fixed(self.key_for(tenant, kind, payload));
        }
    }

    fn key_for(&self, tenant: Option<&Tenant>, kind: &Kind, payload: &RawValue) -> [u8; 32] {
        let mut hash = Sha256::new();
        if let Some(tenant) = tenant {
            // Keys of no tenant begin with another letter, and no tenant has a line break.
            hash.update(format!("T{tenant}\n"));
        }
        match &self.by {
            By::Fixed(key) => return *key,
            By::Key(space, key) => hash.update(format!("{space}{key}")),
            By::Fields(fields) => {
                hash.update(format!("f{kind}"));
                let payload: Value = serde_json::from_str(payload.get()).unwrap_or_default();
                for field in fields {
                    // Framed, so that no two lists of values look the same.
                    hash.update([0]);
                    hash.update((field.len() as u64).to_be_bytes());
                    hash.update(field);
                    let mut text = String::new();
                    canonical(payload.pointer(field).unwrap_or(&Value::Null), &mut text);
                    hash.update((text.len() as u64).to_be_bytes());
                    hash.update(text);
                }
            }
        }
        hash.finalize().into()
    }

    /// Until when a job accepted at `now` has the key; `None` if that depends on its state.
    #[must_use]
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        match self.hold {
            Hold::Period(period) => Some(later(now, period)),
            Hold::Unfinished | Hold::Unstarted => None,
        }
    }

    /// When a debounced job starts that is enqueued at `now`, if the first enqueue was at `first`.
    #[must_use]
    pub fn start(&self, first: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let Debounce { delay, max_wait } = self.debounce?;
        let start = later(now, delay);
        Some(max_wait.map_or(start, |max_wait| start.min(later(first, max_wait))))
    }

    /// Whether a conflict may change the holder.
    #[must_use]
    pub fn may_replace(&self) -> bool {
        matches!(self.on_conflict, OnConflict::Replace | OnConflict::ReplaceAll)
    }

    /// Whether a conflict moves the holder's time as well.
    #[must_use]
    pub fn replaces_time(&self) -> bool {
        self.on_conflict == OnConflict::ReplaceAll
    }

    /// What becomes of a job with this rule when `holder` is the last that had the key.
    #[must_use]
    pub fn judge(&self, holder: &KeyHolder, now: Timestamp) -> KeyVerdict {
        let unfinished = holder.state.is_some_and(|state| !state.is_terminal());
        let unstarted = unfinished && !holder.claimed;
        // Whether the holder asked for a period or not is its own affair, as is how long it wanted to be alone.
        let holds = match (holder.until, self.hold) {
            (Some(until), _) => until > now,
            (None, Hold::Unstarted) => unstarted,
            (None, _) => unfinished,
        };
        match self.on_conflict {
            _ if !holds => KeyVerdict::Take,
            OnConflict::Refuse => KeyVerdict::Refuse,
            OnConflict::Replace | OnConflict::ReplaceAll if unstarted => KeyVerdict::Replace,
            OnConflict::Existing | OnConflict::Replace | OnConflict::ReplaceAll => KeyVerdict::Held,
        }
    }
}

/// As far as the calendar goes, for a duration beyond it.
fn later(at: Timestamp, by: Duration) -> Timestamp {
    // A thousand years are for ever, and every store can hold them.
    let by = by.min(Duration::from_secs(1000 * 365 * 86_400));
    chrono::TimeDelta::from_std(by)
        .ok()
        .and_then(|by| at.checked_add_signed(by))
        .unwrap_or(Timestamp::MAX_UTC)
}

/// JSON with its names in order, so that it is the same however it was written.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            text.push('{');
            for name in names {
                canonical(&Value::String(name.clone()), text);
                text.push(':');
                canonical(&fields[name], text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for value in values {
                canonical(value, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string())
        }
    }
}

#[cfg(test)]
#[path = "unique_tests.rs"]
mod tests;
