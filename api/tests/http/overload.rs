//! What is too much is refused at once, and the rest is served.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use windlass_api::ApiOptions;

use crate::{
    connections::{BODY, Connection, Served, post, whole},
    faults::Fault,
    support::soon,
};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// Asks again until the answer has this status; answers its head.
async fn until(served: &Served, request: &str, status: u16) -> String {
    soon("an answer of that status", async {
        loop {
            let mut connection = served.connect().await;
            connection.write(request).await;
            let (got, head, _) = connection.answer().await;
            if got == status {
                return head;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_most_are_refused_at_once() {
    let served = Served::new(ApiOptions { max_in_flight: 2, ..ApiOptions::default() }).await;
    let release = CancellationToken::new();
    let mut busy = [served.connect().await, served.connect().await];
    for connection in &mut busy {
        let knocked = CancellationToken::new();
        *served.fault.lock().unwrap() =
            Some(Fault::Held { knocked: knocked.clone(), release: release.clone() });
        connection.write(whole(BODY)).await;
        soon("it is in flight", knocked.cancelled()).await;
    }
    // This one asks nothing of the store.
    let mut refused = served.connect().await;
    refused.write(get("/v1/jobs/nonsense")).await;
    let (status, head, _) = refused.answer().await;
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: 1\r\n") && head.contains("x-request-id: "), "{head}");
    let mut other = served.connect().await;
    other.write(whole(BODY)).await;
    // It is refused where it comes in, with all that other answers have.
    let (status, head, body) = other.answer().await;
    assert_eq!(status, 503);
    for header in ["retry-after: 1", "x-request-id: ", "x-content-type-options: nosniff", "problem+json"] {
        assert!(head.contains(header), "{head}");
    }
    assert!(String::from_utf8_lossy(&body).contains("too many jobs at a time here; nothing was stored"));
    // A probe is no request.
    other.write(get("/healthz")).await;
    assert_eq!(other.answer().await.0, 204);
    release.cancel();
    for connection in &mut busy {
        assert_eq!(connection.answer().await.0, 202);
    }
    other.write(whole(BODY)).await;
    assert_eq!(other.answer().await.0, 202);
    assert_eq!(served.jobs().await, 3);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_job_is_not_in_the_way() {
    let options = ApiOptions { max_in_flight: 1, max_waiting: 1, ..ApiOptions::default() };
    let served = Served::new(options).await;
    let job = format!("/v1/jobs/{}", served.api.job().await);
    let mut waiting = Vec::new();
    // One of them has the one place to wait in. Others may find the one in flight taken just then, and be refused.
    soon("a refusal to wait", async {
        loop {
            let mut connection = served.connect().await;
            connection.write(get(&format!("{job}?wait=60s"))).await;
            waiting.push(connection);
            let mut connection = served.connect().await;
            connection.write(get(&format!("{job}?wait=0s"))).await;
            let (status, _, body) = connection.answer().await;
            if status == 503 && String::from_utf8_lossy(&body).contains("waiting for jobs") {
                return;
            }
        }
    })
    .await;
    until(&served, &get(&job), 200).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_most_are_told_so() {
    let served = Served::new(ApiOptions { max_connections: 2, ..ApiOptions::default() }).await;
    let mut first = served.connect().await;
    let mut second = served.connect().await;
    for connection in [&mut first, &mut second] {
        connection.write(get("/healthz")).await;
        assert_eq!(connection.answer().await.0, 204);
    }
    let mut third = served.connect().await;
    third.write(get("/v1/kinds")).await;
    let (status, head, _) = third.answer().await;
    assert_eq!(status, 503);
    assert!(head.contains("connection: close") && head.contains("retry-after: 1"), "{head}");
    third.closed().await;
    let mut probe = served.connect().await;
    probe.write(get("/readyz")).await;
    assert_eq!(probe.answer().await.0, 200);
    probe.closed().await;
    // Those that were there first are served as before.
    first.write(get("/v1/kinds")).await;
    assert_eq!(first.answer().await.0, 200);
    drop(second);
    until(&served, &get("/v1/kinds"), 200).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused() {
    let served = Served::new(ApiOptions { max_head: 10_000, ..ApiOptions::default() }).await;
    for (size, status) in [(9_000, 204), (25_000, 431), (1_000_000, 431)] {
        let mut connection = served.connect().await;
        let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(size));
        // The server may cut it off before all is written.
        let _ = connection.stream.write_all(&head.as_bytes()[..head.len().min(30_000)]).await;
        assert_eq!(connection.answer().await.0, status, "{size}");
    }
    for (count, status) in [(99, 204), (101, 431)] {
        let mut connection = served.connect().await;
        let headers: String = (0..count - 1).map(|n| format!("x{n}: x\r\n")).collect();
        connection.write(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).await;
        assert_eq!(connection.answer().await.0, status, "{count}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_share_the_memory_that_there_is_for_them() {
    let options = ApiOptions { max_body: 50_000, body_memory: 100_000, ..ApiOptions::default() };
    let served = Served::new(options).await;
    let large = BODY.replace('1', &format!("\"{}\"", "x".repeat(45_000)));
    let mut slow = Vec::new();
    // Any of them may be the one for which there is no memory just then, and be refused itself.
    let head = soon("a refusal", async {
        loop {
            let mut connection: Connection = served.connect().await;
            connection.write(post(&format!("content-length: {}", large.len()), &large[..44_000])).await;
            slow.push(connection);
            let mut connection = served.connect().await;
            connection.write(whole(&large)).await;
            let (got, head, _) = connection.answer().await;
            if got == 503 {
                return head;
            }
        }
    })
    .await;
    assert!(head.contains("retry-after: 1\r\n"), "{head}");
    // Half a body that will never be whole is given up with its connection.
    drop(slow);
    until(&served, &whole(&large), 202).await;
    // What was taken was given back, every time.
    let mut connection = served.connect().await;
    for _ in 0..20 {
        connection.write(whole(&large)).await;
        assert_eq!(connection.answer().await.0, 202);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_the_answers_is_cut_off() {
    let options = ApiOptions { idle_timeout: Duration::from_millis(300), ..ApiOptions::default() };
    let served = Served::new(options).await;
    let mut connection = served.connect().await;
    let requests = get("/openapi.json").repeat(100);
    // Nothing is read here, so that in the end nothing can be written there, nor read.
    soon("the cut", async { while connection.stream.write_all(requests.as_bytes()).await.is_ok() {} }).await;
    served.stop().await;
}
