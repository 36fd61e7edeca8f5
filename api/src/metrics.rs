//! What is counted and timed of requests, and the page that shows all metrics to Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use metrics::{Counter, Histogram, Unit};
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout},
};
use windlass_core::QueueName;

use crate::{Service, problem::Problem, queues, routes};

const REQUESTS: &str = "windlass_http_requests_total";
const DURATION: &str = "windlass_http_request_duration_seconds";
const IN_FLIGHT: &str = "windlass_http_requests_in_flight";
const ENQUEUES: &str = "windlass_http_enqueues_bound";
const WAITING: &str = "windlass_http_requests_waiting";
const BODIES: &str = "windlass_http_body_bytes";
const SHED: &str = "windlass_http_shed_total";
const QUEUES: &str = "windlass_queue_jobs";
const WHOLE: &str = "windlass_queue_jobs_complete";

/// For how long what is in the queues is not asked for again, however often the page is.
const QUEUES_FRESH: Duration = Duration::from_secs(5);
/// How long asking may take. Then the page has what was there before.
const QUEUES_PATIENCE: Duration = Duration::from_secs(3);

/// What shows the program's metrics in Prometheus' text format: those of the recorder of the
/// [`metrics`](https://docs.rs/metrics) facade that the program has installed before it made the API.
#[derive(Clone)]
pub struct MetricsPage(Arc<dyn Fn() -> String + Send + Sync>);

impl MetricsPage {
    /// A page that this makes, anew for each request.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }
}

impl fmt::Debug for MetricsPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsPage")
    }
}

/// Answers that have a series each; others are counted together.
const STATUSES: [(u16, &str); 18] = [
    (200, "200"),
    (202, "202"),
    (204, "204"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (0, "other"),
];

/// The API's metrics, with a handle for each, so that a request looks none up by its name.
pub(crate) struct Meters {
    routes: BTreeMap<&'static str, Vec<(Method, Meter)>>,
    elsewhere: Meter,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    asked: Option<Instant>,
    /// The series that there are, which become 0 and do not go.
    shown: BTreeSet<(QueueName, &'static str)>,
}

/// Of one route.
pub(crate) struct Meter {
    labels: [(&'static str, &'static str); 2],
    duration: Histogram,
    answers: [OnceLock<Counter>; STATUSES.len()],
}

impl Meters {
    pub(crate) fn new() -> Self {
        metrics::describe_counter!(REQUESTS, Unit::Count, "Requests that have been answered");
        metrics::describe_histogram!(
            DURATION,
            Unit::Seconds,
            "How long requests took until their answer began"
        );
        metrics::describe_gauge!(IN_FLIGHT, Unit::Count, "Requests being worked on, of api_max_in_flight");
        metrics::describe_gauge!(
            ENQUEUES,
            Unit::Count,
            "How many requests to enqueue may be worked on now, by what api_max_delay allows"
        );
        metrics::describe_gauge!(
            WAITING,
            Unit::Count,
            "Requests and streams waiting for jobs, of api_max_waiting"
        );
        metrics::describe_gauge!(BODIES, Unit::Bytes, "What the bodies of requests take, of api_body_memory");
        metrics::describe_counter!(SHED, Unit::Count, "Requests that were refused as too many at a time");
        metrics::describe_gauge!(
            QUEUES,
            Unit::Count,
            "Jobs by queue and state; those that are over but dead are not counted"
        );
        metrics::describe_gauge!(WHOLE, Unit::Count, "1 if all jobs were counted, 0 if there were too many");
        let mut routes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for route in routes::routes() {
            let method = match route.method {
                Method::GET => "GET",
                Method::PUT => "PUT",
                Method::DELETE => "DELETE",
                _ => "POST",
            };
            routes.entry(route.path).or_default().push((route.method, Meter::new(method, route.path)));
        }
        Self { routes, elsewhere: Meter::new("other", "other"), queues: Mutex::default() }
    }

    /// That of the route which a request has been found to be for.
    pub(crate) fn of(&self, method: &Method, path: Option<&MatchedPath>) -> &Meter {
        self.at(method, path.map(MatchedPath::as_str))
    }

    /// That of the route with this path.
    pub(crate) fn at(&self, method: &Method, path: Option<&str>) -> &Meter {
        // Its answer is the same, without the body.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let methods = path.and_then(|path| self.routes.get(path));
        let meter = methods.and_then(|methods| methods.iter().find(|(known, _)| known == method));
        meter.map_or(&self.elsewhere, |(_, meter)| meter)
    }

    /// Sets what is only known by looking.
    async fn look(&self, service: &Service) {
        let taken = |places: &Semaphore, all: usize| {
            (all.min(Semaphore::MAX_PERMITS) - places.available_permits()) as f64
        };
        let options = &service.options;
        metrics::gauge!(IN_FLIGHT).set(taken(&service.in_flight, options.max_in_flight));
        metrics::gauge!(ENQUEUES).set(service.crowd.bound() as f64);
        metrics::gauge!(WAITING).set(taken(&service.waiting, options.max_waiting));
        metrics::gauge!(BODIES).set(taken(&service.bodies, options.body_memory));
        // One asks, the others wait for that.
        let mut last = self.queues.lock().await;
        if last.asked.is_none_or(|asked| asked.elapsed() >= QUEUES_FRESH) {
            last.asked = Some(Instant::now());
            match timeout(QUEUES_PATIENCE, queues::all(service)).await {
                Ok(Ok(queues)) => last.show(&queues),
                Ok(Err(_)) => tracing::debug!("what is in the queues cannot be found out now"),
                Err(_) => tracing::debug!("finding out what is in the queues takes too long"),
            }
        }
    }
}

impl Queues {
    fn show(&mut self, queues: &[queues::QueueStatus]) {
        let gauge = |(queue, state): &(QueueName, &'static str)| metrics::gauge!(QUEUES, "queue" => queue.to_string(), "state" => *state);
        let now: BTreeMap<_, u64> = queues.iter().flat_map(queues::QueueStatus::jobs).collect();
        for gone in self.shown.iter().filter(|series| !now.contains_key(series)) {
            gauge(gone).set(0.0);
        }
        for (series, jobs) in &now {
            gauge(series).set(*jobs as f64);
        }
        self.shown.extend(now.into_keys());
        let whole = queues.iter().all(queues::QueueStatus::is_whole);
        metrics::gauge!(WHOLE).set(f64::from(u8::from(whole)));
    }
}

impl Meter {
    fn new(method: &'static str, route: &'static str) -> Self {
        Self {
            labels: [("method", method), ("route", route)],
            duration: metrics::histogram!(DURATION, "method" => method, "route" => route),
            answers: Default::default(),
        }
    }

    pub(crate) fn answered(&self, status: StatusCode, took: Duration) {
        self.duration.record(took);
        let known = STATUSES.iter().position(|(known, _)| *known == status.as_u16());
        let at = known.unwrap_or(STATUSES.len() - 1);
        let [method, route] = self.labels;
        let counter = self.answers[at].get_or_init(|| {
            metrics::counter!(REQUESTS, "method" => method.1, "route" => route.1, "status" => STATUSES[at].1)
        });
        counter.increment(1);
    }
}

pub(crate) fn count_shed(what: &'static str) {
    metrics::counter!(SHED, "what" => what).increment(1);
}

/// `GET /metrics`
pub(crate) async fn page(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let Some(MetricsPage(render)) = &service.options.metrics else {
        return Err(Problem::not_found("this program does not show its metrics here"));
    };
    service.meters.look(&service).await;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render()).into_response())
}
