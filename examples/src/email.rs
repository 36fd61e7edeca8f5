use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{self, response::Category},
};
use windlass::{JobId, prelude::*};

use crate::workspace::write_atomically;

/// The payload of `email.send`.
#[derive(Debug, Clone, Serialize, Deserialize, Job)]
#[job(kind = "email.send", queue = "mail", max_attempts = 8, timeout = "30s")]
pub struct SendEmail {
    /// To whom: `ada@example.com` or `Ada <ada@example.com>`.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// The text.
    #[serde(default)]
    pub body: String,
}

/// The result of `email.send`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The mail's Message-ID.
    pub message_id: String,
}

/// Handles `email.send`.
///
/// Idempotent as far as mail can be: every attempt sends the same bytes, with a Message-ID made from the job's id.
/// If the worker dies between the server's acceptance and the recording of the outcome, the mail goes out again, and
/// mailboxes recognise it by its Message-ID. In the outbox, the file is named after the job and written once.
///
/// # Errors
/// Discarded when no server will ever take the mail, else retried.
pub async fn send_email(job: SendEmail, ctx: Context, mailer: State<Mailer>) -> Result<Receipt, JobError> {
    mailer
        .send(ctx.job_id(), &job)
        .await
        .map_err(|error| if error.is_permanent() { JobError::discard(error) } else { JobError::retry(error) })
}

/// Sends mail through a server, or into a folder.
pub struct Mailer {
    transport: Transport,
    from: Mailbox,
}

enum Transport {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Outbox(PathBuf),
}

/// Why a mailer cannot be set up. Says nothing of the URL's content, which may have a password in it.
#[derive(Debug, thiserror::Error)]
pub enum MailerError {
    /// The server's URL cannot be used.
    #[error(
        "WINDLASS_SMTP_URL is no URL of a mail server; write smtps://user:password@host or smtp://host:25"
    )]
    Url,
    /// The sender's address cannot be used.
    #[error("WINDLASS_SMTP_FROM is no mail address; write one such as Shop <shop@example.com>")]
    From,
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The payload is no mail.
    #[error("cannot send to {to:?}: {what}")]
    Payload {
        /// The address.
        to: String,
        /// What is wrong.
        what: String,
    },
    /// The server did not take it.
    #[error("the mail server did not take it: {0}")]
    Smtp(#[from] smtp::Error),
    /// It could not be written into the outbox.
    #[error("cannot write to the outbox: {0}")]
    Outbox(#[from] io::Error),
}

impl MailError {
    /// Whether another attempt must fail alike.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Payload { .. } => true,
            // A refused login (53x) is ours to mend, not the mail's fault.
            Self::Smtp(error) => {
                error.is_permanent()
                    && error.status().is_some_and(|code| code.category != Category::Unspecified3)
            }
            Self::Outbox(_) => false,
        }
    }
}

impl Mailer {
    /// Sends through the server at `WINDLASS_SMTP_URL` when that is set, otherwise into `outbox`; in the name of
    /// `WINDLASS_SMTP_FROM`.
    ///
    /// # Errors
    /// When a variable is set to what it cannot be.
    pub fn from_env(outbox: &Path) -> Result<Self, MailerError> {
        let mut mailer = match std::env::var("WINDLASS_SMTP_URL") {
            Ok(url) => Self::smtp(&url)?,
            Err(_) => Self::outbox(outbox),
        };
        if let Ok(from) = std::env::var("WINDLASS_SMTP_FROM") {
            mailer.from = from.parse().map_err(|_| MailerError::From)?;
        }
        Ok(mailer)
    }

    /// Sends through the server at `url`.
    ///
    /// # Errors
    /// When it is no such URL.
    pub fn smtp(url: &str) -> Result<Self, MailerError> {
        let smtp = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).map_err(|_| MailerError::Url)?;
        // Less than the job's timeout, so that the job's error names the server.
        let transport = Transport::Smtp(smtp.timeout(Some(Duration::from_secs(20))).build());
        Ok(Self { transport, from: sender() })
    }

    /// Writes every mail into a file in `folder`.
    #[must_use]
    pub fn outbox(folder: &Path) -> Self {
        Self { transport: Transport::Outbox(folder.to_owned()), from: sender() }
    }

    /// Sends one mail for the job `id`.
    ///
    /// # Errors
    /// See [`MailError`].
    pub async fn send(&self, id: JobId, mail: &SendEmail) -> Result<Receipt, MailError> {
        let message_id = format!("<{id}@{}>", self.from.email.domain());
        let message = self.message(id, &message_id, mail)?;
        match &self.transport {
            Transport::Smtp(smtp) => {
                smtp.send(message).await?;
            }
            Transport::Outbox(folder) => {
                let path = folder.join(format!("{id}.eml"));
                let written = move || write_atomically(&path, |file| file.write_all(&message.formatted()));
                tokio::task::spawn_blocking(written).await.map_err(io::Error::other)??;
            }
        }
        Ok(Receipt { message_id })
    }

    fn message(&self, id: JobId, message_id: &str, mail: &SendEmail) -> Result<Message, MailError> {
        let refused = |what: String| MailError::Payload { to: mail.to.clone(), what };
        let to: Mailbox = mail.to.parse().map_err(|error| refused(format!("{error}")))?;
        Message::builder()
            .message_id(Some(message_id.to_owned()))
            .date(made_at(id))
            .from(self.from.clone())
            .to(to)
            .subject(&mail.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body.clone())
            .map_err(|error| refused(error.to_string()))
    }
}

fn sender() -> Mailbox {
    Mailbox::new(Some("Windlass".to_owned()), Address::new_dangerous("windlass", "windlass.example"))
}

/// When the job was made, which its id tells: the same date in every attempt.
fn made_at(id: JobId) -> SystemTime {
    let (seconds, nanos) = id.as_uuid().get_timestamp().map_or((0, 0), |made| made.to_unix());
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}
