use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use windlass_core::{BrokerError, Delivery, DeliveryTag, Lane, Priorities, Subscription};

use super::intake::{Intake, Tasks, Word};
use super::lanes::Lanes;
use crate::rota::Rota;

/// A worker's end of an [`Intake`].
pub(super) struct PubSubSubscription {
    lanes: Vec<Lane>,
    rota: Rota,
    intake: Arc<Intake>,
}

impl PubSubSubscription {
    pub(super) fn start(
        registry: &Arc<Lanes>,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
        over: CancellationToken,
        tasks: Tasks,
    ) -> Self {
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes, priorities);
        let intake = Intake::start(Arc::clone(registry), lanes.clone(), capacity, over, tasks);
        Self { lanes, rota, intake }
    }

    pub(super) fn intake(&self) -> Weak<Intake> {
        Arc::downgrade(&self.intake)
    }
}

#[async_trait]
impl Subscription for PubSubSubscription {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            {
                let mut state = self.intake.state();
                if state.ended {
                    return Err(BrokerError::Closed);
                }
                let deliveries = state.hand_out(&mut self.rota, max);
                if !deliveries.is_empty() || max == 0 {
                    return Ok(deliveries);
                }
                if std::mem::take(&mut state.parked) {
                    self.intake.room_changed();
                }
                if let Some(problem) = state.problem.take() {
                    return Err(problem.into());
                }
            }
            // Cancel-safe: messages leave the state only when they are handed out.
            self.intake.news().await;
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        let held = self.intake.state().settle(tags);
        Ok(self.intake.settle(held, Word::Done).await?)
    }

    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        let held = self.intake.state().settle(tags);
        Ok(self.intake.settle(held, Word::Again(0)).await?)
    }

    async fn park(&mut self) -> Result<(), BrokerError> {
        let held = self.intake.state().park();
        Ok(self.intake.settle(held, Word::Again(0)).await?)
    }
}

impl Drop for PubSubSubscription {
    fn drop(&mut self) {
        self.intake.end();
    }
}

impl fmt::Debug for PubSubSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PubSubSubscription").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}
