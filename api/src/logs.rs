use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Serialize;
use serde_json::value::RawValue;
use windlass_core::{LogCursor, LogLevel, LogRecord, Timestamp};

use crate::{
    Service,
    auth::Identity,
    dead::json,
    job::Id,
    problem::{FieldError, Problem},
    view,
};

/// Lines on a page unless the request says otherwise, and at most.
const LISTED: usize = 100;
const MOST: usize = 1000;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "LogLines"))]
pub(crate) struct LogsView<'a> {
    lines: Vec<LineView<'a>>,
    /// Where to go on, also at the end, since more may come.
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "LogLine"))]
struct LineView<'a> {
    attempt: u32,
    #[serde(serialize_with = "view::time")]
    at: Timestamp,
    level: LogLevel,
    message: &'a str,
    fields: Option<&'a RawValue>,
}

impl<'a> From<&'a LogRecord> for LineView<'a> {
    fn from(line: &'a LogRecord) -> Self {
        Self {
            attempt: line.attempt,
            at: line.at,
            level: line.level,
            message: &line.message,
            fields: line.fields.as_deref(),
        }
    }
}

/// `GET /v1/jobs/{id}/logs`
pub(crate) async fn logs(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let (mut after, mut limit, mut errors) = (None, LISTED, Vec::new());
    for (name, value) in &parameters {
        let detail = match name.as_str() {
            "cursor" => match cursor(value) {
                Some(cursor) => {
                    after = Some(cursor);
                    continue;
                }
                None => "give the next_cursor of an earlier answer".into(),
            },
            "limit" => match value.parse() {
                Ok(number @ 1..=MOST) => {
                    limit = number;
                    continue;
                }
                _ => format!("use 1 to {MOST}"),
            },
            _ => "unknown; known are cursor, limit".into(),
        };
        errors.push(FieldError::query(name, detail));
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    service.check_job(&caller, id).await?;
    let lines = service.client.logs(id, after, limit).await?;
    if lines.is_empty() {
        service.job(&caller, id).await?;
    }
    let last = lines.last().map(|line| line.cursor).or(after);
    Ok(json(&LogsView {
        lines: lines.iter().map(LineView::from).collect(),
        next_cursor: last.map(|last| format!("{}.{}", last.fence, last.number)),
    }))
}

fn cursor(text: &str) -> Option<LogCursor> {
    let (fence, number) = text.split_once('.')?;
    Some(LogCursor { fence: fence.parse().ok()?, number: number.parse().ok()? })
}
