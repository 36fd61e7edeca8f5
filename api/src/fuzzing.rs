//! What reads the bytes of clients, for the targets in `fuzz/`: private otherwise, and in no other build.

use axum::http::{HeaderMap, HeaderValue};
use windlass_core::{JobFilter, KindInfo, NewWorkflow, State, Step, Timestamp, WorkflowLimits};

use crate::{
    ApiOptions, batch, body, cursor, duration,
    enqueue::Draft,
    idempotency,
    problem::Problem,
    view::{self, JobView},
    workflows::WorkflowDraft,
};

/// The longest problem document there may be, in bytes, however long what was sent.
const LONGEST_PROBLEM: usize = 64 * 1024;

/// A body of `POST /v1/jobs`. What is taken can be shown.
pub fn enqueue(bytes: &[u8]) {
    let read = body::text(bytes).and_then(|text| Draft::parse(text, ApiOptions::default().max_depth));
    taken(read, show);
}

/// A body of `POST /v1/jobs/batch`, and each of its items.
pub fn batch(bytes: &[u8]) {
    let items = body::text(bytes).and_then(batch::parse);
    taken(items, |items| {
        for item in items {
            taken(batch::parse_item(item.get(), &ApiOptions::default()), |(draft, _)| show(draft));
        }
    });
}

/// A body of `POST /v1/workflows`. What is taken is a graph without circles, or refused as none.
pub fn workflow(bytes: &[u8]) {
    let limits = WorkflowLimits::default();
    let parse = |text| WorkflowDraft::parse(text, ApiOptions::default().max_depth, limits.jobs);
    taken(body::text(bytes).and_then(parse), |draft| {
        let steps = draft.jobs.into_iter().map(|job| {
            let info = KindInfo::new(job.job.kind.clone());
            Step { name: job.name, job: job.job.into_job(&info), after: job.after }
        });
        if let Ok(workflow) = NewWorkflow::new(draft.name, steps.collect(), limits) {
            assert_eq!(workflow.jobs().len(), workflow.names().len());
        }
    });
}

/// A cursor of a list: one that is taken is written again as it came.
pub fn cursor(text: &str) {
    let filter = JobFilter::default();
    if let Ok(id) = cursor::read(text, &filter) {
        assert_eq!(cursor::write(id, &filter), text);
    }
}

/// The header `Idempotency-Key`.
pub fn key(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers = HeaderMap::from_iter([("idempotency-key".parse().expect("a name"), value)]);
    taken(idempotency::key(&headers), |key| {
        let key = key.expect("there is the header");
        assert!((1..=255).contains(&key.len()) && !key.chars().any(char::is_control), "{key:?}");
    });
}

/// A duration or an instant, of which the second is shown as it is read again.
pub fn times(text: &str) {
    let _ = duration::parse(text);
    if let Ok(at) = view::instant(text) {
        assert_eq!(view::instant(&view::written(&at)), Ok(at));
    }
}

fn show(draft: Draft) {
    let info = KindInfo::new(draft.kind.clone());
    let job = draft.into_job(&info);
    let view = JobView::accepted(&job, State::Queued, Timestamp::UNIX_EPOCH);
    serde_json::to_string(&view).expect("a job can be written");
}

/// What is refused is so by a problem that can be written, and is no longer than it may be.
fn taken<T>(read: Result<T, Problem>, then: impl FnOnce(T)) {
    match read {
        Ok(read) => then(read),
        Err(problem) => {
            let written = serde_json::to_vec(&problem).expect("a problem can be written");
            assert!(written.len() <= LONGEST_PROBLEM, "a problem of {} bytes", written.len());
        }
    }
}
