use std::time::Duration;

use tokio::time::sleep;
use windlass_core::{Lane, Priorities, Priority, Subscription};

use super::support::{Case, distinct, jobs, messages, receive, tags, within};

/// How many messages a worker that has work takes at once, and how long that keeps it busy: longer than any broker needs to
/// send the next ones. It is between busy lanes that a worker divides itself.
const GROUP: usize = 5;
const WORK: Duration = Duration::from_millis(20);

/// `depth` counts what waits and nothing else, or says that it cannot.
pub async fn depth_counts_what_waits(case: Case<'_>) {
    let lane = case.lane();
    let depth = async || case.depth(&lane).await;
    if !case.broker.capabilities().depth {
        case.publish(1).await;
        assert_eq!(depth().await, None, "the driver declares that it cannot tell");
        return;
    }
    assert_eq!(depth().await, Some(0), "a lane that does not exist is empty");
    case.publish(7).await;
    assert_eq!(depth().await, Some(7), "confirmed messages count at once");
    let mut subscription = case.subscribe(3).await;
    let found = receive(&mut *subscription, 3).await;
    case.depth_becomes(&lane, 4).await;
    subscription.park().await.unwrap();
    subscription.release(&tags(&found[..1])).await.unwrap();
    case.depth_becomes(&lane, 5).await;
    subscription.ack(&tags(&found[1..])).await.unwrap();
    case.depth_becomes(&lane, 5).await;
}

/// A deleted lane is empty; to delete what does not exist is no error.
pub async fn delete_empties(case: Case<'_>) {
    let lanes: Vec<Lane> = Lane::of(&case.queue).collect();
    within("delete", case.broker.delete(&lanes)).await.unwrap();
    case.publish(5).await;
    within("delete", case.broker.delete(&lanes)).await.unwrap();
    case.depth_becomes(&case.lane(), 0).await;
    // The client that knew the lane publishes to it as if nothing had happened.
    let sent = case.publish(2).await;
    let mut subscription = case.subscribe(5).await;
    assert_eq!(jobs(&receive(&mut *subscription, 2).await), distinct(&sent));
}

/// Deleting a lane under publishers and subscriptions of other clients stops neither.
pub async fn deleted_under_a_subscription(case: Case<'_>) {
    let other = case.fixture.client().await;
    let mut subscription = case.subscribe(5).await;
    case.publish(1).await;
    let before = receive(&mut *subscription, 1).await;
    within("delete", other.delete(&[case.lane()])).await.unwrap();
    // This publisher has not noticed yet. What it publishes goes to the new lane.
    let sent = messages(&case.lane(), 3);
    case.publish_all(&sent).await;
    subscription.ack(&tags(&before)).await.unwrap();
    assert_eq!(jobs(&receive(&mut *subscription, 3).await), distinct(&sent));
    other.close().await;
}

/// While something waits in every lane, each has its share, but for a third of it, and the least urgent is not starved.
pub async fn lanes_have_their_shares(case: Case<'_>) {
    let lanes = fill(&case, 450).await;
    let mut subscription = case.broker.subscribe(&lanes, 100, Priorities::Weighted).await.unwrap();
    let mut begun = Vec::new();
    // A broker may be slow to begin with some of them, but enough is to be left of each.
    while Priority::ALL.iter().any(|priority| !begun.contains(priority)) {
        assert!(begun.len() < 300, "some lanes are left out: {begun:?}");
        begun.extend(work(&mut *subscription).await);
    }
    let mut found = Vec::new();
    while found.len() < 240 {
        found.extend(work(&mut *subscription).await);
    }
    let all: u64 = Priority::ALL.iter().map(|priority| priority.weight()).sum();
    for priority in Priority::ALL {
        let count = found[..240].iter().filter(|other| **other == priority).count();
        let due = 240 * priority.weight() as usize / all as usize;
        assert!((due * 2 / 3..=due * 4 / 3).contains(&count), "{priority:?}: {count} instead of {due}");
    }
}

/// Strictly, the more urgent lanes are emptied first. Nine messages of ten come in that order: what a driver has at hand
/// may lack the next urgent one for a moment.
pub async fn strict_lanes_wait_for_each_other(case: Case<'_>) {
    let lanes = fill(&case, 60).await;
    let mut subscription = case.broker.subscribe(&lanes, 40, Priorities::Strict).await.unwrap();
    let mut found = Vec::new();
    while found.len() < 240 {
        found.extend(work(&mut *subscription).await);
    }
    // The longest series in order that ends with each priority.
    let mut series = [0; 4];
    for priority in found {
        let longest = series[priority as usize..].iter().max().copied().unwrap_or(0);
        series[priority as usize] = longest + 1;
    }
    assert!(series.iter().any(|length| *length >= 216), "only so many of 240 came in order: {series:?}");
}

/// An urgent message is among the next, however much of less urgency waits.
pub async fn an_urgent_message_overtakes(case: Case<'_>) {
    let lanes: Vec<Lane> = Lane::of(&case.queue).collect();
    case.publish_all(&messages(&case.lane_at(Priority::Low), 300)).await;
    let mut subscription = case.broker.subscribe(&lanes, 100, Priorities::Weighted).await.unwrap();
    for _ in 0..5 {
        work(&mut *subscription).await;
    }
    case.publish_all(&messages(&case.lane_at(Priority::Urgent), 1)).await;
    let mut before = 0;
    while !work(&mut *subscription).await.contains(&Priority::Urgent) {
        before += 1;
        assert!(before < 20, "{before} groups of messages came before the urgent one");
    }
}

/// Puts so many messages into every lane.
async fn fill(case: &Case<'_>, count: usize) -> Vec<Lane> {
    let lanes: Vec<Lane> = Lane::of(&case.queue).collect();
    for lane in lanes.iter().rev() {
        case.publish_all(&messages(lane, count)).await;
    }
    lanes
}

/// Takes a few messages as a busy worker does.
async fn work(subscription: &mut dyn Subscription) -> Vec<Priority> {
    let found = within("a message", subscription.receive(GROUP)).await.unwrap();
    subscription.ack(&tags(&found)).await.unwrap();
    sleep(WORK).await;
    found.iter().map(|delivery| delivery.message.lane.priority).collect()
}
