//! Requests whose end two servers could see at different places, and clients that leave early: none may put a request
//! before another client's, or leave anything behind.

use tokio::io::AsyncWriteExt as _;
use windlass_api::ApiOptions;

use crate::{
    connections::{BODY, Served, post, whole},
    support::soon,
};

/// What a smuggler would have the server take for the next request.
const HIDDEN: &str = "DELETE /v1/jobs/0 HTTP/1.1\r\nhost: x\r\n\r\n";

/// Everything that the server says until it closes the connection.
async fn all_answers(served: &Served, request: &str) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut stream = served.connect().await.stream;
    // The server may close before all is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut said = Vec::new();
    soon("the end", async {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            said.extend_from_slice(&buffer[..read]);
        }
    })
    .await;
    String::from_utf8(said).unwrap()
}

fn statuses(said: &str) -> Vec<&str> {
    said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_doubtful_end_is_the_last_of_its_connection() {
    let served = Served::new(ApiOptions::default()).await;
    let chunks = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let length = BODY.len();
    let doubtful = [
        // Both a length and chunks. By RFC 9112 the chunks count, and nothing after them on this connection does.
        (format!("content-length: {}\r\ntransfer-encoding: chunked", chunks.len()), &*chunks, vec!["202"]),
        (format!("transfer-encoding: chunked\r\ncontent-length: {}", chunks.len()), &chunks, vec!["202"]),
        (format!("transfer-encoding: chunked\r\ncontent-length: {}", 4), &chunks, vec!["202"]),
        // Two lengths, a length that is none, and signs that others overlook.
        (format!("content-length: {length}\r\ncontent-length: {}", length + 1), BODY, vec!["400"]),
        (format!("content-length: {length}, {}", length + 1), BODY, vec!["400"]),
        (format!("content-length: +{length}"), BODY, vec!["400"]),
        (format!("content-length: -{length}"), BODY, vec!["400"]),
        ("content-length: 0x1f".into(), BODY, vec!["400"]),
        ("content-length:".into(), BODY, vec!["400"]),
        (format!("content-length : {length}"), BODY, vec!["400"]),
        (format!("content-length: 18446744073709551616{length}"), BODY, vec!["400"]),
        // Encodings that are not chunked in the end.
        ("transfer-encoding: identity".into(), BODY, vec!["400"]),
        ("transfer-encoding: chunked, gzip".into(), &chunks, vec!["400"]),
        ("transfer-encoding: chunkedx".into(), &chunks, vec!["400"]),
        ("transfer-encoding: \u{b}chunked".into(), &chunks, vec!["400"]),
        ("transfer-encoding : chunked".into(), &chunks, vec!["400"]),
        // A line that goes on in the next.
        (format!("x: y\r\n content-length: {length}"), BODY, vec!["400"]),
    ];
    let mut made = 0;
    for (headers, body, expected) in doubtful {
        let said = all_answers(&served, &format!("{}{HIDDEN}", post(&headers, body))).await;
        assert_eq!(statuses(&said), expected, "{headers:?}: {said}");
        made += i64::from(expected == ["202"]);
        assert_eq!(served.jobs().await, made, "{headers:?}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_chunks_end_the_connection_and_store_nothing() {
    let served = Served::new(ApiOptions::default()).await;
    let length = BODY.len();
    let endless_extension = format!("{length:x};{}\r\n{BODY}\r\n0\r\n\r\n", "x".repeat(1024 * 1024));
    let bad = [
        format!("+{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("0x{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("-1\r\n{BODY}\r\n0\r\n\r\n"),
        format!("ffffffffffffffffff\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", length - 1),
        format!("{length:x}\n{BODY}\r\n0\r\n\r\n"),
        format!("\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x}\r\n{BODY}XX0\r\n\r\n"),
        endless_extension,
    ];
    for body in bad {
        let said =
            all_answers(&served, &format!("{}{HIDDEN}", post("transfer-encoding: chunked", &body))).await;
        assert!(matches!(*statuses(&said), [] | ["400"]), "{}: {said}", &body[..body.len().min(40)]);
        assert_eq!(served.jobs().await, 0, "{}", &body[..body.len().min(40)]);
    }
    // The same in good order, with an extension and a trailer, which say nothing.
    let good = format!("{length:x};a=b\r\n{BODY}\r\n0\r\nx-trailer: y\r\n\r\n");
    let mut connection = served.connect().await;
    connection.write(post("transfer-encoding: chunked", &good)).await;
    assert_eq!(connection.answer().await.0, 202);
    connection.write(whole(BODY)).await;
    assert_eq!(connection.answer().await.0, 202);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_refused_body_is_never_taken_for_a_request() {
    let served = Served::new(ApiOptions { max_body: 100, ..ApiOptions::default() }).await;
    // The body that is too large looks like another request.
    let hidden = format!("{}{}", " ".repeat(200), whole(BODY));
    let mut connection = served.connect().await;
    connection.write(whole(&hidden)).await;
    connection.problem(413).await;
    // Either the connection goes on behind the body, or it is closed.
    if connection.stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {
        let said = read_on(&mut connection).await;
        assert!(matches!(*statuses(&said), [] | ["204"]), "{said}");
    }
    assert_eq!(served.jobs().await, 0);
    served.stop().await;
}

/// What is still said before the connection ends, or rests.
async fn read_on(connection: &mut crate::connections::Connection) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut said = vec![0; 4096];
    let read = soon("more", connection.stream.read(&mut said)).await.unwrap_or(0);
    String::from_utf8_lossy(&said[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pipelined_requests_are_all_answered_in_order() {
    let served = Served::new(ApiOptions::default()).await;
    let connection = served.connect().await;
    let requests = [whole(BODY), whole("{"), "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".into()].concat();
    let (rounds, expected) = (100, [202, 400, 204]);
    let pipelined = requests.repeat(rounds);
    // The answers are read beside, or both sides would wait for each other.
    let (mut read, mut write) = connection.stream.into_split();
    let writing = tokio::spawn(async move {
        write.write_all(pipelined.as_bytes()).await.unwrap();
        write
    });
    let mut said = String::new();
    soon("all answers", async {
        use tokio::io::AsyncReadExt as _;
        let mut buffer = vec![0; 65_536];
        while statuses(&said).len() < rounds * 3 {
            let count = read.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "closed early");
            said.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    })
    .await;
    drop(writing.await.unwrap());
    let seen: Vec<u16> = statuses(&said).into_iter().map(|status| status.parse().unwrap()).collect();
    assert_eq!(seen, expected.repeat(rounds));
    assert_eq!(served.jobs().await, i64::try_from(rounds).unwrap());
    served.stop().await;
}

/// Whoever leaves before the answer: the job is there or not, as if nobody had asked, and others are served.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_early_leave_nothing_behind() {
    let served = Served::new(ApiOptions { max_in_flight: 8, max_waiting: 8, ..ApiOptions::default() }).await;
    let job = served.api.job().await;
    let requests = [
        whole(BODY),
        post("content-length: 1000", "{"),
        format!("GET /v1/jobs/{job}?wait=60s HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /v1/jobs/{job}/events HTTP/1.1\r\nhost: x\r\n\r\n"),
        "GET /v1/queues/letters/events HTTP/1.1\r\nhost: x\r\n\r\n".into(),
        "GET /v1/jobs HTTP/1.1\r\nho".into(),
    ];
    for round in 0..20 {
        for request in &requests {
            let mut connection = served.connect().await;
            connection.write(request).await;
            if round % 2 == 0 {
                // Gone without a word, instead of in good order.
                connection.stream.set_zero_linger().unwrap();
            }
        }
    }
    // More of them than there are places: all of those are free again.
    soon("places for those who wait", async {
        loop {
            let mut connection = served.connect().await;
            connection.write(format!("GET /v1/jobs/{job}?wait=1ms HTTP/1.1\r\nhost: x\r\n\r\n")).await;
            if connection.answer().await.0 == 200 {
                break;
            }
        }
    })
    .await;
    let mut connection = served.connect().await;
    connection.write(whole(BODY)).await;
    assert_eq!(connection.answer().await.0, 202);
    served.stop().await;
}
