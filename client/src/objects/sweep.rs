use std::collections::HashMap;

use chrono::{NaiveDateTime, TimeDelta};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{Error, ObjectMeta, path::Path};
use tokio::time::timeout;
use windlass_core::{JobId, JobRecord, Store, Timestamp};

use super::{EXPIRING, JOBS, Objects, ObjectsError, payload_name, problem};
use crate::{ClientError, EnvelopeError, envelope::object_of};

/// What is younger may belong to a job or result that is about to be committed.
const SETTLED: TimeDelta = TimeDelta::days(1);
/// Jobs looked up in one statement.
const BATCH: usize = 100;

impl Objects {
    /// Removes results past their time, and if it is to be `thorough`, whatever the jobs of `store` do not refer to: those of
    /// jobs that are gone, and what was written for jobs or results that were then not stored. Answers how many objects.
    ///
    /// # Errors
    /// What the store or the object store says. What was not done is done the next time.
    pub async fn sweep(
        &self,
        store: &dyn Store,
        now: Timestamp,
        thorough: bool,
    ) -> Result<usize, ClientError> {
        let mut removed = 0;
        for hour in self.folders(EXPIRING).await? {
            // An hour alone is no time that chrono reads.
            let until = hour.filename().map(|hour| format!("{hour}00"));
            let until = until.and_then(|until| NaiveDateTime::parse_from_str(&until, "%Y%m%d%H%M").ok());
            if until.is_some_and(|until| until.and_utc() <= now) {
                let mut objects = self.store.list(Some(&hour)).try_chunks(BATCH);
                while let Some(objects) = objects.next().await {
                    let objects = objects.map_err(|error| failed(&error.1))?;
                    removed +=
                        self.remove(objects.into_iter().map(|object| object.location).collect()).await?;
                }
            }
        }
        if !thorough {
            return Ok(removed);
        }
        for day in self.folders(JOBS).await? {
            let mut objects = self.store.list(Some(&day)).try_chunks(BATCH);
            while let Some(objects) = objects.next().await {
                let mut objects = objects.map_err(|error| failed(&error.1))?;
                objects.retain(|object| object.last_modified <= now - SETTLED);
                let orphans = orphans(store, objects).await?;
                removed += self.remove(orphans).await?;
            }
        }
        Ok(removed)
    }

    /// Removes what there may be of jobs that were just removed from the store. What fails is left to the sweep.
    pub(crate) async fn forget(&self, jobs: &[JobId], before: &[JobRecord]) {
        let payloads = jobs.iter().map(|id| payload_name(*id));
        let results = before.iter().filter(|job| jobs.contains(&job.id));
        let results = results.filter_map(|job| object_of(job.result.as_deref()?));
        let objects = payloads.chain(results).map(Path::from).collect();
        if let Err(error) = self.remove(objects).await {
            tracing::debug!(%error, "objects of removed jobs are left to the sweep");
        }
    }

    async fn folders(&self, of: &str) -> Result<Vec<Path>, ClientError> {
        let listed = timeout(self.deadline, self.store.list_with_delimiter(Some(&of.into()))).await;
        let listed = listed.map_err(|_| EnvelopeError::from(self.too_slow()))?;
        Ok(listed.map_err(|error| failed(&error))?.common_prefixes)
    }

    async fn remove(&self, objects: Vec<Path>) -> Result<usize, ClientError> {
        let mut removed = 0;
        let mut deleting = self.store.delete_stream(stream::iter(objects.into_iter().map(Ok)).boxed());
        while let Some(deleted) = deleting.next().await {
            match deleted {
                Ok(_) => removed += 1,
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(removed)
    }
}

/// Those of these objects that no job refers to.
async fn orphans(store: &dyn Store, objects: Vec<ObjectMeta>) -> Result<Vec<Path>, ClientError> {
    // What has another name is not ours.
    let objects: Vec<(JobId, Path)> = objects
        .into_iter()
        .filter_map(|object| {
            let id = object.location.filename()?.split('.').next()?.parse().ok()?;
            Some((id, object.location))
        })
        .collect();
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let mut ids: Vec<JobId> = objects.iter().map(|(id, _)| *id).collect();
    ids.dedup();
    let jobs = store.get(&ids).await?;
    let jobs: HashMap<JobId, &JobRecord> = jobs.iter().map(|job| (job.id, job)).collect();
    let referred = |id: &JobId, path: &Path| {
        let Some(job) = jobs.get(id) else { return false };
        // A payload is its job's as long as there is one; a result may have been replaced by another attempt's.
        path.filename() == Some(&format!("{id}.payload"))
            || !job.state.is_terminal()
            || job.result.as_deref().and_then(object_of).is_some_and(|name| name == path.as_ref())
    };
    Ok(objects.into_iter().filter(|(id, path)| !referred(id, path)).map(|(_, path)| path).collect())
}

fn failed(error: &Error) -> ClientError {
    EnvelopeError::from(match problem(error) {
        ObjectsError::Unavailable(text) => ObjectsError::Unavailable(format!("while sweeping: {text}")),
        error => error,
    })
    .into()
}
