use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use windlass_core::{Broker, BrokerError, Message, OutboxId, Store};

/// Messages that stand in the outbox together.
#[derive(Debug)]
pub(crate) struct Group {
    /// Their outbox group; `None` if the answer that named it was lost, and then the relay publishes once more.
    pub(crate) outbox: Option<OutboxId>,
    /// The messages.
    pub(crate) messages: Vec<Message>,
}

/// Publishes outbox groups and notes in the store what the broker confirmed.
///
/// A failure loses nothing: the group stays in the outbox, where the relay finds it.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    broker_down: Arc<AtomicBool>,
}

impl Publisher {
    pub(crate) fn new(store: Arc<dyn Store>, broker: Arc<dyn Broker>) -> Self {
        Self { store, broker, broker_down: Arc::default() }
    }

    /// Publishes `groups` in one batch; answers those that the broker has confirmed whole, to be [noted](Self::note).
    pub(crate) async fn publish(&self, groups: Vec<Group>) -> Vec<OutboxId> {
        let sizes: Vec<_> = groups.iter().map(|g| (g.outbox, g.messages.len())).collect();
        let messages: Vec<Message> = groups.into_iter().flat_map(|g| g.messages).collect();
        let answers = self.broker.publish(&messages).await;
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        metrics::counter!("windlass_messages_published_total").increment((answers.len() - failed) as u64);
        metrics::counter!("windlass_messages_unpublished_total").increment(failed as u64);
        self.note_outage(answers.iter().find_map(|answer| answer.as_ref().err()));

        let mut answers = answers.iter();
        let mut confirmed = Vec::with_capacity(sizes.len());
        for (outbox, size) in sizes {
            // Not `all`, which would stop early and leave the rest of the group to the next one.
            let failed = answers.by_ref().take(size).filter(|answer| answer.is_err()).count();
            if failed == 0 {
                confirmed.extend(outbox);
            }
        }
        confirmed
    }

    /// Has the outbox verify after `verify_after` that these groups, which the broker has confirmed, arrived.
    pub(crate) async fn note(&self, confirmed: &[OutboxId], verify_after: Duration) {
        if !confirmed.is_empty()
            && let Err(error) = self.store.outbox_published(confirmed, verify_after).await
        {
            tracing::debug!(%error, groups = confirmed.len(), "confirmed groups not noted; they are published again");
        }
    }

    /// Says once when an outage begins, and once when it is over.
    fn note_outage(&self, error: Option<&BrokerError>) {
        let was_down = self.broker_down.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_down => {
                tracing::warn!(%error, "publishing failed; jobs are still accepted, and published when it works again");
            }
            None if was_down => tracing::info!("publishing works again"),
            _ => {}
        }
    }
}
