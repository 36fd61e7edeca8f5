//! One attempt at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use windlass_core::{CancelOutcome, Job, State as JobState};
use windlass_worker::{
    Batch, BatchOptions, Context, Decision, Handling, JobError, State, middleware::MetricsLayer,
    testing::attempt,
};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u32,
}

impl Job for Order {
    const KIND: &'static str = "order";
    const QUEUE: &'static str = "shop";
    const MAX_ATTEMPTS: u32 = 4;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Mail {
    to: u32,
}

impl Job for Mail {
    const KIND: &'static str = "mail";
}

struct Shop(&'static str);

/// Tells what it sees.
async fn told(order: Order, ctx: Context, shop: State<Shop>) -> Result<serde_json::Value, JobError> {
    Ok(json!({
        "order": order.number, "shop": shop.0, "attempt": ctx.attempt(), "of": ctx.max_attempts(),
        "queue": ctx.queue().as_str(), "kind": ctx.kind().as_str(), "labels": ctx.labels(),
        "trace": ctx.trace().map(|trace| trace.as_str()), "payload": ctx.payload().get(),
    }))
}

#[tokio::test]
async fn the_context_is_as_the_test_says() {
    let test = attempt(Order { number: 7 }).state(Shop("corner")).await.unwrap();
    let seen = test.run(told).await.unwrap();
    let expected = json!({
        "order": 7, "shop": "corner", "attempt": 1, "of": 4, "queue": "shop", "kind": "order", "labels": {},
        "trace": null, "payload": "{\"number\":7}",
    });
    assert_eq!(seen, expected);

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let test = attempt(Order { number: 8 })
        .number(3)
        .max_attempts(9)
        .queue("night".parse().unwrap())
        .label("tenant", "a")
        .trace(trace.parse().unwrap());
    let test = test.await.unwrap();
    let seen = told(Order { number: 1 }, test.context(), State::from(Shop("other"))).await.unwrap();
    let expected = json!({
        "order": 1, "shop": "other", "attempt": 3, "of": 9, "queue": "night", "kind": "order",
        "labels": {"tenant": "a"}, "trace": trace, "payload": "{\"number\":8}",
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_the_handler_enqueued_is_there_to_be_seen() {
    let test = attempt(Order { number: 2 }).await.unwrap();
    let handler = async |order: Order, ctx: Context| {
        for to in 0..order.number {
            ctx.client().enqueue(Mail { to }).label("order", "2").idempotency_key("once").await?;
        }
        ctx.client().enqueue(Mail { to: 5 }).delay(Duration::from_secs(60)).await?;
        ctx.client().enqueue(Order { number: 3 }).await?;
        Ok::<_, JobError>(())
    };
    // The second mail is another under the first one's key, and refused.
    let error = test.run(handler).await.unwrap_err();
    assert!(error.to_string().contains("idempotency key"), "{error}");
    assert_eq!(test.enqueued::<Mail>().unwrap(), [Mail { to: 0 }]);
    let again = attempt(Order { number: 1 }).await.unwrap();
    assert_eq!(again.run(handler).await.unwrap(), serde_json::Value::Null);
    assert_eq!(again.enqueued::<Mail>().unwrap(), [Mail { to: 0 }, Mail { to: 5 }]);
    assert_eq!(again.enqueued::<Order>().unwrap().len(), 1);
    let all = again.all_enqueued();
    assert_eq!(all[0].labels["order"], "2");
    assert!(all[0].run_at.is_none() && all[1].run_at.is_some());
    assert_eq!(all[2].queue.as_str(), "shop");
    // It is a job like any other, and so is the attempt's own.
    let ctx = again.context();
    assert_eq!(ctx.client().get(all[1].id).await.unwrap().unwrap().state, JobState::Scheduled);
    assert_eq!(ctx.client().get(ctx.job_id()).await.unwrap().unwrap().state, JobState::Running);
    assert_eq!(ctx.client().cancel(ctx.job_id()).await.unwrap(), CancelOutcome::Requested);
}

#[tokio::test]
async fn a_test_can_tell_the_handler_to_stop() {
    let test = attempt(Order { number: 1 }).await.unwrap();
    let ctx = test.context();
    let running = tokio::spawn(async move { ctx.cancelled().cancelled().await });
    test.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn decisions_panics_and_missing_states_are_errors() {
    let test = attempt(Order { number: 1 }).await.unwrap();
    let minute = Duration::from_secs(60);
    let error = test.run(async |_: Order| Err::<(), _>(JobError::snooze(Duration::from_secs(60)))).await;
    assert_eq!(error.unwrap_err().decision(), Decision::Snooze(minute));
    let error = test.run(async |_: Order| Err::<(), _>(std::io::Error::other("refused"))).await.unwrap_err();
    assert_eq!(error.decision(), Decision::Retry);
    assert!(error.error().is::<std::io::Error>());
    let panics = async |order: Order| {
        assert!(order.number == 0, "a bug");
        Ok::<_, JobError>(())
    };
    assert_eq!(test.run(panics).await.unwrap_err().to_string(), "the handler panicked: a bug");
    assert!(test.run(told).await.unwrap_err().to_string().contains("Shop"));
}

#[tokio::test]
async fn handlers_of_every_nature_run_in_their_layers() {
    let test = attempt(Order { number: 6 }).await.unwrap();
    let blocking = Handling::blocking(|order: Order| Ok::<_, JobError>(order.number * 2));
    assert_eq!(test.run_with(blocking).await.unwrap(), 12);
    let layered =
        Handling::of(async |order: Order| Ok::<_, JobError>(order.number)).layer(MetricsLayer::new());
    assert_eq!(test.run_with(layered).await.unwrap(), 6);
    let batch = async |orders: Batch<Order>| {
        let count = orders.len();
        orders.into_iter().for_each(|order| order.succeed(count));
        Ok::<_, JobError>(())
    };
    let options = BatchOptions { max_size: 100, max_wait: Duration::MAX };
    assert_eq!(test.run_with(Handling::batch(batch, options)).await.unwrap(), 1);
    let other = Handling::of(async |_: Mail| Ok::<_, JobError>(()));
    let error = test.run_with(other).await.unwrap_err().to_string();
    assert!(error.contains("mail") && error.contains("order"), "{error}");
}
