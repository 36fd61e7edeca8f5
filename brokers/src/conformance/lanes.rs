use windlass_core::Lane;

use super::support::{Case, distinct, jobs, messages, receive, tags, within};

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
