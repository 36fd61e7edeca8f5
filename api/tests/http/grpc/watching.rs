//! Jobs and queues are followed.

use std::collections::BTreeMap;

use windlass_proto::v1::{
    CancelJobRequest, JobStanding, JobState, RetryJobRequest, WaitJobRequest, WatchJobRequest,
    WatchJobsRequest, WatchQueueRequest, queue_service_client::QueueServiceClient,
    watch_jobs_response::Change, watch_queue_response::News,
};

use super::*;

#[tokio::test]
async fn a_job_is_watched_until_it_is_over() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let job = grpc.api.job().await;
    let watch = WatchJobRequest { id: job.to_string() };
    let mut changes = grpc.jobs().watch(watch.clone()).await.unwrap().into_inner();
    let first = soon("the job", changes.message()).await.unwrap().unwrap();
    assert_eq!(first.state(), JobState::Queued);
    let claimed = grpc.api.claim(job).await;
    grpc.api.end(claimed, succeeded(None)).await;
    let mut last = first;
    while let Some(next) = soon("a change", changes.message()).await.unwrap() {
        last = next;
    }
    assert_eq!(last.state(), JobState::Succeeded);

    let other = grpc.api.job().await;
    let mut changes =
        grpc.jobs().watch(WatchJobRequest { id: other.to_string() }).await.unwrap().into_inner();
    soon("the job", changes.message()).await.unwrap().unwrap();
    grpc.shutdown.cancel();
    let ended = soon("the end", changes.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    drop(changes);
    grpc.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_the_job_or_with_the_time() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let job = grpc.api.job().await;
    let timeout = |seconds, nanos| Some(ProtoDuration { seconds, nanos });
    let wait = |timeout| WaitJobRequest { id: job.to_string(), timeout };
    let early = grpc.jobs().wait(wait(timeout(0, 1_000_000))).await.unwrap().into_inner();
    assert_eq!(early.state(), JobState::Queued);
    let past = grpc.jobs().wait(wait(timeout(-1, 0))).await.unwrap_err();
    assert_eq!((past.code(), reason(&past).1), (Code::InvalidArgument, vec!["query:wait".to_owned()]));

    let mut client = grpc.jobs();
    let waiting = client.wait(wait(None));
    let ending = grpc.api.finish(job, succeeded(None));
    let (over, ()) = tokio::join!(soon("the end of the job", waiting), ending);
    assert_eq!(over.unwrap().into_inner().state(), JobState::Succeeded);

    let again = grpc.jobs().retry(RetryJobRequest { id: job.to_string() }).await.unwrap().into_inner();
    assert_eq!(again.state(), JobState::Queued);
    let cancelled = grpc.jobs().cancel(CancelJobRequest { id: job.to_string() }).await.unwrap().into_inner();
    assert_eq!(cancelled.state(), JobState::Cancelled);
    grpc.stop().await;
}

#[tokio::test]
async fn many_jobs_are_watched_until_all_are_over() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let (one, other) = (grpc.api.job().await, grpc.api.job().await);
    let ids = vec![one.to_string(), other.to_string()];
    let mut changes = grpc.jobs().watch_many(WatchJobsRequest { ids }).await.unwrap().into_inner();
    let mut next =
        async || soon("a change", changes.message()).await.unwrap().map(|told| told.change.unwrap());
    let state = |change: Option<Change>| match change {
        Some(Change::Job(told)) => Some((id(&told), told.state())),
        _ => None,
    };
    let first = [state(next().await), state(next().await)].into_iter().flatten().collect::<BTreeMap<_, _>>();
    assert_eq!(first, [(one, JobState::Queued), (other, JobState::Queued)].into());
    let attempt = grpc.api.claim(one).await;
    grpc.api.end(attempt, succeeded(None)).await;
    // One that is over does not end the stream.
    while state(next().await) != Some((one, JobState::Succeeded)) {}
    grpc.api.client.cancel(other).await.unwrap();
    assert_eq!(state(next().await), Some((other, JobState::Cancelled)));
    assert_eq!(next().await, None);

    // One that is removed does not either.
    let elsewhere = NewJob { queue: Some("parcels".into()), ..mail("1") };
    let stays = id(&grpc.jobs().enqueue(enqueue(elsewhere)).await.unwrap().into_inner().job.unwrap());
    let gone = grpc.api.job().await;
    let ids = vec![gone.to_string(), stays.to_string()];
    let mut changes = grpc.jobs().watch_many(WatchJobsRequest { ids }).await.unwrap().into_inner();
    let mut next =
        async || soon("a change", changes.message()).await.unwrap().map(|told| told.change.unwrap());
    for _ in 0..2 {
        assert!(matches!(next().await, Some(Change::Job(_))));
    }
    grpc.api.execute("DELETE FROM jobs WHERE queue = 'letters'").await;
    assert_eq!(next().await, Some(Change::Removed(gone.to_string())));
    grpc.api.client.cancel(stays).await.unwrap();
    assert_eq!(state(next().await), Some((stays, JobState::Cancelled)));
    assert_eq!(next().await, None);

    let refused = async |ids: Vec<String>| {
        let refused = grpc.jobs().watch_many(WatchJobsRequest { ids }).await.unwrap_err();
        (refused.code(), reason(&refused).1)
    };
    let invalid = (Code::InvalidArgument, vec!["query:id".to_owned()]);
    assert_eq!(refused(Vec::new()).await, invalid);
    assert_eq!(refused(vec!["x".into()]).await, invalid);
    assert_eq!(refused(vec![JobId::new().to_string()]).await.0, Code::NotFound);
    grpc.stop().await;
}

#[tokio::test]
async fn a_queue_is_watched_for_as_long_as_was_asked_for() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let mut queues = QueueServiceClient::new(grpc.channel.clone());
    let watch = |seconds| WatchQueueRequest {
        name: "letters".into(),
        timeout: Some(ProtoDuration { seconds, nanos: 0 }),
    };
    let mut news = queues.watch(watch(3600)).await.unwrap().into_inner();
    let mut next = async || soon("news", news.message()).await.unwrap().unwrap().news.unwrap();
    assert_eq!(next().await, News::Ready(()));
    let job = grpc.api.job().await;
    let expected =
        JobStanding { id: job.to_string(), state: JobState::Queued.into(), ..JobStanding::default() };
    assert_eq!(next().await, News::Job(expected));
    let attempt = grpc.api.claim(job).await;
    let News::Job(running) = next().await else { panic!("no job") };
    assert_eq!((running.state(), running.attempt, running.progress_at), (JobState::Running, 1, None));
    grpc.api.say(job, attempt.fence, 0..1).await;
    let News::Job(running) = next().await else { panic!("no job") };
    assert!(running.progress_at.is_some());

    let mut short = queues.watch(watch(0)).await.unwrap().into_inner();
    while let Some(told) = soon("the end", short.message()).await.unwrap() {
        assert_eq!(told.news, Some(News::Ready(())));
    }
    let wrong = queues.watch(watch(-1)).await.unwrap_err();
    assert_eq!((wrong.code(), reason(&wrong).1), (Code::InvalidArgument, vec!["query:for".to_owned()]));

    // Before its time, it is the server that ends it.
    grpc.shutdown.cancel();
    let ended = loop {
        match soon("the end", news.message()).await {
            Ok(told) => assert!(told.is_some()),
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
    drop((news, short, queues));
    grpc.stop().await;
}
