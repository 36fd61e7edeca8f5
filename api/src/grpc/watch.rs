//! The API's event streams, as streams of messages.

use axum::body::{Body, BodyDataStream};
use futures::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use tonic::Status;
use windlass_proto::v1::{
    Job, WatchJobsResponse, WatchQueueResponse, watch_jobs_response::Change, watch_queue_response::News,
};

use super::call::{Caller, read};

/// What a stream's events tell, by `tell`, until that says `None` or an error, or the caller's time is up. It gets no
/// event where the stream has ended.
pub(super) fn follow<T: 'static>(
    caller: Caller,
    body: Body,
    tell: impl Fn(Option<Event>) -> Option<Result<T, Status>> + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    let events = Events { body: body.into_data_stream(), came: Vec::new() };
    stream::unfold(Some((caller, events, tell)), |going| async move {
        let (caller, mut events, tell) = going?;
        let told = match caller.bounded(events.next()).await {
            Ok(event) => tell(event)?,
            Err(late) => Err(late),
        };
        let going = told.is_ok().then_some((caller, events, tell));
        Some((told, going))
    })
}

/// A job, until it is over.
pub(super) fn one(event: Option<Event>) -> Option<Result<Job, Status>> {
    Some(match event {
        Some(event) => match &*event.name {
            "job" => read(event.data.as_bytes()),
            "end" => return None,
            "removed" => Err(Status::not_found("the job has been removed")),
            _ => Err(Status::unavailable("the job can no longer be followed from here; watch it again")),
        },
        None => Err(Status::unavailable("the server ends; watch the job again")),
    })
}

/// Jobs, until all are over.
pub(super) fn many(event: Option<Event>) -> Option<Result<WatchJobsResponse, Status>> {
    #[derive(Deserialize)]
    struct Which {
        id: String,
    }
    let Some(event) = event else {
        return Some(Err(Status::unavailable("the server ends; watch the jobs again")));
    };
    let data = event.data.as_bytes();
    let change = match &*event.name {
        "job" => read(data).map(Change::Job),
        "end" => return None,
        "removed" => read(data).map(|Which { id }| Change::Removed(id)),
        _ => read(data).map(|Which { id }| Change::Unavailable(id)),
    };
    Some(change.map(|change| WatchJobsResponse { change: Some(change) }))
}

/// A queue, for as long as it was asked for.
pub(super) fn queue(
    event: Option<Event>,
    is_over: impl FnOnce() -> bool,
) -> Option<Result<WatchQueueResponse, Status>> {
    #[derive(Deserialize)]
    struct Lagged {
        missed: u64,
    }
    let Some(event) = event else {
        let ended = Status::unavailable("the queue can no longer be followed from here; watch it again");
        return (!is_over()).then_some(Err(ended));
    };
    let news = match &*event.name {
        "ready" => Ok(News::Ready(())),
        "job" => read(event.data.as_bytes()).map(News::Job),
        _ => read(event.data.as_bytes()).map(|Lagged { missed }| News::Lagged(missed)),
    };
    Some(news.map(|news| WatchQueueResponse { news: Some(news) }))
}

/// An event of a stream of ours, whose data is one line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    name: String,
    data: String,
}

struct Events {
    body: BodyDataStream,
    came: Vec<u8>,
}

impl Events {
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.came.windows(2).position(|two| two == b"\n\n") {
                let event = parse(&self.came[..end]);
                self.came.drain(..end + 2);
                if event.is_some() {
                    return event;
                }
            }
            // What breaks off has ended.
            let part = self.body.next().await?.ok()?;
            self.came.extend_from_slice(&part);
        }
    }
}

/// `None`: a comment, which only says that the stream lives.
fn parse(lines: &[u8]) -> Option<Event> {
    let mut event = Event::default();
    for line in String::from_utf8_lossy(lines).lines() {
        match line.split_once(':') {
            Some(("event", name)) => event.name = name.trim_start().to_owned(),
            Some(("data", data)) => event.data = data.trim_start().to_owned(),
            _ => {}
        }
    }
    (!event.name.is_empty()).then_some(event)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Code;

    use super::*;

    fn events(parts: &[&'static str]) -> Events {
        let parts = parts.iter().map(|part| Ok::<_, Infallible>(*part)).collect::<Vec<_>>();
        Events { body: Body::from_stream(stream::iter(parts)).into_data_stream(), came: Vec::new() }
    }

    #[tokio::test]
    async fn events_are_read_however_they_are_cut() {
        let mut events = events(&[
            ":\n\nevent: jo",
            "b\nid: 7\ndata: {\"id\":\"1:2\"}\n",
            "\n:\n\nevent: end\ndata: {}\n\nevent: cut",
        ]);
        let event = |name: &str, data: &str| Some(Event { name: name.into(), data: data.into() });
        assert_eq!(events.next().await, event("job", "{\"id\":\"1:2\"}"));
        assert_eq!(events.next().await, event("end", "{}"));
        assert_eq!(events.next().await, None);
    }

    #[test]
    fn what_can_no_longer_be_followed_is_told() {
        let event = |name: &str, data: &str| Some(Event { name: name.into(), data: data.into() });
        let code = |status: Status| status.code();
        let of_one = |event| one(event).map(|told| told.map_err(code));
        assert_eq!(of_one(event("end", "{}")), None);
        assert_eq!(of_one(event("removed", r#"{"id":"7"}"#)), Some(Err(Code::NotFound)));
        assert_eq!(of_one(event("unavailable", r#"{"id":"7"}"#)), Some(Err(Code::Unavailable)));
        assert_eq!(of_one(None), Some(Err(Code::Unavailable)));

        // Of many, the others go on.
        let of_many = |event| many(event).map(|told| told.map(|told| told.change).map_err(code));
        assert_eq!(of_many(event("end", "{}")), None);
        let lost = Change::Unavailable("7".into());
        assert_eq!(of_many(event("unavailable", r#"{"id":"7"}"#)), Some(Ok(Some(lost))));
        assert_eq!(of_many(None), Some(Err(Code::Unavailable)));

        let of_queue =
            |event, over| queue(event, || over).map(|told| told.map(|told| told.news).map_err(code));
        let missed = of_queue(event("lagged", r#"{"missed":7}"#), false);
        assert_eq!(missed, Some(Ok(Some(News::Lagged(7)))));
        assert_eq!(of_queue(None, false), Some(Err(Code::Unavailable)));
        assert_eq!(of_queue(None, true), None);
    }
}
