//! Streams that follow queues.

use std::collections::BTreeSet;

use axum::{
    body::{Body, BodyDataStream},
    http::{Request, StatusCode},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use windlass_api::ApiOptions;
use windlass_client::QueueNews;
use windlass_core::{JobId, NewJob, Outcome, Scope, Store as _};

use crate::{
    auth::{scopes, with_keys},
    support::{Api, soon},
};

const PATH: &str = "/v1/queues/letters/events";

/// The events of a stream, as they come.
struct Events {
    frames: BodyDataStream,
    text: String,
}

impl Events {
    fn of(body: Body) -> Self {
        Self { frames: body.into_data_stream(), text: String::new() }
    }

    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let read = field("event: ")
                    .map(|name| (name.to_owned(), serde_json::from_str(field("data: ").unwrap()).unwrap()));
                self.text = rest.to_owned();
                if read.is_some() {
                    return read;
                }
            }
            let frame = soon("an event", self.frames.next()).await?.unwrap();
            self.text.push_str(std::str::from_utf8(&frame).unwrap());
        }
    }

    async fn expect(&mut self, id: JobId, state: &str) -> Value {
        let (name, data) = self.next().await.expect("the stream goes on");
        assert_eq!(
            (name.as_str(), &data["id"], &data["state"]),
            ("job", &json!(id), &json!(state)),
            "{data}"
        );
        data
    }
}

#[tokio::test]
async fn a_queue_is_followed_job_by_job() {
    let api = Api::new().await;
    let before = api.job().await;
    let (head, body) = api.stream(PATH).await;
    assert_eq!(head.headers["content-type"], "text/event-stream");
    assert_eq!(head.headers["cache-control"], "no-store");
    let mut events = Events::of(body);
    assert_eq!(events.next().await.unwrap(), ("ready".into(), json!({})));
    // What was there before has not changed; a new one is told, those of other queues are not.
    let other = r#"{"kind": "mail", "payload": 1, "queue": "parcels"}"#;
    assert_eq!(api.enqueue(other).await.status, 202);
    let id = api.job().await;
    let told = events.expect(id, "queued").await;
    assert_eq!(
        told,
        json!({
            "id": id, "state": "queued", "attempt": 0, "run_at": null, "cancel_requested": false, "progress_at": null,
        })
    );
    let attempt = api.claim(before).await;
    assert_eq!(events.expect(before, "running").await["attempt"], 1);
    api.say(before, attempt.fence, 0..1).await;
    assert!(events.expect(before, "running").await["progress_at"].is_string());
    api.end(attempt, Outcome::Dead { error: "no".into() }).await;
    events.expect(before, "dead").await;
    api.client.cancel(id).await.unwrap();
    events.expect(id, "cancelled").await;
}

#[tokio::test]
async fn a_stream_ends_when_it_was_to_and_wrong_questions_are_refused() {
    let api = Api::new().await;
    let answer = api.get(&format!("{PATH}?for=0s")).await;
    assert_eq!(answer.status, 200);
    for query in ["for=soon", "for=1s&for=2s", "wait=1s", "for=11y"] {
        api.get(&format!("{PATH}?{query}")).await.problem(422);
    }
    api.get("/v1/queues/no%20name/events").await.problem(400);
    let full = Api::with(ApiOptions { max_waiting: 1, ..ApiOptions::default() }).await;
    let (_, held) = full.stream(PATH).await;
    full.get(PATH).await.problem(503);
    drop(held);
    assert_eq!(full.get(&format!("{PATH}?for=0s")).await.status, 200, "its place is free again");
}

#[tokio::test]
async fn a_tenant_follows_its_own_jobs_only() {
    let api = with_keys().await;
    let all = scopes(&[Scope::Admin]);
    let (acme, globex) =
        (api.key(all, Some("acme")).await.expose(), api.key(all, Some("globex")).await.expose());
    let everyone = api.key(all, None).await.expose();
    let follow = async |key: &str| {
        let request = Request::get(PATH).header("authorization", format!("Bearer {key}"));
        let answer = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let mut events = Events::of(answer.into_body());
        assert_eq!(events.next().await.unwrap().0, "ready");
        events
    };
    let (mut of_acme, mut of_all) = (follow(&acme).await, follow(&everyone).await);
    let job = async |key: &str| {
        let body = Some(json!({"kind": "mail", "payload": 1}));
        let answer = api.ask(key, &axum::http::Method::POST, "/v1/jobs", body).await;
        answer.json()["id"].as_str().unwrap().parse::<JobId>().unwrap()
    };
    let others = job(&globex).await;
    of_all.expect(others, "queued").await;
    let own = job(&acme).await;
    of_all.expect(own, "queued").await;
    // The other tenant's was there first, and is passed over.
    of_acme.expect(own, "queued").await;
}

/// Who does not read in time hears how much is gone, and the stream goes on; others miss nothing.
#[tokio::test]
async fn who_lags_is_told_so() {
    let api = Api::new().await;
    let queue: windlass_core::QueueName = "letters".parse().unwrap();
    let mut slow = api.client.watch_queue(queue.clone(), None);
    let mut quick = api.client.watch_queue(queue.clone(), None);
    assert_eq!(soon("ready", quick.next()).await.unwrap(), QueueNews::Ready);
    for _ in 0..2 {
        let new = || {
            let payload = serde_json::value::RawValue::from_string("1".into()).unwrap();
            NewJob { queue: queue.clone(), ..NewJob::new("mail".parse().unwrap(), payload) }
        };
        let jobs: Vec<NewJob> = (0..700).map(|_| new()).collect();
        api.store.insert(&jobs).await.unwrap();
        let mut told = BTreeSet::new();
        while told.len() < jobs.len() {
            match soon("a job", quick.next()).await.unwrap() {
                QueueNews::Job(job) => assert!(told.insert(job.id)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, jobs.iter().map(|job| job.id).collect());
    }
    assert_eq!(slow.next().await.unwrap(), QueueNews::Ready);
    let QueueNews::Lagged(missed) = slow.next().await.unwrap() else { panic!("must have lagged") };
    assert!(missed >= 376, "{missed}");
    for _ in 0..1_400 - missed {
        assert!(matches!(slow.next().await.unwrap(), QueueNews::Job(_)));
    }
    let id = api.job().await;
    let QueueNews::Job(job) = soon("the next", slow.next()).await.unwrap() else { panic!("goes on") };
    assert_eq!(job.id, id);
}
