use futures::future::try_join;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::publisher_client::PublisherClient;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::subscriber_client::SubscriberClient;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::{
    AcknowledgeRequest, DeleteSubscriptionRequest, DeleteTopicRequest, PublishRequest, PubsubMessage,
    PullRequest, Subscription, Topic,
};
use tonic::transport::{Channel, Endpoint};

use crate::{BATCH, Result, Takers, WINDOW, in_batches, rate};

/// Unary calls, for an emulator: `pubsub://project?endpoint=host:port`.
pub(crate) async fn run(url: &str, name: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    let url: url::Url = url.parse()?;
    let project = url.host_str().unwrap_or_default();
    let endpoint = url.query_pairs().find(|(name, _)| name == "endpoint").ok_or("no endpoint in the URL")?.1;
    let channel = Endpoint::from_shared(format!("http://{endpoint}"))?.connect().await?;
    let publisher = PublisherClient::new(channel.clone());
    let subscriber = SubscriberClient::new(channel);
    let topic = format!("projects/{project}/topics/{name}");
    let subscription = format!("projects/{project}/subscriptions/{name}");
    publisher.clone().create_topic(Topic { name: topic.clone(), ..Topic::default() }).await?;
    let create = Subscription {
        name: subscription.clone(),
        topic: topic.clone(),
        ack_deadline_seconds: 30,
        ..Subscription::default()
    };
    subscriber.clone().create_subscription(create).await?;

    let taker = (subscriber.clone(), subscription.clone());
    let mut takers = Takers::start(WINDOW / BATCH, move || take(taker.clone()));
    let rate = rate(payloads, async |payloads| {
        let publish = in_batches(payloads, BATCH, WINDOW / BATCH, async |batch| {
            let message = |data: &Vec<u8>| PubsubMessage { data: data.clone(), ..PubsubMessage::default() };
            let messages = batch.iter().map(message).collect();
            publisher.clone().publish(PublishRequest { topic: topic.clone(), messages }).await?;
            Ok(())
        });
        try_join(publish, takers.consume(payloads.len())).await.map(drop)
    });
    let rate = rate.await?;
    subscriber.clone().delete_subscription(DeleteSubscriptionRequest { subscription }).await?;
    publisher.clone().delete_topic(DeleteTopicRequest { topic }).await?;
    Ok(rate)
}

async fn take((mut subscriber, subscription): (SubscriberClient<Channel>, String)) -> Result<usize> {
    let pull = PullRequest {
        subscription: subscription.clone(),
        max_messages: BATCH as i32,
        ..PullRequest::default()
    };
    let messages = subscriber.pull(pull).await?.into_inner().received_messages;
    let count = messages.len();
    if count > 0 {
        let ack_ids = messages.into_iter().map(|message| message.ack_id).collect();
        subscriber.acknowledge(AcknowledgeRequest { subscription, ack_ids }).await?;
    }
    Ok(count)
}
