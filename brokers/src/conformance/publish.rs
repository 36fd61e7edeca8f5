use std::time::Duration;

use futures::future::join_all;
use windlass_core::{JobId, Lane, Message, Priorities};

use super::support::{Case, distinct, jobs, messages, receive, tags, within};

/// Every field of a message arrives as it was sent.
pub async fn round_trip(case: Case<'_>) {
    let mut sent = Vec::new();
    for lane in Lane::of(&case.queue) {
        for trace in [None, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")] {
            sent.push(Message {
                job_id: JobId::new(),
                attempt: u32::MAX - sent.len() as u32,
                lane: lane.clone(),
                kind: format!("a.B_c-{}", "x".repeat(120)).parse().unwrap(),
                trace: trace.map(|trace| trace.parse().unwrap()),
                ordering_key: None,
            });
        }
    }
    case.publish_all(&sent).await;
    let lanes: Vec<Lane> = Lane::of(&case.queue).collect();
    let mut subscription = case.broker.subscribe(&lanes, 100, Priorities::Weighted).await.unwrap();
    let found = receive(&mut *subscription, sent.len()).await;
    let mut found: Vec<Message> = found.into_iter().map(|delivery| delivery.message).collect();
    found.sort_by_key(|message| message.job_id);
    sent.sort_by_key(|message| message.job_id);
    assert_eq!(found, sent);
}

/// No messages: no answers, no error.
pub async fn empty_batch(case: Case<'_>) {
    assert!(within("publish", case.broker.publish(&[])).await.is_empty());
}

/// A batch for lanes that did not exist fills each of them.
pub async fn several_lanes_in_one_batch(case: Case<'_>) {
    let lanes: Vec<Lane> = Lane::of(&case.queue).collect();
    let mixed: Vec<Message> = (0..50).flat_map(|_| lanes.iter().flat_map(|lane| messages(lane, 1))).collect();
    case.publish_all(&mixed).await;
    for lane in &lanes {
        case.depth_becomes(lane, 50).await;
        let mut subscription =
            case.broker.subscribe(std::slice::from_ref(lane), 50, Priorities::Weighted).await.unwrap();
        let found = receive(&mut *subscription, 50).await;
        assert_eq!(jobs(&found), distinct(mixed.iter().filter(|message| message.lane == *lane)));
    }
}

/// A lane may be subscribed to before anything was published to it.
pub async fn subscribing_creates_the_lane(case: Case<'_>) {
    let mut subscription = case.subscribe(10).await;
    let sent = case.publish(3).await;
    assert_eq!(jobs(&receive(&mut *subscription, 3).await), distinct(&sent));
}

/// Who waits in `receive` gets a message when it comes, not at some next look.
pub async fn lone_message_wakes_a_waiting_receive(case: Case<'_>) {
    let mut subscription = case.subscribe(10).await;
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let start = tokio::time::Instant::now();
        let (found, _) = tokio::join!(receive(&mut *subscription, 1), case.publish(1));
        fastest = fastest.min(start.elapsed());
        subscription.ack(&tags(&found)).await.unwrap();
    }
    assert!(fastest < Duration::from_millis(100), "even the fastest lone message took {fastest:?}");
}

/// Ten thousand messages in one batch all arrive, once.
pub async fn large_batch(case: Case<'_>) {
    let sent = case.publish(10_000).await;
    let mut subscription = case.subscribe(500).await;
    let mut found = Vec::new();
    while found.len() < sent.len() {
        let some = within("the rest of the batch", subscription.receive(200)).await.unwrap();
        assert!(some.len() <= 200);
        subscription.ack(&tags(&some)).await.unwrap();
        found.extend(some);
    }
    assert_eq!(found.len(), sent.len());
    assert_eq!(jobs(&found), distinct(&sent));
}

/// Batches of many callers at once do not disturb each other.
pub async fn many_publishers(case: Case<'_>) {
    let mut subscription = case.subscribe(1_000).await;
    let publishers = (0..100).map(|_| case.publish(20));
    let (batches, found) = tokio::join!(join_all(publishers), async {
        let mut found = Vec::new();
        while found.len() < 2_000 {
            let some = within("all messages", subscription.receive(1_000)).await.unwrap();
            subscription.ack(&tags(&some)).await.unwrap();
            found.extend(some);
        }
        found
    });
    assert_eq!(jobs(&found), distinct(batches.iter().flatten()));
    assert_eq!(found.len(), 2_000);
}
