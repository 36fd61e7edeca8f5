use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{self, Poll},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::{Instant, sleep_until};

use super::{Layer, Service};
use crate::{Context, JobError};

/// Lets handlers begin at no more than a given rate in this process. Those that are too early wait their turn, in their
/// place among the running ones, so the worker takes no more than it can get rid of; their timeout does not count yet,
/// and a shutdown gives them back.
///
/// All handlers that the same layer (or a clone of it) is put around share the rate. For a rate that holds for a fleet, the
/// worker is the wrong place.
#[derive(Debug, Clone)]
pub struct RateLayer {
    bucket: Arc<Bucket>,
}

impl RateLayer {
    /// So many per `per`, evenly spaced; none counts as one.
    #[must_use]
    pub fn new(handlers: u32, per: Duration) -> Self {
        Self::with_burst(handlers, per, 1)
    }

    /// So many per `per` in the long run, and after a rest up to `burst` of them at once; none counts as one.
    #[must_use]
    pub fn with_burst(handlers: u32, per: Duration, burst: u32) -> Self {
        let interval = per / handlers.max(1);
        let tolerance = interval.saturating_mul(burst.max(1) - 1);
        Self { bucket: Arc::new(Bucket { interval, tolerance, next: Mutex::new(None) }) }
    }
}

impl<S> Layer<S> for RateLayer {
    type Service = Rate<S>;

    fn layer(&self, inner: S) -> Rate<S> {
        Rate { inner, bucket: self.bucket.clone() }
    }
}

/// What [`RateLayer`] makes.
#[derive(Debug, Clone)]
pub struct Rate<S> {
    inner: S,
    bucket: Arc<Bucket>,
}

impl<S> Service<Context> for Rate<S>
where
    S: Service<Context, Error = JobError> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
{
    type Response = S::Response;
    type Error = JobError;
    type Future = BoxFuture<'static, Result<S::Response, JobError>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), JobError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, context: Context) -> Self::Future {
        // The one that is ready goes, a clone stays.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let bucket = self.bucket.clone();
        async move {
            if let Some(turn) = bucket.turn(Instant::now()) {
                sleep_until(turn).await;
            }
            inner.call(context).await
        }
        .boxed()
    }
}

/// A token bucket that keeps the time of the next token instead of a count of them.
#[derive(Debug)]
struct Bucket {
    interval: Duration,
    /// How long before its even place a token may be taken: the burst.
    tolerance: Duration,
    /// The even place of the next token. Locked for single operations only.
    next: Mutex<Option<Instant>>,
}

impl Bucket {
    /// Takes a token, and says when it may be used; `None` is at once. A turn that is not used is lost.
    fn turn(&self, now: Instant) -> Option<Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let place = next.map_or(now, |next| next.max(now));
        *next = Some(later(place, self.interval));
        let turn = place.checked_sub(self.tolerance)?;
        (turn > now).then_some(turn)
    }
}

/// Beyond what the clock can show, it stays where it is.
fn later(at: Instant, by: Duration) -> Instant {
    at.checked_add(by).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In no stretch of time do more begin than its length allows, plus the burst; and none waits longer than that
        /// takes.
        #[test]
        fn the_rate_holds_in_every_window(
            handlers in 1u32..50, burst in 0u32..20, pauses in prop::collection::vec(0u64..300, 1..200),
        ) {
            let second = Duration::from_secs(1);
            let layer = RateLayer::with_burst(handlers, second, burst);
            let interval = second / handlers;
            let mut now = Instant::now() + second * 3600;
            let mut begun = Vec::new();
            for (asked, pause) in pauses.iter().enumerate() {
                now += Duration::from_millis(*pause);
                let turn = layer.bucket.turn(now).unwrap_or(now);
                prop_assert!(turn >= now && turn <= now + interval * (asked as u32 + 1));
                begun.push(turn);
            }
            for first in 0..begun.len() {
                for last in first..begun.len() {
                    let length = begun[last] - begun[first];
                    // A burst at once, and one more each interval from then on.
                    let allowed = u128::from(burst.max(1)) + length.as_nanos() / interval.as_nanos();
                    let more = (last - first) as u128;
                    prop_assert!(more < allowed + 1, "{} in {:?}", more + 1, length);
                }
            }
        }
    }

    #[test]
    fn a_bucket_that_rested_gives_its_burst_at_once_and_no_more() {
        let layer = RateLayer::with_burst(10, Duration::from_secs(1), 3);
        let now = Instant::now() + Duration::from_secs(3600);
        let turns: Vec<_> =
            (0..5).map(|_| layer.bucket.turn(now).map(|turn| (turn - now).as_millis())).collect();
        assert_eq!(turns, [None, None, None, Some(100), Some(200)]);
        let rested = now + Duration::from_secs(60);
        let turns: Vec<_> = (0..4).map(|_| layer.bucket.turn(rested).is_none()).collect();
        assert_eq!(turns, [true, true, true, false]);
    }

    #[test]
    fn a_rate_beyond_the_clock_does_not_panic() {
        let layer = RateLayer::with_burst(1, Duration::MAX, u32::MAX);
        let now = Instant::now();
        assert!(layer.bucket.turn(now).is_none());
        let _ = layer.bucket.turn(now);
    }
}
