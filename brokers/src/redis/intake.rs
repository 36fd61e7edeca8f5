use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::future::{BoxFuture, FutureExt, OptionFuture};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use windlass_core::{Delivery, DeliveryTag};

use super::DEADLINE;
use super::entry::{Entry, Place};
use super::group::Group;
use super::link::Link;
use super::problem::Problem;
use crate::handle::{Answer, Desk, Request};
use crate::rota::{Ask, Rota};
use crate::unreadable;

/// How long one blocking read lasts: not long, since without the right to end one early, parking waits for it.
const WAIT: Duration = Duration::from_secs(2);
/// The same when there is room for fewer messages than there are lanes, so that only some lanes can be waited on.
const SHORT_WAIT: Duration = Duration::from_millis(100);
/// How often to touch what is held, and how often to look for what others have abandoned.
const BEAT: Duration = Duration::from_secs(10);
/// Left alone for this long, an entry's consumer is dead: it has missed two beats.
const ABANDONED: Duration = Duration::from_secs(30);
/// How often to ask again for the end of a read that had not begun when last asked.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The task behind a subscription. It alone knows what the consumer holds, touches it while it is held, and outlives
/// the subscription to give it back.
pub(super) struct Intake {
    commands: Arc<Link>,
    /// A blocking read holds up everything else on its connection.
    reader: Arc<Link>,
    group: Arc<Group>,
    rota: Rota,
    capacity: usize,
    /// What the subscription waits for.
    demand: Option<usize>,
    reading: Option<BoxFuture<'static, Result<Taken, Problem>>>,
    /// Which of the reader's connections was last searched for what got lost with the one before.
    recovered: u64,
    /// After a failure: when to read again.
    resume: Option<Instant>,
    delays: ExponentialBackoff,
    /// When others' entries were last looked at.
    swept: Option<Instant>,
    held: BTreeMap<u64, Place>,
    last_tag: u64,
}

struct Taken {
    entries: Vec<Entry>,
    /// What was asked for, if that was how they came.
    asks: Vec<Ask>,
    connection: u64,
}

impl Intake {
    pub(super) fn new(
        commands: Arc<Link>,
        reader: Arc<Link>,
        group: Arc<Group>,
        rota: Rota,
        capacity: usize,
    ) -> Self {
        Self {
            commands,
            reader,
            capacity: capacity.max(group.lanes.len()),
            group,
            rota,
            demand: None,
            reading: None,
            recovered: 0,
            resume: None,
            delays: delays(),
            swept: None,
            held: BTreeMap::new(),
            last_tag: 0,
        }
    }

    /// Serves the subscription until it is dropped or the broker closed.
    pub(super) async fn run(mut self, desk: Desk) {
        let Desk { mut requests, answers, closing } = desk;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.start_reading();
            let resume = OptionFuture::from(self.resume.map(sleep_until));
            // Cancel-safe: what is being read stays in `reading`.
            tokio::select! {
                () = closing.cancelled() => break,
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => break,
                },
                Some(taken) = OptionFuture::from(self.reading.as_mut()) => {
                    self.reading = None;
                    self.answer(taken, &answers).await;
                }
                Some(()) = resume => self.resume = None,
                _ = beat.tick() => self.touch().await,
            }
        }
        // What was asked for before the end still counts.
        requests.close();
        while let Some(request) = requests.recv().await {
            self.serve(request).await;
        }
        self.stop_reading().await;
        if let Err(problem) = self.group.leave(&self.commands).await {
            tracing::debug!(?problem, "messages not given back; others take them over");
        }
    }

    fn start_reading(&mut self) {
        let room = self.capacity.saturating_sub(self.held.len());
        let Some(max) = self.demand else { return };
        if room == 0 || self.reading.is_some() || self.resume.is_some() || self.group.lanes.is_empty() {
            return;
        }
        let sweep = self.swept.is_none_or(|at| at.elapsed() > BEAT);
        if sweep {
            self.swept = Some(Instant::now());
        }
        let wanted = max.min(room);
        let mut asks = self.rota.ask(wanted);
        let (group, reader, recovered) = (Arc::clone(&self.group), Arc::clone(&self.reader), self.recovered);
        let read = async move {
            let on = reader.connection().await?;
            let connection = on.number;
            let mut entries = Vec::new();
            if recovered != connection {
                entries = group.pending(&reader, &on).await?;
            }
            if entries.is_empty() {
                let abandoned = sweep.then_some(ABANDONED);
                entries = group.take(&reader, &on, &asks, abandoned).await?;
            } else {
                asks.clear();
            }
            if entries.is_empty() {
                // The count is one for each lane by itself.
                let lanes: Vec<usize> = asks.iter().take(room).map(|ask| ask.lane).collect();
                let patience = if lanes.len() == asks.len() { WAIT } else { SHORT_WAIT };
                let count = (wanted / lanes.len()).max(1);
                entries = group.wait(&reader, &on, &lanes, count, patience).await?;
            }
            Ok(Taken { entries, asks, connection })
        };
        self.reading = Some(read.boxed());
    }

    async fn answer(&mut self, taken: Result<Taken, Problem>, answers: &mpsc::UnboundedSender<Answer>) {
        let answer = match taken {
            Ok(Taken { entries, asks, connection }) => {
                self.recovered = connection;
                self.delays = delays();
                let mut taken = vec![0; self.group.lanes.len()];
                entries.iter().for_each(|entry| taken[entry.place.lane] += 1);
                self.rota.took(&asks, &taken);
                let deliveries = self.deliver(entries).await;
                // None when nothing came in time, or all of it was set aside.
                if deliveries.is_empty() {
                    return;
                }
                Ok(deliveries)
            }
            Err(problem) => {
                self.resume = self.delays.next().map(|delay| Instant::now() + delay);
                Err(problem.into())
            }
        };
        self.demand = None;
        // Nobody is there to hear it when the subscription has just been dropped, which ends the task next.
        let _ = answers.send(answer);
    }

    /// Notes entries as held, and sets aside what is no message.
    async fn deliver(&mut self, entries: Vec<Entry>) -> Vec<Delivery> {
        let held: HashSet<Place> = self.held.values().copied().collect();
        let mut deliveries = Vec::with_capacity(entries.len());
        let mut dropped = Vec::new();
        // What is held already was recovered with a new connection, or abandoned in an outage.
        for Entry { place, payload } in entries.into_iter().filter(|entry| !held.contains(&entry.place)) {
            match unreadable::read("redis", &self.group.lanes[place.lane], &payload) {
                Some(message) => {
                    self.last_tag += 1;
                    self.held.insert(self.last_tag, place);
                    deliveries.push(Delivery { tag: DeliveryTag(self.last_tag), message });
                }
                None => dropped.push(place),
            }
        }
        if let Err(problem) = self.group.acknowledge(&self.commands, &dropped).await {
            tracing::debug!(?problem, "messages not dropped; they come again");
        }
        deliveries
    }

    async fn serve(&mut self, request: Request) {
        let done = match request {
            Request::Receive(max) => {
                self.demand = Some(max);
                Ok(())
            }
            Request::Acknowledge(tags) => {
                let places = self.settle(&tags);
                self.group.acknowledge(&self.commands, &places).await
            }
            Request::Release(tags) => {
                let places = self.settle(&tags);
                self.group.give_back(&self.commands, &places).await
            }
            Request::Park(parked) => {
                self.demand = None;
                let places = self.stop_reading().await;
                let done = self.group.give_back(&self.commands, &places).await;
                let _ = parked.send(());
                done
            }
        };
        if let Err(problem) = done {
            // Nobody touches them any more, so they are taken over, and come again.
            tracing::debug!(?problem, "messages not settled; they come again");
        }
    }

    /// The entries behind `tags`, which are held no longer. Tags that were settled before have none.
    fn settle(&mut self, tags: &[DeliveryTag]) -> Vec<Place> {
        tags.iter().filter_map(|tag| self.held.remove(&tag.0)).collect()
    }

    /// Sees the read under way to its end, and answers with what it took.
    async fn stop_reading(&mut self) -> Vec<Place> {
        let Some(mut reading) = self.reading.take() else { return Vec::new() };
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(client) = self.reader.client() {
                let unblock = |mut redis| async move {
                    redis::cmd("CLIENT").arg("UNBLOCK").arg(client).exec_async(&mut redis).await
                };
                // Without the right to, the read ends by itself.
                let _ = self.commands.run(unblock).await;
            }
            match timeout(ASK_AGAIN, &mut reading).await {
                Ok(Ok(taken)) => return taken.entries.iter().map(|entry| entry.place).collect(),
                Ok(Err(_)) => return Vec::new(),
                Err(_) => {}
            }
        }
        // What it takes yet is found with the next connection, or taken over.
        self.reader.disconnect();
        Vec::new()
    }

    async fn touch(&mut self) {
        let places: Vec<Place> = self.held.values().copied().collect();
        if let Err(problem) = self.group.touch(&self.commands, &places).await {
            tracing::debug!(?problem, "held messages not touched; others may take them over");
        }
    }
}

/// Pauses between attempts to read: fast at first, since most interruptions are short, with jitter so that a fleet
/// does not come back all at once.
fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter()
        .build()
}
