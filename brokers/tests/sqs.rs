//! SQS through the conformance suite, on ElasticMQ, and what only SQS can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/counter.rs"]
mod counter;
#[path = "support/sqs.rs"]
mod support;

use std::time::{Duration, Instant};

use aws_sdk_sqs::types::QueueAttributeName;
use counter::Counter;
use support::Sqs;
use windlass_brokers::conformance::{Case, Fixture, messages, until, within};
use windlass_core::{BrokerError, JobId, Lane, Priorities, Priority};

windlass_brokers::broker_conformance!(fixture());

mod fifo {
    use super::{fixture, support::broker_conformance_in_small};

    broker_conformance_in_small!(fixture().fifo());
}

fn fixture() -> Sqs {
    Sqs::new("WINDLASS_TEST_SQS_URL")
}

/// A queue that loses or delays messages concerns its lane alone; one that the operator made otherwise is used as is.
#[tokio::test]
async fn a_queue_with_other_settings_is_for_the_operator() {
    let sqs = fixture();
    Case::run(&sqs, async |case: Case<'_>| {
        let raw = sqs.raw();
        let create = async |lane: &Lane, name, value: &str| {
            let queue = raw.create_queue().queue_name(sqs.name(lane)).attributes(name, value).send().await;
            queue.unwrap().queue_url.unwrap()
        };
        let (urgent, high, low) =
            (case.lane_at(Priority::Urgent), case.lane_at(Priority::High), case.lane_at(Priority::Low));
        let dead = create(&low, QueueAttributeName::VisibilityTimeout, "77").await;
        let policy = raw.get_queue_attributes().queue_url(dead).attribute_names(QueueAttributeName::QueueArn);
        let arn = policy.send().await.unwrap().attributes.unwrap()[&QueueAttributeName::QueueArn].clone();
        let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":5}}"#);
        create(&high, QueueAttributeName::RedrivePolicy, &policy).await;
        create(&urgent, QueueAttributeName::DelaySeconds, "3").await;

        let mut batch = messages(&case.lane(), 3);
        batch.splice(1..1, messages(&high, 1));
        batch.splice(1..1, messages(&urgent, 1));
        batch.extend(messages(&low, 1));
        let answers = case.broker.publish(&batch).await;
        let failed: Vec<usize> = (0..6).filter(|&index| answers[index].is_err()).collect();
        assert_eq!(failed, [1, 2], "answers come in the order of the messages");
        let errors = answers.into_iter().filter_map(Result::err);
        let subscribe =
            case.broker.subscribe(&[case.lane(), high.clone()], 5, Priorities::Weighted).await.unwrap_err();
        for (error, lane) in errors.chain([subscribe]).zip([&urgent, &high, &high]) {
            assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
            assert!(error.to_string().contains("broker_url"), "{error}");
            assert!(error.to_string().contains(&sqs.name(lane)), "{error}");
        }
        case.depth_becomes(&case.lane(), 3).await;
        case.depth_becomes(&low, 1).await;
    })
    .await;
}

/// Names that SQS would not have, and those that are too long, are lanes like others.
#[tokio::test]
async fn any_queue_name_will_do() {
    for sqs in [fixture(), fixture().fifo()] {
        let broker = sqs.client().await;
        let id = JobId::new().to_string();
        let names = [format!("a.b_c-{id}"), format!("a_b.c-{id}"), format!("{}{id}", "_.".repeat(14))];
        let lanes = names.map(|name| Lane { queue: name.parse().unwrap(), priority: Priority::Normal });
        let sent = lanes.each_ref().map(|lane| messages(lane, 1).remove(0));
        for answer in within("publish", broker.publish(&sent)).await {
            answer.unwrap();
        }
        for (lane, sent) in lanes.iter().zip(sent) {
            let mut subscription =
                broker.subscribe(std::slice::from_ref(lane), 5, Priorities::Weighted).await.unwrap();
            let found = within("the message", subscription.receive(5)).await.unwrap();
            assert_eq!(found.iter().map(|found| &found.message).collect::<Vec<_>>(), [&sent]);
        }
        within("delete", broker.delete(&lanes)).await.unwrap();
        broker.close().await;
    }
}

/// FIFO queues drop what they have seen within five minutes. What is published again is no such thing.
#[tokio::test]
async fn published_again_comes_again() {
    let sqs = fixture().fifo();
    Case::run(&sqs, async |case: Case<'_>| {
        let sent = case.publish(1).await;
        let mut subscription = case.subscribe(5).await;
        for _ in 0..2 {
            let found = within("the message", subscription.receive(5)).await.unwrap();
            assert_eq!(found[0].message, sent[0]);
            subscription.ack(&[found[0].tag]).await.unwrap();
            case.publish_all(&sent).await;
        }
    })
    .await;
}

/// With the wait that operators have, an abandoned receive is still under way: what it takes comes to the next one at
/// once.
#[tokio::test]
async fn an_abandoned_receive_keeps_nothing() {
    let sqs = fixture();
    let sqs = Sqs { url: sqs.url.replace("wait=1", "wait=20") };
    Case::run(&sqs, async |case: Case<'_>| {
        drop(case.subscribe(5).await);
        let mut parked = case.subscribe(5).await;
        parked.park().await.unwrap();
        let mut subscription = case.subscribe(5).await;
        let start = Instant::now();
        for _ in 0..5 {
            case.publish(1).await;
            let found = within("the message", subscription.receive(5)).await.unwrap();
            subscription.ack(&[found[0].tag]).await.unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    })
    .await;
}

/// A message that is held for longer than SQS waits is nobody else's, whether handed out or not.
#[tokio::test]
async fn held_messages_are_kept() {
    let sqs = fixture();
    Case::run(&sqs, async |case: Case<'_>| {
        case.publish(3).await;
        let mut subscription = case.subscribe(3).await;
        let first = within("a message", subscription.receive(1)).await.unwrap();
        case.depth_becomes(&case.lane(), 0).await;
        let mut other = case.subscribe(3).await;
        let others = tokio::time::timeout(Duration::from_secs(40), other.receive(3)).await;
        assert!(others.is_err(), "{others:?}");
        subscription.ack(&[first[0].tag]).await.unwrap();
        let mut rest = Vec::new();
        while rest.len() < 2 {
            rest.extend(within("the others", subscription.receive(2)).await.unwrap());
        }
        drop(subscription);
        let again = within("what was not acknowledged", other.receive(3)).await.unwrap();
        assert!(rest.iter().any(|rest| rest.message == again[0].message));
    })
    .await;
}

/// What a job costs, as counted between the driver and the server.
#[tokio::test]
async fn ten_jobs_cost_three_calls() {
    let sqs = fixture();
    Case::run(&sqs, async |case: Case<'_>| {
        let counter = Counter::start(&sqs.endpoint()).await;
        let count = |call: &str| counter.counts().get(call).copied().unwrap_or(0);
        let url = sqs.url.replace(&sqs.endpoint(), &counter.endpoint);
        let broker = windlass_brokers::open(&url.replace("wait=1", "wait=20")).await.unwrap();
        for answer in broker.publish(&messages(&case.lane(), 1_000)).await {
            answer.unwrap();
        }
        let mut subscription = broker.subscribe(&[case.lane()], 200, Priorities::Weighted).await.unwrap();
        let mut found = 0;
        while found < 1_000 {
            let some = within("messages", subscription.receive(100)).await.unwrap();
            found += some.len();
            subscription.ack(&some.iter().map(|found| found.tag).collect::<Vec<_>>()).await.unwrap();
        }
        until("the messages to be acknowledged", async || count("deletemessagebatch") >= 100).await;
        let calls = counter.counts();
        println!("{calls:?}");
        let total: usize = calls.values().sum();
        assert!(total <= 330, "{calls:?}");
        assert_eq!(calls["sendmessagebatch"], 100);

        // With nothing to do, one call waits.
        let before = count("receivemessage");
        let idle = tokio::time::timeout(Duration::from_secs(3), subscription.receive(1)).await;
        assert!(idle.is_err());
        assert!(count("receivemessage") <= before + 1, "{:?}", counter.counts());
        drop(subscription);
        broker.close().await;
    })
    .await;
}
