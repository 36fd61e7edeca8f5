use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::DropGuard;
use windlass_core::{BrokerError, Delivery, DeliveryTag, Subscription};

use super::api::Settle;
use super::intake::Intake;

/// The caller's end of an [`Intake`].
pub(super) struct SqsSubscription {
    intake: Arc<Intake>,
    /// Ends the intake with the subscription.
    _guard: DropGuard,
}

impl SqsSubscription {
    pub(super) fn new(intake: Arc<Intake>, guard: DropGuard) -> Self {
        Self { intake, _guard: guard }
    }
}

#[async_trait]
impl Subscription for SqsSubscription {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            // Cancel-safe: what is taken is answered at once.
            let deliveries = self.intake.take(max)?;
            if !deliveries.is_empty() || max == 0 {
                return Ok(deliveries);
            }
            self.intake.changed().await;
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        self.intake.settle(tags, Settle::Delete);
        Ok(())
    }

    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        self.intake.settle(tags, Settle::Release);
        Ok(())
    }

    async fn park(&mut self) -> Result<(), BrokerError> {
        self.intake.park();
        Ok(())
    }
}

impl fmt::Debug for SqsSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsSubscription").finish_non_exhaustive()
    }
}
