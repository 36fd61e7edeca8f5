//! What the real service refuses and an emulator does not: logins, rights, projects, and addresses where something
//! else answers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::http;
use windlass_core::{Broker, BrokerError, Lane, Message, Priorities, Priority};

fn lane() -> Lane {
    Lane { queue: "nobody".parse().unwrap(), priority: Priority::Normal }
}

fn message() -> Message {
    Message {
        job_id: windlass_core::JobId::new(),
        attempt: 1,
        lane: lane(),
        kind: "k".parse().unwrap(),
        trace: None,
        ordering_key: None,
    }
}

/// Serves every connection with `serve`, and answers with the address.
async fn server<F>(serve: fn(TcpStream) -> F) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A gRPC server that answers every call with this status.
async fn refuse(stream: TcpStream, code: &'static str) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_request, mut respond))) = connection.accept().await {
        let answer = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", code)
            .header("grpc-message", "says the stub")
            .body(())
            .unwrap();
        respond.send_response(answer, true).unwrap();
    }
}

/// Every call soon says what is wrong, to the operator.
async fn is_for_the_operator(broker: &dyn Broker, expected: &str) {
    let start = Instant::now();
    let publish = broker.publish(&[message()]).await.remove(0);
    let subscribe = broker.subscribe(&[lane()], 1, Priorities::Weighted).await.map(drop);
    for result in [broker.ping().await, publish, subscribe] {
        let error = result.unwrap_err();
        assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("broker_url") && text.contains(expected), "{text}");
        assert!(!format!("{text} {error:?} {broker:?}").contains("s3cret"), "{text}");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    broker.close().await;
}

async fn open(endpoint: &str) -> Arc<dyn Broker> {
    windlass_brokers::open(&format!("pubsub://windlass?endpoint={endpoint}")).await.unwrap()
}

#[tokio::test]
async fn refusals_are_explained() {
    for (address, expected) in [
        (server(|stream| refuse(stream, "16")).await, "GOOGLE_APPLICATION_CREDENTIALS"),
        (server(|stream| refuse(stream, "7")).await, "roles/pubsub.editor"),
        (server(|stream| refuse(stream, "5")).await, "project"),
        (server(|stream| refuse(stream, "12")).await, "endpoint"),
        (server(|stream| refuse(stream, "3")).await, "project"),
    ] {
        is_for_the_operator(&*open(&address.to_string()).await, expected).await;
    }
}

/// Too busy, short of quota, in trouble: passes by itself.
#[tokio::test]
async fn troubles_of_the_service_pass() {
    for address in [server(|stream| refuse(stream, "8")).await, server(|stream| refuse(stream, "13")).await] {
        let broker = open(&address.to_string()).await;
        assert!(broker.ping().await.unwrap_err().retryable());
        assert!(broker.publish(&[message()]).await.remove(0).unwrap_err().retryable());
        broker.close().await;
    }
}

#[tokio::test]
async fn something_else_at_the_address_is_explained() {
    let web = server(|mut stream: TcpStream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        // As long as the other side stays.
        while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    is_for_the_operator(&*open(&web.to_string()).await, "endpoint").await;
}

/// A server that takes connections and says nothing is down, as far as a caller can tell.
#[tokio::test]
async fn silence_is_an_outage() {
    let silent = server(|stream: TcpStream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let broker = open(&silent.to_string()).await;
    let start = Instant::now();
    let (ping, publish) = tokio::join!(broker.ping(), async { broker.publish(&[message()]).await.remove(0) });
    assert!(ping.unwrap_err().retryable() && publish.unwrap_err().retryable());
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    broker.close().await;
}

/// The login is found through variables of the process: each case is a process of its own, with a file and a home
/// folder of its own.
#[tokio::test]
async fn logins_that_cannot_work_are_explained() {
    let token = server(|stream| answer(stream, "200 OK", TOKEN)).await;
    let refusal = server(|stream| answer(stream, "400 Bad Request", r#"{"error":"invalid_grant"}"#)).await;
    let trouble = server(|stream| answer(stream, "503 Unavailable", "{}")).await;
    let plain = server(|stream| refuse(stream, "0")).await;
    let user = |at: SocketAddr| {
        Some(format!(
            r#"{{"type":"authorized_user","client_id":"c","client_secret":"s3cret","refresh_token":"s3cret",
            "token_uri":"http://{at}/"}}"#
        ))
    };
    let not_tls = format!("pubsub://windlass?endpoint=https://{plain}");
    let mut cases = vec![
        (Some("s3cret".to_owned()), "pubsub://windlass", "Config", "GOOGLE_APPLICATION_CREDENTIALS"),
        (Some("{}".to_owned()), "pubsub://windlass", "Config", "GOOGLE_APPLICATION_CREDENTIALS"),
        (user(refusal), "pubsub://windlass", "Config", "invalid_grant"),
        (user(trouble), "pubsub://windlass", "Unavailable", "login"),
        (user(token), &not_tls, "Config", "no secure connection"),
    ];
    // Where it can be looked up, this is a machine of Google Cloud, which has a login.
    if tokio::net::lookup_host("metadata.google.internal:80").await.is_err() {
        cases.push((None, "pubsub://windlass", "Config", "GOOGLE_APPLICATION_CREDENTIALS"));
    }
    for (file, url, kind, expected) in cases {
        let start = Instant::now();
        let said = in_a_process(file.clone(), url).await;
        assert!(said.contains(kind) && said.contains(expected), "{file:?} {url}: {said}");
        assert!(kind != "Config" || said.contains("broker_url"), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

const TOKEN: &str = r#"{"access_token":"s3cret","expires_in":3600,"token_type":"Bearer"}"#;

/// One answer over HTTP/1.1.
async fn answer(mut stream: TcpStream, status: &'static str, body: &'static str) {
    let _ = stream.read(&mut [0; 4096]).await;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + body).as_bytes()).await;
}

/// What `ping` says in a process with this file of credentials.
async fn in_a_process(file: Option<String>, url: &str) -> String {
    let home = tempfile::TempDir::new().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "ping_in_this_process", "--ignored", "--nocapture"]);
    command.env("HOME", home.path()).env("WINDLASS_TEST_CHILD_URL", url).env_remove("PUBSUB_EMULATOR_HOST");
    match file {
        None => command.env_remove("GOOGLE_APPLICATION_CREDENTIALS"),
        Some(content) => {
            let path = home.path().join("credentials.json");
            std::fs::write(&path, content).unwrap();
            command.env("GOOGLE_APPLICATION_CREDENTIALS", path)
        }
    };
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
#[ignore = "run by the test above, in a process of its own"]
async fn ping_in_this_process() {
    let url = std::env::var("WINDLASS_TEST_CHILD_URL").unwrap();
    match windlass_brokers::open(&url).await {
        Err(error) => println!("{error} {error:?}"),
        Ok(broker) => {
            let error = broker.ping().await.unwrap_err();
            println!("{error} {error:?} {broker:?}");
        }
    }
}
