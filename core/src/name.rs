use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A queue or kind name that breaks the naming rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: use 1 to {max} ASCII letters, digits, '.', '_' or '-'")]
pub struct InvalidName {
    what: &'static str,
    max: usize,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest name allowed, in bytes.
            pub const MAX_LEN: usize = $max;

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let fits = (1..=$max).contains(&text.len());
                if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { what: $what, max: $max })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// The name of a queue, short enough to be part of a queue or topic name on every broker.
    QueueName,
    "queue name",
    64
);
name!(
    /// What a job is, such as `email.send`: the name that ties a payload to its handler.
    Kind,
    "kind",
    128
);

name!(
    /// The name of a schedule.
    ScheduleName,
    "schedule name",
    128
);
name!(
    /// What a job is called within its workflow.
    JobName,
    "job name",
    128
);
name!(
    /// What a workflow is called; any number may have the same name.
    WorkflowName,
    "workflow name",
    128
);

impl Default for QueueName {
    /// The queue of jobs that name none.
    fn default() -> Self {
        Self("default".into())
    }
}
