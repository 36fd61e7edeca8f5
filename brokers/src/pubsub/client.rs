use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::publisher_client::PublisherClient;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::subscriber_client::SubscriberClient;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::{
    AcknowledgeRequest, DeleteSubscriptionRequest, DeleteTopicRequest, GetSubscriptionRequest,
    ListTopicsRequest, ModifyAckDeadlineRequest, PublishRequest, PubsubMessage, PullRequest, PullResponse,
    ReceivedMessage, Subscription, Topic,
};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::DEADLINE;
use super::address::Address;
use super::login::Login;
use super::problem::Problem;

/// How long a pull may wait for messages. The service answers before that, with none.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes, and more than any answer has.
const LARGEST: usize = 64 << 20;

/// The calls that the driver makes, each with a login and a deadline.
pub(super) struct Client {
    pub(super) address: Address,
    login: Login,
    /// For all calls but pulls.
    line: Line,
}

/// A connection, made when it is first needed, and again after it was lost.
pub(super) struct Line {
    endpoint: Endpoint,
    /// Counted, so that one that hangs is given up once.
    current: Mutex<(u64, Channel)>,
}

impl Client {
    /// To be called within a Tokio runtime.
    pub(super) fn new(address: Address) -> Result<Self, Problem> {
        let login = if address.secure { Login::google()? } else { Login::None };
        let line = Line::new(&address);
        Ok(Self { address, login, line })
    }

    pub(super) async fn create_topic(&self, name: String) -> Result<(), Problem> {
        let route = format!("name={name}");
        let topic = Topic { name, ..Topic::default() };
        let call =
            |channel, request| async move { PublisherClient::new(channel).create_topic(request).await };
        self.call(&self.line, DEADLINE, &route, topic, call).await.map(drop)
    }

    pub(super) async fn delete_topic(&self, topic: String) -> Result<(), Problem> {
        let route = format!("topic={topic}");
        let request = DeleteTopicRequest { topic };
        let call =
            |channel, request| async move { PublisherClient::new(channel).delete_topic(request).await };
        self.call(&self.line, DEADLINE, &route, request, call).await.map(drop)
    }

    /// Asks for one topic's name: to know that it answers.
    pub(super) async fn list_topics(&self, project: String) -> Result<(), Problem> {
        let route = format!("project={project}");
        let request = ListTopicsRequest { project, page_size: 1, ..ListTopicsRequest::default() };
        let call = |channel, request| async move { PublisherClient::new(channel).list_topics(request).await };
        self.call(&self.line, DEADLINE, &route, request, call).await.map(drop)
    }

    pub(super) async fn publish(&self, topic: String, messages: Vec<PubsubMessage>) -> Result<(), Problem> {
        let route = format!("topic={topic}");
        let request = PublishRequest { topic, messages };
        let call = |channel, request| async move { PublisherClient::new(channel).publish(request).await };
        self.call(&self.line, DEADLINE, &route, request, call).await.map(drop)
    }

    pub(super) async fn create_subscription(&self, subscription: Subscription) -> Result<(), Problem> {
        let route = format!("name={}", subscription.name);
        let call = |channel, request| async move {
            SubscriberClient::new(channel).create_subscription(request).await
        };
        self.call(&self.line, DEADLINE, &route, subscription, call).await.map(drop)
    }

    pub(super) async fn get_subscription(&self, subscription: String) -> Result<Subscription, Problem> {
        let route = format!("subscription={subscription}");
        let request = GetSubscriptionRequest { subscription };
        let call =
            |channel, request| async move { SubscriberClient::new(channel).get_subscription(request).await };
        self.call(&self.line, DEADLINE, &route, request, call).await
    }

    pub(super) async fn delete_subscription(&self, subscription: String) -> Result<(), Problem> {
        let route = format!("subscription={subscription}");
        let request = DeleteSubscriptionRequest { subscription };
        let call = |channel, request| async move {
            SubscriberClient::new(channel).delete_subscription(request).await
        };
        self.call(&self.line, DEADLINE, &route, request, call).await.map(drop)
    }

    /// Waits for messages, and answers with none when none came in time.
    pub(super) async fn pull(
        &self,
        line: &Line,
        subscription: String,
        max: usize,
    ) -> Result<Vec<ReceivedMessage>, Problem> {
        let route = format!("subscription={subscription}");
        let max_messages = i32::try_from(max).unwrap_or(i32::MAX);
        let request = PullRequest { subscription, max_messages, ..PullRequest::default() };
        let call = |channel, request| async move {
            let mut client = SubscriberClient::new(channel).max_decoding_message_size(LARGEST);
            match client.pull(request).await {
                Err(status) if status.code() == Code::DeadlineExceeded => {
                    Ok(Response::new(PullResponse::default()))
                }
                answer => answer,
            }
        };
        Ok(self.call(line, PATIENCE, &route, request, call).await?.received_messages)
    }

    pub(super) async fn acknowledge(
        &self,
        subscription: String,
        ack_ids: Vec<String>,
    ) -> Result<(), Problem> {
        let route = format!("subscription={subscription}");
        let request = AcknowledgeRequest { subscription, ack_ids };
        let call =
            |channel, request| async move { SubscriberClient::new(channel).acknowledge(request).await };
        self.call(&self.line, DEADLINE, &route, request, call).await.map(drop)
    }

    /// Gives the messages this many seconds from now until they come again.
    pub(super) async fn modify_ack_deadline(
        &self,
        subscription: String,
        ack_ids: Vec<String>,
        ack_deadline_seconds: i32,
    ) -> Result<(), Problem> {
        let route = format!("subscription={subscription}");
        let request = ModifyAckDeadlineRequest { subscription, ack_ids, ack_deadline_seconds };
        let call = |channel, request| async move {
            SubscriberClient::new(channel).modify_ack_deadline(request).await
        };
        self.call(&self.line, DEADLINE, &route, request, call).await.map(drop)
    }

    async fn call<M, R, F: Future<Output = Result<Response<R>, Status>>>(
        &self,
        line: &Line,
        deadline: Duration,
        route: &str,
        message: M,
        send: impl FnOnce(Channel, Request<M>) -> F,
    ) -> Result<R, Problem> {
        let (number, channel) = line.current().clone();
        let call = async {
            let mut request = Request::from_parts(self.login.headers().await?, Default::default(), message);
            if let Ok(route) = route.replace(':', "%3A").parse() {
                request.metadata_mut().insert("x-goog-request-params", route);
            }
            let answer = send(channel, request).await;
            answer.map(Response::into_inner).map_err(|status| Problem::of(&status, &self.address))
        };
        match timeout(deadline, call).await {
            Ok(answer) => answer,
            Err(_) => {
                // Perhaps the connection is dead, and the system will not notice for minutes.
                line.give_up(number);
                Err(Problem::Silence(deadline))
            }
        }
    }
}

impl Line {
    pub(super) fn new(address: &Address) -> Self {
        let endpoint = address.endpoint().clone();
        let channel = endpoint.connect_lazy();
        Self { endpoint, current: Mutex::new((0, channel)) }
    }

    /// Uses another connection from now on, unless that is so already.
    fn give_up(&self, number: u64) {
        let mut current = self.current();
        if current.0 == number {
            *current = (number + 1, self.endpoint.connect_lazy());
        }
    }

    /// The lock is never held across an await.
    fn current(&self) -> MutexGuard<'_, (u64, Channel)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
