use windlass_core::Priorities;

use super::counters::counted;
use super::support::{Case, distinct, jobs, messages, receive, receives_nothing, tags, until};

/// As the README names it.
const SET_ASIDE: &str = "windlass_messages_set_aside_total";

/// Bytes that are no message, or one of another format version, are set aside: they neither come out, nor stop
/// what comes after them, nor come again; and each is counted.
pub async fn unreadable_messages_are_set_aside(case: Case<'_>) {
    let lane = case.lane();
    case.publish(1).await;
    let mut newer = messages(&lane, 1)[0].encode();
    newer[0] = 200;
    let mut cut = messages(&lane, 1)[0].encode();
    cut.pop();
    let before = counted(SET_ASIDE);
    let garbage: [&[u8]; 5] = [b"", b"\0", b"not a message", &newer, &cut];
    for bytes in garbage {
        if !case.fixture.publish_raw(&lane, bytes).await {
            return;
        }
    }
    case.publish(1).await;
    let other = case.fixture.client().await;
    // One at a time: each of them must make room for the next.
    let mut subscription =
        other.subscribe(std::slice::from_ref(&lane), 1, Priorities::Weighted).await.unwrap();
    for _ in 0..2 {
        let found = receive(&mut *subscription, 1).await;
        subscription.ack(&tags(&found)).await.unwrap();
    }
    until("all garbage to be counted", async || {
        receives_nothing(&mut *subscription).await;
        // Others in this process may count meanwhile.
        counted(SET_ASIDE) >= before + 5
    })
    .await;
    drop(subscription);
    other.close().await;
    case.depth_becomes(&lane, 0).await;
    let sent = case.publish(1).await;
    let mut subscription = case.subscribe(10).await;
    assert_eq!(jobs(&receive(&mut *subscription, 1).await), distinct(&sent));
}
