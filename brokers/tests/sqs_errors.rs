//! What the driver says when SQS cannot be used: to the operator, where someone has to change something; to the
//! caller, soon and retryably, where it passes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use windlass_brokers::conformance::messages;
use windlass_core::{Broker, BrokerError, Lane, Priorities, Priority};

const KEYS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "s3cret"), ("AWS_SESSION_TOKEN", "t0ken")];

fn lane() -> Lane {
    Lane { queue: "nobody".parse().unwrap(), priority: Priority::Normal }
}

/// A server that gives everyone the same answer; none at all if that is empty.
async fn server(answer: impl Into<String>) -> SocketAddr {
    let answer: Arc<str> = answer.into().into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut request = [0; 10_000];
                let _ = socket.read(&mut request).await;
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

fn http(status: u16, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// An error in the words of SQS.
fn refusal(status: u16, code: &str) -> String {
    let body = format!(r#"{{"__type":"com.amazonaws.sqs#{code}","message":"words of SQS"}}"#);
    http(status, "application/x-amz-json-1.0", &body)
}

async fn open(address: SocketAddr) -> Arc<dyn Broker> {
    windlass_brokers::open(&format!("sqs://us-east-1?endpoint=http://{address}")).await.unwrap()
}

/// The error of each kind of call, for all of which there is time.
async fn errors(broker: &dyn Broker) -> Vec<BrokerError> {
    let mut errors = Vec::new();
    let start = Instant::now();
    errors.extend(broker.publish(&messages(&lane(), 11)).await.into_iter().map(Result::unwrap_err));
    assert_eq!(errors.len(), 11);
    let mut calls = vec![start.elapsed()];
    let mut timed = async |call: std::pin::Pin<Box<dyn Future<Output = BrokerError> + Send + '_>>| {
        let start = Instant::now();
        errors.push(call.await);
        calls.push(start.elapsed());
    };
    timed(Box::pin(async { broker.ping().await.unwrap_err() })).await;
    timed(Box::pin(async { broker.depth(&lane()).await.unwrap_err() })).await;
    timed(Box::pin(async { broker.delete(&[lane()]).await.unwrap_err() })).await;
    timed(Box::pin(async {
        match broker.subscribe(&[lane()], 5, Priorities::Weighted).await {
            Err(error) => error,
            Ok(mut subscription) => subscription.receive(1).await.unwrap_err(),
        }
    }))
    .await;
    for call in calls {
        assert!(call < Duration::from_secs(15), "{call:?}");
    }
    errors
}

async fn is_for_the_operator(broker: &dyn Broker, words: &str) {
    for error in errors(broker).await {
        assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
        assert!(error.to_string().contains("broker_url"), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    broker.close().await;
}

#[tokio::test]
async fn refused_credentials_are_for_the_operator() {
    for code in
        ["InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "ExpiredToken"]
    {
        let broker = open(server(refusal(403, code)).await).await;
        is_for_the_operator(&*broker, "credentials").await;
    }
}

#[tokio::test]
async fn missing_rights_are_for_the_operator() {
    let broker = open(server(refusal(403, "AccessDenied")).await).await;
    is_for_the_operator(&*broker, "words of SQS; allow sqs:").await;
}

#[tokio::test]
async fn another_server_at_the_address_is_for_the_operator() {
    let page = "<html>It works!</html>";
    for answer in [
        http(200, "text/html", page),
        http(404, "text/html", page),
        http(400, "text/plain", "what?"),
        "SSH-2.0-OpenSSH_9.2\r\n".into(),
    ] {
        let broker = open(server(answer).await).await;
        is_for_the_operator(&*broker, "is not SQS").await;
    }
}

#[test]
fn a_server_without_tls_is_for_the_operator() {
    in_environment("without_tls", &KEYS);
}

#[tokio::test]
#[ignore = "run in an environment of its own"]
async fn without_tls() {
    let address = server(http(400, "text/plain", "what?")).await;
    let broker =
        windlass_brokers::open(&format!("sqs://us-east-1?endpoint=https://{address}")).await.unwrap();
    is_for_the_operator(&*broker, "no secure connection").await;
}

#[tokio::test]
async fn a_server_that_is_down_fails_calls_soon_but_not_the_opening() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let broker = open(unused).await;
    let start = Instant::now();
    for error in errors(&*broker).await {
        assert!(error.retryable() && error.to_string().contains(&unused.to_string()), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    broker.close().await;
}

#[tokio::test]
async fn a_server_in_trouble_is_retryable() {
    for answer in
        [refusal(503, "ServiceUnavailable"), refusal(400, "RequestThrottled"), http(502, "text/html", "")]
    {
        let broker = open(server(answer).await).await;
        for error in errors(&*broker).await {
            assert!(error.retryable(), "{error:?}");
        }
        broker.close().await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_not_waited_for() {
    let broker = open(server("").await).await;
    let start = Instant::now();
    let calls = async { broker.publish(&messages(&lane(), 1)).await.remove(0) };
    let (publish, ping, depth) =
        tokio::join!(calls, broker.ping(), async { broker.depth(&lane()).await.map(drop) });
    for result in [publish, ping, depth] {
        assert!(result.as_ref().unwrap_err().retryable(), "{result:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
}

/// Runs a test of this file that is ignored otherwise, in a process whose environment is empty but for `variables`.
fn in_environment(test: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", test]).env_clear().envs(variables.iter().copied());
    let output = command.env("AWS_EC2_METADATA_DISABLED", "true").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn missing_credentials_are_for_the_operator() {
    in_environment("without_credentials", &[]);
}

#[tokio::test]
#[ignore = "run in an environment of its own"]
async fn without_credentials() {
    let broker = windlass_brokers::open("sqs://us-east-1").await.unwrap();
    is_for_the_operator(&*broker, "credentials").await;
}

#[test]
fn a_missing_region_is_for_the_operator() {
    in_environment("without_region", &[]);
    in_environment("with_region", &[("AWS_REGION", "us-east-1")]);
}

#[tokio::test]
#[ignore = "run in an environment of its own"]
async fn without_region() {
    let error = windlass_brokers::open("sqs:").await.unwrap_err();
    assert!(
        matches!(error, BrokerError::Config { .. }) && error.to_string().contains("AWS_REGION"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "run in an environment of its own"]
async fn with_region() {
    windlass_brokers::open("sqs:").await.unwrap();
}

/// Secrets from the environment stay there.
#[test]
fn secrets_are_not_shown() {
    in_environment("with_secrets", &KEYS);
}

#[tokio::test]
#[ignore = "run in an environment of its own"]
async fn with_secrets() {
    let broker = open(server(refusal(403, "SignatureDoesNotMatch")).await).await;
    let subscription = broker.subscribe(&[lane()], 1, Priorities::Weighted).await;
    for error in errors(&*broker).await {
        let text = format!("{error} {error:?} {broker:?} {subscription:?}");
        assert!(!text.contains("s3cret") && !text.contains("t0ken"), "{text}");
    }
}
