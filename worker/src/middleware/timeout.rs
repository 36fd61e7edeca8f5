use std::{
    task::{self, Poll},
    time::Duration,
};

use super::{Layer, Service};
use crate::Context;

/// Allows a handler no more than a given time, whatever its jobs and its payload type say: the shortest time counts.
///
/// What follows is what follows any timeout: the handler is told to stop, is dropped if it does not, and the attempt has
/// failed. As ever, the time counts from the handler's beginning, so what layers wait for is not in it; hence its
/// place among the layers does not matter.
#[derive(Debug, Clone, Copy)]
pub struct TimeoutLayer {
    limit: Duration,
}

impl TimeoutLayer {
    /// Allows `limit`.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, limit: self.limit }
    }
}

/// What [`TimeoutLayer`] makes.
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
    limit: Duration,
}

impl<S: Service<Context>> Service<Context> for Timeout<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, context: Context) -> S::Future {
        if let Some(gate) = context.gate() {
            gate.limit(self.limit);
        }
        self.inner.call(context)
    }
}
