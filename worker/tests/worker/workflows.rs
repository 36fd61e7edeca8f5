//! Workflows as a handler and its user see them.

use windlass_client::ClientError;
use windlass_core::{GraphError, State as JobState, WorkflowStatus};
use windlass_worker::{Context, JobError};

use crate::support::{Bench, Other, Task, run, until};

async fn ends(bench: &Bench, id: windlass_core::WorkflowId, status: WorkflowStatus) {
    until(&format!("the workflow is {status:?}"), async || {
        let now = bench.client.get_workflow(id).await.unwrap().unwrap().status();
        assert!(now == status || now == WorkflowStatus::Running, "{now:?}");
        now == status
    })
    .await;
}

/// Adds up what its parents returned.
async fn sum(job: Other, ctx: Context) -> Result<u32, JobError> {
    let Other {} = job;
    let mut sum = 0;
    for parent in ctx.parents().await? {
        sum += parent.result::<u32>()?;
    }
    Ok(sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_parents_are_at_hand() {
    let bench = Bench::new().await;
    let double = |task: Task| async move { Ok::<_, JobError>(task.number * 2) };
    let worker = run(bench.worker().handle(double).handle(sum));
    let mut workflow = bench.client.workflow("sums");
    for number in 1..=20 {
        workflow = workflow.job(format!("n{number}"), Task { number });
    }
    let id = workflow.on_success("sum", Other {}).await.unwrap();
    ends(&bench, id, WorkflowStatus::Succeeded).await;
    let jobs = bench.client.workflow_jobs(id, None, 100).await.unwrap();
    assert_eq!(jobs.last().unwrap().name.as_str(), "sum");
    assert_eq!(jobs.last().unwrap().job.result.as_ref().unwrap().get(), "420");
    worker.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_hands_results_on() {
    let bench = Bench::new().await;
    let add = |task: Task, ctx: Context| async move {
        let before = match task.number {
            1 => 0,
            number => ctx.parent_result::<u32>(&format!("t{}", number - 1)).await?,
        };
        Ok::<_, JobError>(before + task.number)
    };
    let worker = run(bench.worker().handle(add));
    let chain = bench.client.workflow("chain").job("t1", Task { number: 1 });
    let chain = chain.then("t2", Task { number: 2 }).then("t3", Task { number: 3 });
    let id = chain.await.unwrap();
    ends(&bench, id, WorkflowStatus::Succeeded).await;
    let jobs = bench.client.workflow_jobs(id, None, 10).await.unwrap();
    let results: Vec<_> = jobs.iter().map(|job| job.job.result.as_ref().unwrap().get()).collect();
    assert_eq!(results, ["1", "3", "6"]);

    // A name that no parent has is no reason to try again.
    let id = bench
        .client
        .workflow("lost")
        .job("a", Task { number: 1 })
        .then("b", Task { number: 5 })
        .await
        .unwrap();
    ends(&bench, id, WorkflowStatus::Failed).await;
    let b = bench.client.workflow_jobs(id, None, 10).await.unwrap().pop().unwrap().job;
    assert_eq!((b.state, b.errors.len()), (JobState::Dead, 1));
    assert!(b.errors[0].message.contains("no parent called t4"), "{b:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_part_is_retried() {
    let bench = Bench::new().await;
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let seen = broken.clone();
    let handler = move |task: Task| {
        let broken = seen.load(std::sync::atomic::Ordering::SeqCst);
        async move {
            if broken && task.number == 2 {
                return Err(JobError::discard("broken"));
            }
            Ok(task.number)
        }
    };
    let worker = run(bench.worker().handle(handler));
    let task = |number| Task { number };
    let workflow = bench.client.workflow("mended").job("a", task(1)).then("b", task(2)).then("c", task(3));
    let id = workflow.idempotency_key("once").await.unwrap();
    ends(&bench, id, WorkflowStatus::Failed).await;
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(bench.client.retry_workflow(id).await.unwrap(), Some(2));
    ends(&bench, id, WorkflowStatus::Succeeded).await;
    worker.stop().await;

    let again = bench.client.workflow("mended").job("a", task(1)).then("b", task(2)).then("c", task(3));
    assert_eq!(again.idempotency_key("once").await.unwrap(), id);
    let other = bench.client.workflow("mended").job("a", task(1)).job("b", task(2)).then("c", task(3));
    assert!(matches!(other.idempotency_key("once").await, Err(ClientError::KeyReused)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_adds_jobs_that_its_children_wait_for() {
    let bench = Bench::new().await;
    // The first task adds others, and fails once after that.
    let handler = |task: Task, ctx: Context| async move {
        if task.number == 0 {
            ctx.add_jobs((1..=ctx.attempt() * 5).map(|number| (format!("n{number}"), Task { number })))
                .await?;
            if ctx.attempt() == 1 {
                return Err(JobError::retry("once more"));
            }
        }
        Ok(task.number)
    };
    let worker = run(bench.worker().handle(handler).handle(sum));
    let id =
        bench.client.workflow("wide").job("split", Task { number: 0 }).then("sum", Other {}).await.unwrap();
    ends(&bench, id, WorkflowStatus::Succeeded).await;
    let jobs = bench.client.workflow_jobs(id, None, 100).await.unwrap();
    assert_eq!(jobs.len(), 12);
    let sum = jobs.iter().find(|job| job.name.as_str() == "sum").unwrap();
    assert_eq!(sum.job.result.as_ref().unwrap().get(), "55");
    assert!(jobs.iter().all(|job| job.job.attempt == if job.name.as_str() == "split" { 2 } else { 1 }));

    let alone = bench.task(0).await;
    let alone = bench.reaches(alone, JobState::Dead).await;
    assert!(alone.errors[0].message.contains("not part of a workflow"), "{alone:?}");
    worker.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn unsound_graphs_are_refused() {
    let bench = Bench::new().await;
    let refused = bench
        .client
        .workflow("w")
        .job("a", Task { number: 1 })
        .after(["b"])
        .job("b", Task { number: 2 })
        .after(["a"]);
    match refused.await.unwrap_err() {
        ClientError::Graph(GraphError::Cycle { jobs, .. }) => assert_eq!(jobs.len(), 2),
        other => panic!("{other}"),
    }
    let refused = bench.client.workflow("w").job("a b", Task { number: 1 }).await.unwrap_err();
    assert!(matches!(refused, ClientError::Name(_)), "{refused}");
    let empty = bench.client.workflow("w");
    let too_early = bench.client.workflow("w").after(["a"]).job("a", Task { number: 1 });
    for refused in [empty, too_early] {
        assert!(matches!(refused.await, Err(ClientError::Graph(GraphError::Empty))));
    }
}
