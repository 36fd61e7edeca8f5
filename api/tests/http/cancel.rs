//! Cancelling a job in each of its states.

use std::time::Duration;

use serde_json::json;
use windlass_core::{JobId, Outcome, State};

use crate::support::{Answer, Api, with};

async fn cancel(api: &Api, id: JobId) -> Answer {
    api.post(&format!("/v1/jobs/{id}/cancel")).await
}

/// A job brought into `state`.
async fn job_in(api: &Api, state: State) -> JobId {
    if state == State::Scheduled {
        let job = api.enqueue(with("delay", json!("1h"))).await.json();
        return job["id"].as_str().unwrap().parse().unwrap();
    }
    let id = api.job().await;
    match state {
        State::Scheduled | State::Queued => {}
        State::Running => drop(api.claim(id).await),
        State::Retrying => {
            api.finish(id, Outcome::Retry { after: Duration::from_secs(3600), error: "e".into() }).await;
        }
        State::Succeeded => api.finish(id, Outcome::Succeeded { result: None, keep: None }).await,
        State::Cancelled => api.finish(id, Outcome::Cancelled).await,
        State::Dead => api.finish(id, Outcome::Dead { error: "e".into() }).await,
        State::Waiting => unreachable!("only gated jobs wait"),
    }
    assert_eq!(api.get(&format!("/v1/jobs/{id}")).await.json()["state"], state.as_str());
    id
}

#[tokio::test]
async fn each_state_has_its_answer() {
    let api = Api::new().await;
    for state in State::ALL.into_iter().filter(|state| *state != State::Waiting) {
        let id = job_in(&api, state).await;
        let answer = cancel(&api, id).await;
        match state {
            State::Scheduled | State::Waiting | State::Queued | State::Retrying | State::Cancelled => {
                assert_eq!(answer.status, 200, "{state}");
                let job = answer.json();
                assert_eq!(
                    (&job["id"], &job["state"]),
                    (&json!(id.to_string()), &json!("cancelled")),
                    "{state}"
                );
                assert!(job["run_at"].is_null() && !job["finished_at"].is_null());
                assert_eq!(answer.body, api.get(&format!("/v1/jobs/{id}")).await.body);
            }
            State::Running => {
                assert_eq!(answer.status, 202);
                assert_eq!(answer.json()["state"], "running");
            }
            State::Succeeded | State::Dead => {
                let problem = answer.problem(409);
                assert!(problem["detail"].as_str().unwrap().contains(state.as_str()), "{problem}");
                assert_eq!(api.get(&format!("/v1/jobs/{id}")).await.json()["state"], state.as_str());
            }
        }
    }
}

#[tokio::test]
async fn cancelling_again_is_the_same() {
    let api = Api::new().await;
    for state in [State::Queued, State::Running] {
        let id = job_in(&api, state).await;
        let first = cancel(&api, id).await;
        let again = cancel(&api, id).await;
        assert_eq!((first.status, first.body), (again.status, again.body), "{state}");
    }
}

#[tokio::test]
async fn a_body_with_a_cancel_is_of_no_matter() {
    let api = Api::new().await;
    let id = api.job().await;
    let request =
        axum::http::Request::post(format!("/v1/jobs/{id}/cancel")).header("content-type", "text/plain");
    assert_eq!(api.send(request.body("anything".into()).unwrap()).await.status, 200);
}
