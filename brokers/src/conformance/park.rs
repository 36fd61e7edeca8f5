use windlass_core::Priorities;

use super::support::{Case, distinct, jobs, receive, receive_beside_holder, tags};

/// A parked subscription keeps nothing from others but what it handed out.
pub async fn park_gives_back_what_was_not_handed_out(case: Case<'_>) {
    let sent = case.publish(20).await;
    let mut full = case.subscribe(20).await;
    let handed_out = receive(&mut *full, 5).await;
    full.park().await.unwrap();
    case.depth_becomes(&case.lane(), 15).await;
    let mut other = case.subscribe(20).await;
    let rest = &distinct(&sent) - &jobs(&handed_out);
    let held = jobs(&handed_out);
    let rest = receive_beside_holder(&case, &mut *other, &rest, &held).await;
    other.ack(&tags(&rest)).await.unwrap();
    // What comes while it is parked is for others too.
    let later = case.publish(10).await;
    receive_beside_holder(&case, &mut *other, &distinct(&later), &held).await;
}

/// What was handed out before can be settled while parked and after.
pub async fn park_keeps_what_was_handed_out(case: Case<'_>) {
    let other = case.fixture.client().await;
    case.publish(9).await;
    let mut subscription = other.subscribe(&[case.lane()], 20, Priorities::Weighted).await.unwrap();
    let handed_out = receive(&mut *subscription, 9).await;
    subscription.park().await.unwrap();
    subscription.ack(&tags(&handed_out[..3])).await.unwrap();
    let sent = case.publish(1).await;
    let found = receive(&mut *subscription, 1).await;
    assert_eq!(jobs(&found), distinct(&sent), "nothing handed out before comes again");
    subscription.ack(&tags(&handed_out[3..6])).await.unwrap();
    subscription.release(&tags(&handed_out[6..])).await.unwrap();
    let again = receive(&mut *subscription, 3).await;
    assert_eq!(jobs(&again), jobs(&handed_out[6..]));
    subscription.ack(&tags(&again)).await.unwrap();
    subscription.ack(&tags(&found)).await.unwrap();
    drop(subscription);
    other.close().await;
    case.depth_becomes(&case.lane(), 0).await;
    let sent = case.publish(1).await;
    let mut subscription = case.subscribe(20).await;
    assert_eq!(jobs(&receive(&mut *subscription, 1).await), distinct(&sent));
}

/// Parking is idempotent, works before anything was received, and ends with the next `receive`.
pub async fn park_twice_and_resume(case: Case<'_>) {
    let mut subscription = case.subscribe(5).await;
    subscription.park().await.unwrap();
    subscription.park().await.unwrap();
    let sent = case.publish(40).await;
    case.depth_becomes(&case.lane(), 40).await;
    let mut found = Vec::new();
    while found.len() < 40 {
        let some = receive(&mut *subscription, 4).await;
        subscription.park().await.unwrap();
        subscription.ack(&tags(&some)).await.unwrap();
        found.extend(some);
    }
    assert_eq!(jobs(&found), distinct(&sent));
}
