use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Gating, Kind, KindInfo, NewJob, Priority, QueueName, Schedule, ScheduleName, StoreError, Timestamp,
    Unique, limit::is_default,
};

/// What a store does by the clock: schedules, and jobs whose time is over. Every method is one transaction and may be
/// repeated after a [retryable](StoreError::retryable) error.
#[async_trait]
pub trait Timetable: Send + Sync {
    /// The schedules, by name.
    async fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError>;

    /// Keeps a schedule under its name, in place of an earlier one. The newest definition wins, but `enabled` counts for a
    /// schedule that is new or where it is given; and only a definition with other times changes when it fires next.
    async fn put_schedule(
        &self,
        definition: &ScheduleDefinition,
        enabled: Option<bool>,
    ) -> Result<(), StoreError>;

    /// Removes a schedule; the jobs it has made stay. Whether there was one.
    async fn delete_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError>;

    /// Lets a schedule fire, or not. Ticks that pass while it does not are not made up for. Whether there is one.
    async fn enable_schedule(&self, name: &ScheduleName, enabled: bool) -> Result<bool, StoreError>;

    /// Fires up to `limit` schedules that are due: their jobs, and the next tick of each, in one transaction, so that each
    /// tick fires once, however many call this. Jobs are in an outbox group that is due at once. Answers how many schedules
    /// were due; fewer than `limit` means that no more remain.
    async fn fire_schedules(&self, limit: usize) -> Result<usize, StoreError>;

    /// Makes up to `limit` jobs `dead` that were not started before their expiry, or are not over by their deadline and not
    /// running. Answers how many were looked at; fewer than `limit` means that no more remain.
    async fn expire(&self, limit: usize) -> Result<usize, StoreError>;
}

/// A schedule with the jobs it makes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScheduleDefinition {
    /// Its name.
    pub name: ScheduleName,
    /// When it fires.
    pub schedule: Schedule,
    /// What it makes then.
    pub job: JobTemplate,
}

/// What a schedule makes at each tick.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobTemplate {
    /// Which handler the jobs are for.
    pub kind: Kind,
    /// Which queue they wait in.
    pub queue: QueueName,
    /// How urgent they are there.
    pub priority: Priority,
    /// What the handler gets.
    pub payload: Box<RawValue>,
    /// How many attempts may be started.
    pub max_attempts: u32,
    /// How long one attempt may run.
    pub timeout: Option<Duration>,
    /// How long after its tick a job may be started.
    pub expires_in: Option<Duration>,
    /// Which form the payload has.
    pub version: u16,
    /// The jobs' labels.
    pub labels: BTreeMap<String, String>,
    /// What keeps runs from overlapping, for example.
    pub unique: Option<Unique>,
    /// What the jobs may have to wait for, and on whose behalf they run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gating: Gating,
}

impl JobTemplate {
    /// Jobs with the defaults of [`NewJob::new`].
    #[must_use]
    pub fn new(kind: Kind, payload: Box<RawValue>) -> Self {
        Self {
            kind,
            queue: QueueName::default(),
            priority: Priority::default(),
            payload,
            max_attempts: KindInfo::DEFAULT_MAX_ATTEMPTS,
            timeout: None,
            expires_in: None,
            version: 1,
            labels: BTreeMap::new(),
            unique: None,
            gating: Gating::default(),
        }
    }
}

impl ScheduleDefinition {
    /// The job of a tick.
    #[must_use]
    pub fn job_of(&self, tick: Timestamp) -> NewJob {
        let template = &self.job;
        let start = self.schedule.start_of(&self.name, tick);
        let expires_at = template.expires_in.and_then(|by| chrono::TimeDelta::from_std(by).ok());
        NewJob {
            queue: template.queue.clone(),
            priority: template.priority,
            max_attempts: template.max_attempts,
            timeout: template.timeout,
            run_at: Some(start),
            expires_at: expires_at.and_then(|by| start.checked_add_signed(by)),
            version: template.version,
            labels: template.labels.clone(),
            unique: template.unique.clone().map(Box::new),
            gating: template.gating.clone(),
            ..NewJob::new(template.kind.clone(), template.payload.clone())
        }
    }
}

/// A schedule as the store knows it.
#[derive(Debug, Clone)]
pub struct ScheduleRecord {
    /// Its newest definition.
    pub definition: ScheduleDefinition,
    /// Whether it fires.
    pub enabled: bool,
    /// When it fires next, before jitter; `None` for never.
    pub next_at: Option<Timestamp>,
    /// The last tick that it made a job for.
    pub last_at: Option<Timestamp>,
}
