//! What only shows on a socket: bodies that are too large, too slow or cut short, several requests on a connection,
//! and how serving ends.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use windlass_api::ApiOptions;
use windlass_brokers::Memory;

use crate::{
    faults::{Fault, faulty_store},
    support::{Api, soon},
};

pub(crate) const BODY: &str = r#"{"kind": "mail", "payload": 1}"#;

pub(crate) struct Served {
    pub(crate) api: Api,
    pub(crate) address: SocketAddr,
    pub(crate) fault: Arc<Mutex<Option<Fault>>>,
    shutdown: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

impl Served {
    pub(crate) async fn new(options: ApiOptions) -> Self {
        let fault = Arc::new(Mutex::new(None));
        let switch = fault.clone();
        let wrap = |store| Arc::new(faulty_store(store, switch)) as _;
        let api = Api::over(options.clone(), wrap, Arc::new(Memory::new())).await;
        // Kinds are known from here on.
        api.job().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving =
            tokio::spawn(windlass_api::serve(listener, api.client.clone(), options, shutdown.clone()));
        Self { api, address, fault, shutdown, serving }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    /// Jobs made since the start.
    pub(crate) async fn jobs(&self) -> i64 {
        self.api.jobs().await - 1
    }

    pub(crate) fn begin_to_stop(&self) {
        self.shutdown.cancel();
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        soon("the end of serving", self.serving).await.unwrap().unwrap();
    }
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next response: status, head and body.
    pub(crate) async fn answer(&mut self) -> (u16, String, Vec<u8>) {
        soon("an answer", async {
            let end = loop {
                if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                    break at + 4;
                }
                assert_ne!(
                    self.stream.read_buf(&mut self.read).await.unwrap(),
                    0,
                    "closed without an answer"
                );
            };
            let head = String::from_utf8(self.read.drain(..end).collect()).unwrap().to_lowercase();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            while self.read.len() < length {
                assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "cut short");
            }
            (status, head, self.read.drain(..length).collect())
        })
        .await
    }

    /// The next response, which must be a problem of this status.
    pub(crate) async fn problem(&mut self, status: u16) -> Value {
        let (got, head, body) = self.answer().await;
        assert_eq!(got, status, "{head}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["status"], status);
        problem
    }

    /// Waits for the server to close the connection, whatever it still says.
    pub(crate) async fn closed(&mut self) {
        soon("the server to close the connection", async {
            let mut buffer = [0; 1024];
            while !matches!(self.stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
        })
        .await;
    }
}

pub(crate) fn post(headers: &str, body: &str) -> String {
    format!("POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{body}")
}

pub(crate) fn whole(body: &str) -> String {
    post(&format!("content-length: {}", body.len()), body)
}

/// A body in chunks of 16 KiB.
fn chunked(size: usize) -> Vec<u8> {
    let mut bytes = post("transfer-encoding: chunked", "").into_bytes();
    for _ in 0..size / 16_384 {
        bytes.extend_from_slice(b"4000\r\n");
        bytes.extend_from_slice(&[b' '; 16_384]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_too_much_gets_to_read_why() {
    let served = Served::new(ApiOptions { max_body: 100_000, ..ApiOptions::default() }).await;
    // The client reads only after it has sent everything, as simple ones do.
    for bytes in [whole(&" ".repeat(8_000_000)).into_bytes(), chunked(8_000_000)] {
        let mut connection = served.connect().await;
        connection.write(bytes).await;
        let problem = connection.problem(413).await;
        assert!(problem["detail"].as_str().unwrap().contains("100000 bytes"), "{problem}");
    }
    // Chunks within the limit are as good as a length.
    let mut connection = served.connect().await;
    let size = BODY.len();
    connection.write(post("transfer-encoding: chunked", &format!("{size:x}\r\n{BODY}\r\n0\r\n\r\n"))).await;
    assert_eq!(connection.answer().await.0, 202);
    assert_eq!(served.jobs().await, 1);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beyond_the_limit_is_refused_before_the_body_is_sent() {
    let served = Served::new(ApiOptions::default()).await;
    for length in ["1048577", "100000000000", "9223372036854775807"] {
        let mut connection = served.connect().await;
        connection.write(post(&format!("content-length: {length}\r\nexpect: 100-continue"), "")).await;
        connection.problem(413).await;
        connection.closed().await;
    }
    let mut connection = served.connect().await;
    connection.write(post(&format!("content-length: {}\r\nexpect: 100-continue", BODY.len()), "")).await;
    assert_eq!(connection.answer().await.0, 100);
    connection.write(BODY).await;
    assert_eq!(connection.answer().await.0, 202);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_body_ends_with_a_413() {
    let served = Served::new(ApiOptions { max_body: 100_000, ..ApiOptions::default() }).await;
    let mut connection = served.connect().await;
    connection.write(post("transfer-encoding: chunked", "")).await;
    let (mut read, mut write) = connection.stream.into_split();
    // Sends until the server cuts it off.
    let sending = tokio::spawn(async move {
        let chunk = [b"4000\r\n".as_slice(), &[b' '; 16_384], b"\r\n"].concat();
        while write.write_all(&chunk).await.is_ok() {}
    });
    let mut answer = [0; 12];
    soon("the answer", read.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    soon("the cut", sending).await.unwrap();
    assert_eq!(served.jobs().await, 0);
    drop(read);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_too_slowly_is_a_408() {
    let options = ApiOptions { request_timeout: Duration::from_millis(300), ..ApiOptions::default() };
    let served = Served::new(options).await;
    for sent in [&BODY[..0], &BODY[..10]] {
        let mut connection = served.connect().await;
        connection.write(post(&format!("content-length: {}", BODY.len()), sent)).await;
        connection.problem(408).await;
        connection.closed().await;
    }
    assert_eq!(served.jobs().await, 0);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_too_slowly_ends_the_connection() {
    let served =
        Served::new(ApiOptions { idle_timeout: Duration::from_millis(300), ..ApiOptions::default() }).await;
    for sent in ["", "POST /v1/jobs HT", "GET /healthz HTTP/1.1\r\nhost: x\r\n"] {
        let mut connection = served.connect().await;
        connection.write(sent).await;
        connection.closed().await;
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_cut_short_stores_nothing() {
    let served = Served::new(ApiOptions::default()).await;
    for _ in 0..5 {
        // A whole job, but not the whole body.
        let mut connection = served.connect().await;
        connection.write(post(&format!("content-length: {}", BODY.len() + 1), BODY)).await;
        connection.stream.shutdown().await.unwrap();
        connection.closed().await;
        let mut connection = served.connect().await;
        connection
            .write(post("transfer-encoding: chunked", &format!("{:x}\r\n{BODY}\r\n", BODY.len())))
            .await;
        connection.stream.shutdown().await.unwrap();
        connection.closed().await;
    }
    assert_eq!(served.jobs().await, 0);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let served = Served::new(ApiOptions::default()).await;
    let mut connection = served.connect().await;
    let requests = [whole(BODY), whole("{"), "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n".into(), whole(BODY)];
    connection.write(requests.concat()).await;
    assert_eq!(connection.answer().await.0, 202);
    connection.problem(400).await;
    connection.problem(404).await;
    assert_eq!(connection.answer().await.0, 202);
    assert_eq!(served.jobs().await, 2);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_leaves_the_connection_usable() {
    let served = Served::new(ApiOptions::default()).await;
    let mut connection = served.connect().await;
    for (request, status) in [
        (post("content-length: 5", "\u{fffd}\u{7f}{"), 400),
        (whole(&"[".repeat(10_000)), 422),
        (whole(BODY).replace("application/json", "text/plain"), 415),
        (whole(BODY).replace("/v1/jobs", "/v1/job"), 404),
        (whole(BODY).replace("POST", "PATCH"), 405),
    ] {
        connection.write(request).await;
        connection.problem(status).await;
    }
    connection.write(whole(BODY)).await;
    assert_eq!(connection.answer().await.0, 202);
    assert_eq!(served.jobs().await, 1);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_ends_its_own_connection_only() {
    let served = Served::new(ApiOptions::default()).await;
    let endless = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(2_000_000));
    let garbage: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        endless.as_bytes(),
    ];
    for bytes in garbage {
        let mut connection = served.connect().await;
        // The server may cut it off before all is written.
        let _ = connection.stream.write_all(bytes).await;
        connection.closed().await;
    }
    let mut connection = served.connect().await;
    connection.write(whole(BODY)).await;
    assert_eq!(connection.answer().await.0, 202);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_requests_under_way_finish() {
    let served = Served::new(ApiOptions::default()).await;
    let release = CancellationToken::new();
    *served.fault.lock().unwrap() = Some(Fault::Until(release.clone()));
    let mut busy = served.connect().await;
    busy.write(whole(BODY)).await;
    let mut idle = served.connect().await;
    // Answered without the store: the server has both connections by now.
    idle.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.answer().await;
    served.shutdown.cancel();
    idle.closed().await;
    soon("the listener to close", async {
        while TcpStream::connect(served.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!served.serving.is_finished());
    release.cancel();
    let (status, head, _) = busy.answer().await;
    assert_eq!(status, 202, "{head}");
    assert!(head.contains("connection: close"), "{head}");
    busy.closed().await;
    assert_eq!(served.jobs().await, 1);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_waits_no_longer_than_it_may() {
    let served =
        Served::new(ApiOptions { drain_timeout: Duration::from_millis(300), ..ApiOptions::default() }).await;
    *served.fault.lock().unwrap() = Some(Fault::Until(CancellationToken::new()));
    let mut busy = served.connect().await;
    busy.write(whole(BODY)).await;
    let mut half = served.connect().await;
    half.write("POST /v1/jobs HTTP/1.1\r\n").await;
    served.shutdown.cancel();
    soon("the end of serving", served.serving).await.unwrap().unwrap();
    // Cut, not left open.
    busy.closed().await;
    half.closed().await;
}
