use std::time::Instant;

use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{join_all, try_join};
use serde_json::json;

use crate::{BATCH, Result, WINDOW};

/// JetStream by its plain subjects, which is what any client library sends.
pub(crate) async fn run(url: &str, lane: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    let url: url::Url = url.parse()?;
    let address = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(4222));
    let login = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
    let client = ConnectOptions::new().user_and_password(login.0, login.1).connect(address).await?;
    let subject = format!("{lane}.bare");
    let stream = subject.replace('.', "_");
    let call = async |name: String, body: serde_json::Value| -> Result<()> {
        let answer = client.request(name, body.to_string().into()).await?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
        if answer.get("error").is_none() { Ok(()) } else { Err(answer.to_string().into()) }
    };
    let settings =
        json!({"name": stream, "subjects": [subject], "retention": "workqueue", "storage": "file"});
    call(format!("$JS.API.STREAM.CREATE.{stream}"), settings).await?;
    let consumer = json!({"stream_name": stream, "config": {
        "durable_name": "bare", "ack_policy": "explicit", "max_ack_pending": WINDOW
    }});
    call(format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.bare"), consumer).await?;

    let start = Instant::now();
    try_join(publish(&client, &subject, payloads), consume(&client, &stream, payloads.len())).await?;
    let took = start.elapsed().as_secs_f64();
    call(format!("$JS.API.STREAM.DELETE.{stream}"), json!({})).await?;
    Ok(took)
}

async fn publish(client: &Client, subject: &str, payloads: &[Vec<u8>]) -> Result<()> {
    for window in payloads.chunks(WINDOW) {
        let sent = window.iter().map(|payload| client.request(subject.to_owned(), payload.clone().into()));
        for answer in join_all(sent).await {
            answer?;
        }
    }
    Ok(())
}

async fn consume(client: &Client, stream: &str, count: usize) -> Result<()> {
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await?;
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.bare");
    let ask = json!({"batch": BATCH, "expires": 1_000_000_000u64}).to_string();
    let mut found = 0;
    while found < count {
        client.publish_with_reply(next.clone(), inbox.clone(), ask.clone().into()).await?;
        let mut left = BATCH;
        while left > 0 && found < count {
            let Some(message) = replies.next().await else { return Err("the subscription has ended".into()) };
            // A status instead of a message: the request has expired.
            let Some(reply) = message.reply else { break };
            client.publish(reply, Bytes::from_static(b"+ACK")).await?;
            left -= 1;
            found += 1;
        }
    }
    client.flush().await?;
    Ok(())
}
