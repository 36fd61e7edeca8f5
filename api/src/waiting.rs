//! Requests that wait for a job to change, and streams that follow jobs.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use windlass_core::{JobId, JobRecord};

use crate::{
    Service, duration,
    job::no_such_job,
    problem::{FieldError, Problem},
    shed,
};

/// `Prefer` and `Preference-Applied`, of RFC 7240.
const PREFER: &str = "prefer";
pub(crate) const APPLIED: &str = "preference-applied";

/// How long a request wants to wait, and what of that it is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) patience: Duration,
    /// The `Preference-Applied` header, if the wish came as a preference.
    pub(crate) applied: Option<HeaderValue>,
}

impl Wait {
    /// Reads `?wait=30s`, or else `Prefer: wait=30`, neither beyond `most`.
    pub(crate) fn asked(
        parameters: &[(String, String)],
        headers: &HeaderMap,
        most: Duration,
    ) -> Result<Option<Self>, Problem> {
        let mut wait = None;
        let mut errors = Vec::new();
        for (name, value) in parameters {
            match name.as_str() {
                "wait" if wait.is_some() => errors.push(FieldError::query(name, "is there more than once")),
                "wait" => match duration::parse(value) {
                    Ok(patience) => wait = Some(Self { patience: patience.min(most), applied: None }),
                    Err(detail) => errors.push(FieldError::query(name, detail)),
                },
                _ => errors.push(FieldError::query(name, "unknown; known is wait")),
            }
        }
        if !errors.is_empty() {
            return Err(Problem::invalid(errors));
        }
        Ok(wait.or_else(|| preferred(headers, most)))
    }
}

/// A preference that cannot be read is none.
fn preferred(headers: &HeaderMap, most: Duration) -> Option<Wait> {
    let lists = headers.get_all(PREFER).iter().filter_map(|list| list.to_str().ok());
    let seconds = lists.flat_map(|list| list.split([',', ';'])).find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
    })?;
    let patience = Duration::from_secs(seconds).min(most);
    let applied = HeaderValue::from_str(&format!("wait={}", patience.as_secs())).ok();
    Some(Wait { patience, applied })
}

/// Whether the request may take as long as waiting does.
pub(crate) fn may_wait(request: &Request) -> bool {
    request.headers().contains_key(PREFER)
        || request.uri().query().is_some_and(|query| query.contains("wait="))
}

impl Service {
    /// A place among those who wait, of which there are so many.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| {
            Problem::unavailable("too many requests are waiting for jobs here; poll, or try again shortly", 1)
        })
    }

    /// The job, once it is over or `enough` of it has changed, but no later than in `patience`.
    pub(crate) async fn wait_for(
        &self,
        id: JobId,
        patience: Duration,
        enough: impl Fn(&JobRecord) -> Result<bool, Problem>,
    ) -> Result<JobRecord, Problem> {
        let _place = self.place()?;
        shed::only_waits();
        let deadline = Instant::now() + patience;
        let mut watch = self.client.watch(id);
        let mut job = watch.next().await?.ok_or_else(|| no_such_job(id))?;
        while !job.state.is_terminal() && !enough(&job)? {
            // `next` is cancel-safe.
            let next = tokio::select! {
                next = timeout_at(deadline, watch.next()) => next,
                () = self.ending.cancelled() => break,
            };
            match next {
                Ok(next) => job = next?.ok_or_else(|| no_such_job(id))?,
                Err(_) => break,
            }
        }
        Ok(job)
    }
}

/// When to ask again for a job that is not over: when it is due, within a minute.
pub(crate) fn retry_after(job: &JobRecord) -> Option<HeaderValue> {
    if job.state.is_terminal() {
        return None;
    }
    let until = job.run_at.map(|at| at - chrono::Utc::now()).and_then(|until| until.to_std().ok());
    let seconds = until.unwrap_or_default().as_secs().clamp(1, 60);
    Some(HeaderValue::from(seconds))
}

/// Sets how long an answer about this job may be kept: as long as it has been over, up to a day. What happens to such a
/// job after that is an operator's doing.
pub(crate) fn set_freshness(headers: &mut HeaderMap, job: &JobRecord) {
    let over = job.finished_at.filter(|_| job.state.is_terminal()).map(|at| chrono::Utc::now() - at);
    let cache = match over.map(|over| over.num_seconds().clamp(1, 86_400)) {
        None => HeaderValue::from_static("private, no-cache"),
        Some(seconds) => {
            let immutable = if seconds >= 60 { ", immutable" } else { "" };
            HeaderValue::from_str(&format!("private, max-age={seconds}{immutable}"))
                .unwrap_or(HeaderValue::from_static("private, no-cache"))
        }
    };
    headers.insert(header::CACHE_CONTROL, cache);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(60);

    fn prefer(values: &[&'static str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (header::HeaderName::from_static(PREFER), HeaderValue::from_static(value)))
            .collect()
    }

    fn asked(query: &[(&str, &str)], headers: &HeaderMap) -> Result<Option<Wait>, Problem> {
        let query: Vec<_> = query.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Wait::asked(&query, headers, MOST)
    }

    #[test]
    fn the_query_goes_before_the_preference() {
        let wait = asked(&[("wait", "1m 30s")], &prefer(&["wait=5"])).unwrap().unwrap();
        assert_eq!(wait, Wait { patience: MOST, applied: None });
        assert_eq!(
            asked(&[("wait", "PT2S")], &prefer(&[])).unwrap().unwrap().patience,
            Duration::from_secs(2)
        );
        assert_eq!(asked(&[], &prefer(&[])).unwrap(), None);
        for bad in [&[("wait", "soon")][..], &[("wait", "1s"), ("wait", "2s")], &[("weight", "1s")]] {
            assert!(asked(bad, &prefer(&[])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn preferences_come_in_many_forms() {
        for (values, seconds) in [
            (&["wait=5"][..], Some(5)),
            (&["respond-async, wait=10"], Some(10)),
            (&["respond-async", "Wait = \"7\""], Some(7)),
            (&["wait=100"], Some(60)),
            (&["wait=-1"], None),
            (&["wait"], None),
            (&["waiting=5"], None),
        ] {
            let wait = asked(&[], &prefer(values)).unwrap();
            assert_eq!(wait.as_ref().map(|wait| wait.patience.as_secs()), seconds, "{values:?}");
            let applied = wait.and_then(|wait| wait.applied);
            assert_eq!(applied, seconds.map(|s| HeaderValue::from_str(&format!("wait={s}")).unwrap()));
        }
    }
}
