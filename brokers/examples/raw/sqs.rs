use std::time::Instant;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry};
use futures::future::try_join;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::Result;

/// Calls of each sort under way at once, as many as keep an emulator on one machine busy.
const CALLS: usize = 16;

pub(crate) async fn run(url: &str, lane: &str, payloads: &[Vec<u8>]) -> Result<f64> {
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
    let made = client.create_queue().queue_name(lane.replace('.', "_")).send().await?;
    let queue = made.queue_url().ok_or("no queue URL")?;

    let start = Instant::now();
    let publish =
        futures::stream::iter(payloads.chunks(10)).map(Ok).try_for_each_concurrent(CALLS, async |ten| {
            let mut call = client.send_message_batch().queue_url(queue);
            for (number, payload) in ten.iter().enumerate() {
                let body = aws_smithy_types::base64::encode(payload);
                let entry = SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(body);
                call = call.entries(entry.build()?);
            }
            let answer = call.send().await?;
            if answer.failed().is_empty() { Result::Ok(()) } else { Err("not all were taken".into()) }
        });
    let found = std::sync::atomic::AtomicUsize::new(0);
    let takers = (0..CALLS).map(async |_| {
        while found.load(std::sync::atomic::Ordering::Relaxed) < payloads.len() {
            let receive = client.receive_message().queue_url(queue).max_number_of_messages(10);
            let messages = receive.wait_time_seconds(1).send().await?.messages.unwrap_or_default();
            if messages.is_empty() {
                continue;
            }
            let mut call = client.delete_message_batch().queue_url(queue);
            for (number, message) in messages.iter().enumerate() {
                let receipt = message.receipt_handle().unwrap_or_default();
                let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
                call = call.entries(entry.receipt_handle(receipt).build()?);
            }
            call.send().await?;
            found.fetch_add(messages.len(), std::sync::atomic::Ordering::Relaxed);
        }
        Result::Ok(())
    });
    try_join(publish, futures::future::try_join_all(takers)).await?;
    let took = start.elapsed().as_secs_f64();
    client.delete_queue().queue_url(queue).send().await?;
    Ok(took)
}
