use std::time::Duration;

use chrono::TimeDelta;
use windlass_core::{
    After, DELIVERIES_KEPT, DELIVERY_ATTEMPTS, DELIVERY_KIND, DELIVERY_QUEUE, DeliveryAttempt,
    DeliveryRecord, JobId, MOST_WEBHOOKS, Needs, NewJob, NewWebhook, NewWorkflow, Outcome, QueueName, State,
    Step, StoredSecret, WebhookEvent, WebhookFilter, WebhookId, WorkflowLimits,
};

use super::support::{
    Case, HOUR, Running, Timed, announced, dead, ids, job, jobs, of_tenant, retry, set, succeeded,
};

fn webhook() -> NewWebhook {
    NewWebhook {
        id: WebhookId::new(),
        tenant: None,
        url: "https://example.com/hook?a='b'".into(),
        filter: WebhookFilter::default(),
        enabled: true,
        secret: StoredSecret::new("\"one\""),
    }
}

async fn create(case: &Case, webhook: NewWebhook) -> WebhookId {
    assert!(case.store.webhooks().create_webhook(&webhook).await.unwrap());
    webhook.id
}

async fn settle(case: &Case) {
    while case.store.follow_up(10).await.unwrap() > 0 {}
}

/// What a webhook has been told of each job, oldest first.
async fn told(case: &Case, id: WebhookId) -> Vec<(Option<JobId>, WebhookEvent)> {
    let mut log = log(case, id).await;
    log.reverse();
    log.sort_by_key(|delivery| delivery.job);
    log.iter().map(|delivery| (delivery.job, delivery.event)).collect()
}

async fn log(case: &Case, id: WebhookId) -> Vec<DeliveryRecord> {
    case.other.webhooks().deliveries(id, None, 1000).await.unwrap()
}

async fn run(case: &Case, id: JobId) -> Running {
    let worker = case.worker().await;
    case.run_jobs(worker, &[id]).await[0]
}

/// The end of a job makes one job for each webhook, which is announced; its own end makes none.
pub async fn deliveries_are_noted_once(case: Case) {
    let (one, other) = (create(&case, webhook()).await, create(&case, webhook()).await);
    let silent = create(&case, NewWebhook { enabled: false, ..webhook() }).await;
    let all = case.running(3).await;
    for (at, job) in all.iter().enumerate() {
        // A pause is no end.
        let again = NewJob { id: JobId::new(), ..super::support::job() };
        case.insert(std::slice::from_ref(&again)).await;
        let paused = run(&case, again.id).await;
        assert!(case.finish(paused, retry()).await);
        assert!(case.finish(*job, if at == 0 { dead() } else { succeeded() }).await);
    }
    assert!(case.store.follow_up(1000).await.unwrap() > 0);
    settle(&case).await;
    let expected: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(at, job)| (Some(job.id), if at == 0 { WebhookEvent::Dead } else { WebhookEvent::Succeeded }))
        .collect();
    for id in [one, other] {
        assert_eq!(told(&case, id).await, expected);
    }
    assert_eq!(told(&case, silent).await, []);

    let log = log(&case, one).await;
    let announced = announced(&case.take_all().await);
    for delivery in &log {
        assert!(announced.contains(&delivery.id));
        let job = case.get(delivery.id).await;
        assert_eq!((job.kind.as_str(), job.queue.as_str()), (DELIVERY_KIND, DELIVERY_QUEUE));
        assert_eq!((job.max_attempts, job.state), (DELIVERY_ATTEMPTS, State::Queued));
        assert_eq!(delivery.state, Some(State::Queued));
        assert_eq!((delivery.webhook, &delivery.last, delivery.attempted_at), (one, &None, None));
        let about = case.get(delivery.job.unwrap()).await;
        assert_eq!(Some(delivery.at), about.finished_at);
        assert_eq!(case.store.webhooks().delivery(delivery.id).await.unwrap().as_ref(), Some(delivery));
        let running = run(&case, delivery.id).await;
        assert!(case.finish(running, succeeded()).await);
    }
    assert_eq!(case.store.follow_up(1000).await.unwrap(), 0, "or it would never end");
    assert_eq!(case.other.webhooks().delivery(JobId::new()).await.unwrap(), None);

    // In pages.
    let webhooks = case.store.webhooks();
    let page = webhooks.deliveries(one, None, 2).await.unwrap();
    let rest = webhooks.deliveries(one, Some(page[1].id), 2).await.unwrap();
    assert_eq!(page.iter().chain(&rest).map(|d| d.id).collect::<Vec<_>>(), [log[0].id, log[1].id, log[2].id]);
}

/// Without a webhook, ends of plain jobs leave nothing behind; one that comes later hears of later jobs.
pub async fn without_webhooks_nothing_is_noted(case: Case) {
    let before = case.running(2).await;
    let id = create(&case, NewWebhook { enabled: false, ..webhook() }).await;
    let while_off = case.running(1).await;
    for job in before.iter().chain(&while_off) {
        assert!(case.finish(*job, succeeded()).await);
    }
    assert_eq!(case.store.follow_up(10).await.unwrap(), 0);
    assert!(case.store.webhooks().enable_webhook(id, true).await.unwrap());
    let after = case.running(1).await;
    assert!(case.finish(after[0], succeeded()).await);
    assert_eq!(case.store.follow_up(10).await.unwrap(), 1);
    assert_eq!(told(&case, id).await, [(Some(after[0].id), WebhookEvent::Succeeded)]);
    assert!(case.other.webhooks().delete_webhook(id).await.unwrap());
    let last = case.running(1).await;
    assert!(case.finish(last[0], succeeded()).await);
    assert_eq!(case.store.follow_up(10).await.unwrap(), 0);
}

/// Whatever ends a job is told: its handler, a cancellation, a lost worker, its expiry by way of a workflow.
pub async fn every_way_out_is_told(case: Case) {
    let id = create(&case, webhook()).await;
    let [waiting, running, asked, lost] = [0; 4].map(|_| job());
    let rows = [waiting, running, asked, lost];
    case.insert(&rows).await;
    let [waiting, running, asked, lost] = rows.map(|job| job.id);
    case.store.cancel(waiting).await.unwrap();
    let ran = run(&case, running).await;
    assert!(case.finish(ran, succeeded()).await);
    let ran = run(&case, asked).await;
    case.request_cancel(asked).await;
    assert!(case.finish(ran, Outcome::Released).await);
    let gone = case.worker_for(Duration::ZERO).await;
    case.run_jobs(gone, &[lost]).await;
    case.store.rescue(1).await.unwrap();
    let called = case.queued(1).await[0];
    case.store.operations().cancel_many(&[called], &[State::Queued]).await.unwrap();

    // A child is called off with its parent.
    let step = |name: &str, after| Step { name: name.parse().unwrap(), job: job(), after };
    let parent = After::Jobs(vec![("parent".parse().unwrap(), Needs::Succeeded)]);
    let steps = vec![step("parent", After::default()), step("child", parent)];
    let workflow = NewWorkflow::new("test".parse().unwrap(), steps, WorkflowLimits::default()).unwrap();
    let members = ids(workflow.jobs());
    case.store.workflows().insert_workflow(&workflow).await.unwrap();
    case.store.cancel(members[0]).await.unwrap();
    settle(&case).await;

    let mut expected = vec![
        (Some(waiting), WebhookEvent::Cancelled),
        (Some(running), WebhookEvent::Succeeded),
        (Some(asked), WebhookEvent::Cancelled),
        (Some(lost), WebhookEvent::Dead),
        (Some(called), WebhookEvent::Cancelled),
    ];
    expected.extend(members.iter().map(|id| (Some(*id), WebhookEvent::Cancelled)));
    let told = told(&case, id).await;
    expected.sort_by_key(|(job, _)| *job);
    assert_eq!(told, expected);
}

/// A tenant's webhook hears of nobody else's jobs, and its deliveries are the tenant's; one of no tenant hears of all.
pub async fn a_tenant_hears_of_its_own_jobs(case: Case) {
    let tenant = |name: &str| Some(name.parse().unwrap());
    let all = create(&case, webhook()).await;
    let acme = create(&case, NewWebhook { tenant: tenant("acme"), ..webhook() }).await;
    let globex = create(&case, NewWebhook { tenant: tenant("globex"), ..webhook() }).await;
    let rows = [of_tenant("acme", job()), of_tenant("acme", job()), job(), of_tenant("other", job())];
    case.insert(&rows).await;
    for id in ids(&rows) {
        let running = run(&case, id).await;
        assert!(case.finish(running, succeeded()).await);
    }
    settle(&case).await;
    let succeeded = |jobs: &[NewJob]| -> Vec<_> {
        jobs.iter().map(|job| (Some(job.id), WebhookEvent::Succeeded)).collect()
    };
    assert_eq!(told(&case, all).await, succeeded(&rows));
    assert_eq!(told(&case, acme).await, succeeded(&rows[..2]));
    assert_eq!(told(&case, globex).await, []);
    for (webhook, expected) in [(all, None), (acme, tenant("acme"))] {
        let delivery = log(&case, webhook).await[0].id;
        assert_eq!(case.get(delivery).await.gating.tenant, expected);
    }
}

/// A webhook hears of the events, kinds and queues that it names. What nobody hears of leaves nothing behind.
pub async fn a_webhook_hears_of_what_it_names(case: Case) {
    let filter = WebhookFilter {
        events: vec![WebhookEvent::Dead],
        kinds: vec!["email.send".parse().unwrap(), "x".parse().unwrap()],
        queues: vec!["mail".parse().unwrap()],
    };
    let id = create(&case, NewWebhook { filter, ..webhook() }).await;
    let of = |kind: &str, queue: &str| NewJob {
        kind: kind.parse().unwrap(),
        queue: queue.parse().unwrap(),
        ..job()
    };
    let [right, other_end, other_kind, other_queue] = [
        of("email.send", "mail"),
        of("email.send", "mail"),
        of("email", "mail"),
        of("email.send", "default"),
    ];
    let rows = [right, other_end, other_kind, other_queue];
    case.insert(&rows).await;
    for (at, id) in ids(&rows).into_iter().enumerate().rev() {
        let running = run(&case, id).await;
        assert!(case.finish(running, if at == 1 { succeeded() } else { dead() }).await);
        let noted = usize::from(at < 2);
        assert_eq!(case.store.follow_up(10).await.unwrap(), noted, "job {at}");
    }
    assert_eq!(told(&case, id).await, [(Some(rows[0].id), WebhookEvent::Dead)]);
}

/// Each end is told: an operator's retry makes another, and so does a cancellation that no attempt preceded.
pub async fn retried_jobs_are_told_again(case: Case) {
    let id = create(&case, webhook()).await;
    let job = case.running(1).await[0];
    assert!(case.finish(job, dead()).await);
    settle(&case).await;
    for _ in 0..2 {
        let retried = case.store.operations().retry(&[job.id], &State::TERMINAL).await.unwrap();
        assert_eq!(retried, [job.id]);
        case.store.cancel(job.id).await.unwrap();
        settle(&case).await;
    }
    case.store.operations().retry(&[job.id], &State::TERMINAL).await.unwrap();
    let again = run(&case, job.id).await;
    assert!(case.finish(again, succeeded()).await);
    settle(&case).await;
    let expected =
        [WebhookEvent::Dead, WebhookEvent::Cancelled, WebhookEvent::Cancelled, WebhookEvent::Succeeded];
    assert_eq!(told(&case, id).await, expected.map(|event| (Some(job.id), event)));
}

/// However many see to it at once, and whatever is noted twice, an end is told once.
pub async fn deliveries_race_each_other(case: Case) {
    let id = create(&case, webhook()).await;
    let rows = jobs(60);
    case.insert(&rows).await;
    let worker = case.worker().await;
    let first = case.run_jobs(worker, &ids(&rows)).await;
    // A pause leaves a note as an end does: both are found when the job is over.
    for job in &first {
        assert!(case.finish(*job, retry()).await);
    }
    case.store.promote_due(100).await.unwrap();
    for job in case.run_jobs(worker, &ids(&rows)).await {
        assert!(case.finish(job, succeeded()).await);
    }
    let see_to_it = async |store: &dyn windlass_core::Store| while store.follow_up(7).await.unwrap() > 0 {};
    futures::join!(see_to_it(&*case.store), see_to_it(&*case.other), see_to_it(&*case.store));
    let told = told(&case, id).await;
    assert_eq!(told.len(), rows.len());
    assert_eq!(set(told.iter().filter_map(|(job, _)| *job)), set(ids(&rows)));
}

/// What the queue of deliveries does not take is in the log, with the reason.
pub async fn a_draining_queue_takes_no_deliveries(case: Case) {
    let id = create(&case, webhook()).await;
    let queue: QueueName = DELIVERY_QUEUE.parse().unwrap();
    case.store.operations().drain_queue(&queue).await.unwrap();
    let job = case.running(1).await[0];
    assert!(case.finish(job, succeeded()).await);
    settle(&case).await;
    let log = log(&case, id).await;
    let [delivery] = log.as_slice() else { panic!("{log:?}") };
    let error = delivery.last.as_ref().and_then(|last| last.error.clone()).unwrap_or_default();
    assert!(error.contains("drained"), "{delivery:?}");
    assert_eq!(delivery.state, None);
}

/// Webhooks are kept as they were given, on every client; calls may be repeated.
pub async fn webhooks_are_changed(case: Case) {
    let (webhooks, elsewhere) = (case.store.webhooks(), case.other.webhooks());
    let filter = WebhookFilter {
        events: vec![WebhookEvent::Succeeded, WebhookEvent::Dead],
        kinds: vec!["a.b".parse().unwrap()],
        queues: vec!["q".parse().unwrap()],
    };
    let tenant = Some("acme 'ü'".parse().unwrap());
    let new = NewWebhook { filter: filter.clone(), tenant: tenant.clone(), ..webhook() };
    for _ in 0..2 {
        assert!(webhooks.create_webhook(&new).await.unwrap());
    }
    let other = create(&case, webhook()).await;
    let all = elsewhere.all_webhooks().await.unwrap();
    assert_eq!(all.iter().map(|webhook| webhook.id).collect::<Vec<_>>(), [new.id, other]);
    let there = elsewhere.webhook(new.id).await.unwrap().unwrap();
    assert_eq!(all[0], there);
    assert_eq!((&there.url, &there.filter, &there.tenant), (&new.url, &filter, &tenant));
    assert_eq!((there.enabled, &*there.secrets, there.old_until), (true, &[new.secret][..], None));

    let plain = WebhookFilter::default();
    assert!(webhooks.change_webhook(new.id, "https://b", &plain).await.unwrap());
    assert!(webhooks.enable_webhook(new.id, false).await.unwrap());
    let changed = elsewhere.webhook(new.id).await.unwrap().unwrap();
    let expected = windlass_core::WebhookRecord {
        url: "https://b".into(),
        filter: plain.clone(),
        enabled: false,
        ..there
    };
    assert_eq!(changed, expected);

    // A test is a delivery about no job.
    let test = JobId::new();
    for _ in 0..2 {
        assert!(webhooks.test_webhook(new.id, test).await.unwrap());
    }
    assert_eq!(told(&case, new.id).await, [(None, WebhookEvent::Test)]);
    assert_eq!(case.get(test).await.gating.tenant, tenant);
    assert!(announced(&case.take_all().await).contains(&test));

    assert!(elsewhere.delete_webhook(new.id).await.unwrap());
    assert_eq!(webhooks.webhook(new.id).await.unwrap(), None);
    let nobody = new.id;
    assert!(!webhooks.delete_webhook(nobody).await.unwrap());
    assert!(!webhooks.enable_webhook(nobody, true).await.unwrap());
    assert!(!webhooks.change_webhook(nobody, "https://b", &plain).await.unwrap());
    assert!(!webhooks.rotate_webhook(nobody, &StoredSecret::new("\"x\""), HOUR).await.unwrap());
    assert!(!webhooks.test_webhook(nobody, JobId::new()).await.unwrap());
    assert_eq!(webhooks.all_webhooks().await.unwrap().len(), 1);
}

/// A tenant has so many and no more, and does not take them from others.
pub async fn webhooks_are_few(case: Case) {
    let webhooks = case.store.webhooks();
    let of = |tenant: Option<&str>| NewWebhook { tenant: tenant.map(|t| t.parse().unwrap()), ..webhook() };
    let first = of(Some("acme"));
    assert!(webhooks.create_webhook(&first).await.unwrap());
    for _ in 1..MOST_WEBHOOKS {
        assert!(webhooks.create_webhook(&of(Some("acme"))).await.unwrap());
    }
    assert!(!webhooks.create_webhook(&of(Some("acme"))).await.unwrap());
    assert!(webhooks.create_webhook(&first).await.unwrap(), "a repeat");
    assert!(webhooks.create_webhook(&of(Some("globex"))).await.unwrap());
    assert!(webhooks.create_webhook(&of(None)).await.unwrap());
    assert!(webhooks.delete_webhook(first.id).await.unwrap());
    assert!(webhooks.create_webhook(&of(Some("acme"))).await.unwrap());
}

/// The secret before the newest goes on for a while.
pub async fn secrets_of_webhooks_are_rotated(timed: Timed) {
    let Timed { case, clock } = timed;
    let id = create(&case, webhook()).await;
    let webhooks = case.store.webhooks();
    let [two, three] = ["\"two\"", "\"three\""].map(StoredSecret::new);
    let secrets = async || -> Vec<String> {
        let webhook = case.other.webhooks().webhook(id).await.unwrap().unwrap();
        assert_eq!(webhook.old_until.is_some(), webhook.secrets.len() == 2);
        webhook.secrets.iter().map(|secret| secret.expose().to_owned()).collect()
    };
    for _ in 0..2 {
        assert!(webhooks.rotate_webhook(id, &two, HOUR).await.unwrap());
        assert_eq!(secrets().await, ["\"two\"", "\"one\""]);
        clock.advance(HOUR / 2);
    }
    assert_eq!(secrets().await, ["\"two\""]);
    assert!(webhooks.rotate_webhook(id, &three, Duration::ZERO).await.unwrap());
    assert_eq!(secrets().await, ["\"three\""]);
}

/// What an attempt came to is in the log, the newest only, until the log's time is over.
pub async fn the_log_of_deliveries_is_kept(timed: Timed) {
    let Timed { case, clock } = timed;
    // Ids go by the time of this machine.
    clock.set(chrono::Utc::now());
    let id = create(&case, webhook()).await;
    let webhooks = case.store.webhooks();
    let test = JobId::new();
    assert!(webhooks.test_webhook(id, test).await.unwrap());
    let attempts = [
        DeliveryAttempt { attempt: 1, status: None, error: Some("no such host\0".into()) },
        DeliveryAttempt { attempt: 2, status: Some(500), error: Some("it answered 500".into()) },
        DeliveryAttempt { attempt: 3, status: Some(204), error: None },
    ];
    let at = clock.now();
    for attempt in &attempts {
        clock.advance(HOUR);
        webhooks.note_delivery(test, attempt).await.unwrap();
        let delivery = log(&case, id).await.pop().unwrap();
        assert_eq!((delivery.at, delivery.attempted_at), (at, Some(clock.now())));
        let last = delivery.last.unwrap();
        assert_eq!((last.attempt, last.status), (attempt.attempt, attempt.status));
        assert_eq!(last.error.is_some(), attempt.error.is_some());
    }
    webhooks.note_delivery(JobId::new(), &attempts[0]).await.unwrap();
    clock.set(at + TimeDelta::from_std(DELIVERIES_KEPT).unwrap() - TimeDelta::seconds(60));
    case.store.maintain().await.unwrap();
    assert_eq!(log(&case, id).await.len(), 1);
    clock.advance(Duration::from_secs(120));
    case.store.maintain().await.unwrap();
    assert_eq!(log(&case, id).await, []);
}
