//! Tests of handlers, without a server: [`attempt`] makes one attempt that a handler can be called with, [`TestSystem`] runs
//! a whole worker, with a clock that the test moves.
//!
//! Needs the cargo feature `testing`, in the `dev-dependencies` of those who test.
//!
//! # One attempt
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # use windlass_core::Job;
//! # use windlass_worker as windlass;
//! use std::time::Duration;
//!
//! use windlass::{Context, Decision, JobError, State, testing};
//!
//! # #[derive(Serialize, Deserialize)]
//! struct Invite { to: String }
//! # impl Job for Invite { const KIND: &'static str = "invite"; }
//! # #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Remind { to: String }
//! # impl Job for Remind { const KIND: &'static str = "remind"; }
//!
//! async fn invite(job: Invite, ctx: Context, host: State<&'static str>) -> Result<String, JobError> {
//!     if job.to.is_empty() {
//!         return Err(JobError::discard("nobody to invite"));
//!     }
//!     ctx.client().enqueue(Remind { to: job.to.clone() }).delay(Duration::from_secs(3600)).await?;
//!     Ok(format!("{} invites {} (attempt {})", *host, job.to, ctx.attempt()))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // As a plain function:
//! let test = testing::attempt(Invite { to: "Ada".into() }).number(2).await?;
//! let said = invite(Invite { to: "Ada".into() }, test.context(), State::from("Eve")).await;
//! assert_eq!(said.unwrap(), "Eve invites Ada (attempt 2)");
//! assert_eq!(test.enqueued::<Remind>()?, [Remind { to: "Ada".into() }]);
//!
//! // As a worker calls it: payload and result through JSON, states from the context, panics made into errors.
//! let test = testing::attempt(Invite { to: String::new() }).state("Eve").await?;
//! let error = test.run(invite).await.unwrap_err();
//! assert_eq!(error.decision(), Decision::Discard);
//! assert!(test.all_enqueued().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # A whole system
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # use windlass_core::Job;
//! # use windlass_worker as windlass;
//! # use windlass_core::State as JobState;
//! use std::time::Duration;
//!
//! use windlass::{Context, JobError, Worker, testing::TestSystem};
//!
//! # #[derive(Serialize, Deserialize)]
//! struct SignUp { email: String }
//! # impl Job for SignUp { const KIND: &'static str = "sign-up"; }
//! # #[derive(Serialize, Deserialize)]
//! struct SendEmail { to: String, subject: String }
//! # impl Job for SendEmail { const KIND: &'static str = "email.send"; }
//!
//! async fn sign_up(job: SignUp, ctx: Context) -> Result<(), JobError> {
//!     let mail = |subject: &str| SendEmail { to: job.email.clone(), subject: subject.into() };
//!     ctx.client().enqueue(mail("Welcome")).await?;
//!     ctx.client().enqueue(mail("Any questions?")).delay(Duration::from_secs(24 * 3600)).await?;
//!     Ok(())
//! }
//!
//! async fn send_email(job: SendEmail, ctx: Context) -> Result<String, JobError> {
//!     if ctx.attempt() == 1 {
//!         return Err(JobError::retry_after(Duration::from_secs(60), "the mail server is away"));
//!     }
//!     Ok(format!("sent to {}", job.to))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What the program itself would run: `fn worker(worker: Worker) -> Worker` may be shared with its `main`.
//! let system = TestSystem::start(|worker: Worker| worker.handle(sign_up).handle(send_email)).await?;
//! system.client().enqueue(SignUp { email: "ada@example.com".into() }).await?;
//!
//! // Runs what is due now, and what that enqueues. The first attempt fails.
//! system.drain().await?;
//! let mails = system.jobs::<SendEmail>().await?;
//! assert_eq!(mails.len(), 2);
//! assert_eq!(mails[0].errors[0].message, "the mail server is away");
//! mails[1].assert_state(JobState::Scheduled);
//!
//! // What falls due on the way is run at its time: here, the second attempt.
//! system.advance(Duration::from_secs(3600)).await?;
//! let mails = system.jobs::<SendEmail>().await?;
//! assert_eq!(mails[0].result::<String>(), "sent to ada@example.com");
//! mails[1].assert_state(JobState::Scheduled);
//!
//! system.advance(Duration::from_secs(24 * 3600)).await?;
//! let mails = system.jobs::<SendEmail>().await?;
//! mails.assert_succeeded();
//! assert_eq!(mails[1].payload.subject, "Any questions?");
//! assert_eq!((mails[1].attempt, mails[1].errors.len()), (2, 1));
//! # Ok(())
//! # }
//! ```

mod attempt;
mod jobs;
mod system;

pub use attempt::{NewAttempt, TestAttempt, attempt};
pub use jobs::{TestJob, TestJobs};
pub use system::TestSystem;
use windlass_client::ClientError;
use windlass_core::JobId;

use crate::WorkerError;

/// Why a test cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// There is no place for its store.
    #[error("cannot make a temporary folder for the test's store: {0}")]
    Folder(#[source] std::io::Error),
    /// Its store does not take the job.
    #[error(transparent)]
    Client(ClientError),
    /// The worker cannot run as it is configured.
    #[error(transparent)]
    Worker(WorkerError),
    /// The worker has ended, though nobody has stopped it.
    #[error("the system's worker has ended; its log says why")]
    WorkerEnded,
    /// There was no end to what is to be done now.
    #[error("the system does not come to rest: {0}")]
    Restless(String),
    /// A payload does not fit the type that was asked for.
    #[error("{kind} {id}: {problem}")]
    Payload {
        /// The job's kind.
        kind: &'static str,
        /// The job.
        id: JobId,
        /// Why it cannot be read.
        problem: String,
    },
}

impl<E: Into<ClientError>> From<E> for TestError {
    fn from(error: E) -> Self {
        Self::Client(error.into())
    }
}
