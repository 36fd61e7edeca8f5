//! Waiting for jobs: one task per process asks the store about all of them together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use windlass_core::{JobId, JobRecord, Standing, Store, StoreError};

use crate::{Client, ClientError};

/// How often the store is asked about the jobs that someone waits for.
const TICK: Duration = Duration::from_millis(25);
/// The part of the time that may go into asking, one in so many: with very many jobs, ticks become longer.
const SHARE: u32 = 10;
/// How many jobs are asked about in one query.
const PAGE: usize = 1_000;
/// How long it rests when the store cannot be asked.
const REST: Duration = Duration::from_secs(1);

/// What is known of a job that someone waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing so far.
    Nothing,
    /// There is no such job, or no more.
    Absent,
    Standing(Standing),
}

/// The jobs that someone waits for.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    // Never held across an await.
    watched: Mutex<HashMap<JobId, watch::Sender<Seen>>>,
    begun: Notify,
}

impl Feed {
    fn watch(&self, id: JobId) -> watch::Receiver<Seen> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = watched.entry(id).or_insert_with(|| watch::channel(Seen::Nothing).0).subscribe();
        drop(watched);
        self.begun.notify_one();
        seen
    }

    /// Those that are still waited for.
    fn ids(&self) -> Vec<JobId> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, seen| seen.receiver_count() > 0);
        watched.keys().copied().collect()
    }

    fn tell(&self, ids: &[JobId], standing: Vec<Standing>) {
        let standing: HashMap<JobId, Standing> = standing.into_iter().map(|job| (job.id, job)).collect();
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            let now = standing.get(id).map_or(Seen::Absent, |standing| Seen::Standing(*standing));
            if let Some(seen) = watched.get(id) {
                seen.send_if_modified(|seen| std::mem::replace(seen, now) != now);
            }
        }
    }
}

/// Keeps those who wait informed, as long as anyone does.
pub(crate) async fn run(feed: Arc<Feed>, store: Arc<dyn Store>, stop: CancellationToken) {
    let mut failing = false;
    loop {
        let ids = feed.ids();
        let begun = Instant::now();
        let pause = match ask(&feed, &*store, &ids).await {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("jobs that are waited for can be asked about again");
                }
                TICK.max(begun.elapsed() * SHARE)
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "jobs that are waited for cannot be asked about; trying again");
                }
                REST
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = feed.begun.notified(), if ids.is_empty() => {}
            () = tokio::time::sleep(pause), if !ids.is_empty() => {}
        }
    }
}

async fn ask(feed: &Feed, store: &dyn Store, ids: &[JobId]) -> Result<(), StoreError> {
    for page in ids.chunks(PAGE) {
        metrics::counter!("windlass_read_queries_total").increment(1);
        feed.tell(page, store.operations().standing(page).await?);
    }
    Ok(())
}

/// A job as it changes, from [`Client::watch`].
#[derive(Debug)]
pub struct JobWatch {
    client: Client,
    id: JobId,
    seen: watch::Receiver<Seen>,
    shown: Option<Standing>,
}

impl JobWatch {
    /// The job as it is, at the first call. Later calls wait until its state, attempt, time or progress is another than
    /// last told, and skip what came and went in between. `None`: there is no such job, or no more.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn next(&mut self) -> Result<Option<JobRecord>, ClientError> {
        loop {
            let changed = match (*self.seen.borrow_and_update(), self.shown) {
                (_, None) | (Seen::Absent, _) => true,
                (Seen::Nothing, Some(_)) => false,
                (Seen::Standing(now), Some(shown)) => now != shown,
            };
            if changed {
                // The feed may be behind what was told already, so this decides.
                let Some(job) = self.client.get(self.id).await? else { return Ok(None) };
                let now = Standing::from(&job);
                if self.shown.replace(now) != Some(now) {
                    return Ok(Some(job));
                }
            }
            if self.seen.changed().await.is_err() {
                return Err(ClientError::Closed);
            }
        }
    }
}

impl Client {
    /// Follows a job. However many jobs are followed in this process, one task asks the store about all of them, some
    /// forty times a second, less often when there are thousands.
    ///
    /// ```no_run
    /// # use windlass_client::{Client, ClientError};
    /// # async fn follow(client: Client, id: windlass_core::JobId) -> Result<(), ClientError> {
    /// let mut watch = client.watch(id);
    /// while let Some(job) = watch.next().await? {
    ///     println!("{} {:?}", job.state, job.progress);
    ///     if job.state.is_terminal() {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn watch(&self, id: JobId) -> JobWatch {
        JobWatch { client: self.clone(), id, seen: self.feed().watch(id), shown: None }
    }

    /// Waits until the job is over, but no longer than `patience`, and answers with the job as it is then. `None`: there
    /// is no such job.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn wait(&self, id: JobId, patience: Duration) -> Result<Option<JobRecord>, ClientError> {
        let mut watch = self.watch(id);
        let mut last = watch.next().await?;
        let over = async {
            while last.as_ref().is_some_and(|job| !job.state.is_terminal()) {
                last = watch.next().await?;
            }
            Ok(())
        };
        match tokio::time::timeout(patience, over).await {
            Ok(ended) => ended.map(|()| last),
            Err(_) => Ok(last),
        }
    }
}
