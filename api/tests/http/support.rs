use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header, request::Builder, response::Parts},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _, SqlitePool};
use tempfile::TempDir;
use tower::ServiceExt as _;
use windlass_api::ApiOptions;
use windlass_brokers::Memory;
use windlass_client::{Client, ClientOptions};
use windlass_core::{
    Broker, ClaimId, ClaimedJob, Finish, JobId, KindInfo, NewWorker, Outcome, Store, WorkerId,
};
use windlass_store::{SqliteStore, StoreOptions};

use crate::openapi;

/// How long anything that must come may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An API over a store of its own, whose one worker has made the kind `mail` known.
pub(crate) struct Api {
    pub(crate) router: Router,
    pub(crate) store: SqliteStore,
    pub(crate) client: Client,
    worker: WorkerId,
    rows: SqlitePool,
    _folder: Arc<TempDir>,
}

impl Api {
    pub(crate) async fn new() -> Self {
        Self::with(ApiOptions::default()).await
    }

    pub(crate) async fn with(options: ApiOptions) -> Self {
        Self::over(options, |store| Arc::new(store), Arc::new(Memory::new())).await
    }

    /// With something between the API and the real store.
    pub(crate) async fn over(
        options: ApiOptions,
        wrap: impl FnOnce(SqliteStore) -> Arc<dyn Store>,
        broker: Arc<dyn Broker>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
        let store = SqliteStore::open(&url, &StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        let worker = WorkerId::new();
        let info = KindInfo {
            queue: "letters".parse().unwrap(),
            max_attempts: 8,
            ..KindInfo::new("mail".parse().unwrap())
        };
        let lease = Duration::from_secs(3600);
        store
            .register(&NewWorker { id: worker, label: "w1".into(), lease, kinds: vec![info] })
            .await
            .unwrap();
        let client = Client::new(wrap(store.clone()), broker, ClientOptions::default());
        let router = windlass_api::router(client.clone(), options);
        let rows = SqlitePool::connect(&url).await.unwrap();
        Self { router, store, client, worker, rows, _folder: Arc::new(folder) }
    }

    /// Another instance of the same system.
    #[cfg(feature = "redis")]
    pub(crate) fn beside(&self, options: ApiOptions) -> Self {
        let store = Arc::new(self.store.clone());
        let client = Client::new(store, Arc::new(Memory::new()), ClientOptions::default());
        let router = windlass_api::router(client.clone(), options);
        let (store, rows, folder) = (self.store.clone(), self.rows.clone(), self._folder.clone());
        Self { router, store, client, worker: self.worker, rows, _folder: folder }
    }

    /// The answer, which must be one of those that the OpenAPI document has.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        openapi::check(&method, &path, &answer);
        answer
    }

    /// The head of an answer, and the body to be read.
    pub(crate) async fn stream(&self, path: &str) -> (Parts, Body) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        assert_eq!(head.status, StatusCode::OK);
        (head, body)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send(Request::post(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn enqueue(&self, body: impl Into<Body>) -> Answer {
        self.send(enqueue().body(body.into()).unwrap()).await
    }

    /// Enqueues a plain job and answers its id.
    pub(crate) async fn job(&self) -> JobId {
        let answer = self.enqueue(r#"{"kind": "mail", "payload": 1}"#).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        answer.json()["id"].as_str().unwrap().parse().unwrap()
    }

    /// Claims the job for the worker.
    pub(crate) async fn claim(&self, id: JobId) -> ClaimedJob {
        self.store.claim(self.worker, ClaimId::new(), &[id]).await.unwrap().pop().unwrap()
    }

    /// Claims the job and records an outcome.
    pub(crate) async fn finish(&self, id: JobId, outcome: Outcome) {
        let attempt = self.claim(id).await;
        self.end(attempt, outcome).await;
    }

    /// Records the outcome of an attempt.
    pub(crate) async fn end(&self, attempt: ClaimedJob, outcome: Outcome) {
        let finish = Finish { id: attempt.id, fence: attempt.fence, outcome };
        let recorded = self.store.finish(self.worker, &[finish], &[]).await.unwrap();
        assert_eq!(recorded, [attempt.id]);
    }

    /// How many rows the store has that an enqueue would write.
    pub(crate) async fn stored(&self) -> i64 {
        let mut all = 0;
        for table in ["jobs", "due", "outbox", "idempotency_keys", "timers", "unique_keys", "schedules"] {
            all += self.count(table).await;
        }
        all
    }

    /// Changes the store's file behind its back.
    pub(crate) async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.rows).await.unwrap();
    }

    /// How many jobs the store has.
    pub(crate) async fn jobs(&self) -> i64 {
        self.count("jobs").await
    }

    /// How many rows a table of the store has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query(count).fetch_one(&self.rows).await.unwrap().get(0)
    }
}

/// `POST /v1/jobs` with JSON to come.
pub(crate) fn enqueue() -> Builder {
    Request::builder().method(Method::POST).uri("/v1/jobs").header(header::CONTENT_TYPE, "application/json")
}

/// A body with a payload and one more field.
pub(crate) fn with(field: &str, value: Value) -> String {
    let mut body = json!({"kind": "mail", "payload": 1});
    body[field] = value;
    body.to_string()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The problem document, after checking that it is one, and a whole one.
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        assert!(!self.header("x-request-id").is_empty());
        assert!(self.body.len() < 8192, "a problem of {} bytes", self.body.len());
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().unwrap().starts_with("urn:windlass:problem:"), "{problem}");
        for text in ["title", "detail"] {
            assert!(!problem[text].as_str().unwrap().is_empty(), "{problem}");
        }
        problem
    }

    /// The pointers of the problem's errors.
    pub(crate) fn pointers(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

/// Waits for a future that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}
