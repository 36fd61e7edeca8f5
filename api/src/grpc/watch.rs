//! The API's event streams, as streams of messages.

use axum::body::{Body, BodyDataStream};
use futures::{Stream, StreamExt as _, stream};
use tonic::Status;
use windlass_proto::v1::Job;

use super::call::{Caller, read};

/// The job as its events tell it, until it is over or the caller's time is up.
pub(super) fn changes(
    caller: Caller,
    body: Body,
) -> impl Stream<Item = Result<Job, Status>> + Send + 'static {
    let events = Events { body: body.into_data_stream(), came: Vec::new() };
    stream::unfold(Some((caller, events)), |going| async move {
        let (caller, mut events) = going?;
        let next = caller.bounded(events.next()).await;
        let told = match next {
            Ok(Some(event)) => match &*event.name {
                "job" => read(event.data.as_bytes()),
                "end" => return None,
                "removed" => Err(Status::not_found("the job has been removed")),
                _ => Err(Status::unavailable("the job can no longer be followed from here; watch it again")),
            },
            Ok(None) => Err(Status::unavailable("the server ends; watch the job again")),
            Err(late) => Err(late),
        };
        let going = told.is_ok().then_some((caller, events));
        Some((told, going))
    })
}

/// An event of a stream of ours, whose data is one line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
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
}
