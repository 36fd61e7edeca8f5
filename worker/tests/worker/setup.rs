//! What is wrong with a worker is said before it takes anything.

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use windlass_core::Job;
use windlass_worker::{JobError, State, Worker, WorkerError};

use crate::support::{Bench, Task, run, within};

struct Mailer;

async fn with_state(_: Task, _: State<Mailer>) -> Result<(), JobError> {
    Ok(())
}

async fn plain(_: Task) -> Result<(), JobError> {
    Ok(())
}

async fn refusal(worker: Worker) -> WorkerError {
    within("the worker refuses", worker.run_until(CancellationToken::new())).await.unwrap_err()
}

#[tokio::test]
async fn a_missing_state_is_named_with_its_remedy() {
    let bench = Bench::new().await;
    let error = refusal(bench.worker().handle(with_state)).await.to_string();
    assert!(error.contains("test.task") && error.contains("Mailer") && error.contains(".state("), "{error}");
    assert_eq!(bench.store.registered(), 0);
    let running = run(bench.worker().handle(with_state).state(Mailer));
    let id = bench.task(1).await;
    bench.succeeds(id).await;
    running.stop().await;
}

#[tokio::test]
async fn two_handlers_for_one_kind_are_refused() {
    let bench = Bench::new().await;
    let error = refusal(bench.worker().handle(plain).handle(with_state).state(Mailer)).await;
    assert!(matches!(&error, WorkerError::TwoHandlers(kind) if kind.as_str() == "test.task"), "{error}");
}

#[tokio::test]
async fn no_handler_is_refused() {
    let bench = Bench::new().await;
    assert!(matches!(refusal(bench.worker()).await, WorkerError::NoHandler));
}

#[derive(Serialize, Deserialize)]
struct Misnamed {}

impl Job for Misnamed {
    const KIND: &'static str = "not a name";
}

#[tokio::test]
async fn a_bad_name_is_told_with_its_type() {
    let bench = Bench::new().await;
    let error = refusal(bench.worker().handle(async |_: Misnamed| Ok::<_, JobError>(()))).await.to_string();
    assert!(error.contains("Misnamed") && error.contains("kind"), "{error}");
}

#[tokio::test]
async fn kinds_are_made_known() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(plain));
    let kind = "test.task".parse().unwrap();
    crate::support::until("the kind is known", async || bench.client.kind(&kind).await.unwrap().is_some())
        .await;
    running.stop().await;
}
