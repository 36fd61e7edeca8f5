use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::time::{sleep, timeout};
use windlass_core::{BrokerError, Lane, Message};

use super::DEADLINE;
use super::lane;
use super::link::Link;
use super::problem::Problem;

/// Messages of one batch on their way at once. Enough to keep any broker busy, and it bounds what the library
/// searches for each confirm.
const WINDOW: usize = 2048;
/// What a message adds to the deadline of its batch; a broker that works takes a tenth of it.
const PER_MESSAGE: Duration = Duration::from_millis(1);
/// Before a refused message is tried again, each time longer: a queue just made refuses for a moment, until it is led.
const AFTER_REFUSAL: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(200),
    Duration::from_millis(500),
];
/// How long the broker is given to tell consumers of a deleted queue.
const AFTER_DELETION: Duration = Duration::from_millis(300);

/// Publishes `messages` and answers one by one. Lanes go side by side and apart from each other: a queue that
/// cannot confirm, as when it has lost its majority, fails its own messages only.
pub(super) async fn publish(link: &Link, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
    if link.blocked() {
        let short = Problem::Outage("the broker is short of memory or disk and takes no messages".into());
        return messages.iter().map(|_| Err(short.clone().into())).collect();
    }
    let mut lanes: HashMap<&Lane, Vec<usize>> = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        lanes.entry(&message.lane).or_default().push(index);
    }
    let deadline = DEADLINE + PER_MESSAGE.saturating_mul(u32::try_from(messages.len()).unwrap_or(u32::MAX));
    let batches = lanes.into_iter().map(async |(lane, indices)| {
        let batch = Batch::new(lane, indices.iter().map(|&index| messages[index].encode()).collect());
        (indices, timeout(deadline, batch.run(link)).await)
    });
    let mut answers: Vec<Result<(), BrokerError>> = messages.iter().map(|_| Ok(())).collect();
    for (indices, result) in join_all(batches).await {
        for (place, index) in indices.into_iter().enumerate() {
            // No word on the batch as a whole means no word on any message: a confirmed one may yet turn out to have
            // been returned. Publishing it again is harmless.
            answers[index] = match &result {
                Ok(Ok(found)) => found[place].clone().map_err(Into::into),
                Ok(Err(problem)) => Err(problem.clone().into()),
                Err(_) => Err(BrokerError::Timeout(deadline)),
            };
        }
    }
    answers
}

#[derive(Debug, Clone)]
enum Refusal {
    /// By the broker.
    Nack,
    /// There is no such lane, though it was just declared.
    Returned,
}

/// Messages of one lane.
struct Batch<'a> {
    lane: &'a Lane,
    payloads: Vec<Vec<u8>>,
    answers: Vec<Result<(), Refusal>>,
}

impl<'a> Batch<'a> {
    fn new(lane: &'a Lane, payloads: Vec<Vec<u8>>) -> Self {
        Self { lane, answers: vec![Ok(()); payloads.len()], payloads }
    }

    async fn run(mut self, link: &Link) -> Result<Vec<Result<(), Refusal>>, Problem> {
        let publisher = link.publisher().await?;
        let mut refused: Vec<usize> = (0..self.payloads.len()).collect();
        self.declare(link).await?;
        for pause in AFTER_REFUSAL.into_iter().map(Some).chain([None]) {
            self.round(&publisher.channel, &refused).await?;
            refused.retain(|&index| self.answers[index].is_err());
            let Some(pause) = pause.filter(|_| !refused.is_empty()) else { break };
            if refused.iter().any(|&index| matches!(self.answers[index], Err(Refusal::Returned))) {
                // Somebody deleted the lane since it was declared. Its consumers must hear of that first: RabbitMQ 3.10
                // moves them over to a queue made anew at once, and then delivers nothing to them.
                sleep(AFTER_DELETION).await;
                link.declared().remove(self.lane);
                self.declare(link).await?;
            } else {
                sleep(pause).await;
            }
        }
        publisher.give_back();
        Ok(self.answers)
    }

    async fn declare(&self, link: &Link) -> Result<(), Problem> {
        if link.declared().contains(self.lane) {
            return Ok(());
        }
        // On a channel of its own, because the broker closes it when it refuses.
        lane::declare(link, &link.channel().await?, self.lane).await
    }

    /// Publishes the messages at `indices`, and notes the answers.
    async fn round(&mut self, channel: &Channel, indices: &[usize]) -> Result<(), Problem> {
        let name = ShortString::from(self.lane.to_string());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let mut under_way: VecDeque<(usize, Sending<'_>)> = VecDeque::new();
        // A returned message is announced with some confirm of the channel, not necessarily its own: what came back
        // is told by its content.
        let mut returned: HashSet<Vec<u8>> = HashSet::new();
        let mut todo = indices.iter();
        loop {
            let next = if under_way.len() < WINDOW { todo.next() } else { None };
            if let Some(&index) = next {
                let (payload, properties) = (&self.payloads[index], persistent.clone());
                let publish =
                    channel.basic_publish(ShortString::default(), name.clone(), options, payload, properties);
                under_way.push_back((index, Sending::start(Box::pin(publish)).await));
                continue;
            }
            let Some((index, sending)) = under_way.pop_front() else { break };
            let (answer, came_back) = match sending.finish().await?.await? {
                Confirmation::Ack(came_back) => (Ok(()), came_back),
                Confirmation::Nack(came_back) => (Err(Refusal::Nack), came_back),
                Confirmation::NotRequested => {
                    return Err(Problem::Outage("the channel does not confirm".into()));
                }
            };
            self.answers[index] = answer;
            returned.extend(came_back.map(|message| message.delivery.data));
        }
        if !returned.is_empty() {
            for &index in indices.iter().filter(|&&index| returned.contains(&self.payloads[index])) {
                self.answers[index] = Err(Refusal::Returned);
            }
        }
        Ok(())
    }
}

/// A publish whose frames are queued for the socket.
enum Sending<'a> {
    Pending(BoxFuture<'a, lapin::Result<PublisherConfirm>>),
    Done(lapin::Result<PublisherConfirm>),
}

impl<'a> Sending<'a> {
    /// Polls once, which queues the frames. Awaiting the write here, message by message, would cost a trip to the
    /// socket's thread each; the batch waits for its confirms anyway.
    async fn start(mut publish: BoxFuture<'a, lapin::Result<PublisherConfirm>>) -> Self {
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut publish).poll(cx))).await;
        match first {
            Poll::Ready(done) => Self::Done(done),
            Poll::Pending => Self::Pending(publish),
        }
    }

    async fn finish(self) -> lapin::Result<PublisherConfirm> {
        match self {
            Self::Pending(publish) => publish.await,
            Self::Done(done) => done,
        }
    }
}

impl From<Refusal> for BrokerError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Nack => Self::Refused("negative confirm".into()),
            Refusal::Returned => Self::Refused("the queue vanished while publishing".into()),
        }
    }
}
