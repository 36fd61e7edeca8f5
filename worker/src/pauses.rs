use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use windlass_core::QueueName;

use crate::session::Session;

/// How often the worker asks which queues are paused. Claims refuse their jobs from the first moment.
const LOOK: Duration = Duration::from_secs(1);

/// The queues that are paused, as far as the worker knows.
pub(crate) type Paused = watch::Receiver<BTreeSet<QueueName>>;

/// Keeps `paused` up to date. While the store does not answer, it stays as it is.
pub(crate) async fn run(session: Arc<Session>, paused: watch::Sender<BTreeSet<QueueName>>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Ok(queues) = session.client.store().operations().queues().await {
            let now: BTreeSet<_> =
                queues.into_iter().filter(|queue| queue.paused).map(|queue| queue.name).collect();
            paused.send_if_modified(|known| {
                let changed = *known != now;
                if changed {
                    tracing::info!(queues = ?now, "these queues are paused");
                    *known = now;
                }
                changed
            });
        }
    }
}
