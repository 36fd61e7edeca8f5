//! How often one may ask. The rates are so slow that no test lasts until the next request is let through.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request},
};
use serde_json::json;
use windlass_api::{ApiOptions, Authentication, Proxies, RateLimits};
use windlass_core::Scope;

use crate::{
    auth::scopes,
    connections::{BODY, Served, whole},
    support::{Answer, Api},
};

async fn limited(rates: RateLimits) -> Api {
    let authentication = Authentication::Required { jwt: None };
    Api::with(ApiOptions { authentication, keys_fresh: Duration::ZERO, rates, ..ApiOptions::default() }).await
}

fn open(rates: RateLimits) -> ApiOptions {
    ApiOptions { rates, ..ApiOptions::default() }
}

impl Api {
    /// A request that comes from an address.
    async fn from(&self, peer: &str, path: &str, forwarded_for: Option<&str>) -> Answer {
        let mut request =
            Request::get(path).extension(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        if let Some(client) = forwarded_for {
            request = request.header("x-forwarded-for", client);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }
}

#[tokio::test]
async fn each_address_has_a_rate_of_its_own() {
    let ip = Some("2/h".parse().unwrap());
    let api = Api::with(open(RateLimits { ip, ..RateLimits::default() })).await;
    for (left, full) in [(1, 1800), (0, 3600)] {
        let answer = api.from("192.0.2.1", "/v1/kinds", None).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), "\"ip\";q=2;w=3600");
        assert_eq!(answer.header("ratelimit"), format!("\"ip\";r={left};t={full}"));
    }
    let refused = api.from("192.0.2.1", "/v1/kinds", None).await;
    let problem = refused.problem(429);
    assert_eq!(problem["type"], "urn:windlass:problem:too-many-requests");
    assert!(problem["detail"].as_str().unwrap().contains("2/1h"), "{problem}");
    assert_eq!(refused.header("retry-after"), "1800");
    assert_eq!(refused.header("ratelimit"), "\"ip\";r=0;t=3600");
    // Nor is there another answer of any kind, but to probes.
    for path in ["/v1/nothing", "/openapi.json", "/docs"] {
        api.from("192.0.2.1", path, None).await.problem(429);
    }
    assert_eq!(api.from("192.0.2.1", "/healthz", None).await.status, 204);
    assert_eq!(api.from("192.0.2.1", "/readyz", None).await.status, 200);
    assert_eq!(api.from("192.0.2.2", "/v1/kinds", None).await.status, 200);
    // A /64 is one client.
    assert_eq!(api.from("2001:db8::1", "/v1/kinds", None).await.status, 200);
    assert_eq!(api.from("2001:db8::2", "/v1/kinds", None).await.status, 200);
    api.from("2001:db8::3", "/v1/kinds", None).await.problem(429);
    assert_eq!(api.from("2001:db8:0:1::1", "/v1/kinds", None).await.status, 200);
}

#[tokio::test]
async fn only_trusted_proxies_say_whom_a_request_is_from() {
    let proxies = Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap()], ..Proxies::default() };
    let ip = Some("1/h".parse().unwrap());
    let api = Api::with(open(RateLimits { ip, proxies, ..RateLimits::default() })).await;
    for client in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(api.from("10.0.0.1", "/v1/kinds", Some(client)).await.status, 200);
        // Whatever the client has written before it.
        let spoofed = format!("192.0.2.77, {client}");
        api.from("10.0.0.1", "/v1/kinds", Some(&spoofed)).await.problem(429);
    }
    assert_eq!(api.from("192.0.2.3", "/v1/kinds", Some("192.0.2.4")).await.status, 200);
    api.from("192.0.2.3", "/v1/kinds", Some("192.0.2.5")).await.problem(429);
    assert_eq!(api.from("10.0.0.1", "/v1/kinds", Some("192.0.2.4")).await.status, 200);
}

#[tokio::test]
async fn guessing_keys_is_limited_per_address() {
    let rates = RateLimits { ip: Some("3/h".parse().unwrap()), ..RateLimits::default() };
    let api = limited(rates).await;
    for _ in 0..3 {
        api.from("192.0.2.1", "/v1/jobs", None).await.problem(401);
    }
    api.from("192.0.2.1", "/v1/jobs", None).await.problem(429);
}

#[tokio::test]
async fn keys_and_tenants_are_counted_apart() {
    let rates = RateLimits {
        key: Some("3/h".parse().unwrap()),
        tenant: Some("4/h".parse().unwrap()),
        ..RateLimits::default()
    };
    let api = limited(rates).await;
    let all = scopes(&[Scope::Admin]);
    let fleet = api.key(all, None).await.expose();
    let acme = [api.key(all, Some("acme")).await.expose(), api.key(all, Some("acme")).await.expose()];
    let list = async |key: &str| api.ask(key, &Method::GET, "/v1/jobs", None).await;
    let ask = async |key: &str| list(key).await.status.as_u16();
    // The third for the key, and the third of four for the tenant.
    assert_eq!([ask(&acme[0]).await, ask(&acme[0]).await], [200, 200]);
    let answer = list(&acme[0]).await;
    let fields = |name: &str| {
        answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(fields("ratelimit-policy"), ["\"key\";q=3;w=3600", "\"tenant\";q=4;w=3600"]);
    assert_eq!(fields("ratelimit"), ["\"key\";r=0;t=3600", "\"tenant\";r=1;t=2700"]);
    let refused = list(&acme[0]).await;
    assert!(refused.problem(429)["detail"].as_str().unwrap().contains("key"));
    assert_eq!(refused.header("ratelimit-policy"), "\"key\";q=3;w=3600");
    // What one key was refused does not count for the tenant.
    assert_eq!(ask(&acme[1]).await, 200);
    let refused = list(&acme[1]).await;
    assert!(refused.problem(429)["detail"].as_str().unwrap().contains("tenant"));
    assert_eq!(refused.header("retry-after"), "900");
    assert_eq!(ask(&fleet).await, 200);
    let job = json!({"kind": "mail", "payload": 1});
    api.ask(&acme[1], &Method::POST, "/v1/jobs", Some(job)).await.problem(429);
    assert_eq!(api.stored().await, 0);
}

#[tokio::test]
async fn without_authentication_nobody_has_a_key() {
    let key = Some("1/h".parse().unwrap());
    let api = Api::with(open(RateLimits { key, ..RateLimits::default() })).await;
    for _ in 0..3 {
        let answer = api.get("/v1/kinds").await;
        assert_eq!((answer.status.as_u16(), answer.header("ratelimit")), (200, ""));
    }
}

#[tokio::test]
async fn a_queue_lets_requests_through_one_at_a_time() {
    let ip = Some("10/s queue 3".parse().unwrap());
    let api = Api::with(open(RateLimits { ip, ..RateLimits::default() })).await;
    // Nothing is queued yet, so that the first one waits for nobody.
    let began = Instant::now();
    let asked = (0..4).map(|_| api.from("192.0.2.1", "/v1/kinds", None));
    let answers = futures::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_full_queue_refuses_and_the_end_empties_it() {
    let ip = Some("1/h queue 1".parse().unwrap());
    let served = Served::new(open(RateLimits { ip, ..RateLimits::default() })).await;
    let [mut first, mut one, mut other] =
        [served.connect().await, served.connect().await, served.connect().await];
    first.write(whole(BODY)).await;
    assert_eq!(first.answer().await.0, 202);
    one.write(whole(BODY)).await;
    other.write(whole(BODY)).await;
    // One of them waits.
    let one_is_refused = tokio::select! {
        (status, ..) = one.answer() => { assert_eq!(status, 429); true }
        (status, ..) = other.answer() => { assert_eq!(status, 429); false }
    };
    let jobs = served.jobs().await;
    served.stop().await;
    let mut waiting = if one_is_refused { other } else { one };
    let problem = waiting.problem(503).await;
    assert!(problem["detail"].as_str().unwrap().contains("nothing was stored"), "{problem}");
    assert_eq!(jobs, 1);
}
