use std::{future::Future, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Natural batching: whatever waits leaves together as soon as one of a few lanes is free. A lone item never waits
/// for company, and a crowd shares one statement.
#[derive(Debug)]
pub(crate) struct Grouper<T> {
    queue: mpsc::Sender<T>,
}

/// How a [`Grouper`] groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How many items may wait; beyond it they are refused.
    pub(crate) waiting: usize,
    /// The largest group.
    pub(crate) group: usize,
    /// How many groups may be under way at once.
    pub(crate) in_flight: usize,
    /// How long after a group the next one leaves at the earliest.
    pub(crate) gap: Duration,
}

impl<T: Send + 'static> Grouper<T> {
    /// Starts the grouping task on `tracker`. After `stop` it takes nothing new, works off what waits, and ends.
    pub(crate) fn start<F, R>(limits: Limits, tracker: &TaskTracker, stop: CancellationToken, run: F) -> Self
    where
        F: Fn(Vec<T>) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let (queue, mut waiting) = mpsc::channel(limits.waiting);
        tracker.spawn(async move {
            let mut in_flight = JoinSet::new();
            let mut stopping = false;
            let mut next = Instant::now();
            loop {
                let mut group = Vec::new();
                let taken = async {
                    if !limits.gap.is_zero() {
                        sleep_until(next).await;
                    }
                    waiting.recv_many(&mut group, limits.group).await
                };
                // `recv_many` and `join_next` are cancel-safe: a branch not taken has lost nothing.
                tokio::select! {
                    biased;
                    () = stop.cancelled(), if !stopping => {
                        stopping = true;
                        waiting.close();
                    }
                    Some(ended) = in_flight.join_next() => report_panic(ended),
                    taken = taken, if in_flight.len() < limits.in_flight => {
                        if taken == 0 {
                            break;
                        }
                        next = Instant::now() + limits.gap;
                        in_flight.spawn(run(group));
                    }
                }
            }
            while let Some(ended) = in_flight.join_next().await {
                report_panic(ended);
            }
        });
        Self { queue }
    }

    /// Adds an item, or gives it back with the reason.
    pub(crate) fn add(&self, item: T) -> Result<(), mpsc::error::TrySendError<T>> {
        self.queue.try_send(item)
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a group was lost to a panic; what it held will be retried");
    }
}
