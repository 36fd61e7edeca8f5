use crate::{JobId, JobRecord, State, Timestamp};

/// Where a job stands: as much of it as tells whether the rest is to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The job.
    pub id: JobId,
    /// Its state.
    pub state: State,
    /// Attempts started so far; those given back unstarted do not count.
    pub attempt: u32,
    /// When it is due, while it waits for its time.
    pub run_at: Option<Timestamp>,
    /// A cancellation has been asked for.
    pub cancel_requested: bool,
    /// When it has said how far it is, if it has.
    pub progress_at: Option<Timestamp>,
}

impl From<&JobRecord> for Standing {
    fn from(job: &JobRecord) -> Self {
        Self {
            id: job.id,
            state: job.state,
            attempt: job.attempt,
            run_at: job.run_at,
            cancel_requested: job.cancel_requested,
            progress_at: job.progress.as_ref().map(|progress| progress.at),
        }
    }
}
