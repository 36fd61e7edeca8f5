use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use windlass_core::{
    After, GraphError, InsertOutcome, JobId, JobName, Needs, NewWorkflow, State as JobState, Step, Tenant,
    Timestamp, WorkflowId, WorkflowJob, WorkflowName, WorkflowOutcome, WorkflowRecord, WorkflowStatus,
};

use crate::{
    Service,
    auth::Identity,
    body,
    body::Fields,
    enqueue::{self, Draft},
    gating,
    idempotency::Space,
    job::Id,
    problem::{FieldError, MOST_ERRORS, Problem},
    view::{self, JobView},
};

/// Jobs shown at a time, unless the client says otherwise.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// `POST /v1/workflows`
pub(crate) async fn enqueue(
    State(service): State<Arc<Service>>,
    caller: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let options = &service.options;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&service, body, &parts.headers, options.max_body).await?;
    let text = body::text(&bytes)?;
    let draft = WorkflowDraft::parse(text, options.max_depth, options.workflow_limits.jobs)?;
    let trace = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let trace = trace.and_then(|trace| trace.parse().ok());

    let mut steps = Vec::with_capacity(draft.jobs.len());
    for (at, JobDraft { name, mut job, after }) in draft.jobs.into_iter().enumerate() {
        job.confine(&caller)?;
        let info = enqueue::known(&service, &job).await;
        let info = info.map_err(|problem| problem.within(&format!("/jobs/{at}")))?;
        let mut job = job.into_job(&info);
        job.trace.clone_from(&trace);
        steps.push(Step { name, job, after });
    }
    let mut workflow =
        NewWorkflow::new(draft.name, steps, options.workflow_limits).map_err(|error| unsound(&error))?;
    let tenant = workflow.tenant();
    let (idempotency, _held) = service.repeatable(&parts.headers, tenant, Space::Workflows, text)?.unzip();
    workflow.idempotency = idempotency;
    let (id, replayed) = match service.client.accept_workflow(&workflow).await? {
        WorkflowOutcome::Created { .. } => (workflow.id, false),
        WorkflowOutcome::Existing(id) => (id, true),
        WorkflowOutcome::KeyReused => return Err(Problem::key_reused()),
        WorkflowOutcome::Refused { at, why } => {
            let problem = match (workflow.jobs().get(at), why) {
                (Some(job), InsertOutcome::UnknownLimit(limit)) => gating::unknown_limit(&job.gating, limit),
                (Some(job), InsertOutcome::OverQuota) => Problem::over_quota(job.gating.tenant.as_ref()),
                (Some(job), _) => Problem::draining(&job.queue),
                (None, _) => Problem::internal(),
            };
            return Err(problem.within(&format!("/jobs/{at}")));
        }
    };
    let mut response = show(&service, &caller, id, StatusCode::ACCEPTED, Page::default()).await?;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/workflows/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    if replayed {
        headers.insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// `GET /v1/workflows/{id}`
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id<WorkflowId>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    show(&service, &caller, id, StatusCode::OK, Page::from_query(&parameters)?).await
}

/// `POST /v1/workflows/{id}/cancel`
pub(crate) async fn cancel(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id<WorkflowId>,
) -> Result<Response, Problem> {
    service.workflow(&caller, id).await?;
    if !service.client.cancel_workflow(id).await? {
        return Err(no_such_workflow(id));
    }
    show(&service, &caller, id, StatusCode::ACCEPTED, Page::default()).await
}

/// `POST /v1/workflows/{id}/retry`
pub(crate) async fn retry(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id<WorkflowId>,
) -> Result<Response, Problem> {
    service.workflow(&caller, id).await?;
    service.client.retry_workflow(id).await?.ok_or_else(|| no_such_workflow(id))?;
    show(&service, &caller, id, StatusCode::ACCEPTED, Page::default()).await
}

/// Which jobs to show.
#[derive(Debug)]
struct Page {
    limit: usize,
    /// The last job of the page before.
    after: Option<JobId>,
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: PAGE, after: None }
    }
}

impl Page {
    fn from_query(parameters: &[(String, String)]) -> Result<Self, Problem> {
        let (mut page, mut errors) = (Self::default(), Vec::new());
        for (name, value) in parameters {
            let read = match name.as_str() {
                "limit" => match value.parse() {
                    Ok(limit @ 1..=LARGEST_PAGE) => {
                        page.limit = limit;
                        Ok(())
                    }
                    _ => Err(format!("use 1 to {LARGEST_PAGE}")),
                },
                "cursor" => match value.parse() {
                    Ok(id) => {
                        page.after = Some(id);
                        Ok(())
                    }
                    Err(_) => Err("give the next_cursor of an earlier answer".into()),
                },
                _ => Err("unknown; known are cursor, limit".into()),
            };
            errors.extend(read.err().map(|detail| FieldError::query(name, detail)));
        }
        if errors.is_empty() { Ok(page) } else { Err(Problem::invalid(errors)) }
    }
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Workflow"))]
pub(crate) struct WorkflowView<'a> {
    id: WorkflowId,
    name: &'a WorkflowName,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a Tenant>,
    status: WorkflowStatus,
    #[serde(serialize_with = "view::time")]
    created_at: Timestamp,
    /// How many jobs are in each state.
    counts: BTreeMap<&'static str, u64>,
    jobs: Vec<NamedJobView<'a>>,
    next_cursor: Option<JobId>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WorkflowJob"))]
struct NamedJobView<'a> {
    name: &'a JobName,
    #[serde(flatten)]
    job: JobView<'a>,
}

async fn show(
    service: &Service,
    caller: &Identity,
    id: WorkflowId,
    status: StatusCode,
    page: Page,
) -> Result<Response, Problem> {
    let Page { limit, after } = page;
    let workflow = service.workflow(caller, id).await?;
    // One more, to know whether there is one.
    let mut jobs = service.client.workflow_jobs(id, after, limit + 1).await?;
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    let last = jobs.last().filter(|_| more).map(|last| last.job.id);
    // Handlers may add jobs of others.
    jobs.retain(|job| caller.sees(job.job.gating.tenant.as_ref()));
    Ok((status, Json(WorkflowView::new(caller, &workflow, &jobs, last))).into_response())
}

impl<'a> WorkflowView<'a> {
    fn new(
        caller: &Identity,
        workflow: &'a WorkflowRecord,
        jobs: &'a [WorkflowJob],
        next_cursor: Option<JobId>,
    ) -> Self {
        let counts = JobState::ALL.into_iter().map(|state| (state.as_str(), workflow.count(state)));
        Self {
            id: workflow.id,
            name: &workflow.name,
            tenant: workflow.tenant.as_ref(),
            status: workflow.status(),
            created_at: workflow.created_at,
            counts: counts.filter(|(_, count)| *count > 0).collect(),
            jobs: jobs
                .iter()
                .map(|job| NamedJobView { name: &job.name, job: caller.shown(&job.job) })
                .collect(),
            next_cursor,
        }
    }
}

/// A request's workflow, before the defaults of the kinds are known.
pub(crate) struct WorkflowDraft {
    pub(crate) name: WorkflowName,
    pub(crate) jobs: Vec<JobDraft>,
}

pub(crate) struct JobDraft {
    pub(crate) name: JobName,
    pub(crate) job: Draft,
    pub(crate) after: After,
}

impl WorkflowDraft {
    pub(crate) fn parse(text: &str, max_depth: usize, max_jobs: usize) -> Result<Self, Problem> {
        let mut fields = Fields::parse(text)?;
        fields.check_depth(max_depth)?;
        let mut errors = Vec::new();
        let e = &mut errors;
        let name = fields.take("name", e, |text: String| text.parse().map_err(|e| format!("{e}")));
        if name.is_none() && e.is_empty() {
            e.push(FieldError::new("name", "required: what the workflow is called, such as \"nightly\""));
        }
        let listed = fields.take("jobs", e, |jobs: Vec<&RawValue>| match jobs.len() {
            count if count > max_jobs => Err(GraphError::TooManyJobs { limit: max_jobs }.to_string()),
            _ => Ok(jobs),
        });
        if listed.is_none() && !e.iter().any(|error| error.pointer == "/jobs") {
            e.push(FieldError::new("jobs", "required: a list of jobs, each with its name"));
        }
        for (name, _) in fields.rest("", e) {
            e.push(FieldError::new(&name, "unknown field; known are name, jobs"));
        }
        let mut jobs = Vec::new();
        for (at, raw) in listed.unwrap_or_default().into_iter().enumerate() {
            if e.len() >= MOST_ERRORS {
                break;
            }
            match JobDraft::parse(raw) {
                Ok(job) => jobs.push(job),
                Err(wrong) => e.extend(
                    wrong
                        .into_iter()
                        .map(|error| FieldError { pointer: format!("/jobs/{at}{}", error.pointer), ..error }),
                ),
            }
        }
        match name {
            Some(name) if errors.is_empty() => Ok(Self { name, jobs }),
            _ => Err(Problem::invalid(errors)),
        }
    }
}

impl JobDraft {
    fn parse(raw: &RawValue) -> Result<Self, Vec<FieldError>> {
        let mut fields: Fields<'_> = match serde_json::from_str(raw.get()) {
            Ok(fields) => fields,
            Err(_) => return Err(vec![FieldError::whole("must be an object: a job with its name")]),
        };
        let mut errors = Vec::new();
        let e = &mut errors;
        let name = fields.take("name", e, |text: String| text.parse().map_err(|e| format!("{e}")));
        if name.is_none() && e.is_empty() {
            e.push(FieldError::new("name", "required: what the job is called in this workflow"));
        }
        let after = fields.take("after", e, |parents: Vec<&RawValue>| {
            parents.into_iter().map(parent).collect::<Result<Vec<_>, String>>()
        });
        let all = fields.take("after_all", e, Ok::<Needs, String>);
        if after.is_some() && all.is_some() {
            e.push(FieldError::new("after_all", "give either after or after_all"));
        }
        let after = all.map_or_else(|| After::Jobs(after.unwrap_or_default()), After::All);
        let known = format!("name, after, after_all, {}", enqueue::KNOWN);
        match (name, Draft::read(fields, &known, e)) {
            (Some(name), Some(job)) if errors.is_empty() => Ok(Self { name, job, after }),
            _ => Err(errors),
        }
    }
}

/// A parent: its name, or `{"job": name, "needs": "succeeded" | "finished"}`.
fn parent(raw: &RawValue) -> Result<(JobName, Needs), String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Edge {
        job: JobName,
        #[serde(default)]
        needs: Needs,
    }
    let text = raw.get();
    let read = match text.trim_start().starts_with('"') {
        true => serde_json::from_str(text).map(|job| Edge { job, needs: Needs::default() }),
        false => serde_json::from_str::<Edge>(text),
    };
    let read = read.map(|edge| (edge.job, edge.needs));
    read.map_err(|_| {
        "list names of jobs, or {\"job\": name, \"needs\": \"succeeded\" or \"finished\"}".into()
    })
}

fn unsound(error: &GraphError) -> Problem {
    let field = match error {
        GraphError::DuplicateName { .. } => "name",
        GraphError::Unique { .. } => "unique",
        _ => "after",
    };
    let error = match error.at() {
        Some(at) => FieldError::within(&format!("/jobs/{at}"), field, error.to_string()),
        None => FieldError::new("jobs", error.to_string()),
    };
    Problem::invalid(vec![error])
}

pub(crate) fn no_such_workflow(id: WorkflowId) -> Problem {
    Problem::not_found(format!("there is no workflow {id}"))
}
