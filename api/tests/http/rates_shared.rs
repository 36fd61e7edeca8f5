//! Rates that instances count together, in a real Redis.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tower::ServiceExt as _;
use uuid::Uuid;
use windlass_api::{ApiOptions, RateLimits, SharedRates};

use crate::support::{Api, PATIENCE, soon};

/// For a server that does not answer.
const SHORT: Duration = Duration::from_millis(100);

pub(crate) fn redis() -> String {
    std::env::var("WINDLASS_TEST_REDIS_URL")
        .expect("WINDLASS_TEST_REDIS_URL is not set: run scripts/test, which starts the servers")
}

fn options(url: &str, rate: &str, patience: Duration) -> ApiOptions {
    let rates = RateLimits {
        ip: Some(rate.parse().unwrap()),
        shared: Some(SharedRates::open(url, patience).unwrap()),
        ..RateLimits::default()
    };
    ApiOptions { rates, ..ApiOptions::default() }
}

/// Two instances of one system.
async fn two(url: &str, rate: &str) -> (Api, Api) {
    let one = Api::with(options(url, rate, PATIENCE)).await;
    let other = one.beside(options(url, rate, PATIENCE));
    (one, other)
}

/// A client that no other test is, nor was.
fn somebody() -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from_bits(Uuid::new_v4().as_u128()).into(), 1)
}

async fn ask(router: &Router, client: SocketAddr) -> u16 {
    let request = Request::get("/v1/kinds").extension(ConnectInfo(client)).body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap().status().as_u16()
}

/// Uses up what a client may.
async fn use_up(api: &Api) -> SocketAddr {
    let client = somebody();
    while ask(&api.router, client).await == 200 {}
    client
}

/// Waits until an instance counts what the other one has counted.
async fn counts_with(far: &Api, near: &Api) {
    soon("Redis to be asked", async { while ask(&far.router, use_up(near).await).await != 429 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_a_limit_exactly() {
    let (one, other) = two(&redis(), "7/h").await;
    let client = somebody();
    let mut asked = JoinSet::new();
    for number in 0..40 {
        let router = if number % 2 == 0 { &one.router } else { &other.router }.clone();
        asked.spawn(async move { ask(&router, client).await });
    }
    let statuses = asked.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 7, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 33, "{statuses:?}");
    assert_eq!(ask(&one.router, somebody()).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn systems_that_share_a_redis_count_apart() {
    let (one, other) = (two(&redis(), "2/h").await, two(&redis(), "2/h").await);
    let client = use_up(&one.0).await;
    assert_eq!(ask(&one.1.router, client).await, 429);
    assert_eq!(ask(&other.0.router, client).await, 200);
    assert_eq!(ask(&other.1.router, client).await, 200);
    assert_eq!(ask(&other.0.router, client).await, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_without_redis() {
    let (one, other) = two(&redis(), "2/h").await;
    let client = somebody();
    let ask = async |api: &Api| {
        let request = Request::get("/v1/kinds").extension(ConnectInfo(client)).body(Body::empty());
        api.send(request.unwrap()).await
    };
    assert_eq!(ask(&one).await.header("ratelimit"), "\"ip\";r=1;t=1800");
    assert!(ask(&other).await.header("ratelimit").starts_with("\"ip\";r=0;t="));
    let refused = ask(&one).await;
    refused.problem(429);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1700..=1800).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_instance_counts_by_itself() {
    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("redis://{closed}");
    let (one, other) = two(&url, "2/h").await;
    let client = somebody();
    for api in [&one, &other] {
        let statuses =
            [ask(&api.router, client).await, ask(&api.router, client).await, ask(&api.router, client).await];
        assert_eq!(statuses, [200, 200, 429]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_falls_silent_is_done_without_until_it_is_back() {
    let way = Way::to_redis().await;
    let near = Api::with(options(&redis(), "3/h", PATIENCE)).await;
    let far = near.beside(options(&way.url, "3/h", SHORT));
    counts_with(&far, &near).await;
    // Connections stand, and nothing comes through.
    way.held.send_replace(true);
    let client = use_up(&near).await;
    let statuses = soon("answers without Redis", async {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(ask(&far.router, client).await);
        }
        statuses
    });
    assert_eq!(statuses.await, [200, 200, 200, 429]);
    way.held.send_replace(false);
    counts_with(&far, &near).await;
}

#[test]
fn what_is_no_redis_is_refused_and_no_password_shown() {
    for url in
        ["http://user:s3cret@host", "redis://user:s3cret@host:port", "rediss://user:s3cret@host/#insecure"]
    {
        let error = SharedRates::open(url, SHORT).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("shared_url") && !shown.contains("s3cret"), "{shown}");
    }
    let shown = format!("{:?}", SharedRates::open("redis://user:s3cret@host/1", SHORT).unwrap());
    assert!(!shown.contains("s3cret"), "{shown}");
}

/// A way to Redis on which nothing moves while it is held.
pub(crate) struct Way {
    pub(crate) url: String,
    pub(crate) held: Arc<watch::Sender<bool>>,
    _carrying: JoinSet<()>,
}

impl Way {
    pub(crate) async fn to_redis() -> Self {
        let url = redis();
        let (login, rest) = url.strip_prefix("redis://").unwrap().rsplit_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{login}@{}/{database}", listener.local_addr().unwrap());
        let held = Arc::new(watch::Sender::new(false));
        let mut carrying = JoinSet::new();
        carrying.spawn(carry(listener, server.to_owned(), held.clone()));
        Self { url, held, _carrying: carrying }
    }
}

async fn carry(listener: TcpListener, server: String, held: Arc<watch::Sender<bool>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut near, _)) = listener.accept().await else { return };
        let (server, mut held) = (server.clone(), held.subscribe());
        connections.spawn(async move {
            // Kept open, and closed once the way is free again.
            if !*held.borrow() {
                let Ok(mut far) = TcpStream::connect(server).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => return,
                    _ = held.wait_for(|held| *held) => {}
                }
                let _ = held.wait_for(|held| !*held).await;
            } else {
                let _ = held.wait_for(|held| !*held).await;
            }
        });
    }
}
