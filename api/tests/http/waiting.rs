//! Long polls, event streams, and reads that do not reach the store.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{body::Body, http::Request};
use futures::{StreamExt as _, future::join_all};
use serde_json::{Value, json};
use windlass_api::ApiOptions;
use windlass_brokers::Memory;
use windlass_core::{JobId, NewProgress, Note, Outcome, State, Store};

use crate::{
    faults::faulty_store,
    support::{Api, PATIENCE, soon},
};

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request =
        headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_long_poll_is_answered_at_the_end_of_the_job() {
    let api = Api::new().await;
    let id = api.job().await;
    let path = format!("/v1/jobs/{id}?wait=1h");
    let mut poll = Box::pin(api.send(get(&path, &[])));
    assert!(futures::poll!(&mut poll).is_pending());
    // A run is not what it waits for.
    let claimed = api.claim(id).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut poll).await.is_err());
    api.end(claimed, Outcome::Succeeded { result: None, keep: None }).await;
    let answer = soon("the end", poll).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("succeeded")));
    assert_eq!(answer.header("preference-applied"), "");
    // It is over already.
    let answer = soon("the end", api.send(get(&path, &[("prefer", "wait=50")]))).await;
    assert_eq!(answer.json()["state"], "succeeded");
    api.get(&format!("/v1/jobs/{}?wait=1h", JobId::new())).await.problem(404);
}

#[tokio::test]
async fn a_long_poll_ends_when_its_time_is_up() {
    let options = ApiOptions { max_wait: Duration::from_secs(1), ..ApiOptions::default() };
    let api = Api::with(options).await;
    let path = format!("/v1/jobs/{}", api.job().await);
    let begun = Instant::now();
    let answer = api.get(&format!("{path}?wait=100ms")).await;
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("queued")));
    assert_eq!(answer.header("retry-after"), "1");
    // Longer than allowed is as long as is allowed.
    let answer = soon("the bound", api.send(get(&path, &[("prefer", "respond-async, wait=3600")]))).await;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (200, "wait=1"));
    assert_eq!(
        api.get(&format!("{path}?wait=soon")).await.problem(422)["errors"][0]["pointer"],
        "query:wait"
    );
    assert_eq!(
        api.get(&format!("{path}?weight=1s")).await.problem(422)["errors"][0]["pointer"],
        "query:weight"
    );
}

#[tokio::test]
async fn with_an_etag_a_long_poll_is_answered_at_the_next_change() {
    let api = Api::new().await;
    let id = api.job().await;
    let path = format!("/v1/jobs/{id}?wait=1h");
    let etag = api.get(&format!("/v1/jobs/{id}")).await.header("etag").to_owned();
    let mut poll = Box::pin(api.send(get(&path, &[("if-none-match", &etag)])));
    assert!(futures::poll!(&mut poll).is_pending());
    let fence = api.claim(id).await.fence;
    let answer = soon("the run", poll).await;
    assert_eq!(answer.json()["state"], "running");

    let etag = answer.header("etag").to_owned();
    let mut poll = Box::pin(api.send(get(&path, &[("if-none-match", &etag)])));
    assert!(futures::poll!(&mut poll).is_pending());
    let progress = NewProgress { value: 0.5, message: "half".into(), age: Duration::ZERO };
    let note = Note { id, fence, attempt: 1, progress: Some(progress), lines: Vec::new() };
    api.store.notes().note(&[note]).await.unwrap();
    let answer = soon("the progress", poll).await;
    assert_eq!(answer.json()["progress"]["value"], 0.5);

    // Nothing new in time, and something new before it began.
    let short = format!("/v1/jobs/{id}?wait=100ms");
    let etag = answer.header("etag").to_owned();
    assert_eq!(api.send(get(&short, &[("if-none-match", &etag)])).await.status, 304);
    let answer = soon("what is new", api.send(get(&path, &[("if-none-match", "\"old\"")]))).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn only_so_many_may_wait() {
    let api = Api::with(ApiOptions { max_waiting: 1, ..ApiOptions::default() }).await;
    let path = format!("/v1/jobs/{}", api.job().await);
    let stream = api.stream(&format!("{path}/events")).await;
    for path in [format!("{path}?wait=1h"), format!("{path}/events")] {
        let refused = api.get(&path).await;
        refused.problem(503);
        assert_eq!(refused.header("retry-after"), "1");
    }
    assert_eq!(api.get(&path).await.status, 200, "a plain poll waits for nothing");
    drop(stream);
    assert_eq!(api.get(&format!("{path}?wait=10ms")).await.status, 200);
}

/// The events of a stream up to its end: names and data.
async fn events(body: Body) -> Vec<(String, Value)> {
    let mut text = String::new();
    let mut frames = body.into_data_stream();
    while let Some(frame) = soon("an event", frames.next()).await {
        text.push_str(std::str::from_utf8(&frame.unwrap()).unwrap());
    }
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    text.split("\n\n")
        .filter_map(|event| {
            Some((field(event, "event:")?, serde_json::from_str(&field(event, "data:")?).unwrap()))
        })
        .collect()
}

#[tokio::test]
async fn a_stream_tells_what_happens_to_a_job_until_it_is_over() {
    let api = Api::new().await;
    let id = api.job().await;
    let path = format!("/v1/jobs/{id}/events");
    let (head, body) = api.stream(&path).await;
    assert_eq!(head.headers["content-type"], "text/event-stream");
    assert_eq!(head.headers["cache-control"], "no-store");
    let reading = tokio::spawn(events(body));
    let result = serde_json::value::RawValue::from_string("{\"a\":\r\n 1}".into()).unwrap();
    api.finish(id, Outcome::Succeeded { result: Some(result), keep: None }).await;
    let seen = soon("the end", reading).await.unwrap();
    // It may have been over before anyone looked.
    let (last, before) = seen.split_last().unwrap();
    assert_eq!(*last, ("end".into(), json!({})));
    let done = before.last().unwrap();
    assert_eq!(
        (done.0.as_str(), &done.1["state"], &done.1["result"]),
        ("job", &json!("succeeded"), &json!({"a": 1}))
    );
    // One that comes again after the end learns that there is no more.
    let answer = api.get(&format!("/v1/jobs/{id}")).await;
    let etag = answer.header("etag").trim_matches('"').to_owned();
    assert_eq!(api.send(get(&path, &[("last-event-id", &etag)])).await.status, 204);
    assert_eq!(api.send(get(&path, &[("last-event-id", "other")])).await.status, 200);
    api.get(&format!("/v1/jobs/{}/events", JobId::new())).await.problem(404);
}

#[tokio::test]
async fn a_stream_follows_a_set_of_jobs() {
    let api = Api::new().await;
    let jobs = [api.job().await, api.job().await, api.job().await];
    api.finish(jobs[0], Outcome::Dead { error: "no".into() }).await;
    let query: Vec<String> = jobs.iter().map(|id| format!("id={id}")).collect();
    let (_, body) = api.stream(&format!("/v1/jobs/events?{}&{}", query.join("&"), query[0])).await;
    let reading = tokio::spawn(events(body));
    api.finish(jobs[1], Outcome::Cancelled).await;
    assert_eq!(api.client.delete(&jobs[..1], &[State::Dead]).await.unwrap(), &jobs[..1]);
    api.client.cancel(jobs[2]).await.unwrap();
    let seen = soon("the end", reading).await.unwrap();
    let of =
        |id: JobId| seen.iter().filter(move |(_, data)| data["id"] == id.to_string()).collect::<Vec<_>>();
    assert_eq!(of(jobs[0]).iter().map(|(_, data)| &data["state"]).collect::<Vec<_>>(), ["dead"]);
    for id in &jobs[1..] {
        assert_eq!(of(*id).last().unwrap().1["state"], "cancelled");
    }
    assert_eq!(seen.last().unwrap().0, "end");
    for (path, pointer) in [("/v1/jobs/events", "query:id"), ("/v1/jobs/events?id=x", "query:id")] {
        assert_eq!(api.get(path).await.problem(422)["errors"][0]["pointer"], pointer);
    }
    api.get(&format!("/v1/jobs/events?id={}", JobId::new())).await.problem(404);
}

#[tokio::test]
async fn a_stream_says_that_its_job_is_gone() {
    let api = Api::new().await;
    let id = api.job().await;
    let (_, body) = api.stream(&format!("/v1/jobs/{id}/events")).await;
    let reading = tokio::spawn(events(body));
    api.execute("DELETE FROM jobs").await;
    let seen = soon("the end", reading).await.unwrap();
    assert_eq!(
        seen[seen.len() - 2..],
        [("removed".into(), json!({"id": id.to_string()})), ("end".into(), json!({}))]
    );
}

async fn counted() -> (Api, Arc<std::sync::atomic::AtomicUsize>) {
    let gets = Arc::new(Mutex::new(None));
    let kept = gets.clone();
    let wrap = |store| {
        let store = faulty_store(store, Arc::default());
        *kept.lock().unwrap() = Some(store.gets.clone());
        Arc::new(store) as Arc<dyn Store>
    };
    let api = Api::over(ApiOptions::default(), wrap, Arc::new(Memory::new())).await;
    let gets = gets.lock().unwrap().take().unwrap();
    (api, gets)
}

#[tokio::test]
async fn polls_at_the_same_time_share_a_query() {
    let (api, gets) = counted().await;
    let ids = [api.job().await, api.job().await];
    gets.store(0, Ordering::Relaxed);
    let paths: Vec<String> = (0..200).map(|n| format!("/v1/jobs/{}", ids[n % 2])).collect();
    let answers = join_all(paths.iter().map(|path| api.get(path))).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.json()["id"], ids[n % 2].to_string());
    }
    let queries = gets.load(Ordering::Relaxed);
    assert!(queries <= 10, "{queries} queries for 200 polls");
}

#[tokio::test]
async fn what_is_over_is_read_once_and_never_told_wrong() {
    let (api, gets) = counted().await;
    let id = api.job().await;
    api.finish(id, Outcome::Dead { error: "no".into() }).await;
    // Over for long enough to be kept for a while.
    api.execute("UPDATE jobs SET finished_at = finished_at - 3600000000").await;
    let path = format!("/v1/jobs/{id}");
    let first = api.get(&path).await;
    assert_eq!(first.json()["state"], "dead");
    assert!(
        first.header("cache-control").starts_with("private, max-age=36")
            && first.header("cache-control").ends_with("immutable")
    );
    let once = gets.load(Ordering::Relaxed);
    for _ in 0..20 {
        assert_eq!(api.get(&path).await.body, first.body);
    }
    assert_eq!(gets.load(Ordering::Relaxed), once);
    // Another process retries it: the next poll knows.
    let store: &dyn Store = &api.store;
    assert_eq!(store.operations().retry(&[id], &[State::Dead]).await.unwrap(), [id]);
    assert_eq!(api.get(&path).await.json()["state"], "queued");
    api.finish(id, Outcome::Cancelled).await;
    assert_eq!(api.get(&path).await.json()["state"], "cancelled");
    assert_eq!(store.operations().delete(&[id], &[State::Cancelled]).await.unwrap(), [id]);
    api.get(&path).await.problem(404);
}

#[tokio::test]
async fn the_client_waits_for_a_job() {
    let api = Api::new().await;
    let id = api.job().await;
    let waited = api.client.wait(id, Duration::from_millis(50)).await.unwrap().unwrap();
    assert_eq!(waited.state, State::Queued);
    let mut waiting = Box::pin(api.client.wait(id, PATIENCE));
    assert!(futures::poll!(&mut waiting).is_pending());
    api.finish(id, Outcome::Succeeded { result: None, keep: None }).await;
    assert_eq!(waiting.await.unwrap().unwrap().state, State::Succeeded);
    assert!(api.client.wait(JobId::new(), PATIENCE).await.unwrap().is_none());
}
