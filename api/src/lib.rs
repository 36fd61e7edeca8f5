//! The HTTP API: accepts jobs, answers polls, cancels. Stateless: any number of instances serve the same store.
//!
//! | route | |
//! |---|---|
//! | `POST /v1/jobs` | accept a job: 202 once it is committed |
//! | `POST /v1/jobs/batch` | accept up to 10,000 jobs, with an answer for each |
//! | `GET /v1/jobs` | the jobs that fit, newest first: `queue`, `kind`, `state`, `label`, `created_after`, `created_before`, `cursor`, `limit`; or several by `id` |
//! | `GET /v1/jobs/{id}` | the job as it is now, with an `ETag`; with `wait=30s` or `Prefer: wait=30`, once it is over, or with `If-None-Match` once it has changed |
//! | `GET /v1/jobs/{id}/events`, `GET /v1/jobs/events?id=…&id=…` | the job, or up to 100, as an event stream |
//! | `GET /v1/jobs/{id}/result` | what its handler returned, as it is; 409 until the job is over |
//! | `GET /v1/jobs/{id}/errors`, `…/progress` | what went wrong, how far it is |
//! | `POST /v1/jobs/{id}/cancel` | call it off |
//! | `GET /v1/jobs/{id}/logs` | what its handler has logged: `cursor`, `limit` |
//! | `POST /v1/jobs/{id}/retry` | run it again, once it is over |
//! | `DELETE /v1/jobs/{id}` | remove it, once it is over |
//! | `POST /v1/jobs/cancel`, `…/retry`, `…/delete` | the same for all that a filter in the body means, in batches, or for those named |
//! | `GET /v1/dead` | the dead jobs, newest first: `queue`, `kind`, `label`, `since`, `until`, `cursor`, `limit` |
//! | `POST /v1/dead/retry`, `POST /v1/dead/delete` | the same for all that the body selects, in batches |
//! | `GET /v1/schedules` | the schedules, with their next runs |
//! | `GET`, `PUT`, `DELETE /v1/schedules/{name}` | one of them |
//! | `POST /v1/schedules/{name}/enable`, `/disable` | lets it fire, or not |
//! | `POST /v1/workflows` | accept jobs that wait for each other, all or none |
//! | `GET /v1/workflows/{id}` | where it stands, and its jobs page by page (`limit`, `cursor`) |
//! | `POST /v1/workflows/{id}/cancel` | call off all that is not over |
//! | `POST /v1/workflows/{id}/retry` | run what failed again, and what waits for it |
//! | `GET`, `POST /v1/webhooks` | who is told that jobs are over; the secret is shown once |
//! | `GET`, `PUT`, `DELETE /v1/webhooks/{id}` | one of them |
//! | `POST /v1/webhooks/{id}/enable`, `/disable`, `/rotate`, `/test` | switch it, give it another secret, try it |
//! | `GET /v1/webhooks/{id}/deliveries` | what it has been told, and what came of that: `cursor`, `limit` |
//! | `GET /v1/limits`, `GET`, `PUT`, `DELETE /v1/limits/{name}` | the limits that jobs may name |
//! | `GET /v1/kinds`, `GET /v1/kinds/{kind}` | what workers handle, and the JSON Schemas of its payloads |
//! | `GET /v1/workers`, `GET /v1/workers/{id}` | the workers, when they were seen, and what they run: `cursor`, `limit` |
//! | `GET /v1/queues`, `GET /v1/queues/{name}` | the queues: what waits in them, what has been said of them |
//! | `GET /v1/queues/{name}/events` | what happens to its jobs, as an event stream |
//! | `PUT /v1/queues/{name}/limit` | limit a queue as a whole, or share it fairly |
//! | `POST /v1/queues/{name}/pause`, `…/resume`, `…/drain` | start none of its jobs, or take no new ones, for a while |
//! | `GET`, `PUT`, `DELETE /v1/tenants/{tenant}/quota` | how many unfinished jobs a tenant may have |
//! | `GET /healthz` | the process lives |
//! | `GET /readyz` | the store answers, so jobs are accepted |
//! | `GET /metrics` | what is counted and timed, in Prometheus' text format |
//! | `GET /openapi.json`, `GET /docs` | all of this as an OpenAPI document, and as a page to try it on |
//!
//! Where [authentication](Authentication) is required, all but the last two need `Authorization: Bearer …`; [`routes`] tells
//! which scope each needs.
//!
//! With the feature `grpc` there are the same operations over gRPC: `serve_with_grpc`.
//!
//! Every error is a problem document (RFC 9457); 4xx means that nothing was stored.

mod around;
mod auth;
mod batch;
mod body;
mod bulk;
mod cbor;
mod compress;
mod cors;
mod crowd;
mod cursor;
mod dead;
mod duration;
mod enqueue;
mod events;
#[cfg(fuzzing)]
#[doc(hidden)]
#[allow(
    missing_docs,
    clippy::expect_used,
    reason = "for fuzz targets, which are to end where something is wrong"
)]
pub mod fuzzing;
mod gating;
#[cfg(feature = "grpc")]
mod grpc;
mod guard;
mod headers;
mod health;
mod held;
mod idempotency;
mod job;
mod kinds;
mod limits;
mod listing;
mod logs;
mod metrics;
mod name;
mod openapi;
mod problem;
mod queue_events;
mod queues;
mod quotas;
mod rates;
mod routes;
mod schedules;
mod schemas;
mod serve;
mod shed;
mod unique;
mod unpack;
mod view;
mod waiting;
mod webhooks;
mod workers;
mod workflows;

use std::{sync::Arc, time::Duration};

use axum::Router;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use windlass_client::{Client, Origin, Outside, UnknownKinds};
use windlass_core::Timetable;
use windlass_core::WorkflowLimits;

pub use crate::auth::{Authentication, Identity, Jwt, JwtError, JwtOptions, Reach};
pub use crate::metrics::MetricsPage;
pub use crate::rates::{Proxies, RateLimits, SharedRates};
pub use crate::routes::{RouteInfo, routes};
#[cfg(feature = "grpc")]
pub use crate::serve::serve_with_grpc;
pub use crate::serve::{Tls, TlsError, serve};
use crate::{auth::Gatekeeper, problem::Problem};

/// Limits and choices of the API.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// The largest request body, in bytes.
    pub max_body: usize,
    /// The largest body of a batch, in bytes; each of its jobs is held to [`max_body`](Self::max_body).
    pub max_batch_body: usize,
    /// The deepest nesting of JSON; the request's own object is the first level.
    pub max_depth: usize,
    /// What becomes of kinds that no worker has made known.
    pub unknown_kinds: UnknownKinds,
    /// How large a workflow may be, apart from [`max_body`](Self::max_body).
    pub workflow_limits: WorkflowLimits,
    /// Who may do what.
    pub authentication: Authentication,
    /// How often one may ask. With a [`router`] served by yourself, addresses are known only to
    /// `into_make_service_with_connect_info::<SocketAddr>()`.
    pub rates: RateLimits,
    /// How long a key is still taken after it has been revoked or has expired.
    pub keys_fresh: Duration,
    /// Where webhooks may be.
    pub outside: Outside,
    /// How long an idempotency key is remembered.
    pub idempotency_ttl: Duration,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long a request may wait for a job to change, on top of that.
    pub max_wait: Duration,
    /// How many requests and streams may wait for jobs at a time.
    pub max_waiting: usize,
    /// How many other requests may be in flight at a time. Those beyond are answered 503 at once, but for probes.
    pub max_in_flight: usize,
    /// How much longer than on a quiet server it may take to accept a job: when even the quickest take longer, further
    /// requests to enqueue are answered 503 until they do not.
    pub max_delay: Duration,
    /// How many connections [`serve`] keeps. On those beyond, every request but a probe is answered 503.
    pub max_connections: usize,
    /// The largest head of a request (its line and its headers), in bytes; at least 8192. [`serve`] answers 431 to much
    /// larger ones, none of which is held twice as large, and to more than 100 headers.
    pub max_head: usize,
    /// How much memory the bodies of all requests may take together, in bytes. Those beyond are answered 503.
    pub body_memory: usize,
    /// What `GET /metrics` shows; without, there is no such page.
    pub metrics: Option<MetricsPage>,
    /// The certificate by which [`serve`] speaks TLS; without one it speaks plainly. Either way it speaks HTTP/1.1 and
    /// HTTP/2.
    pub tls: Option<Tls>,
    /// Whose pages browsers let use the API, beside its own.
    pub cors_origins: Vec<Origin>,
    /// How long a connection may wait for a request's head. Longer than load balancers keep idle connections, so that
    /// they never send a request into one that is being closed.
    pub idle_timeout: Duration,
    /// How long requests under way may still take after the shutdown has begun.
    pub drain_timeout: Duration,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            max_body: 1024 * 1024,
            max_batch_body: 16 * 1024 * 1024,
            max_depth: 64,
            unknown_kinds: UnknownKinds::Refuse,
            workflow_limits: WorkflowLimits::default(),
            authentication: Authentication::Off,
            rates: RateLimits::default(),
            keys_fresh: Duration::from_secs(10),
            outside: Outside::default(),
            idempotency_ttl: Duration::from_secs(24 * 3600),
            request_timeout: Duration::from_secs(30),
            max_wait: Duration::from_secs(60),
            max_waiting: 10_000,
            max_in_flight: 2_000,
            max_delay: Duration::from_millis(5),
            max_connections: 20_000,
            max_head: 32 * 1024,
            body_memory: 256 * 1024 * 1024,
            metrics: None,
            tls: None,
            cors_origins: Vec::new(),
            idle_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// What every handler has at hand.
struct Service {
    client: Client,
    options: ApiOptions,
    schemas: schemas::Schemas,
    keys_in_flight: idempotency::InFlight,
    /// Places for requests that wait for jobs.
    waiting: Arc<Semaphore>,
    /// Places for all others.
    in_flight: Arc<Semaphore>,
    /// Places for those of them that enqueue.
    crowd: crowd::Crowd,
    /// Bytes for their bodies.
    bodies: Arc<Semaphore>,
    /// Places for answers that are compressed.
    encoders: Arc<Semaphore>,
    /// Cancelled when the server is to end, and nobody to be kept waiting.
    ending: CancellationToken,
    gatekeeper: Gatekeeper,
    meters: metrics::Meters,
    rates: rates::Rates,
}

impl Service {
    /// That of a server which ends when it is told to.
    fn new(client: Client, options: ApiOptions, ending: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            waiting: shed::places(options.max_waiting),
            in_flight: shed::places(options.max_in_flight),
            crowd: crowd::Crowd::new(options.max_in_flight, options.max_delay),
            bodies: shed::places(options.body_memory),
            encoders: shed::places(compress::PLACES),
            schemas: schemas::Schemas::default(),
            rates: rates::Rates::new(options.rates.clone()),
            keys_in_flight: idempotency::InFlight::default(),
            meters: metrics::Meters::new(),
            gatekeeper: Gatekeeper::new(options.authentication.clone(), options.keys_fresh),
            client,
            options,
            ending,
        })
    }

    fn router(self: &Arc<Self>) -> Router {
        let router = routes::add_to(Router::new(), self)
            .fallback(|| async { Problem::not_found("there is no such route") })
            .method_not_allowed_fallback(|| async { Problem::method_not_allowed() });
        around::add_to(router, self)
    }

    fn timetable(&self) -> &dyn Timetable {
        self.client.store().timetable()
    }
}

/// The routes, for a server of your own; [`serve`] has one. `Location` headers take them to be at the root.
pub fn router(client: Client, options: ApiOptions) -> Router {
    Service::new(client, options, CancellationToken::new()).router()
}
