//! The memory that messages take before they are a request's body, out of what there is for bodies.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use futures::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::stream::GROUP_BYTES;
use crate::body::take;

/// How much one call may take.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    bodies: Arc<Semaphore>,
    most: usize,
}

impl Bounds {
    /// `largest` is that of a message. A stream has a group of them, and the next is on its way.
    pub(super) fn new(bodies: Arc<Semaphore>, largest: usize) -> Self {
        Self { bodies, most: largest + 2 * GROUP_BYTES }
    }
}

/// What a call has taken, until its last holder is gone: its body, or whoever works on its message.
#[derive(Debug, Clone)]
pub(super) struct Taken(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

/// Counts what comes of a call's messages. A stream takes no more than what it can hold at a time.
pub(super) async fn count(State(bounds): State<Bounds>, mut request: Request, next: Next) -> Response {
    let taken = Taken(Arc::default());
    request.extensions_mut().insert(taken.clone());
    let request =
        request.map(|body| Body::from_stream(Counted { body: body.into_data_stream(), bounds, taken }));
    next.run(request).await
}

struct Counted {
    body: BodyDataStream,
    bounds: Bounds,
    taken: Taken,
}

impl Counted {
    fn add(&self, bytes: usize) -> Result<(), Status> {
        let mut taken = self.taken.0.lock().unwrap_or_else(PoisonError::into_inner);
        let had = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.min(self.bounds.most.saturating_sub(had));
        let more = take(&self.bounds.bodies, more).map_err(|problem| super::call::refused(&problem))?;
        match &mut *taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

impl Stream for Counted {
    type Item = Result<Bytes, axum::BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.body.poll_next_unpin(context)) {
            Some(Ok(data)) => Some(self.add(data.len()).map(|()| data).map_err(Into::into)),
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }
}
