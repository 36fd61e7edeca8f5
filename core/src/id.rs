use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

/// Text that should be a UUID and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: expected a UUID such as 0199d5a2-7c1e-7cc3-98c4-dc0c0c07398f")]
pub struct InvalidId {
    what: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, ordered by the time it was made (UUIDv7).
            #[must_use]
            #[allow(clippy::new_without_default, reason = "each call gives another id")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id as a plain UUID, for drivers.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId { what: $what })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Names one job for ever. Time-ordered, so that the store can partition by it.
    JobId,
    "job id"
);
impl JobId {
    /// The least id that may have been made at this time, to the millisecond: what an id is compared with to tell
    /// whether it is older. Times outside of what ids can hold give the least or the greatest such id.
    #[must_use]
    pub fn least_at(time: Timestamp) -> Self {
        const MOST: u64 = (1 << 48) - 1;
        let millis = u64::try_from(time.timestamp_millis()).unwrap_or(0).min(MOST);
        Self(Uuid::from_u64_pair(millis << 16, 0))
    }

    /// When the id was made, to the millisecond, by the clock of whoever made it; `None` for one that tells no time.
    #[must_use]
    pub fn made_at(self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        Timestamp::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    }
}

id!(
    /// Names one run of one worker process. New at every start: host and pod names come back, this never does.
    WorkerId,
    "worker id"
);
id!(
    /// Names one claim group: the jobs a worker took in one statement.
    ClaimId,
    "claim id"
);
id!(
    /// Names one workflow for ever.
    WorkflowId,
    "workflow id"
);
id!(
    /// Names one webhook for ever.
    WebhookId,
    "webhook id"
);
