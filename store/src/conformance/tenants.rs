use std::time::Duration;

use windlass_core::{
    Added, After, Gating, Idempotency, InsertOutcome, JobFilter, NewJob, NewWorkflow, OnConflict, State,
    Step, Unique, WorkflowLimits, WorkflowOutcome,
};

use super::support::{Case, HOUR, ids, job, of_tenant};

const TENANTS: [&str; 2] = ["acme", "globex"];

/// The same unique and idempotency keys of several tenants are different ones, and those of no tenant again; the same
/// tenant meets its own.
pub async fn tenants_have_keys_of_their_own(case: Case) {
    let unique = Unique::by_key("report").unwrap().on_conflict(OnConflict::Existing);
    let fields = Unique::by_fields(["/to"]).unwrap();
    for rule in [Some(unique), Some(fields), None] {
        let new = |tenant: Option<&str>, fingerprint| {
            let plain = NewJob { unique: rule.clone().map(Box::new), ..job() };
            let mut job = tenant.map_or(plain.clone(), |tenant| of_tenant(tenant, plain));
            if rule.is_none() {
                let tenant = job.gating.tenant.as_ref();
                let idempotency = Idempotency::new(tenant, "k".into(), [fingerprint; 32], HOUR);
                job.idempotency = Some(Box::new(idempotency));
            }
            job
        };
        let tenants = [None, Some(TENANTS[0]), Some(TENANTS[1])];
        let jobs: Vec<NewJob> =
            tenants.iter().zip(1..).map(|(tenant, number)| new(*tenant, number)).collect();
        case.insert(&jobs).await;
        for ((tenant, number), first) in tenants.iter().zip(1..).zip(&jobs) {
            let again = case.other.insert(&[new(*tenant, number)]).await.unwrap();
            let expected = match rule {
                Some(_) => InsertOutcome::Held(first.id),
                None => InsertOutcome::Existing(first.id),
            };
            assert_eq!(again.outcomes, [expected], "{tenant:?}");
        }
    }
}

/// Jobs of one ordering key run one at a time for each tenant, whatever the others do with the same key.
pub async fn tenants_have_turns_of_their_own(case: Case) {
    let ordered = || NewJob {
        gating: Gating { ordering_key: Some("account/1".parse().unwrap()), ..Gating::default() },
        ..job()
    };
    let mut jobs: Vec<NewJob> = TENANTS.iter().map(|tenant| of_tenant(tenant, ordered())).collect();
    jobs.push(ordered());
    let later: Vec<NewJob> = jobs.iter().map(|first| NewJob { id: job().id, ..first.clone() }).collect();
    case.insert(&jobs).await;
    case.insert(&later).await;
    while case.store.follow_up(10).await.unwrap() > 0 {}
    assert_eq!(case.count(&ids(&jobs), State::Queued).await, 3);
    assert_eq!(case.count(&ids(&later), State::Waiting).await, 3);
    let operations = case.other.operations();
    for (at, tenant) in TENANTS.iter().enumerate() {
        let filter = JobFilter { tenant: Some(tenant.parse().unwrap()), ..JobFilter::default() };
        let all = [ids(&jobs), ids(&later)].concat();
        let mut own = operations.among(&filter, &all).await.unwrap();
        own.sort_unstable();
        assert_eq!(own, [jobs[at].id, later[at].id]);
        let waiting = JobFilter { states: vec![State::Waiting], ..filter };
        assert_eq!(operations.among(&waiting, &all).await.unwrap(), [later[at].id]);
        assert_eq!(operations.among(&waiting, &[]).await.unwrap(), []);
    }
}

/// A workflow is of the tenant that all its jobs have, and so are the jobs that its handlers add.
pub async fn workflows_have_tenants(case: Case) {
    let graph = |tenants: &[Option<&str>]| {
        let step = |(at, tenant): (usize, &Option<&str>)| Step {
            name: format!("job{at}").parse().unwrap(),
            job: tenant.map_or_else(job, |tenant| of_tenant(tenant, job())),
            after: After::default(),
        };
        let steps = tenants.iter().enumerate().map(step).collect();
        NewWorkflow::new("test".parse().unwrap(), steps, WorkflowLimits::default()).unwrap()
    };
    let workflows = case.store.workflows();
    let [acme, globex] = TENANTS.map(Some);
    for (tenants, expected) in [
        ([acme, acme], acme),
        ([globex, globex], globex),
        ([acme, globex], None),
        ([acme, None], None),
        ([None, None], None),
    ] {
        let workflow = graph(&tenants);
        let outcome = workflows.insert_workflow(&workflow).await.unwrap();
        assert!(matches!(outcome, WorkflowOutcome::Created { .. }), "{outcome:?}");
        let stored = case.other.workflows().workflow(workflow.id).await.unwrap().unwrap();
        assert_eq!(stored.tenant.as_ref().map(|tenant| tenant.as_str()), expected, "{tenants:?}");

        let worker = case.worker_for(Duration::from_secs(60)).await;
        let parent = case.run_jobs(worker, &[workflow.jobs()[0].id]).await[0];
        let (plain, named) = (job(), of_tenant("other", job()));
        let more = [("plain".parse().unwrap(), plain.clone()), ("named".parse().unwrap(), named.clone())];
        let limits = WorkflowLimits::default();
        let added = workflows.add_to_workflow(parent.id, parent.fence, &more, limits).await.unwrap();
        assert_eq!(added, Added::Jobs(2));
        let tenant_of = async |job: &NewJob| case.get(job.id).await.gating.tenant;
        assert_eq!(tenant_of(&plain).await, stored.tenant);
        assert_eq!(tenant_of(&named).await, named.gating.tenant);
    }
}
