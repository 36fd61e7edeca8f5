//! What operators see of jobs, and do with those that are over.

use std::collections::HashMap;

use serde_json::value::RawValue;
use windlass_core::{
    DeadCursor, DeadFilter, DeadPage, JobFilter, JobId, JobRecord, LogCursor, LogRecord, State, Tally,
};

use crate::{Client, ClientError, Part, envelope::object_of, reads::recently};

/// A part of a list of jobs.
#[derive(Debug, Clone, Default)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobRecord>,
    /// Before which id to go on; `None` at the end of the list.
    pub next: Option<JobId>,
}

impl Client {
    /// A page of the jobs that fit the filter, newest first, from below the id `before` on, as recent as
    /// [`get_recent`](Self::get_recent) shows them; one accepted just now may be missing. It may hold fewer than
    /// `limit` before the end, even none; see [`Operations::find`](windlass_core::Operations::find).
    ///
    /// # Errors
    /// What the store says; also when a result is encrypted under a key that the settings do not have.
    pub async fn jobs(
        &self,
        filter: &JobFilter,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<JobPage, ClientError> {
        let found = recently!(self, |store| store.operations().find(filter, before, limit))?;
        let mut jobs = self.get_many_recent(&found.ids).await?;
        // They may have moved on since they were found.
        jobs.retain(|job| filter.fits(job));
        Ok(JobPage { jobs, next: found.next })
    }

    /// Those of the jobs with these ids that exist, in the order of the ids, each once. Results that are kept outside of the
    /// store, which are large, are left out.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn get_many(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, ClientError> {
        let found = self.store().get(ids).await?;
        self.in_order(ids, found.into_iter().map(|job| (job.id, job)).collect()).await
    }

    /// The same, as recent as [`get_recent`](Self::get_recent) shows a job.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn get_many_recent(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, ClientError> {
        self.in_order(ids, self.reads().recent(&**self.store(), ids).await?).await
    }

    async fn in_order(
        &self,
        ids: &[JobId],
        mut found: HashMap<JobId, JobRecord>,
    ) -> Result<Vec<JobRecord>, ClientError> {
        let mut jobs = Vec::with_capacity(found.len());
        for mut job in ids.iter().filter_map(|id| found.remove(id)) {
            job.result = job.result.filter(|result| object_of(result).is_none());
            jobs.push(self.open_record(job).await?);
        }
        Ok(jobs)
    }

    /// The payload of a job, as JSON. Polls leave it out, since it may be large.
    ///
    /// # Errors
    /// What the store says; also when it is encrypted under a key that the settings do not have, or in an object store that
    /// they do not name or that does not have it.
    pub async fn payload(&self, id: JobId) -> Result<Option<Box<RawValue>>, ClientError> {
        Ok(self.payloads(&[id]).await?.pop().map(|(_, payload)| payload))
    }

    /// The payloads of those of the jobs with these ids that exist, in any order.
    ///
    /// # Errors
    /// As for [`payload`](Self::payload).
    pub async fn payloads(&self, ids: &[JobId]) -> Result<Vec<(JobId, Box<RawValue>)>, ClientError> {
        let sealed = self.store().operations().payloads(ids).await?;
        let mut opened = Vec::with_capacity(sealed.len());
        for (id, payload) in sealed {
            opened.push((id, self.envelope().open(id, Part::Payload, payload).await?));
        }
        Ok(opened)
    }

    /// A page of the dead jobs that fit the filter, newest death first. See
    /// [`Operations::dead`](windlass_core::Operations::dead).
    ///
    /// # Errors
    /// What the store says.
    pub async fn dead(
        &self,
        filter: &DeadFilter,
        after: Option<DeadCursor>,
        limit: usize,
    ) -> Result<DeadPage, ClientError> {
        Ok(self.store().operations().dead(filter, after, limit).await?)
    }

    /// Up to `limit` lines of a job's log from behind `after` on; where the store has replicas, perhaps without the newest.
    ///
    /// # Errors
    /// What the store says.
    pub async fn logs(
        &self,
        id: JobId,
        after: Option<LogCursor>,
        limit: usize,
    ) -> Result<Vec<LogRecord>, ClientError> {
        Ok(recently!(self, |store| store.notes().logs(id, after, limit))?)
    }

    /// How many jobs there are, by queue and state. See [`Operations::tally`](windlass_core::Operations::tally).
    ///
    /// # Errors
    /// What the store says.
    pub async fn tally(&self) -> Result<Tally, ClientError> {
        Ok(recently!(self, |store| store.operations().tally())?)
    }

    /// Calls off those of `ids` that are in one of the `from` states, which are not terminal: at once, or by telling
    /// their handlers. Answers which.
    ///
    /// # Errors
    /// What the store says.
    pub async fn cancel_many(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, ClientError> {
        Ok(self.store().operations().cancel_many(ids, from).await?)
    }

    /// Queues those of `ids` that are in one of the `from` states, which are terminal, with fresh attempts. Answers
    /// which.
    ///
    /// # Errors
    /// What the store says.
    pub async fn retry(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, ClientError> {
        let retried = self.store().operations().retry(ids, from).await?;
        if !retried.is_empty() {
            self.nudge_relay();
        }
        Ok(retried)
    }

    /// Removes those of `ids` that are in one of the `from` states, which are terminal. Answers which.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, ClientError> {
        let Some(objects) = self.envelope().object_store() else {
            return Ok(self.store().operations().delete(ids, from).await?);
        };
        let before = self.store().get(ids).await?;
        let deleted = self.store().operations().delete(ids, from).await?;
        objects.forget(&deleted, &before).await;
        Ok(deleted)
    }
}
