use std::collections::VecDeque;
use std::fmt;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use windlass_core::{BrokerError, Delivery, DeliveryTag, Lane, Subscription};

/// What a subscription asks of its task.
pub(crate) enum Request {
    /// Take up to this many, and answer once there is one.
    Receive(usize),
    Acknowledge(Vec<DeliveryTag>),
    Release(Vec<DeliveryTag>),
    /// Stop taking, and say so: no answer comes after.
    Park(oneshot::Sender<()>),
}

pub(crate) type Answer = Result<Vec<Delivery>, BrokerError>;

/// The worker's end of a subscription whose work is done by a task, for drivers that must do something while nobody
/// calls: tell the broker that what is held is in living hands. Dropping it ends the task.
pub(crate) struct Handle {
    lanes: Vec<Lane>,
    requests: mpsc::UnboundedSender<Request>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// Whether an answer is under way: a `receive` that was dropped leaves it to the next.
    asked: bool,
    /// Answered, and not handed out.
    ready: VecDeque<Delivery>,
    /// Cancelled when the broker is closed, which ends the task as well.
    closing: CancellationToken,
}

/// The task's end.
pub(crate) struct Desk {
    /// Ends when the handle is dropped.
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    pub(crate) answers: mpsc::UnboundedSender<Answer>,
    pub(crate) closing: CancellationToken,
}

impl Handle {
    pub(crate) fn new(lanes: Vec<Lane>, closing: CancellationToken) -> (Self, Desk) {
        let (requests, to_task) = mpsc::unbounded_channel();
        let (from_task, answers) = mpsc::unbounded_channel();
        let desk = Desk { requests: to_task, answers: from_task, closing: closing.clone() };
        (Self { lanes, requests, answers, asked: false, ready: VecDeque::new(), closing }, desk)
    }
}

#[async_trait]
impl Subscription for Handle {
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

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}
