use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{BrokerError, Delivery, DeliveryTag, Subscription};

use super::group::Group;
use super::intake::{Answer, Intake, Request};

/// The worker's end of a subscription; its [`Intake`] does the work. Dropping it ends the intake.
pub(super) struct RedisSubscription {
    group: Arc<Group>,
    requests: mpsc::UnboundedSender<Request>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// Whether an answer is under way: a `receive` that was dropped leaves it to the next.
    asked: bool,
    /// Answered, and not handed out.
    ready: VecDeque<Delivery>,
    closing: CancellationToken,
}

impl RedisSubscription {
    pub(super) fn start(intake: Intake, closing: CancellationToken, intakes: &TaskTracker) -> Self {
        let (requests, to_intake) = mpsc::unbounded_channel();
        let (from_intake, answers) = mpsc::unbounded_channel();
        let group = intake.group();
        intakes.spawn(intake.run(to_intake, from_intake, closing.clone()));
        Self { group, requests, answers, asked: false, ready: VecDeque::new(), closing }
    }
}

#[async_trait]
impl Subscription for RedisSubscription {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            if self.closing.is_cancelled() {
                return Err(BrokerError::Closed);
            }
            if max == 0 || !self.ready.is_empty() {
                let count = max.min(self.ready.len());
                return Ok(self.ready.drain(..count).collect());
            }
            if !self.asked {
                self.requests.send(Request::Receive(max)).map_err(|_| BrokerError::Closed)?;
                self.asked = true;
            }
            // Cancel-safe: an answer is either taken or stays in the channel.
            let answer = self.answers.recv().await.ok_or(BrokerError::Closed)?;
            self.asked = false;
            self.ready.extend(answer?);
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        // It fails when the broker has been closed, and everything given back.
        let _ = self.requests.send(Request::Acknowledge(tags.to_vec()));
        Ok(())
    }

    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        let _ = self.requests.send(Request::Release(tags.to_vec()));
        Ok(())
    }

    async fn park(&mut self) -> Result<(), BrokerError> {
        let (parked, answer) = oneshot::channel();
        // First: if this call is dropped, the next `receive` asks anew.
        self.asked = false;
        if self.requests.send(Request::Park(parked)).is_ok() {
            let _ = answer.await;
        }
        while let Ok(answer) = self.answers.try_recv() {
            self.ready.extend(answer.into_iter().flatten());
        }
        let tags: Vec<_> = self.ready.drain(..).map(|delivery| delivery.tag).collect();
        if tags.is_empty() { Ok(()) } else { self.release(&tags).await }
    }
}

impl fmt::Debug for RedisSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSubscription").field("lanes", &self.group.lanes).finish_non_exhaustive()
    }
}
