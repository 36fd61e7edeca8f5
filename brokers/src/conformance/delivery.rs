use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{sleep, timeout};
use windlass_core::{Lane, Priorities, Priority};

use super::support::{
    Case, distinct, jobs, messages, receive, receive_beside_holder, receives_nothing, tags, within,
};

/// At least once: what a subscription did not acknowledge comes again, to whoever takes.
pub async fn dropping_gives_back(case: Case<'_>) {
    let sent = case.publish(10).await;
    let mut first = case.subscribe(10).await;
    let found = receive(&mut *first, 10).await;
    first.ack(&tags(&found[..4])).await.unwrap();
    drop(first);
    let mut second = case.subscribe(10).await;
    let again = receive(&mut *second, 6).await;
    assert_eq!(jobs(&again), &distinct(&sent) - &jobs(&found[..4]));
}

/// What was acknowledged, in whatever order and groups, never comes again.
pub async fn acknowledged_is_gone(case: Case<'_>) {
    case.publish(30).await;
    let other = case.fixture.client().await;
    let mut subscription = other.subscribe(&[case.lane()], 30, Priorities::Weighted).await.unwrap();
    let mut found = receive(&mut *subscription, 30).await;
    let last = found.split_off(20);
    found.reverse();
    let every_second: Vec<_> = found.iter().step_by(2).map(|delivery| delivery.tag).collect();
    subscription.ack(&every_second).await.unwrap();
    subscription.ack(&tags(&last)).await.unwrap();
    // Those at hand once more: to acknowledge twice is no error.
    subscription.ack(&tags(&found)).await.unwrap();
    // The subscription is still in order.
    let sent = case.publish(1).await;
    let found = receive(&mut *subscription, 1).await;
    assert_eq!(jobs(&found), distinct(&sent));
    subscription.ack(&tags(&found)).await.unwrap();
    drop(subscription);
    other.close().await;

    case.depth_becomes(&case.lane(), 0).await;
    let sent = case.publish(1).await;
    let mut subscription = case.subscribe(30).await;
    assert_eq!(jobs(&receive(&mut *subscription, 1).await), distinct(&sent));
    receives_nothing(&mut *subscription).await;
}

/// A released message comes again soon, to its subscription or another, and the rest stays.
pub async fn release_gives_back(case: Case<'_>) {
    case.publish(6).await;
    let mut subscription = case.subscribe(6).await;
    let found = receive(&mut *subscription, 6).await;
    subscription.release(&tags(&found[2..5])).await.unwrap();
    let again = receive(&mut *subscription, 3).await;
    assert_eq!(jobs(&again), jobs(&found[2..5]));
    // More often than some brokers let a message be given back before they throw it away.
    let mut again = again;
    for _ in 0..30 {
        subscription.release(&tags(&again)).await.unwrap();
        again = receive(&mut *subscription, 3).await;
    }
    let mut other = case.subscribe(10).await;
    subscription.park().await.unwrap();
    subscription.release(&tags(&again)).await.unwrap();
    let released = jobs(&found[2..5]);
    receive_beside_holder(&case, &mut *other, &released, &(&jobs(&found) - &released)).await;
}

/// Tags that were settled, or belong to another subscription, do no harm.
pub async fn stale_tags_are_ignored(case: Case<'_>) {
    case.publish(2).await;
    let mut subscription = case.subscribe(2).await;
    let found = receive(&mut *subscription, 2).await;
    subscription.release(&tags(&found)).await.unwrap();
    let again = receive(&mut *subscription, 2).await;
    subscription.release(&tags(&found)).await.unwrap();
    subscription.ack(&tags(&found)).await.unwrap();
    subscription.ack(&tags(&again)).await.unwrap();
    subscription.ack(&tags(&again)).await.unwrap();
    subscription.release(&tags(&again)).await.unwrap();
    drop(subscription);
    let sent = case.publish(1).await;
    let mut subscription = case.subscribe(2).await;
    assert_eq!(jobs(&receive(&mut *subscription, 1).await), distinct(&sent));
}

/// A dropped `receive` loses nothing, whenever it is dropped.
pub async fn receive_can_be_dropped(case: Case<'_>) {
    let mut subscription = case.subscribe(50).await;
    let publish = async {
        let mut sent = HashSet::new();
        for _ in 0..100 {
            sent.extend(distinct(&case.publish(5).await));
        }
        sent
    };
    let take = async {
        let mut found = Vec::new();
        let mut round = 0;
        while found.len() < 500 {
            round += 1;
            let patience = Duration::from_micros(round * 37 % 1_500);
            match timeout(patience, subscription.receive(3)).await {
                Err(_) => {}
                Ok(some) => {
                    let some = some.unwrap();
                    subscription.ack(&tags(&some)).await.unwrap();
                    found.extend(some);
                }
            }
        }
        found
    };
    let (sent, found) = tokio::join!(publish, within("all messages through dropped calls", take));
    assert_eq!(jobs(&found), sent);
    assert_eq!(found.len(), 500, "nothing comes twice without a loss");
}

/// Strictly, of what waits the most urgent comes first.
pub async fn urgent_comes_first(case: Case<'_>) {
    let lanes: Vec<Lane> = Priority::ALL.map(|priority| case.lane_at(priority)).into();
    // A driver may buffer lane by lane, so an attempt counts only if all was at hand before the first call: most do, and
    // each waits longer for that, as a busy machine needs it.
    for attempt in 1..=20 {
        for lane in lanes.iter().rev() {
            case.publish_all(&messages(lane, 5)).await;
        }
        let mut subscription = case.broker.subscribe(&lanes, 100, Priorities::Strict).await.unwrap();
        sleep(Duration::from_millis(50) * attempt).await;
        let mut found = Vec::new();
        while found.len() < 20 {
            found.extend(within("all lanes", subscription.receive(3)).await.unwrap());
        }
        subscription.ack(&tags(&found)).await.unwrap();
        let order: Vec<Priority> = found.iter().map(|delivery| delivery.message.lane.priority).collect();
        if order.is_sorted_by(|a, b| a >= b) {
            return;
        }
    }
    panic!("twenty times in a row, urgent messages came after others");
}

/// Four consumers of two clients that come and go without notice, some with messages in hand, together get everything.
pub async fn consumers_join_and_leave(case: Case<'_>) {
    let other = case.fixture.client().await;
    let sent = distinct(&case.publish(10_000).await);
    let seen = Mutex::new(HashSet::new());
    let missing = || sent.len() - seen.lock().unwrap().len();
    let consumer = async |number: usize| {
        let mut round = number;
        let client = if number.is_multiple_of(2) { &case.broker } else { &other };
        while missing() > 0 {
            round += 1;
            let mut subscription =
                client.subscribe(&[case.lane()], 100 + number, Priorities::Weighted).await.unwrap();
            for _ in 0..10 + round % 7 {
                // The end is noticed by this: others may have taken the last.
                let Ok(found) = timeout(Duration::from_secs(1), subscription.receive(100)).await else {
                    break;
                };
                let found = found.unwrap();
                let keep = found.len() - found.len().min(round % 3);
                subscription.ack(&tags(&found[..keep])).await.unwrap();
                seen.lock().unwrap().extend(jobs(&found[..keep]));
            }
        }
    };
    within("everything", join_all((0..4).map(consumer))).await;
    assert_eq!(*seen.lock().unwrap(), sent);
    other.close().await;
    case.depth_becomes(&case.lane(), 0).await;
}
