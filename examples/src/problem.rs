use std::io;

use windlass::prelude::JobError;

/// Why a handler that works on files failed.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The payload asks for what cannot be done.
    #[error("{0}")]
    Payload(String),
    /// A path in the payload leads, or might lead, out of the workspace.
    #[error(
        "the path {0:?} does not stay in the workspace: give a relative one, without .. and symbolic links"
    )]
    Escapes(String),
    /// The file is not what its handler reads.
    #[error("{path}: {what}")]
    Content {
        /// The file, as in the payload.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// One row of the file is broken.
    #[error("{path}, line {line}: {what}")]
    Row {
        /// The file, as in the payload.
        path: String,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The file cannot be read or written, or is not there.
    #[error("{path}: {source}")]
    Io {
        /// The file, as in the payload.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The attempt was told to end.
    #[error("stopped before the end")]
    Stopped,
}

impl Problem {
    /// Whether another attempt must fail alike. A missing file may still arrive, and a full disk be emptied.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Stopped)
    }

    pub(crate) fn io(path: &str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn content(path: &str, what: impl ToString) -> Self {
        Self::Content { path: path.to_owned(), what: what.to_string() }
    }
}

/// What becomes of the job: what can never succeed is discarded, the rest is retried by policy.
pub(crate) fn decide(problem: Problem) -> JobError {
    if problem.is_permanent() { JobError::discard(problem) } else { JobError::retry(problem) }
}
