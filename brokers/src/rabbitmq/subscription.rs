use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use backon::ExponentialBackoff;
use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::{Stream, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    BasicRejectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::task::TaskTracker;
use windlass_core::{BrokerError, Delivery, DeliveryTag, Lane, Priorities, Priority, Subscription};

use super::DEADLINE;
use super::keeper::{Keeper, delays};
use super::lane;
use super::problem::Problem;
use super::tags::{Settle, Tags};
use crate::rota::Rota;
use crate::unreadable;

/// A subscription that got nothing for this long changes its channel for a new one. A broker may forget a consumer:
/// RabbitMQ 3.10 does when a queue is deleted and made anew within milliseconds, keeps the messages for it, and
/// nothing in the protocol tells of it. A new channel costs an idle worker little.
const QUIET: Duration = Duration::from_secs(20);

/// One channel with a consumer per lane. Everything here belongs to the caller of [`Subscription`]'s methods: the
/// library's consumers buffer what arrives, so no task of our own stands between.
pub(super) struct RabbitSubscription {
    keeper: Arc<Keeper>,
    /// The lanes and the most that each may have unacknowledged.
    lanes: Arc<[(Lane, u16)]>,
    rota: Rota,
    /// The channel that handed-out messages belong to.
    intake: Option<Intake>,
    taking: Taking,
    /// Runs out when nothing has come for a while.
    quiet: Pin<Box<Sleep>>,
    /// How many channels there have been.
    epoch: u64,
    /// Pauses between attempts to take up again, anew after each message.
    delays: ExponentialBackoff,
    leftovers: TaskTracker,
    runtime: Handle,
}

enum Taking {
    /// Before the first attempt, while parked, and after a loss.
    Stopped,
    /// Under way; kept here, so that a dropped `receive` does not undo what was done.
    Starting(BoxFuture<'static, Result<Started, Problem>>),
    Running,
}

/// Why a channel is given up.
enum End {
    Quiet,
    Lost(String),
}

struct Started {
    channel: Channel,
    consumers: Vec<Consumer>,
}

/// A channel with what was delivered on it. Dropping it closes the channel, which gives everything
/// unacknowledged back.
struct Intake {
    channel: Channel,
    /// In the order of the lanes; none while parked.
    consumers: Vec<Consumer>,
    tags: Tags,
    leftovers: TaskTracker,
    runtime: Handle,
}

impl RabbitSubscription {
    pub(super) fn new(
        keeper: Arc<Keeper>,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
        leftovers: TaskTracker,
        runtime: Handle,
    ) -> Self {
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes, priorities);
        let lanes: Arc<[(Lane, u16)]> = shares(lanes, capacity).into();
        Self {
            keeper,
            lanes,
            rota,
            intake: None,
            taking: Taking::Stopped,
            quiet: Box::pin(sleep(QUIET)),
            epoch: 0,
            delays: delays(),
            leftovers,
            runtime,
        }
    }

    /// Takes up, unless it is running already. An error leaves the subscription stopped, and the next attempt
    /// begins with a pause.
    ///
    /// Cancel-safe: a dropped call is continued by the next.
    pub(super) async fn start_taking(&mut self) -> Result<(), BrokerError> {
        if matches!(self.taking, Taking::Stopped) {
            if self.intake.as_ref().is_some_and(|intake| !intake.channel.status().connected()) {
                // Lost while parked.
                self.intake = None;
            }
            self.taking = Taking::Starting(self.start(None));
        }
        let Taking::Starting(start) = &mut self.taking else { return Ok(()) };
        match start.await {
            Ok(Started { channel, consumers }) => {
                let same = self.intake.as_ref().is_some_and(|intake| intake.channel == channel);
                if !same {
                    self.epoch += 1;
                    let tags = Tags::new(self.epoch);
                    let (leftovers, runtime) = (self.leftovers.clone(), self.runtime.clone());
                    self.intake = Some(Intake { channel, consumers: Vec::new(), tags, leftovers, runtime });
                }
                if let Some(intake) = &mut self.intake {
                    intake.consumers = consumers;
                }
                self.quiet.as_mut().reset(Instant::now() + QUIET);
                self.taking = Taking::Running;
                Ok(())
            }
            Err(problem) => {
                self.restart();
                Err(problem.into())
            }
        }
    }

    /// Gives up the channel and begins anew after a pause.
    fn restart(&mut self) {
        self.intake = None;
        let pause = self.delays.next();
        self.taking = Taking::Starting(self.start(pause));
    }

    fn start(&self, pause: Option<Duration>) -> BoxFuture<'static, Result<Started, Problem>> {
        let (keeper, lanes) = (Arc::clone(&self.keeper), Arc::clone(&self.lanes));
        let parked = self.intake.as_ref().map(|intake| intake.channel.clone());
        async move {
            if let Some(pause) = pause {
                keeper.pause(pause).await;
            }
            let start = async {
                let link = keeper.link().await?;
                let channel = match parked {
                    Some(channel) => channel,
                    None => link.channel().await?,
                };
                let mut consumers = Vec::with_capacity(lanes.len());
                for (lane, share) in lanes.iter() {
                    lane::declare(&link, &channel, lane).await?;
                    // Applies to the consumers that come after, each by itself.
                    channel.basic_qos(*share, BasicQosOptions::default()).await?;
                    let consumer = channel
                        .basic_consume(
                            lane.to_string().into(),
                            ShortString::default(),
                            BasicConsumeOptions::default(),
                            FieldTable::default(),
                        )
                        .await;
                    match consumer {
                        Ok(consumer) => consumers.push(consumer),
                        Err(error) => {
                            // Perhaps somebody deleted it: ask again next time.
                            link.declared().remove(lane);
                            return Err(error.into());
                        }
                    }
                }
                Ok(Started { channel, consumers })
            };
            let late = || Err(Problem::Outage(format!("the broker did not answer within {DEADLINE:?}")));
            // The deadline counts per lane, since each costs three exchanges with the broker.
            let deadline = DEADLINE.saturating_mul(1 + lanes.len() as u32 / 8);
            timeout(deadline, start).await.unwrap_or_else(|_| late())
        }
        .boxed()
    }
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        loop {
            self.start_taking().await?;
            let Some(intake) = &mut self.intake else { continue };
            let (rota, quiet) = (&mut self.rota, &mut self.quiet);
            // Cancel-safe: what a poll takes from the consumers is answered in the same poll.
            let taken = poll_fn(|cx| match intake.poll(cx, rota, max) {
                // With messages in hand, it may be the capacity that holds others back.
                Poll::Pending if intake.tags.all_settled() => {
                    quiet.as_mut().poll(cx).map(|()| Err(End::Quiet))
                }
                taken => taken.map_err(End::Lost),
            });
            match taken.await {
                Ok(deliveries) => {
                    self.delays = delays();
                    self.quiet.as_mut().reset(Instant::now() + QUIET);
                    // None when all that came was set aside.
                    if !deliveries.is_empty() {
                        return Ok(deliveries);
                    }
                }
                Err(End::Quiet) => {
                    self.intake = None;
                    self.taking = Taking::Stopped;
                }
                Err(End::Lost(reason)) => {
                    tracing::warn!(reason, "the consumer has ended; taking up again");
                    self.restart();
                }
            }
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        if let Some(intake) = &mut self.intake {
            let numbers = intake.tags.numbers(tags);
            for Settle { number, multiple } in intake.tags.settle(numbers) {
                // Polled once, which queues the frame; the broker answers none. An error means that the channel is
                // gone, and the message comes again.
                let _ = intake.channel.basic_ack(number, BasicAckOptions { multiple }).now_or_never();
            }
        }
        Ok(())
    }

    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        if let Some(intake) = &mut self.intake {
            let numbers = intake.tags.numbers(tags);
            intake.requeue(numbers);
        }
        Ok(())
    }

    async fn park(&mut self) -> Result<(), BrokerError> {
        match std::mem::replace(&mut self.taking, Taking::Stopped) {
            Taking::Stopped => {}
            // In the middle of it there is no telling what the broker has sent: close the channel.
            Taking::Starting(_) => self.intake = None,
            Taking::Running => {
                // Out of self while waiting: if this call is dropped, the channel closes, and all goes back.
                let Some(mut intake) = self.intake.take() else { return Ok(()) };
                match timeout(DEADLINE, intake.park()).await {
                    Ok(Ok(())) => self.intake = Some(intake),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "could not stop the consumer; closing its channel")
                    }
                    Err(_) => tracing::warn!("the broker is slow to stop the consumer; closing its channel"),
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RabbitSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitSubscription").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Intake {
    /// Up to `max` deliveries at hand, or the reason why no more will come.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        rota: &mut Rota,
        max: usize,
    ) -> Poll<Result<Vec<Delivery>, String>> {
        let mut deliveries = Vec::new();
        let (mut set_aside, mut lost) = (false, None);
        // Where nothing is at hand, every consumer has been polled, and wakes us.
        rota.hand_out(max, |index, most| {
            let Some(consumer) = self.consumers.get_mut(index) else { return 0 };
            let before = deliveries.len();
            while deliveries.len() - before < most {
                match Pin::new(&mut *consumer).poll_next(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => {
                        lost = Some("consumer cancelled".to_owned());
                        break;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        lost = Some(error.to_string());
                        break;
                    }
                    Poll::Ready(Some(Ok(delivery))) => {
                        if let Some(message) =
                            unreadable::read("rabbitmq", &delivery.routing_key, &delivery.data)
                        {
                            let tag = self.tags.deliver(delivery.delivery_tag);
                            deliveries.push(Delivery { tag, message });
                            continue;
                        }
                        set_aside = true;
                        for Settle { number, .. } in self.tags.settle(vec![delivery.delivery_tag]) {
                            let options = BasicRejectOptions { requeue: false };
                            let _ = self.channel.basic_reject(number, options).now_or_never();
                        }
                    }
                }
            }
            deliveries.len() - before
        });
        match lost {
            // What was taken comes again, as does everything else on this channel.
            Some(reason) => Poll::Ready(Err(reason)),
            None if deliveries.is_empty() && !set_aside => Poll::Pending,
            None => Poll::Ready(Ok(deliveries)),
        }
    }

    /// Stops the consumers and gives back what they hold.
    async fn park(&mut self) -> lapin::Result<()> {
        let channel = &self.channel;
        let cancel = |c: &Consumer| channel.basic_cancel(c.tag(), BasicCancelOptions::default());
        for cancelled in join_all(self.consumers.iter().map(cancel)).await {
            cancelled?;
        }
        // Whatever the broker sent before its answer is in the consumers' buffers by now.
        let mut held = Vec::new();
        for consumer in &mut self.consumers {
            while let Some(Some(Ok(delivery))) = consumer.next().now_or_never() {
                held.push(delivery.delivery_tag);
            }
        }
        self.consumers.clear();
        self.requeue(held);
        Ok(())
    }

    fn requeue(&mut self, numbers: Vec<u64>) {
        for Settle { number, multiple } in self.tags.settle(numbers) {
            let options = BasicNackOptions { multiple, requeue: true };
            let _ = self.channel.basic_nack(number, options).now_or_never();
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        // Closed explicitly, and before the consumers go: each would otherwise cancel itself at the broker, and an
        // error there, as after a close by the broker, costs the library's whole connection.
        let (channel, consumers) = (self.channel.clone(), std::mem::take(&mut self.consumers));
        let close = async move {
            let _ = channel.close(200, "done".into()).await;
            drop(consumers);
        };
        self.leftovers.spawn_on(close, &self.runtime);
    }
}

/// Divides `capacity` among the lanes, since a quorum queue knows no limit for several consumers together: one for
/// each lane, and of what is left five parts to a normal lane for one to any other, as that is where most jobs go.
fn shares(lanes: Vec<Lane>, capacity: usize) -> Vec<(Lane, u16)> {
    let weight = |lane: &Lane| if lane.priority == Priority::Normal { 5 } else { 1 };
    let total: usize = lanes.iter().map(weight).sum();
    let left = capacity.saturating_sub(lanes.len());
    let share = |lane: &Lane| 1 + left.saturating_mul(weight(lane)) / total.max(1);
    lanes
        .into_iter()
        .map(|lane| {
            let share = share(&lane);
            (lane, u16::try_from(share).unwrap_or(u16::MAX))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fit_the_capacity() {
        let lanes: Vec<Lane> = Lane::of(&"q".parse().unwrap()).collect();
        for (capacity, expected) in
            [(0, [1, 1, 1, 1]), (4, [1, 1, 1, 1]), (10, [1, 1, 4, 1]), (804, [101, 101, 501, 101])]
        {
            let found: Vec<u16> = shares(lanes.clone(), capacity).into_iter().map(|(_, n)| n).collect();
            assert_eq!(found, expected, "{capacity}");
        }
        assert_eq!(shares(lanes[..1].to_vec(), 10)[0].1, 10);
        assert_eq!(shares(lanes[..1].to_vec(), 1_000_000)[0].1, u16::MAX);
    }
}
