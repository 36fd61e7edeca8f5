use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};
use windlass_core::StoreError;

use crate::{session::Session, strays::Strays};

/// Renews the lease until the session ends, and declares it lost in time when it cannot.
///
/// The lease is measured on the monotonic clock from the moment a successful heartbeat was sent, so it ends here
/// before it can have ended in the store.
pub(crate) async fn run(session: Arc<Session>, lease: Duration, registered: Instant) {
    // What is kept in hand for stopping the handlers.
    let margin = lease / 6;
    let mut renewed = registered;
    let mut next = registered + lease / 3;
    let mut failing = false;
    let mut strays = Strays::default();
    loop {
        sleep_until(next).await;
        let limit = renewed + lease - margin;
        let sent = Instant::now();
        match timeout_at(limit, session.client.store().heartbeat(session.id)).await {
            Ok(Ok(reply)) => {
                renewed = sent;
                next = sent + lease / 3;
                if std::mem::take(&mut failing) {
                    tracing::info!("heartbeats work again");
                }
                reply.cancel.into_iter().for_each(|id| session.cancel(id));
                strays.look(&session, reply.claims);
            }
            Ok(Err(StoreError::WorkerUnknown(_))) => {
                tracing::error!(worker = %session.id, "lease lost: this worker was silent for too long; its handlers are stopped");
                session.lost.cancel();
                return;
            }
            Ok(Err(error)) if Instant::now() < limit => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "heartbeat failed; trying again");
                }
                next = (Instant::now() + lease / 15).min(limit);
            }
            Ok(Err(_)) | Err(_) => {
                tracing::error!(worker = %session.id, "lease about to run out without a heartbeat; its handlers are stopped");
                session.lost.cancel();
                return;
            }
        }
    }
}
