use windlass_core::{BrokerError, Priorities};

use super::support::{Case, distinct, jobs, receive, within};

/// A broker that is up answers.
pub async fn ping_answers(case: Case<'_>) {
    within("ping", case.broker.ping()).await.unwrap();
}

/// Closing gives back what the client's subscriptions hold, whether handed out or not.
pub async fn close_gives_back(case: Case<'_>) {
    let sent = case.publish(20).await;
    let other = case.fixture.client().await;
    let mut subscription = other.subscribe(&[case.lane()], 20, Priorities::Weighted).await.unwrap();
    receive(&mut *subscription, 5).await;
    within("close", other.close()).await;
    case.depth_becomes(&case.lane(), 20).await;
    let mut mine = case.subscribe(20).await;
    assert_eq!(jobs(&receive(&mut *mine, 20).await), distinct(&sent));
}

/// After closing, every call says so at once; closing again is no error.
pub async fn closed_says_so(case: Case<'_>) {
    let other = case.fixture.client().await;
    within("ping", other.ping()).await.unwrap();
    let mut subscription = other.subscribe(&[case.lane()], 5, Priorities::Weighted).await.unwrap();
    within("close", other.close()).await;
    within("close", other.close()).await;
    let answers = within("publish", other.publish(&super::messages(&case.lane(), 2))).await;
    assert_eq!(answers.len(), 2);
    for answer in answers {
        assert!(matches!(answer, Err(BrokerError::Closed)), "{answer:?}");
    }
    let errors = [
        within("ping", other.ping()).await.err(),
        within("depth", other.depth(&case.lane())).await.err(),
        within("delete", other.delete(&[case.lane()])).await.err(),
        within("subscribe", other.subscribe(&[case.lane()], 5, Priorities::Weighted)).await.err(),
        within("receive", subscription.receive(5)).await.err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(BrokerError::Closed)), "{error:?}");
    }
}
