//! A store or broker in trouble, a handler that panics, a client that has been closed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use windlass_api::ApiOptions;
use windlass_brokers::Memory;

use crate::{
    faults::{DownBroker, Fault, SECRET, faulty_store},
    support::{Api, soon},
};

const BODY: &str = r#"{"kind": "mail", "payload": 1}"#;

/// An API and the switch for its store's faults.
async fn faulty(options: ApiOptions) -> (Api, Arc<Mutex<Option<Fault>>>) {
    let fault = Arc::new(Mutex::new(None));
    let switch = fault.clone();
    let api = Api::over(options, |store| Arc::new(faulty_store(store, fault)), Arc::new(Memory::new())).await;
    (api, switch)
}

#[tokio::test]
async fn each_fault_of_the_store_has_its_answer_and_none_tells_of_its_inside() {
    let (api, fault) = faulty(ApiOptions::default()).await;
    let path = format!("/v1/jobs/{}", api.job().await);
    for (set, status) in
        [(Fault::Unavailable, 503), (Fault::Timeout, 503), (Fault::Config, 503), (Fault::Unexpected, 500)]
    {
        *fault.lock().unwrap() = Some(set.clone());
        let answers =
            [api.enqueue(BODY).await, api.get(&path).await, api.post(&format!("{path}/cancel")).await];
        for answer in answers {
            answer.problem(status);
            assert!(!String::from_utf8_lossy(&answer.body).contains(SECRET), "{set:?}: {answer:?}");
            assert_eq!(
                answer.header("retry-after").parse::<u32>().is_ok(),
                status == 503,
                "{set:?}: {answer:?}"
            );
        }
        *fault.lock().unwrap() = None;
        assert_eq!(api.get(&path).await.status, 200, "it is back at once");
        assert_eq!(api.enqueue(BODY).await.status, 202);
    }
}

#[tokio::test]
async fn a_panic_is_a_problem_and_harms_no_other_request() {
    let (api, fault) = faulty(ApiOptions::default()).await;
    let path = format!("/v1/jobs/{}", api.job().await);
    *fault.lock().unwrap() = Some(Fault::Panic);
    let answer = api.get(&path).await;
    answer.problem(500);
    assert!(!String::from_utf8_lossy(&answer.body).contains(SECRET));
    // Where the panic hits the task that accepts for everyone, that goes on too.
    let answer = api.enqueue(BODY).await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    answer.problem(answer.status.as_u16());
    *fault.lock().unwrap() = None;
    assert_eq!(api.get(&path).await.status, 200);
    assert_eq!(api.enqueue(BODY).await.status, 202);
}

#[tokio::test]
async fn a_store_that_hangs_costs_a_request_no_more_than_its_time() {
    let (api, fault) =
        faulty(ApiOptions { request_timeout: Duration::from_millis(200), ..ApiOptions::default() }).await;
    let path = format!("/v1/jobs/{}", api.job().await);
    let release = CancellationToken::new();
    *fault.lock().unwrap() = Some(Fault::Until(release.clone()));
    for answer in [soon("the poll", api.get(&path)).await, soon("the enqueue", api.enqueue(BODY)).await] {
        let problem = answer.problem(503);
        assert!(problem["detail"].as_str().unwrap().contains("Idempotency-Key"), "{problem}");
        assert_eq!(answer.header("retry-after"), "1");
    }
    release.cancel();
    *fault.lock().unwrap() = None;
    assert_eq!(api.get(&path).await.status, 200);
}

#[tokio::test]
async fn a_broker_that_is_down_stops_no_enqueue_and_no_readiness() {
    let api = Api::over(ApiOptions::default(), |store| Arc::new(store), Arc::new(DownBroker)).await;
    assert_eq!(api.enqueue(BODY).await.status, 202);
    let ready = api.get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json(), json!({"store": "ok", "broker": "unavailable"}));
}

#[tokio::test]
async fn readiness_is_the_store_s() {
    let (api, fault) = faulty(ApiOptions::default()).await;
    assert_eq!(api.get("/readyz").await.json(), json!({"store": "ok", "broker": "ok"}));
    let release = CancellationToken::new();
    for set in [Fault::Unavailable, Fault::Config, Fault::Unexpected, Fault::Until(release.clone())] {
        *fault.lock().unwrap() = Some(set);
        let answer = soon("readyz", api.get("/readyz")).await;
        answer.problem(503);
        assert!(!String::from_utf8_lossy(&answer.body).contains(SECRET));
        assert!(api.get("/healthz").await.status.is_success(), "the process lives all the same");
    }
    release.cancel();
    *fault.lock().unwrap() = None;
    assert_eq!(api.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn readiness_wants_the_right_schema() {
    let api = Api::new().await;
    assert_eq!(api.get("/readyz").await.status, 200);
    api.execute("PRAGMA user_version = 0").await;
    api.get("/readyz").await.problem(503);
}

#[tokio::test]
async fn a_closed_client_is_a_503() {
    let api = Api::new().await;
    let path = format!("/v1/jobs/{}", api.job().await);
    api.client.close().await;
    api.enqueue(BODY).await.problem(503);
    assert_eq!(api.get(&path).await.status, 200, "reading goes on until the process ends");
    assert_eq!(api.jobs().await, 1);
}

#[tokio::test]
async fn a_client_closes_also_when_the_store_hangs() {
    let (api, fault) = faulty(ApiOptions::default()).await;
    // The kind is known from here on.
    api.job().await;
    let (knocked, release) = (CancellationToken::new(), CancellationToken::new());
    *fault.lock().unwrap() = Some(Fault::Held { knocked: knocked.clone(), release: release.clone() });
    let close = async {
        knocked.cancelled().await;
        soon("the end", api.client.close()).await;
        release.cancel();
    };
    let (answer, ()) = futures::join!(api.enqueue(BODY), close);
    assert_eq!(answer.status, 202, "who is still there is answered");
    assert_eq!(api.jobs().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_waiting_requests_are_refused_at_once() {
    let (api, fault) = faulty(ApiOptions::default()).await;
    api.job().await;
    let release = CancellationToken::new();
    *fault.lock().unwrap() = Some(Fault::Until(release.clone()));
    let requests = (0..1000).map(|_| api.enqueue(BODY));
    let mut waiting: futures::stream::FuturesUnordered<_> = requests.collect();
    // Those refused are the only ones answered while the store hangs.
    let refused = soon("a refusal", futures::StreamExt::next(&mut waiting)).await.unwrap();
    refused.problem(503);
    assert_eq!(refused.header("retry-after"), "1");
    release.cancel();
    *fault.lock().unwrap() = None;
    let answers: Vec<_> = soon("the rest", futures::StreamExt::collect(waiting)).await;
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    assert!(accepted >= 512, "{accepted}");
    assert_eq!(api.jobs().await, 1 + i64::try_from(accepted).unwrap());
}
