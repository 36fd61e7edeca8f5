//! Jobs are accepted and told of.

use windlass_proto::v1::{
    DeleteJobRequest, EnqueueRequest, EnqueueStreamRequest, GetJobRequest, GetProgressRequest,
    GetResultRequest, JobState, ListErrorsRequest, ListJobsRequest, ListLogsRequest, ListLogsResponse,
    LogLevel, NewJob,
};

use super::*;

#[tokio::test]
async fn a_job_is_accepted_once_for_a_key_and_told_of() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let message = || EnqueueRequest {
        job: Some(NewJob {
            priority: Some(3),
            labels: [("a".into(), "b".into())].into(),
            ..mail(r#"{"to": "x"}"#)
        }),
    };
    let first = grpc.jobs().enqueue(with("idempotency-key", "order-17", message())).await.unwrap();
    assert!(first.metadata().get("x-request-id").is_some());
    let first = first.into_inner();
    assert!(!first.idempotency_replayed);
    let job = first.job.unwrap();
    assert_eq!(
        (job.state(), job.priority, &*job.queue, job.max_attempts),
        (JobState::Queued, 3, "letters", 8)
    );

    let second =
        grpc.jobs().enqueue(with("idempotency-key", "order-17", message())).await.unwrap().into_inner();
    assert!(second.idempotency_replayed);
    assert_eq!(second.job.unwrap().id, job.id);
    let other = EnqueueRequest { job: Some(mail("2")) };
    let refused = grpc.jobs().enqueue(with("idempotency-key", "order-17", other)).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused).0), (Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(grpc.api.jobs().await, 1);

    // To the letter.
    let claimed = grpc.api.claim(id(&job)).await;
    assert_eq!(claimed.payload.get(), r#"{"to": "x"}"#);
    grpc.api.end(claimed, succeeded(Some("{\"n\":1}"))).await;
    let got = grpc.jobs().get(GetJobRequest { id: job.id.clone() }).await.unwrap().into_inner();
    assert_eq!((got.state(), got.result.as_deref()), (JobState::Succeeded, Some(&b"{\"n\":1}"[..])));
    let list = ListJobsRequest {
        states: vec![JobState::Succeeded.into()],
        labels: [("a".into(), "b".into())].into(),
        ..ListJobsRequest::default()
    };
    let list = grpc.jobs().list(list).await.unwrap().into_inner();
    assert_eq!(list.jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&job.id]);
    let deleted = grpc.jobs().delete(DeleteJobRequest { id: job.id.clone() }).await;
    deleted.unwrap();
    let gone = grpc.jobs().get(GetJobRequest { id: job.id }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    grpc.stop().await;
}

#[tokio::test]
async fn a_stream_of_jobs_has_an_outcome_for_each() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    // So that the kind is known, and a key is taken.
    let first = grpc.jobs().enqueue(enqueue(mail("0"))).await.unwrap().into_inner();
    let messages = (0..5_000).map(|at| EnqueueStreamRequest {
        job: match at {
            1_000 => Some(mail("{")),
            2_000 => Some(NewJob { kind: "unheard-of".into(), ..mail("1") }),
            3_000 => None,
            _ => Some(mail(&at.to_string())),
        },
        idempotency_key: (at >= 4_998).then(|| "twice".to_owned()),
    });
    // Equal requests, as one key needs.
    let messages = messages.map(|message| match message.idempotency_key {
        Some(_) => EnqueueStreamRequest { job: Some(mail("1")), ..message },
        None => message,
    });
    let answer =
        soon("the answer", grpc.jobs().enqueue_stream(stream::iter(messages.collect::<Vec<_>>()))).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!((answer.outcomes.len(), answer.refused), (5_000, 3));
    for (at, outcome) in answer.outcomes.iter().enumerate() {
        let error = outcome.error.as_ref().map(|error| &*error.r#type);
        let expected = match at {
            1_000 | 3_000 => Some("urn:windlass:problem:malformed"),
            2_000 => Some("urn:windlass:problem:unknown-kind"),
            _ => None,
        };
        assert_eq!((error, outcome.id.is_none()), (expected, expected.is_some()), "{at}: {outcome:?}");
    }
    assert_eq!(answer.outcomes[4_998].id, answer.outcomes[4_999].id);
    assert_ne!(answer.outcomes[0].id, first.job.map(|job| job.id));
    assert_eq!(grpc.api.jobs().await, 1 + 5_000 - 3 - 1);

    let one = stream::iter([EnqueueStreamRequest { job: Some(mail("1")), idempotency_key: None }]);
    let refused = grpc.jobs().enqueue_stream(with("idempotency-key", "k", one)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(reason(&refused).1, ["header:idempotency-key"]);
    let none = grpc.jobs().enqueue_stream(stream::iter(Vec::new())).await.unwrap().into_inner();
    assert!(none.outcomes.is_empty());
    grpc.stop().await;
}

#[tokio::test]
async fn messages_take_no_more_memory_than_there_is_for_bodies() {
    let options = ApiOptions { max_body: 50_000, body_memory: 100_000, ..ApiOptions::default() };
    let grpc = Grpc::new(options).await;
    let large = || mail(&format!("\"{}\"", "x".repeat(40_000)));
    grpc.jobs().enqueue(enqueue(large())).await.unwrap();

    // It keeps what it has come with, until it ends.
    let (messages, coming) = futures::channel::mpsc::unbounded();
    let mut jobs = grpc.jobs();
    let held = tokio::spawn(async move { jobs.enqueue_stream(coming).await });
    messages.unbounded_send(EnqueueStreamRequest { job: Some(large()), idempotency_key: None }).unwrap();
    let stored = async {
        while grpc.api.jobs().await < 2 {
            tokio::task::yield_now().await;
        }
    };
    soon("the job of the stream", stored).await;
    let refused = grpc.jobs().enqueue(enqueue(large())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    grpc.jobs().enqueue(enqueue(mail("1"))).await.unwrap();

    drop(messages);
    let answer = soon("the end of the stream", held).await.unwrap().unwrap().into_inner();
    assert_eq!((answer.outcomes.len(), answer.refused), (1, 0));
    grpc.jobs().enqueue(enqueue(large())).await.unwrap();
    grpc.stop().await;
}

#[tokio::test]
async fn problems_become_statuses() {
    let grpc = Grpc::new(ApiOptions { max_body: 64 * 1024, ..ApiOptions::default() }).await;
    let refused = async |job| grpc.jobs().enqueue(enqueue(job)).await.unwrap_err();
    let unknown = refused(NewJob { kind: "unheard-of".into(), ..mail("1") }).await;
    assert_eq!((unknown.code(), &*reason(&unknown).0), (Code::InvalidArgument, "UNKNOWN_KIND"));
    let wrong = refused(NewJob { priority: Some(7), version: Some(0), ..mail("1") }).await;
    let (name, mut fields) = reason(&wrong);
    fields.sort_unstable();
    assert_eq!((wrong.code(), &*name), (Code::InvalidArgument, "INVALID_FIELD"));
    assert_eq!(fields, ["/priority", "/version"]);
    assert!(wrong.get_error_details().request_info().is_some());
    assert_eq!(refused(mail("no JSON")).await.code(), Code::InvalidArgument);
    assert_eq!(refused(mail(&"1".repeat(70_000))).await.code(), Code::OutOfRange);
    let none = grpc.jobs().enqueue(EnqueueRequest::default()).await.unwrap_err();
    assert_eq!(reason(&none).1, ["/job"]);

    let get = async |id: &str| grpc.jobs().get(GetJobRequest { id: id.into() }).await.unwrap_err().code();
    assert_eq!(get("events").await, Code::InvalidArgument);
    assert_eq!(get(&JobId::new().to_string()).await, Code::NotFound);
    assert_eq!(grpc.api.jobs().await, 0);
    grpc.stop().await;
}

#[tokio::test]
async fn what_a_job_has_said_and_come_to_is_told() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let job = grpc.api.job().await;
    let id = || job.to_string();
    let attempt = grpc.api.claim(job).await;
    let none = grpc.jobs().get_progress(GetProgressRequest { id: id() }).await.unwrap().into_inner();
    assert_eq!(none.progress, None);
    grpc.api.say(job, attempt.fence, 0..3).await;
    let progress = grpc.jobs().get_progress(GetProgressRequest { id: id() }).await.unwrap().into_inner();
    let progress = progress.progress.unwrap();
    assert_eq!((progress.value, &*progress.message), (0.4, "rendering"));
    let early = grpc.jobs().get_result(GetResultRequest { id: id() }).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early:?}");
    grpc.api.end(attempt, Outcome::Dead { error: "no paper".into() }).await;
    let errors = grpc.jobs().list_errors(ListErrorsRequest { id: id() }).await.unwrap().into_inner().errors;
    let [error] = &*errors else { panic!("{errors:?}") };
    assert_eq!((error.attempt, &*error.message), (1, "no paper"));
    let none = grpc.jobs().get_result(GetResultRequest { id: id() }).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);

    let logs = async |cursor, limit| {
        let request = ListLogsRequest { id: id(), cursor, limit };
        grpc.jobs().list_logs(request).await.unwrap().into_inner()
    };
    let page = logs(None, Some(2)).await;
    let texts =
        |page: &ListLogsResponse| page.lines.iter().map(|line| line.message.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&page), ["line 0", "line 1"]);
    let line = &page.lines[0];
    // To the letter.
    assert_eq!((line.level(), line.fields.as_deref()), (LogLevel::Warn, Some(&br#"{"n": 1.50}"#[..])));
    let rest = logs(page.next_cursor, None).await;
    assert_eq!((texts(&rest), rest.next_cursor.is_some()), (vec!["line 2".to_owned()], true));
    let wrong = ListLogsRequest { id: id(), cursor: Some("x".into()), limit: None };
    let wrong = grpc.jobs().list_logs(wrong).await.unwrap_err();
    assert_eq!((wrong.code(), reason(&wrong).1), (Code::InvalidArgument, vec!["query:cursor".to_owned()]));

    let other = grpc.api.job().await;
    grpc.api.finish(other, succeeded(Some(r#"{"b":  1.0, "a": 2}"#))).await;
    let result = grpc.jobs().get_result(GetResultRequest { id: other.to_string() }).await.unwrap();
    assert_eq!(result.into_inner().result, &br#"{"b":  1.0, "a": 2}"#[..]);
    grpc.stop().await;
}
