//! Schedules, whose payloads are sealed as those of jobs are.

use windlass_core::{ScheduleDefinition, ScheduleRecord};

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
        self.envelope().seal_template(&mut sealed.job)?;
        Ok(self.store().timetable().put_schedule(&sealed, enabled).await?)
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
