use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry};
use futures::future::try_join;

use crate::{Result, Takers, in_batches, rate};

/// Calls of each sort under way at once, as many as keep an emulator on one machine busy.
const CALLS: usize = 16;

pub(crate) async fn run(url: &str, name: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    let parameter = |name: &str| {
        let (_, parameters) = url.split_once('?')?;
        parameters.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let region = url.trim_start_matches("sqs://").split('?').next().unwrap_or_default().to_owned();
    let http = aws_smithy_http_client::Builder::new().build_http();
    let mut loader = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .http_client(http)
        .region(aws_config::Region::new(region))
        .test_credentials();
    if let Some(endpoint) = parameter("endpoint") {
        loader = loader.endpoint_url(endpoint);
    }
    let client = Client::new(&loader.load().await);
    let made = client.create_queue().queue_name(name).send().await?;
    let queue = made.queue_url().ok_or("no queue URL")?;

    let taker = (client.clone(), queue.to_owned());
    let mut takers = Takers::start(CALLS, move || take(taker.clone()));
    let rate = rate(payloads, async |payloads| {
        let publish = in_batches(payloads, 10, CALLS, async |ten| {
            let mut call = client.send_message_batch().queue_url(queue);
            for (number, payload) in ten.iter().enumerate() {
                let body = aws_smithy_types::base64::encode(payload);
                let entry = SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(body);
                call = call.entries(entry.build()?);
            }
            let answer = call.send().await?;
            if answer.failed().is_empty() { Ok(()) } else { Err("not all were taken".into()) }
        });
        try_join(publish, takers.consume(payloads.len())).await.map(drop)
    });
    let rate = rate.await?;
    client.delete_queue().queue_url(queue).send().await?;
    Ok(rate)
}

async fn take((client, queue): (Client, String)) -> Result<usize> {
    let receive = client.receive_message().queue_url(&queue).max_number_of_messages(10);
    let messages = receive.wait_time_seconds(1).send().await?.messages.unwrap_or_default();
    if messages.is_empty() {
        return Ok(0);
    }
    let mut call = client.delete_message_batch().queue_url(queue);
    for (number, message) in messages.iter().enumerate() {
        let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
        call = call.entries(entry.receipt_handle(message.receipt_handle().unwrap_or_default()).build()?);
    }
    let answer = call.send().await?;
    if answer.failed().is_empty() { Ok(messages.len()) } else { Err("not all were deleted".into()) }
}
