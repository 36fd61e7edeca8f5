//! Deliveries to a real receiver, on a clock that the test moves.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use windlass_client::{Outside, WebhookSecret};
use windlass_core::{
    DELIVERY_ATTEMPTS, DELIVERY_KIND, DELIVERY_QUEUE, DeliveryRecord, Job, NewJob, State as JobState,
    WebhookFilter, WebhookId,
};
use windlass_worker::{JobError, WebhookSender, testing::TestSystem};

use crate::receiver::Receiver;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    pages: u32,
}

impl Job for Report {
    const KIND: &'static str = "report";
}

async fn report(job: Report) -> Result<u32, JobError> {
    match job.pages {
        0 => Err(JobError::discard("nothing to report")),
        pages => Ok(pages * 2),
    }
}

/// Where the receivers of these tests are.
fn here() -> Outside {
    Outside { allow: vec!["127.0.0.1".parse().unwrap()], allow_http: true }
}

async fn system_with(sender: WebhookSender) -> TestSystem {
    TestSystem::start(|worker| worker.handle(report).deliver_webhooks(sender)).await.unwrap()
}

async fn system() -> TestSystem {
    system_with(WebhookSender::new(here()).unwrap()).await
}

async fn webhook(system: &TestSystem, url: String) -> (WebhookId, WebhookSecret) {
    let created = system.client().create_webhook(None, url, WebhookFilter::default(), true).await;
    created.unwrap().unwrap()
}

async fn log(system: &TestSystem, id: WebhookId) -> Vec<DeliveryRecord> {
    system.client().store().webhooks().deliveries(id, None, 100).await.unwrap()
}

/// The only delivery: where its job stands, what was answered, and what was wrong.
async fn outcome(system: &TestSystem, id: WebhookId) -> (JobState, Option<u16>, String) {
    let log = log(system, id).await;
    let [delivery] = log.as_slice() else { panic!("{log:?}") };
    let last = delivery.last.clone().unwrap();
    (delivery.state.unwrap(), last.status, last.error.unwrap_or_default())
}

#[tokio::test]
async fn the_end_of_a_job_is_told_and_signed() {
    let (system, receiver) = (system().await, Receiver::start(&[204], "").await);
    let (id, secret) = webhook(&system, receiver.url()).await;
    let job = system.client().enqueue(Report { pages: 3 }).label("for", "alice").await.unwrap();
    let dead = system.client().enqueue(Report { pages: 0 }).await.unwrap();
    system.drain().await.unwrap();

    let received = receiver.received();
    assert_eq!(received.len(), 2);
    for request in &received {
        let timestamp = request.header("webhook-timestamp").parse().unwrap();
        let signed = secret.sign(request.header("webhook-id"), timestamp, request.body.as_bytes());
        assert_eq!(request.header("webhook-signature"), signed);
        assert!((chrono::Utc::now().timestamp() - timestamp).abs() < 60);
        assert_eq!(request.header("content-type"), "application/json");
    }
    let of = |id: windlass_core::JobId| {
        let bodies = received.iter().map(crate::receiver::Received::json);
        bodies.into_iter().find(|body| body["data"]["id"] == json!(id)).unwrap()
    };
    let body = of(job);
    assert_eq!(body["type"], "job.succeeded");
    let data = &body["data"];
    assert_eq!(
        (&data["kind"], &data["state"], &data["result"]),
        (&json!("report"), &json!("succeeded"), &json!(6))
    );
    assert_eq!(data["labels"], json!({"for": "alice"}));
    assert_eq!(data["finished_at"], body["timestamp"]);
    assert!(data.get("payload").is_none());
    let body = of(dead);
    assert_eq!((&body["type"], &body["data"]["state"]), (&json!("job.dead"), &json!("dead")));
    assert_eq!(body["data"]["errors"][0]["message"], "nothing to report");
    for delivery in log(&system, id).await {
        assert_eq!(delivery.state, Some(JobState::Succeeded));
        assert_eq!(delivery.last.unwrap().status, Some(204));
    }
}

#[tokio::test]
async fn while_a_secret_is_replaced_both_sign() {
    let (system, receiver) = (system().await, Receiver::start(&[200], "").await);
    let (id, old) = webhook(&system, receiver.url()).await;
    let new = system.client().rotate_webhook(id, 60 * SECOND).await.unwrap().unwrap();
    let told = async || {
        let test = system.client().test_webhook(id).await.unwrap().unwrap();
        system.drain().await.unwrap();
        let request = receiver.received().pop().unwrap();
        assert_eq!(request.header("webhook-id"), test.to_string());
        assert_eq!(request.json()["type"], "webhook.test");
        let timestamp = request.header("webhook-timestamp").parse().unwrap();
        let signed = [&new, &old].map(|s| s.sign(&test.to_string(), timestamp, request.body.as_bytes()));
        (request.header("webhook-signature").to_owned(), signed)
    };
    let (signatures, [by_new, by_old]) = told().await;
    assert_eq!(signatures, format!("{by_new} {by_old}"));
    system.advance(60 * SECOND).await.unwrap();
    let (signatures, [by_new, _]) = told().await;
    assert_eq!(signatures, by_new);
}

#[tokio::test]
async fn failures_are_repeated_with_longer_and_longer_waits() {
    let (system, receiver) = (system().await, Receiver::start(&[500, 404, 200], "").await);
    let (id, _) = webhook(&system, receiver.url()).await;
    system.client().enqueue(Report { pages: 1 }).await.unwrap();
    system.drain().await.unwrap();
    assert_eq!(receiver.received().len(), 1);
    let (state, status, error) = outcome(&system, id).await;
    assert_eq!((state, status), (JobState::Retrying, Some(500)));
    assert_eq!(error, "the receiver answered 500");
    assert_eq!(log(&system, id).await[0].next_at, Some(system.now() + chrono::TimeDelta::seconds(5)));
    system.advance(4 * SECOND).await.unwrap();
    assert_eq!(receiver.received().len(), 1);
    system.advance(SECOND).await.unwrap();
    assert_eq!(receiver.received().len(), 2);
    system.advance(299 * SECOND).await.unwrap();
    assert_eq!(receiver.received().len(), 2);
    system.advance(SECOND).await.unwrap();
    assert_eq!(receiver.received().len(), 3);
    assert_eq!(outcome(&system, id).await, (JobState::Succeeded, Some(200), String::new()));
    let ids: Vec<String> = receiver.received().iter().map(|r| r.header("webhook-id").to_owned()).collect();
    assert_eq!(ids, [&*ids[0]; 3], "so that receivers can tell repeats");
    assert_eq!(log(&system, id).await[0].id.to_string(), ids[0]);
}

#[tokio::test]
async fn a_delivery_is_given_up_in_the_end_and_may_be_retried() {
    let mut answers = vec![503; DELIVERY_ATTEMPTS as usize];
    answers.push(200);
    let (system, receiver) = (system().await, Receiver::start(&answers, "").await);
    let (id, _) = webhook(&system, receiver.url()).await;
    system.client().enqueue(Report { pages: 1 }).await.unwrap();
    system.advance(Duration::from_secs(7 * 86_400)).await.unwrap();
    assert_eq!(receiver.received().len(), DELIVERY_ATTEMPTS as usize);
    let (state, status, _) = outcome(&system, id).await;
    assert_eq!((state, status), (JobState::Dead, Some(503)));
    let delivery = log(&system, id).await[0].id;
    system.client().retry(&[delivery], &[JobState::Dead]).await.unwrap();
    system.drain().await.unwrap();
    assert_eq!(outcome(&system, id).await, (JobState::Succeeded, Some(200), String::new()));
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_told_nothing_more() {
    let (system, receiver) = (system().await, Receiver::start(&[410], "").await);
    let (id, _) = webhook(&system, receiver.url()).await;
    for _ in 0..2 {
        system.client().enqueue(Report { pages: 1 }).await.unwrap();
        system.drain().await.unwrap();
    }
    assert_eq!(receiver.received().len(), 1);
    let (state, status, error) = outcome(&system, id).await;
    assert_eq!((state, status), (JobState::Dead, Some(410)));
    assert!(error.contains("disabled"), "{error}");
    let webhook = system.client().store().webhooks().webhook(id).await.unwrap().unwrap();
    assert!(!webhook.enabled);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (system, target) = (system().await, Receiver::start(&[200], "").await);
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}\r\n", target.url());
        let receiver = Receiver::start(&[status], &location).await;
        let (id, _) = webhook(&system, receiver.url()).await;
        system.client().test_webhook(id).await.unwrap();
        system.drain().await.unwrap();
        assert_eq!(receiver.received().len(), 1);
        let (state, answered, error) = outcome(&system, id).await;
        assert_eq!((state, answered), (JobState::Retrying, Some(status)));
        assert!(error.contains("redirect"), "{error}");
    }
    assert_eq!(target.received().len(), 0);
}

/// A sender to whose resolver the host's addresses are these, one list after the other; and how often it was asked.
fn resolving(outside: Outside, answers: Vec<Vec<&'static str>>) -> (WebhookSender, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let sender = WebhookSender::resolving(outside, move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let answer = answers.get(number).or(answers.last()).cloned().unwrap_or_default();
        let addresses: Vec<IpAddr> = answer.iter().map(|address| address.parse().unwrap()).collect();
        async move { Ok(addresses) }.boxed()
    });
    (sender.unwrap(), asked)
}

#[tokio::test]
async fn names_that_lead_inside_are_refused() {
    let receiver = Receiver::start(&[200], "").await;
    let outside = || Outside { allow: Vec::new(), allow_http: true };
    for (addresses, why) in [
        (vec!["127.0.0.1"], "this machine"),
        (vec!["10.0.0.1"], "a private network"),
        // One of them is enough.
        (vec!["93.184.216.34", "169.254.169.254"], "a link-local address"),
        (vec!["::ffff:127.0.0.1"], "an IPv4 address within an IPv6 one"),
        (vec![], "has no address"),
    ] {
        let (sender, _) = resolving(outside(), vec![addresses]);
        let system = system_with(sender).await;
        let (id, _) = webhook(&system, format!("http://example.com:{}/", receiver.address.port())).await;
        system.client().test_webhook(id).await.unwrap();
        system.drain().await.unwrap();
        let (state, status, error) = outcome(&system, id).await;
        assert_eq!((state, status), (JobState::Retrying, None));
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("169.254") && !error.contains("10.0"), "it shows inner addresses: {error}");
    }
    // An address in the place of a name is never resolved, and will not change.
    let (sender, asked) = resolving(outside(), vec![vec!["93.184.216.34"]]);
    let system = system_with(sender).await;
    let (id, _) = webhook(&system, receiver.url()).await;
    system.client().test_webhook(id).await.unwrap();
    system.drain().await.unwrap();
    let (state, _, error) = outcome(&system, id).await;
    assert_eq!(state, JobState::Dead);
    assert!(error.contains("this machine"), "{error}");
    assert_eq!((asked.load(Ordering::SeqCst), receiver.received().len()), (0, 0));
}

#[tokio::test]
async fn a_second_answer_of_the_resolver_leads_nowhere_else() {
    let receiver = Receiver::start(&[200], "").await;
    // As if the receiver's address were public, and the host's name led inside from the second question on.
    let (sender, asked) = resolving(here(), vec![vec!["127.0.0.1"], vec!["127.0.0.2"]]);
    let system = system_with(sender).await;
    let (id, _) = webhook(&system, format!("http://example.com:{}/", receiver.address.port())).await;
    system.client().test_webhook(id).await.unwrap();
    system.drain().await.unwrap();
    assert_eq!(outcome(&system, id).await, (JobState::Succeeded, Some(200), String::new()));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the address that was checked is the one connected to");
    assert_eq!(receiver.received().len(), 1);

    system.client().test_webhook(id).await.unwrap();
    system.drain().await.unwrap();
    let delivery = log(&system, id).await.remove(0);
    assert!(delivery.last.unwrap().error.unwrap().contains("this machine"));
    assert_eq!((asked.load(Ordering::SeqCst), receiver.received().len()), (2, 1));
}

#[tokio::test]
async fn only_what_the_store_made_is_delivered() {
    let (system, receiver) = (system().await, Receiver::start(&[200], "").await);
    let (id, _) = webhook(&system, receiver.url()).await;
    let client = system.client();
    let job = client.enqueue(Report { pages: 1 }).await.unwrap();
    system.drain().await.unwrap();
    assert_eq!(receiver.received().len(), 1);

    // Someone who may enqueue makes up a delivery of another's job.
    let payload = json!({"webhook": id, "job": job, "event": "job.dead"});
    let payload = serde_json::value::to_raw_value(&payload).unwrap();
    let mut forged = NewJob::new(DELIVERY_KIND.parse().unwrap(), payload);
    forged.queue = DELIVERY_QUEUE.parse().unwrap();
    let forged_id = forged.id;
    client.accept(forged).await.unwrap();
    system.drain().await.unwrap();
    assert_eq!(client.get(forged_id).await.unwrap().unwrap().state, JobState::Dead);

    // What is still to be told when a webhook is deleted or disabled is not told.
    let webhooks = client.store().webhooks();
    let test = client.test_webhook(id).await.unwrap().unwrap();
    webhooks.enable_webhook(id, false).await.unwrap();
    system.drain().await.unwrap();
    let disabled = client.get(test).await.unwrap().unwrap();
    assert!(matches!(disabled.state, JobState::Dead | JobState::Succeeded));
    let told = receiver.received().len();
    let late = client.test_webhook(id).await.unwrap().unwrap();
    webhooks.delete_webhook(id).await.unwrap();
    system.drain().await.unwrap();
    let deleted = client.get(late).await.unwrap().unwrap();
    assert_eq!(deleted.state, JobState::Dead);
    assert_eq!(receiver.received().len(), told);
}
