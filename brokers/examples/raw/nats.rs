use async_nats::{Client, ConnectOptions, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{join_all, try_join};
use serde_json::json;

use crate::{BATCH, Result, WINDOW, in_batches, rate};

/// JetStream by its plain subjects, which is what any client library sends.
pub(crate) async fn run(url: &str, stream: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    let url: url::Url = url.parse()?;
    let address = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(4222));
    let login = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
    let client = ConnectOptions::new().user_and_password(login.0, login.1).connect(address).await?;
    let subject = format!("{stream}.messages");
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

    let mut pulls = Pulls::new(&client, stream).await?;
    let rate = rate(payloads, async |payloads| {
        let publish = in_batches(payloads, BATCH, WINDOW / BATCH, async |batch| {
            let sent = batch.iter().map(|payload| client.request(subject.clone(), payload.clone().into()));
            for answer in join_all(sent).await {
                let answer: serde_json::Value = serde_json::from_slice(&answer?.payload)?;
                if let Some(error) = answer.get("error") {
                    return Err(error.to_string().into());
                }
            }
            Ok(())
        });
        try_join(publish, pulls.consume(payloads.len())).await.map(drop)
    });
    let rate = rate.await?;
    call(format!("$JS.API.STREAM.DELETE.{stream}"), json!({})).await?;
    Ok(rate)
}

/// Requests for messages, all answered to one inbox.
struct Pulls<'a> {
    client: &'a Client,
    replies: Subscriber,
    inbox: String,
    next: String,
    /// Messages asked for and not yet come.
    asked: usize,
}

impl<'a> Pulls<'a> {
    async fn new(client: &'a Client, stream: &str) -> Result<Self> {
        let inbox = client.new_inbox();
        let replies = client.subscribe(inbox.clone()).await?;
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.bare");
        Ok(Self { client, replies, inbox, next, asked: 0 })
    }

    async fn consume(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            // Asked for ahead, as much as may be unacknowledged.
            while self.asked + BATCH <= WINDOW {
                let ask = json!({"batch": BATCH, "expires": 60_000_000_000u64}).to_string();
                self.client.publish_with_reply(self.next.clone(), self.inbox.clone(), ask.into()).await?;
                self.asked += BATCH;
            }
            let Some(message) = self.replies.next().await else {
                return Err("the subscription has ended".into());
            };
            let Some(reply) = message.reply else {
                return Err(format!("a status instead of a message: {:?}", message.status).into());
            };
            self.client.publish(reply, Bytes::from_static(b"+ACK")).await?;
            self.asked -= 1;
        }
        self.client.flush().await?;
        Ok(())
    }
}
