use std::sync::Arc;

use crate::text::text;

/// A queue or kind name that breaks the naming rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: use 1 to {max} ASCII letters, digits, '.', '_' or '-'")]
pub struct InvalidName {
    what: &'static str,
    max: usize,
}

fn check(text: &str, what: &'static str, max: usize) -> Result<Arc<str>, InvalidName> {
    let fits = (1..=max).contains(&text.len());
    if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        Ok(text.into())
    } else {
        Err(InvalidName { what, max })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        text!($(#[$doc])* $name, InvalidName, text => check(text, $what, $max), $max, "^[A-Za-z0-9._-]+$");

        impl $name {
            /// The longest name allowed, in bytes.
            pub const MAX_LEN: usize = $max;
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
