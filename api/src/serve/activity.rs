use std::time::Duration;

use axum::response::Response;
use tokio::sync::watch;

use crate::held::hold;

/// How many requests of a connection are under way, until their answers have been taken. HTTP/1 has one at a time, and
/// hyper limits what is between them; with HTTP/2 it does not.
#[derive(Debug, Clone)]
pub(super) struct Activity(watch::Sender<usize>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// One more, until what it gives is dropped.
    pub(super) fn begin(&self) -> Busy {
        self.0.send_modify(|busy| *busy += 1);
        Busy(self.0.clone())
    }

    /// Returns once there has been nothing to do for this long.
    pub(super) async fn idle_for(&self, limit: Duration) {
        let mut busy = self.0.subscribe();
        loop {
            // It does not fail, since we have the other end ourselves.
            let _ = busy.wait_for(|busy| *busy == 0).await;
            if tokio::time::timeout(limit, busy.changed()).await.is_err() {
                return;
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Busy(watch::Sender<usize>);

impl Busy {
    /// The answer, which keeps the connection busy until it has been taken.
    pub(super) fn until_taken(self, response: Response) -> Response {
        response.map(|body| hold(body, self))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|busy| *busy -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn idle_is_what_has_had_nothing_to_do_for_long_enough() {
        let activity = Activity::new();
        let started = tokio::time::Instant::now();
        let busy = activity.begin();
        let short = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(busy);
            tokio::time::sleep(Duration::from_secs(9)).await;
            // However short it is.
            drop(activity.begin());
        };
        tokio::join!(short, activity.idle_for(LIMIT));
        assert_eq!(started.elapsed(), Duration::from_secs(79));
    }
}
