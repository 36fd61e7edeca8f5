//! Large payloads and results that lie in an object store, as HTTP shows them.

use std::time::Duration;

use serde_json::json;
use windlass_api::ApiOptions;
use windlass_client::{Client, ClientOptions, Envelope, Objects};

use crate::support::Api;

#[tokio::test]
async fn large_jobs_are_kept_apart_and_shown_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("objects");
    let url = format!("file://{}", root.display());
    let objects = Objects::open(&url, 100, Duration::from_secs(5)).unwrap();
    let mut api = Api::new().await;
    let (store, broker) = (api.client.store().clone(), api.client.broker().clone());
    let envelope = Envelope::default().objects(Some(objects));
    // What was read before the object store went away would be shown all the same.
    let options = ClientOptions { read_cache: 0, ..ClientOptions::default() };
    let client = Client::with_envelope(store, broker, options, envelope);
    api.router = windlass_api::router(client.clone(), ApiOptions::default());

    let large = "x".repeat(1000);
    let body = json!({"kind": "mail", "payload": large}).to_string();
    let answer = api.enqueue(body.clone()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().parse().unwrap();
    let claimed = api.claim(id).await;
    assert!(claimed.payload.get().starts_with("{\"$windlass\":{\"object\":\"jobs/"), "{}", claimed.payload);
    let result = serde_json::value::to_raw_value(&large).unwrap();
    let mut outcome = client.envelope().seal_result(id, Some(result), None).unwrap();
    client.envelope().move_out_result(id, claimed.fence, &mut outcome).await.unwrap();
    api.end(claimed, outcome).await;
    let path = format!("/v1/jobs/{id}");
    assert_eq!(api.get(&path).await.json()["result"], large);

    // While the object store is away, nothing large is accepted, and nothing large is shown.
    let away = folder.path().join("away");
    std::fs::rename(&root, &away).unwrap();
    std::fs::write(&root, "in the way").unwrap();
    let stored = api.stored().await;
    for answer in [api.enqueue(body).await, api.get(&path).await] {
        let problem = answer.problem(503);
        assert!(problem["detail"].as_str().unwrap().contains("object store"), "{problem}");
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(api.stored().await, stored);
    std::fs::remove_file(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();

    // An API without the setting has nothing to show, and that is the operator's to mend.
    let without = windlass_api::router(api.client.clone(), ApiOptions::default());
    let with = std::mem::replace(&mut api.router, without);
    assert!(api.get(&path).await.problem(503)["detail"].as_str().unwrap().contains("not set up"));
    api.router = with;
    assert_eq!(api.get(&path).await.json()["result"], large);
}
