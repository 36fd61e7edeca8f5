//! Schedules, whose payloads are sealed as those of jobs are.

use windlass_core::{ScheduleDefinition, ScheduleName, ScheduleRecord};

use crate::{Client, ClientError};

impl Client {
    /// Keeps a schedule under its name, in place of an earlier one. See
    /// [`Timetable::put_schedule`](windlass_core::Timetable::put_schedule).
    ///
    /// # Errors
    /// What the store says; also a payload with the reserved key.
    pub async fn put_schedule(
        &self,
        definition: &ScheduleDefinition,
        enabled: Option<bool>,
    ) -> Result<(), ClientError> {
        let mut sealed = definition.clone();
        let tenant = &mut sealed.job.gating.tenant;
        *tenant = tenant.take().or_else(|| self.tenant().cloned());
        self.envelope().seal_template(&mut sealed.job)?;
        Ok(self.store().timetable().put_schedule(&sealed, enabled).await?)
    }

    /// The schedule of this name.
    ///
    /// # Errors
    /// As for [`schedules`](Self::schedules).
    pub async fn schedule(&self, name: &ScheduleName) -> Result<Option<ScheduleRecord>, ClientError> {
        Ok(self.schedules().await?.into_iter().find(|record| record.definition.name == *name))
    }

    /// Lets a schedule fire, or not. Ticks that pass while it does not are not made up for. Whether there is one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn enable_schedule(&self, name: &ScheduleName, enabled: bool) -> Result<bool, ClientError> {
        Ok(self.store().timetable().enable_schedule(name, enabled).await?)
    }

    /// Removes a schedule; the jobs that it has made stay. Whether there was one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete_schedule(&self, name: &ScheduleName) -> Result<bool, ClientError> {
        Ok(self.store().timetable().delete_schedule(name).await?)
    }

    /// The schedules, by name.
    ///
    /// # Errors
    /// What the store says; also when a payload is encrypted under a key that the settings do not have.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRecord>, ClientError> {
        let mut schedules = self.store().timetable().schedules().await?;
        for schedule in &mut schedules {
            self.envelope().unseal_template(&mut schedule.definition.job)?;
        }
        Ok(schedules)
    }
}
