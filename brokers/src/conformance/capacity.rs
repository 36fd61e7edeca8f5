use std::collections::HashSet;
use std::time::Duration;

use tokio::time::timeout;
use windlass_core::{Lane, Priorities};

use super::support::{Case, distinct, jobs, messages, receive, receives_nothing, tags, within};

/// A lane that is quiet for this long gives nothing more.
const QUIET: Duration = Duration::from_secs(2);

/// A subscription for ten never has more than ten, and gets more as it settles.
pub async fn holds_no_more_than_asked_for(case: Case<'_>) {
    case.publish(50).await;
    let mut first = case.subscribe(10).await;
    let held = receive(&mut *first, 10).await;
    receives_nothing(&mut *first).await;
    case.depth_becomes(&case.lane(), 40).await;
    first.ack(&tags(&held[..3])).await.unwrap();
    let more = receive(&mut *first, 3).await;
    receives_nothing(&mut *first).await;
    // All others are free to be taken elsewhere, or are once their owner neither holds nor takes any.
    if !case.broker.capabilities().shared_lanes {
        first.ack(&tags(&[held.clone(), more.clone()].concat())).await.unwrap();
        first.park().await.unwrap();
    }
    let mut second = case.subscribe(100).await;
    let rest = receive(&mut *second, 37).await;
    receives_nothing(&mut *second).await;
    let all = [held, more, rest].concat();
    assert_eq!(jobs(&all).len(), 50, "each message was in one place only");
}

/// The limit is one for all lanes together, and none is left out.
pub async fn several_lanes_share_the_capacity(case: Case<'_>) {
    let lanes: Vec<Lane> = Lane::of(&case.queue).collect();
    for lane in &lanes {
        case.publish_all(&messages(lane, 20)).await;
    }
    let mut subscription = case.broker.subscribe(&lanes, 10, Priorities::Weighted).await.unwrap();
    let mut held = receive(&mut *subscription, lanes.len()).await;
    loop {
        let more = subscription.receive(80);
        match timeout(Duration::from_millis(300), more).await {
            Ok(more) => held.extend(more.unwrap()),
            Err(_) => break,
        }
    }
    assert!(held.len() <= 10, "held {} messages", held.len());
    let mut waiting = Some(0);
    for lane in &lanes {
        waiting = waiting.zip(case.depth(lane).await).map(|(waiting, depth)| waiting + depth);
    }
    if let Some(waiting) = waiting {
        assert!(waiting >= 70, "only {waiting} of 80 messages were left to others");
    }
    // As it settles, it gets to all of them.
    let mut total = held.len();
    while total < 80 {
        subscription.ack(&tags(&held)).await.unwrap();
        held = receive(&mut *subscription, 1).await;
        total += 1;
    }
}

/// What the driver declares of shared lanes is so: a subscription that holds a message and takes no more leaves all
/// others to another one, and its own stays its own. Or else a part of the lane waits for it, and goes to the other,
/// with what it holds, once it parks.
pub async fn lanes_are_shared_as_declared(case: Case<'_>) {
    let sent = distinct(&case.publish(50).await);
    let mut owner = case.subscribe(1).await;
    let held = jobs(&receive(&mut *owner, 1).await);
    let waiting = &sent - &held;
    let mut other = case.subscribe(100).await;
    if case.broker.capabilities().shared_lanes {
        assert_eq!(jobs(&receive(&mut *other, waiting.len()).await), waiting);
        owner.park().await.unwrap();
        receives_nothing(&mut *other).await;
        return;
    }
    let mut found = HashSet::new();
    while let Ok(some) = timeout(QUIET, other.receive(100)).await {
        let some = some.unwrap();
        other.ack(&tags(&some)).await.unwrap();
        found.extend(jobs(&some));
    }
    assert!(
        !found.is_superset(&waiting),
        "another subscription got all that one held back, so the driver shares its lanes and must declare it"
    );
    owner.park().await.unwrap();
    while found != sent {
        let some = within("what the parked subscription held back", other.receive(100)).await.unwrap();
        other.ack(&tags(&some)).await.unwrap();
        found.extend(jobs(&some));
    }
}
