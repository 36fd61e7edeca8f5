use std::fmt;

use async_trait::async_trait;

use crate::{Lane, Message, Priorities, Source};

/// Moves messages. All it must do is deliver each at least once; everything else is the store's work (P4).
///
/// Lanes come into being when first published to or subscribed to. Implementations reconnect on their own, with
/// back-off and jitter, and give every call a deadline: a call during an outage fails soon with a
/// [retryable](BrokerError::retryable) error instead of waiting the outage out.
#[async_trait]
pub trait Broker: fmt::Debug + Send + Sync + 'static {
    /// What this broker can and cannot do. The conformance suite checks that it is true.
    fn capabilities(&self) -> Capabilities;

    /// Publishes `messages` in one pipelined batch and waits for the broker's word on each: answers in the order
    /// of the messages. `Ok` means that the broker has it as safely as it keeps anything.
    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>>;

    /// Starts to take messages from `lanes`, in turns as `priorities` says. Not more than `capacity` messages (but at
    /// least one per lane) are ever unacknowledged through the subscription.
    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError>;

    /// How many messages wait in `lane`, not counting those delivered and unacknowledged; `None` where the broker
    /// cannot tell. A lane that does not exist is empty.
    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError>;

    /// Deletes `lanes` with everything in them. A lane that does not exist is no error.
    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError>;

    /// Whether the broker answers now.
    async fn ping(&self) -> Result<(), BrokerError>;

    /// Ends all connections in good order. Unacknowledged messages go back to their lanes.
    async fn close(&self);
}

/// A stream of deliveries that belongs to one worker. Dropping it gives back whatever is unacknowledged.
#[async_trait]
pub trait Subscription: fmt::Debug + Send {
    /// Waits for a message, then answers with up to `max` of those at hand, by the lanes' priorities: each has its share
    /// of what is handed out, in one answer or in many.
    ///
    /// Cancel-safe: a dropped call loses no message. Messages that cannot be decoded are set aside by the driver
    /// with a log line and never answered. After a lost connection the call reconnects by itself; it fails only to
    /// report, and may simply be called again.
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError>;

    /// Acknowledges: the messages will not come again. Tags from before a reconnect are ignored, since their
    /// messages come again anyway.
    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError>;

    /// Gives messages back for anyone to take, soon. Stale tags are ignored as in [`ack`](Self::ack).
    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError>;

    /// Stops taking, and gives back every message that [`receive`](Self::receive) has not yet handed out: for a
    /// worker that is full. The next `receive` takes up again.
    async fn park(&mut self) -> Result<(), BrokerError>;
}

/// One message, delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What to acknowledge or release it by.
    pub tag: DeliveryTag,
    /// The message.
    pub message: Message,
}

/// Names a delivery within its subscription. What the number means is the driver's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryTag(pub u64);

/// What a broker can do beyond the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Confirmed messages survive a restart of the broker.
    pub persistent: bool,
    /// [`Broker::depth`] answers with a number.
    pub depth: bool,
    /// What one subscription holds unacknowledged keeps no other message of the lane from other subscriptions, and
    /// never comes to them while it is held. Where false, a lane is divided into parts of which each belongs to one
    /// subscription at a time: what waits in a part waits for its owner, until that leaves or parks, and what the
    /// owner had in hand then comes again elsewhere.
    pub shared_lanes: bool,
}

/// What a broker answers when it cannot do as asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It cannot be reached, or the connection was lost. Passes by itself.
    #[error("the broker is not available: {0}")]
    Unavailable(#[source] Source),
    /// It did not answer in time. Passes by itself; what was asked may have happened.
    #[error("the broker did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// It refused a message. Publishing again later may work.
    #[error("the broker refused the message: {0}")]
    Refused(String),
    /// It will not work before someone changes a setting or a right.
    #[error("{problem}; {remedy}")]
    Config {
        /// What is wrong, with the name of the setting.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// It has been closed by this process.
    #[error("the broker connection has been closed")]
    Closed,
}

impl BrokerError {
    /// Whether trying again later can help without anyone's doing.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout(_) | Self::Refused(_))
    }
}
