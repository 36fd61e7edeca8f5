//! What the client does beside single jobs, as over HTTP.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use windlass_client::ClientError;
use windlass_core::{Job, JobId, JobTemplate, Limit, Schedule, ScheduleDefinition};

use crate::support::Api;

#[derive(Serialize, Deserialize)]
struct Mail(u32);

impl Job for Mail {
    const KIND: &'static str = "mail";
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_are_enqueued_each_with_its_answer() {
    let api = Api::new().await;
    let jobs = (0..2_500).map(|number| {
        let job = api.client.enqueue(Mail(number));
        // One that is another under a key, and so is refused.
        if number % 1_000 == 7 { job.idempotency_key("k") } else { job }
    });
    let answers = api.client.enqueue_all(jobs).await;
    assert_eq!(answers.len(), 2_500);
    let refused: Vec<usize> =
        answers.iter().enumerate().filter(|(_, answer)| answer.is_err()).map(|(at, _)| at).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().all(|at| at % 1_000 == 7 && matches!(answers[*at], Err(ClientError::KeyReused))));
    let ids: BTreeSet<JobId> = answers.into_iter().flatten().collect();
    assert_eq!((ids.len(), api.jobs().await), (2_498, 2_498));
}

#[tokio::test]
async fn what_is_the_fleets_is_said_and_seen() {
    let api = Api::new().await;
    let client = &api.client;
    client.ping().await.unwrap();
    assert_eq!(client.kinds().await.unwrap()[0].kind.as_str(), "mail");
    assert_eq!(client.workers(None, 10).await.unwrap()[0].label, "w1");
    let queue = "letters".parse().unwrap();
    client.pause_queue(&queue).await.unwrap();
    client.limit_queue(&queue, Limit::concurrent(2), Some(10)).await.unwrap();
    let said = client.queues().await.unwrap().pop().unwrap();
    assert_eq!(
        (said.name.as_str(), said.paused, said.limit.max_running, said.window),
        ("letters", true, Some(2), Some(10))
    );
    client.drain_queue(&queue).await.unwrap();
    client.resume_queue(&queue).await.unwrap();
    let said = client.queues().await.unwrap().pop().unwrap();
    assert_eq!((said.paused, said.draining), (false, false));
    assert!(client.tally().await.unwrap().complete);
    let limit = "mails".parse().unwrap();
    client.set_limit(&limit, Limit::concurrent(3)).await.unwrap();
    assert_eq!(client.limits().await.unwrap()[0].limit, Limit::concurrent(3));
    assert!(client.remove_limit(&limit).await.unwrap());
    assert!(!client.remove_limit(&limit).await.unwrap());

    let name = "hourly".parse().unwrap();
    let payload = serde_json::value::RawValue::from_string("1".into()).unwrap();
    let schedule = Schedule::every(std::time::Duration::from_secs(3600)).unwrap();
    let job = JobTemplate::new("mail".parse().unwrap(), payload);
    let acme = client.on_behalf_of(Some("acme".parse().unwrap()));
    acme.put_schedule(&ScheduleDefinition { name, schedule, job }, None).await.unwrap();
    let name = "hourly".parse().unwrap();
    let kept = client.schedule(&name).await.unwrap().unwrap();
    assert_eq!(kept.definition.job.gating.tenant.unwrap().as_str(), "acme");
    assert!(client.enable_schedule(&name, false).await.unwrap());
    assert!(!client.schedule(&name).await.unwrap().unwrap().enabled);
    assert!(client.delete_schedule(&name).await.unwrap());
    assert!(client.schedule(&name).await.unwrap().is_none());
    assert!(!client.enable_schedule(&name, true).await.unwrap());
}
