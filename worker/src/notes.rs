use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use windlass_client::Part;
use windlass_core::{ClaimedJob, JobId, LogLevel, NewLine, NewProgress, Note, Store};

use crate::{Context, JobError};

/// How long words gather before they are written together.
const GATHER: Duration = Duration::from_millis(250);
/// The pause after a failure to write.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Log lines of one attempt.
const MOST_LINES: u32 = 1000;
/// Log lines that wait to be written, of all attempts, in bytes.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// The longest message and the largest fields of a line, in bytes.
const LONGEST_MESSAGE: usize = 4096;
const LARGEST_FIELDS: usize = 8192;
/// The largest checkpoint, in bytes of JSON.
const LARGEST_CHECKPOINT: usize = 64 * 1024;

/// What the worker's attempts have said and is not written yet. A handler that speaks never waits for the store: what does
/// not fit is dropped, and counted.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    waiting: Mutex<Waiting>,
    news: Notify,
    /// Held while a group is written, so that whoever gets it knows that what was said before is in the store.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    attempts: HashMap<(JobId, u32), Said>,
    bytes: usize,
}

/// What one attempt has said.
#[derive(Debug, Default)]
struct Said {
    attempt: u32,
    progress: Option<(f64, String, Instant)>,
    lines: Vec<(NewLine, Instant)>,
}

impl Notes {
    /// Writes in groups until `last` is cancelled, which must be after the last attempt's end, and then once more.
    pub(crate) async fn run(self: Arc<Self>, store: Arc<dyn Store>, last: CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = self.news.notified() => {}
                () = last.cancelled() => {}
            }
            tokio::select! {
                () = sleep(GATHER) => {}
                () = last.cancelled() => {}
            }
            let ending = last.is_cancelled();
            let writing = self.writing.lock().await;
            let group = self.take();
            while !group.is_empty() {
                match store.notes().note(&in_words(&group)).await {
                    Ok(()) => {
                        if mem::take(&mut failing) {
                            tracing::info!("progress and log lines can be written again");
                        }
                        break;
                    }
                    Err(error) => {
                        if !mem::replace(&mut failing, true) {
                            tracing::warn!(%error, "progress and log lines cannot be written");
                        }
                        if !error.retryable() || last.is_cancelled() {
                            break;
                        }
                    }
                }
                tokio::select! {
                    () = sleep(AFTER_FAILURE) => {}
                    () = last.cancelled() => {}
                }
            }
            drop(writing);
            if ending {
                return;
            }
        }
    }

    /// Writes at once what has been said so far.
    #[cfg(feature = "testing")]
    pub(crate) async fn flush(&self, store: &dyn Store) -> Result<(), windlass_core::StoreError> {
        let _writing = self.writing.lock().await;
        let group = self.take();
        if group.is_empty() { Ok(()) } else { store.notes().note(&in_words(&group)).await }
    }

    fn take(&self) -> HashMap<(JobId, u32), Said> {
        mem::take(&mut *self.lock()).attempts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_words(group: &HashMap<(JobId, u32), Said>) -> Vec<Note> {
    let now = Instant::now();
    let note = |(&(id, fence), said): (&(JobId, u32), &Said)| Note {
        id,
        fence,
        attempt: said.attempt,
        progress: said.progress.as_ref().map(|(value, message, at)| NewProgress {
            value: *value,
            message: message.clone(),
            age: now - *at,
        }),
        lines: said.lines.iter().map(|(line, at)| NewLine { age: now - *at, ..line.clone() }).collect(),
    };
    group.iter().map(note).collect()
}

/// One attempt's voice.
#[derive(Debug)]
pub(crate) struct Voice {
    notes: Arc<Notes>,
    id: JobId,
    fence: u32,
    attempt: u32,
    lines: AtomicU32,
    dropped: AtomicU32,
}

impl Voice {
    pub(crate) fn new(notes: Arc<Notes>, job: &ClaimedJob) -> Self {
        let (lines, dropped) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { notes, id: job.id, fence: job.fence, attempt: job.attempt, lines, dropped }
    }

    fn progress(&self, value: f64, message: String) {
        self.say(|said, _| said.progress = Some((value, message, Instant::now())));
    }

    fn line(&self, level: LogLevel, message: String, fields: Option<Box<RawValue>>) {
        let number = self.lines.fetch_add(1, Ordering::Relaxed);
        if number >= MOST_LINES {
            // It stays at the limit, however long this goes on.
            self.lines.store(MOST_LINES, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let size = message.len() + fields.as_ref().map_or(0, |fields| fields.get().len());
        let line = NewLine { number, level, message, fields, age: Duration::ZERO };
        let kept = self.say(|said, bytes| {
            let fits = *bytes + size <= MOST_WAITING;
            if fits {
                *bytes += size;
                said.lines.push((line, Instant::now()));
            }
            fits
        });
        if !kept {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says what was dropped, at the attempt's end.
    pub(crate) fn end(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped == 0 {
            return;
        }
        let message = format!(
            "{dropped} log lines were dropped: an attempt may write {MOST_LINES}, and no faster than the store takes them"
        );
        // The number after all others.
        let (number, level) = (MOST_LINES, LogLevel::Warn);
        let line = NewLine { number, level, message, fields: None, age: Duration::ZERO };
        self.say(|said, _| said.lines.push((line, Instant::now())));
    }

    fn say<T>(&self, say: impl FnOnce(&mut Said, &mut usize) -> T) -> T {
        let mut waiting = self.notes.lock();
        let Waiting { attempts, bytes } = &mut *waiting;
        let said = attempts.entry((self.id, self.fence)).or_default();
        said.attempt = self.attempt;
        let said = say(said, bytes);
        drop(waiting);
        self.notes.news.notify_one();
        said
    }
}

impl Context {
    /// Tells everyone who asks how far the attempt is, from 0 to 1, and what it is doing. The newest word counts. Never
    /// waits; polls show it about a quarter of a second later, and go on showing it when the job is over.
    pub fn progress(&self, value: f64, message: impl Into<String>) {
        // NaN is no progress.
        let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        self.voice().progress(value, shortened(message.into()));
    }

    /// Adds a line to the job's log, with fields that serialise to a JSON object, or `()` for none. Never waits; a line
    /// is there to be read about a quarter of a second later, unless the worker dies before.
    ///
    /// An attempt may write a thousand lines, of up to 4 KiB and 8 KiB of fields. What is more is dropped, and the last
    /// line says how much that was.
    ///
    /// ```no_run
    /// # use windlass_worker::{Context, LogLevel};
    /// # fn handler(ctx: Context) {
    /// ctx.log(LogLevel::Warn, "skipped a row", serde_json::json!({"row": 17}));
    /// # }
    /// ```
    pub fn log(&self, level: LogLevel, message: impl Into<String>, fields: impl Serialize) {
        self.voice().line(level, shortened(message.into()), as_object(&fields));
    }

    /// Keeps a small value for the next attempt, which finds it by [`last_checkpoint`](Self::last_checkpoint) if this one
    /// fails or its worker dies. When it is `Ok`, the value is committed, in place of an earlier one.
    ///
    /// # Errors
    /// When the lease is lost: then another attempt may be running, and nothing was kept. When the store cannot be
    /// reached, or the value has more than 64 KiB of JSON.
    pub async fn checkpoint(&self, value: &(impl Serialize + ?Sized)) -> Result<(), JobError> {
        let value = to_raw_value(value)?;
        if value.get().len() > LARGEST_CHECKPOINT {
            return Err(JobError::retry(format!(
                "the checkpoint has {} bytes of JSON and may have {LARGEST_CHECKPOINT}; keep the data elsewhere, and in \
                 the checkpoint where that is",
                value.get().len()
            )));
        }
        let job = self.job();
        let value = self.client().envelope().seal(job.id, Part::Checkpoint, value)?;
        if self.client().store().notes().checkpoint(job.id, job.fence, &value).await? {
            return Ok(());
        }
        Err(JobError::retry("the lease was lost before the checkpoint could be written"))
    }

    /// What an earlier attempt of this job, or this one, has kept last by [`checkpoint`](Self::checkpoint).
    ///
    /// ```no_run
    /// # use windlass_worker::{Context, JobError};
    /// # async fn handler(ctx: Context) -> Result<(), JobError> {
    /// let done: u64 = ctx.last_checkpoint().await?.unwrap_or(0);
    /// for row in done..1_000_000 {
    ///     // …
    ///     if row % 1000 == 0 {
    ///         ctx.checkpoint(&row).await?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the store cannot be reached, or what is there is no `T`.
    pub async fn last_checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, JobError> {
        let Some(value) = self.client().store().notes().last_checkpoint(self.job_id()).await? else {
            return Ok(None);
        };
        let value = self.client().envelope().open(self.job_id(), Part::Checkpoint, value).await?;
        serde_json::from_str(value.get()).map(Some).map_err(|error| {
            JobError::retry(format!("the checkpoint does not fit {}: {error}", std::any::type_name::<T>()))
        })
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push('…');
    }
    message
}

/// Fields that cannot be kept are replaced by one that says why.
fn as_object(fields: &impl Serialize) -> Option<Box<RawValue>> {
    let fields = match to_raw_value(fields) {
        Ok(fields) if fields.get() == "null" => return None,
        Ok(fields) if fields.get().len() > LARGEST_FIELDS => {
            serde_json::json!({"dropped": format!("{} bytes of fields", fields.get().len())})
        }
        Ok(fields) if fields.get().starts_with('{') => return Some(fields),
        Ok(value) => serde_json::json!({"value": value}),
        Err(error) => serde_json::json!({"dropped": error.to_string()}),
    };
    to_raw_value(&fields).ok()
}
