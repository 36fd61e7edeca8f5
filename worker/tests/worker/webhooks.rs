//! A delivery survives the worker that makes it.

use std::time::Duration;

use windlass_client::Outside;
use windlass_core::{State, Store, WebhookFilter};
use windlass_worker::{Context, JobError, WebhookSender, WorkerOptions};

use crate::{
    receiver::{NEVER, Receiver},
    support::{Bench, Task, options, run, until},
};

#[tokio::test]
async fn a_worker_killed_during_a_delivery_loses_none() {
    let (bench, receiver) = (Bench::new().await, Receiver::start(&[NEVER, 200], "").await);
    let outside = Outside { allow: vec!["127.0.0.1".parse().unwrap()], allow_http: true };
    let sender = WebhookSender::new(outside).unwrap();
    let created = bench.client.create_webhook(None, receiver.url(), WebhookFilter::default(), true).await;
    let (id, _) = created.unwrap().unwrap();
    let worker = || {
        let options = WorkerOptions { lease: Duration::from_secs(1), ..options() };
        let handler = async |_: Task, _: Context| Ok::<_, JobError>(());
        bench.worker_with(options).handle(handler).deliver_webhooks(sender.clone())
    };
    let first = run(worker());
    let job = bench.task(1).await;
    until("the delivery has arrived", async || receiver.received().len() == 1).await;
    first.drop().await;
    let second = run(worker());
    until("it has arrived again", async || receiver.received().len() == 2).await;
    let log = bench.store.webhooks().deliveries(id, None, 10).await.unwrap();
    assert_eq!((log.len(), log[0].job), (1, Some(job)));
    bench.reaches(log[0].id, State::Succeeded).await;
    for request in receiver.received() {
        assert_eq!(request.header("webhook-id"), log[0].id.to_string());
        assert_eq!(request.json()["data"]["id"], job.to_string());
    }
    second.stop().await;
}
