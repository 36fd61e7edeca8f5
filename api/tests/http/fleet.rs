//! Queues, workers and kinds, as operators see them.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use windlass_api::ApiOptions;
use windlass_core::{KindInfo, NewWorker, Outcome, Store as _, WorkerId};

use crate::{
    faults::DownBroker,
    support::{Api, soon, with},
};

fn worker(label: &str, kinds: Vec<KindInfo>) -> NewWorker {
    NewWorker { id: WorkerId::new(), label: label.into(), lease: Duration::from_secs(30), kinds }
}

fn kind(name: &str, version: u16, schema: Option<&str>) -> KindInfo {
    KindInfo {
        version,
        schemas: schema.map(|schema| (version, schema.to_owned())).into_iter().collect(),
        ..KindInfo::new(name.parse().unwrap())
    }
}

#[tokio::test]
async fn queues_show_what_is_in_them() {
    let api = Api::new().await;
    let queues = api.get("/v1/queues").await.json();
    assert_eq!(queues["queues"].as_array().unwrap().len(), 1, "the one of the kind that is known");
    let dead = api.job().await;
    api.finish(dead, Outcome::Dead { error: "e".into() }).await;
    let running = api.job().await;
    api.claim(running).await;
    for (field, value) in [("delay", json!("1h")), ("queue", json!("other")), ("priority", json!(3))] {
        api.enqueue(with(field, value)).await;
    }
    // The messages are published right after the answers.
    let letters = soon("the messages", async {
        loop {
            let letters = api.get("/v1/queues/letters").await.json();
            if letters["depth"] == 3 {
                return letters;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(letters["counts"], json!({"running": 1, "scheduled": 1, "retrying": 0, "dead": 1}));
    assert_eq!((&letters["counts_complete"], &letters["paused"]), (&json!(true), &json!(false)));
    // Those of the jobs that are claimed or dead are there as well: nobody has taken them from the broker.
    assert_eq!(
        letters["lanes"],
        json!([{"priority": 3, "depth": 1}, {"priority": 2, "depth": 0}, {"priority": 1, "depth": 2},
               {"priority": 0, "depth": 0}])
    );
    api.post("/v1/queues/silent/pause").await;
    let queues = api.get("/v1/queues").await.json();
    let names: Vec<&str> =
        queues["queues"].as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["letters", "silent"], "one whose only job is queued is not seen from the store");
    assert_eq!(api.get("/v1/queues/other").await.json()["depth"], 1);
}

#[tokio::test]
async fn a_broker_that_does_not_answer_counts_nothing() {
    let api = Api::over(ApiOptions::default(), |store| Arc::new(store), Arc::new(DownBroker)).await;
    let queue = api.get("/v1/queues/letters").await.json();
    assert_eq!((&queue["depth"], &queue["lanes"][0]["depth"]), (&Value::Null, &Value::Null));
    assert_eq!(queue["counts"]["running"], 0);
}

#[tokio::test]
async fn workers_show_what_they_run() {
    let api = Api::new().await;
    let id = api.job().await;
    api.claim(id).await;
    let list = api.get("/v1/workers").await.json();
    assert!(list["next_cursor"].is_null());
    let first = &list["workers"][0];
    assert_eq!(
        (&first["label"], &first["alive"], &first["lease"]),
        (&json!("w1"), &json!(true), &json!("1h"))
    );
    assert_eq!((&first["running"], &first["jobs"]), (&json!(1), &json!([id])));
    assert_eq!(first["kinds"], json!([{"kind": "mail", "version": 1}]));
    assert!(first["seen_at"].as_str() >= first["started_at"].as_str());
    assert_eq!(&api.get(&format!("/v1/workers/{}", first["id"].as_str().unwrap())).await.json(), first);

    for label in ["w2", "w3"] {
        api.store.register(&worker(label, vec![])).await.unwrap();
    }
    let (mut seen, mut query) = (Vec::new(), "?limit=1".to_owned());
    loop {
        let page = api.get(&format!("/v1/workers{query}")).await.json();
        seen.extend(page["workers"].as_array().unwrap().iter().map(|worker| worker["label"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=1&cursor={cursor}");
    }
    assert_eq!(seen, ["w3", "w2", "w1"]);
    for (query, name) in [("limit=0", "limit"), ("cursor=x", "cursor"), ("label=w1", "label")] {
        let answer = api.get(&format!("/v1/workers?{query}")).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [format!("query:{name}")]);
    }
    api.get(&format!("/v1/workers/{}", WorkerId::new())).await.problem(404);
    api.get("/v1/workers/x").await.problem(400);
}

#[tokio::test]
async fn kinds_show_their_schemas_and_workers() {
    let api = Api::new().await;
    let new = worker("w2", vec![kind("mail", 2, Some(r#"{"type": "object"}"#)), kind("a", 1, None)]);
    api.store.register(&new).await.unwrap();
    let kinds = api.get("/v1/kinds").await.json();
    let names: Vec<&str> =
        kinds["kinds"].as_array().unwrap().iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "mail"]);
    let mail = api.get("/v1/kinds/mail").await.json();
    assert_eq!(mail, kinds["kinds"][1]);
    assert_eq!(
        (&mail["version"], &mail["queue"], &mail["max_attempts"]),
        (&json!(2), &json!("default"), &json!(20))
    );
    assert_eq!(mail["schemas"], json!({"2": {"type": "object"}}));
    let workers: Vec<(&str, u64)> = mail["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| (worker["label"].as_str().unwrap(), worker["version"].as_u64().unwrap()))
        .collect();
    assert_eq!(workers, [("w2", 2), ("w1", 1)]);
    api.store.deregister(new.id).await.unwrap();
    assert_eq!(api.get("/v1/kinds/a").await.json()["workers"], json!([]), "it stays known");
    api.get("/v1/kinds/unknown").await.problem(404);
    api.get("/v1/kinds/a%20b").await.problem(400);
}
