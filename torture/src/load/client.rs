//! A client of the HTTP API, as a user would write it, that takes everything down.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    clock,
    history::{Answer, Call, History, Request, Seen, Verdict, Wish},
};

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) struct Client {
    http: reqwest::Client,
    apis: Vec<SocketAddr>,
    history: History,
}

impl Client {
    pub(crate) fn new(apis: Vec<SocketAddr>, history: History) -> Result<Self, reqwest::Error> {
        let http =
            reqwest::Client::builder().timeout(TIMEOUT).connect_timeout(Duration::from_secs(3)).build()?;
        Ok(Self { http, apis, history })
    }

    /// Sends a request to one of the APIs, and answers with what came of it.
    pub(crate) async fn call(&self, api: usize, request: Request) -> Call {
        let sent = clock::now();
        let answer = match self.ask(api, &request).await {
            Ok(answer) => answer,
            Err(error) => Answer::Unknown { error: error.without_url().to_string() },
        };
        let call = Call { sent, received: clock::now(), api, request, answer };
        self.history.note(&call);
        call
    }

    /// Repeats a request under its idempotency key, at any API, until it is known what came of it; `None`, if that did
    /// not come to pass in time.
    pub(crate) async fn insist(
        &self,
        rng: &mut fastrand::Rng,
        request: Request,
        until: tokio::time::Instant,
    ) -> Option<Call> {
        let mut pause = Duration::from_millis(100);
        loop {
            let call = self.call(rng.usize(..self.apis.len()), request.clone()).await;
            let busy = matches!(call.answer, Answer::Refused { status: 409 | 429 | 503, .. });
            if call.verdict() != Verdict::Unknown && !busy {
                return Some(call);
            }
            if tokio::time::Instant::now() + pause > until {
                return None;
            }
            tokio::time::sleep(pause.mul_f64(0.5 + rng.f64())).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    pub(crate) fn any(&self, rng: &mut fastrand::Rng) -> usize {
        rng.usize(..self.apis.len())
    }

    pub(crate) async fn put(&self, api: usize, path: &str, body: &Value) -> Result<bool, reqwest::Error> {
        let url = format!("http://{}{path}", self.apis[api]);
        Ok(self.http.put(url).json(body).send().await?.status().is_success())
    }

    /// Whether workers have made these kinds known.
    pub(crate) async fn knows(&self, kinds: &[&str]) -> bool {
        let url = format!("http://{}/v1/kinds", self.apis[0]);
        let Ok(answer) = self.http.get(url).send().await else { return false };
        let Ok(text) = answer.text().await else { return false };
        kinds.iter().all(|kind| text.contains(&format!("\"{kind}\"")))
    }

    async fn ask(&self, api: usize, request: &Request) -> Result<Answer, reqwest::Error> {
        let base = format!("http://{}/v1", self.apis[api]);
        let (builder, key) = match request {
            Request::Enqueue { wish, key } => {
                (self.http.post(format!("{base}/jobs")).json(&wish.body()), key.as_ref())
            }
            Request::Conflict { wish, key } => {
                (self.http.post(format!("{base}/jobs")).json(&wish.body()), Some(key))
            }
            Request::Batch { wishes, key } => {
                let jobs: Vec<Value> = wishes.iter().map(Wish::body).collect();
                (self.http.post(format!("{base}/jobs/batch")).json(&json!({"jobs": jobs})), Some(key))
            }
            Request::Workflow { wishes, key } => {
                (self.http.post(format!("{base}/workflows")).json(&workflow(wishes)), Some(key))
            }
            Request::Get { id } => (self.http.get(format!("{base}/jobs/{id}")), None),
            Request::List { ids } => {
                let ids: Vec<String> = ids.iter().map(|id| format!("id={id}")).collect();
                (self.http.get(format!("{base}/jobs?{}", ids.join("&"))), None)
            }
            Request::Cancel { id } => (self.http.post(format!("{base}/jobs/{id}/cancel")), None),
        };
        let builder = match key {
            Some(key) => builder.header("idempotency-key", key),
            None => builder,
        };
        let answer = builder.send().await?;
        let status = answer.status().as_u16();
        let existing = answer.headers().contains_key("unique-conflict");
        let replayed = answer.headers().contains_key("idempotency-replayed");
        // The status line is when a client believes it, but what else it says comes with the body.
        let body = answer.bytes().await?;
        if !(200..300).contains(&status) {
            let problem = String::from_utf8_lossy(&body).chars().take(400).collect();
            return Ok(Answer::Refused { status, problem });
        }
        let jobs = match serde_json::from_slice::<Value>(&body) {
            Ok(body) => jobs(request, &body),
            Err(error) => {
                return Ok(Answer::Unknown {
                    error: format!("{status} with a body that is no JSON: {error}"),
                });
            }
        };
        Ok(Answer::Done { status, jobs, existing, replayed })
    }
}

/// The name of a wish within its workflow.
fn name(wishes: &[Wish], tag: &str) -> String {
    format!("j{}", wishes.iter().position(|wish| wish.tag == tag).unwrap_or_default())
}

fn workflow(wishes: &[Wish]) -> Value {
    let jobs = wishes.iter().map(|wish| {
        let mut job = wish.body();
        job["name"] = json!(name(wishes, &wish.tag));
        job["after"] = wish.after.iter().map(|tag| json!(name(wishes, tag))).collect();
        job
    });
    json!({"name": "torture", "jobs": jobs.collect::<Vec<_>>()})
}

/// The jobs that an answer shows, in the order of the wishes.
fn jobs(request: &Request, body: &Value) -> Vec<Option<Seen>> {
    let listed = || body["jobs"].as_array().map_or(&[][..], Vec::as_slice);
    match request {
        Request::Enqueue { .. } | Request::Conflict { .. } | Request::Get { .. } | Request::Cancel { .. } => {
            vec![seen(body)]
        }
        Request::Batch { .. } | Request::List { .. } => listed().iter().map(seen).collect(),
        Request::Workflow { wishes, .. } => wishes
            .iter()
            .map(|wish| seen(listed().iter().find(|job| job["name"] == name(wishes, &wish.tag))?))
            .collect(),
    }
}

fn seen(job: &Value) -> Option<Seen> {
    let number = |name: &str| job[name].as_u64().and_then(|number| u32::try_from(number).ok());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Seen {
        id: job["id"].as_str()?.parse::<Uuid>().ok()?,
        state: text(&job["state"]),
        attempt: number("attempt").unwrap_or_default(),
        kind: text(&job["kind"]),
        max_attempts: number("max_attempts"),
        run: job["result"]["run"].as_str().and_then(|run| run.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(tag: &str, after: &[&str]) -> Wish {
        Wish { tag: tag.into(), after: after.iter().map(|tag| (*tag).into()).collect(), ..Wish::default() }
    }

    #[test]
    fn a_workflow_names_its_jobs_and_is_read_in_the_order_of_the_wishes() {
        let wishes = vec![wish("a", &[]), wish("b", &["a"])];
        let body = workflow(&wishes);
        assert_eq!(body["jobs"][1]["name"], "j1");
        assert_eq!(body["jobs"][1]["after"], json!(["j0"]));
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let answer = json!({"jobs": [
            {"name": "j1", "id": second, "state": "waiting", "attempt": 0},
            {"name": "j0", "id": first, "state": "succeeded", "attempt": 1, "result": {"run": second}},
        ]});
        let seen = jobs(&Request::Workflow { wishes, key: "k".into() }, &answer);
        let seen: Vec<_> = seen.into_iter().flatten().map(|job| (job.id, job.attempt, job.run)).collect();
        assert_eq!(seen, [(first, 1, Some(second)), (second, 0, None)]);
    }

    #[test]
    fn an_entry_that_a_batch_refuses_keeps_its_place() {
        let id = Uuid::from_u128(3);
        let request = Request::Batch { wishes: vec![wish("a", &[]), wish("b", &[])], key: "k".into() };
        let seen = jobs(&request, &json!({"jobs": [{"error": {"status": 422}}, {"id": id}]}));
        assert!(seen[0].is_none());
        assert_eq!(seen[1].as_ref().unwrap().id, id);
    }
}
