//! What several kinds of brokers are asked in their own tests.
#![allow(dead_code, reason = "not all of it in every file that has this module")]

use std::time::{Duration, Instant};

use windlass_brokers::conformance::{Case, messages, until, within};
use windlass_core::{Broker, BrokerError, Delivery, Lane, Priorities, Priority, Subscription};

/// A lane for calls that come to nothing.
pub(crate) fn lane() -> Lane {
    Lane { queue: "nobody".parse().unwrap(), priority: Priority::Normal }
}

/// `url` with another user, password or path.
pub(crate) fn changed(url: &str, user_info: Option<(&str, &str)>, path: Option<&str>) -> String {
    let mut url: url::Url = url.parse().unwrap();
    if let Some((user, password)) = user_info {
        url.set_username(user).unwrap();
        url.set_password(Some(password)).unwrap();
    }
    if let Some(path) = path {
        url.set_path(path);
    }
    url.into()
}

/// Asks for all kinds of things, each of which must be refused for the operator to see, without the secret in `url`.
pub(crate) async fn refuses(url: &str) -> Vec<String> {
    let broker = windlass_brokers::open(url).await.unwrap();
    let start = Instant::now();
    let (batch, lanes) = (messages(&lane(), 1), [lane()]);
    let (mut publish, subscribe, depth) = tokio::join!(
        broker.publish(&batch),
        broker.subscribe(&lanes, 1, Priorities::Weighted),
        broker.depth(&lanes[0]),
    );
    let mut errors = Vec::new();
    for result in [publish.remove(0), subscribe.map(drop), depth.map(drop)] {
        let error = result.unwrap_err();
        assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
        assert!(error.to_string().contains("broker_url"), "{error}");
        assert!(!format!("{error} {error:?} {broker:?}").contains("s3cret"));
        errors.push(error.to_string());
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    broker.close().await;
    errors
}

/// Opens a broker that does not answer, and asks it for everything: all of it fails within `all`, for now, and says where.
pub(crate) async fn fails_soon(url: &str, all: Duration) {
    let broker = windlass_brokers::open(url).await.unwrap();
    let start = Instant::now();
    let address = url.rsplit(['/', '@', '=']).next().unwrap();
    for answer in broker.publish(&messages(&lane(), 3)).await {
        let error = answer.unwrap_err();
        assert!(error.retryable() && error.to_string().contains(address), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert!(broker.ping().await.unwrap_err().retryable());
    assert!(broker.depth(&lane()).await.unwrap_err().retryable());
    let mut subscription = broker.subscribe(&[lane()], 10, Priorities::Weighted).await.unwrap();
    assert!(subscription.receive(1).await.unwrap_err().retryable());
    assert!(start.elapsed() < all, "{:?}", start.elapsed());
    within("close", broker.close()).await;
}

/// Does everything that a process of Windlass ever asks of a broker, as the user in `url`.
pub(crate) async fn suffices(url: &str, lane: Lane) {
    let broker = windlass_brokers::open(url).await.unwrap();
    broker.ping().await.unwrap();
    let lanes = [lane];
    let mut subscription = broker.subscribe(&lanes, 10, Priorities::Weighted).await.unwrap();
    for answer in broker.publish(&messages(&lanes[0], 3)).await {
        answer.unwrap();
    }
    let found = receive(&mut *subscription, 3).await;
    subscription.release(&[found[0].tag]).await.unwrap();
    subscription.ack(&[found[1].tag, found[2].tag]).await.unwrap();
    within("park", subscription.park()).await.unwrap();
    until("the released message", async || broker.depth(&lanes[0]).await.unwrap() == Some(1)).await;
    drop(subscription);
    broker.delete(&lanes).await.unwrap();
    broker.close().await;
}

/// The broker cannot use what somebody made under the name of the lane `taken`. That concerns this lane alone, and is
/// for the operator, whom the answer tells.
pub(crate) async fn only_this_lane_is_refused(case: &Case<'_>, taken: &Lane) -> [String; 2] {
    let mut batch = messages(&case.lane(), 3);
    batch.splice(1..1, messages(taken, 1));
    let answers = case.broker.publish(&batch).await;
    let failed: Vec<usize> = (0..4).filter(|&index| answers[index].is_err()).collect();
    assert_eq!(failed, [1], "answers come in the order of the messages");
    let errors = [
        answers.into_iter().nth(1).unwrap().unwrap_err(),
        case.broker.subscribe(&[case.lane(), taken.clone()], 5, Priorities::Weighted).await.unwrap_err(),
    ];
    errors.map(|error| {
        assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
        assert!(error.to_string().contains("broker_url"), "{error}");
        error.to_string()
    })
}

/// Publishes until the broker takes a message again.
pub(crate) async fn takes_again(broker: &dyn Broker, lane: &Lane) {
    until("publishing to work again", async || {
        broker.publish(&messages(lane, 1)).await.iter().all(Result::is_ok)
    })
    .await;
}

/// Empties the broker by `wipe`, three times, under the hands of a subscription that holds a message, and which takes,
/// gives back and takes again what is published after.
pub(crate) async fn goes_on_after(wipe: impl AsyncFn(), broker: &dyn Broker, lane: &Lane) {
    let lanes = std::slice::from_ref(lane);
    let mut subscription =
        within("subscribe", broker.subscribe(lanes, 50, Priorities::Weighted)).await.unwrap();
    for _ in 0..3 {
        takes_again(broker, lane).await;
        let held = within("a message", subscription.receive(10)).await.unwrap();
        wipe().await;
        takes_again(broker, lane).await;
        let found = within("a message after the wipe", subscription.receive(10)).await.unwrap();
        let tags: Vec<_> = held.iter().chain(&found).map(|delivery| delivery.tag).collect();
        subscription.ack(&tags[..held.len()]).await.unwrap();
        subscription.release(&tags[held.len()..]).await.unwrap();
        let again = within("the released message", subscription.receive(10)).await.unwrap();
        assert_eq!(again[0].message, found[0].message);
        subscription.ack(&[again[0].tag]).await.unwrap();
    }
}

/// Receives as many messages as that.
pub(crate) async fn receive(subscription: &mut dyn Subscription, count: usize) -> Vec<Delivery> {
    let mut found = Vec::new();
    while found.len() < count {
        found.extend(within("messages", subscription.receive(count - found.len())).await.unwrap());
    }
    found
}
