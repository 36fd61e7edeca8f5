//! Keys, and what they let one do.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use serde_json::{Value, json, value::RawValue};
use windlass_api::{ApiOptions, Authentication, Reach, RouteInfo, routes};
use windlass_brokers::Memory;
use windlass_client::ApiKey;
use windlass_core::{JobId, Keys as _, NewKey, Outcome, Scope, Scopes};

use crate::support::{Answer, Api};

/// An API whose keys are looked up for every request.
pub(crate) async fn guarded(authentication: Authentication) -> Api {
    let options = ApiOptions { authentication, keys_fresh: Duration::ZERO, ..ApiOptions::default() };
    Api::over(options, |store| Arc::new(store), Arc::new(Memory::new())).await
}

pub(crate) async fn with_keys() -> Api {
    guarded(Authentication::Required { jwt: None }).await
}

pub(crate) fn scopes(scopes: &[Scope]) -> Scopes {
    scopes.iter().copied().collect()
}

impl Api {
    pub(crate) async fn key(&self, scopes: Scopes, tenant: Option<&str>) -> ApiKey {
        let key = ApiKey::generate().unwrap();
        let tenant = tenant.map(|tenant| tenant.parse().unwrap());
        let (id, hash) = (key.id().clone(), key.hash());
        let new = NewKey { id, hash, name: "test".into(), scopes, tenant, expires_at: None };
        self.store.create_key(&new).await.unwrap();
        key
    }

    /// A request with this `Authorization` and, where there is one, a body.
    pub(crate) async fn ask(&self, token: &str, method: &Method, path: &str, body: Option<Value>) -> Answer {
        let request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let request = match body {
            Some(body) => {
                request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string()))
            }
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }
}

const JOB: &str = r#"{"kind": "mail", "payload": 1}"#;

#[tokio::test]
async fn without_a_good_key_there_is_nothing() {
    let api = with_keys().await;
    let key = api.key(scopes(&[Scope::Admin]), None).await.expose();
    let answer = api.ask(&key, &Method::GET, "/v1/jobs", None).await;
    assert_eq!((answer.status.as_u16(), answer.header("vary")), (200, "authorization"));
    let refused = api.get("/v1/jobs").await;
    refused.problem(401);
    assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"windlass\"");
    let unknown = ApiKey::generate().unwrap().expose();
    let other_secret = ApiKey::rotate(key[3..15].parse().unwrap()).unwrap().expose();
    for token in ["", "x", "wl_", "a.b.c", &unknown, &other_secret, &key[..87]] {
        let refused = api.ask(token, &Method::GET, "/v1/jobs", None).await;
        let problem = refused.problem(401);
        assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"windlass\", error=\"invalid_token\"");
        assert!(token.len() < 4 || !problem.to_string().contains(token), "{problem}");
    }
    for value in [format!("Basic {key}"), key.clone(), format!("Bearer{key}")] {
        let request = Request::get("/v1/jobs").header("authorization", &value).body(Body::empty()).unwrap();
        api.send(request).await.problem(401);
    }
    let value = format!("Bearer {key}");
    let twice = Request::get("/v1/jobs").header("authorization", &value).header("authorization", &value);
    api.send(twice.body(Body::empty()).unwrap()).await.problem(401);
    let scheme = Request::get("/v1/jobs").header("authorization", format!("bearer {key}"));
    assert_eq!(api.send(scheme.body(Body::empty()).unwrap()).await.status, 200);
    // What there is not needs no key, and is told to nobody who has none.
    api.get("/v1/nothing").await.problem(404);
    assert_eq!(
        (api.get("/healthz").await.status.as_u16(), api.get("/readyz").await.status.as_u16()),
        (204, 200)
    );
    // Nothing was stored on the way.
    api.enqueue(JOB).await.problem(401);
    assert_eq!(api.jobs().await, 0);
}

#[tokio::test]
async fn keys_end_when_they_are_revoked_and_rotate_before() {
    let api = with_keys().await;
    let key = api.key(scopes(&[Scope::Read]), None).await;
    let status =
        async |key: &ApiKey| api.ask(&key.expose(), &Method::GET, "/v1/jobs", None).await.status.as_u16();
    assert_eq!(status(&key).await, 200);
    let newer = ApiKey::rotate(key.id().clone()).unwrap();
    assert!(api.store.rotate_key(key.id(), newer.hash(), Duration::from_secs(3600)).await.unwrap());
    assert_eq!((status(&key).await, status(&newer).await), (200, 200));
    let newest = ApiKey::rotate(key.id().clone()).unwrap();
    assert!(api.store.rotate_key(key.id(), newest.hash(), Duration::ZERO).await.unwrap());
    assert_eq!((status(&key).await, status(&newer).await, status(&newest).await), (401, 401, 200));
    assert!(api.store.all_keys().await.unwrap()[0].last_used_at.is_some());
    assert!(api.store.revoke_key(key.id()).await.unwrap());
    assert_eq!(status(&newest).await, 401);
}

#[tokio::test]
async fn keys_are_not_asked_for_with_every_request() {
    let options =
        ApiOptions { authentication: Authentication::Required { jwt: None }, ..ApiOptions::default() };
    let api = Api::with(options).await;
    let key = api.key(scopes(&[Scope::Read]), None).await;
    let status =
        async |key: &ApiKey| api.ask(&key.expose(), &Method::GET, "/v1/jobs", None).await.status.as_u16();
    assert_eq!(status(&key).await, 200);
    assert!(api.store.revoke_key(key.id()).await.unwrap());
    assert_eq!(status(&key).await, 200, "for some seconds more");
}

#[tokio::test]
async fn without_authentication_everything_is_open() {
    let api = Api::new().await;
    assert_eq!(api.enqueue(r#"{"kind": "mail", "payload": 1, "tenant": "acme"}"#).await.status, 202);
    assert_eq!(api.ask("nonsense", &Method::GET, "/v1/jobs", None).await.status, 200);
    assert_eq!(api.get("/v1/jobs?tenant=acme").await.json()["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(api.get("/v1/jobs?tenant=globex").await.json()["jobs"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn nobody_gets_in_while_keys_cannot_be_checked() {
    let api = with_keys().await;
    let key = api.key(scopes(&[Scope::Admin]), None).await.expose();
    assert_eq!(api.ask(&key, &Method::GET, "/v1/jobs", None).await.status, 200);
    api.execute("ALTER TABLE api_keys RENAME TO gone").await;
    let refused = api.ask(&key, &Method::GET, "/v1/jobs", None).await;
    assert!(!refused.problem(503).to_string().contains("api_keys"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), "1");
    api.execute("ALTER TABLE gone RENAME TO api_keys").await;
    assert_eq!(api.ask(&key, &Method::GET, "/v1/jobs", None).await.status, 200);
}

/// A request that the route takes, about things that are there.
struct Sample {
    path: String,
    body: Option<Value>,
}

/// What a tenant has, and the fleet.
struct Things {
    queued: JobId,
    dead: JobId,
    succeeded: JobId,
    workflow: String,
    webhook: String,
}

impl Things {
    /// Those of a tenant, made with its key.
    async fn of(api: &Api, key: &str) -> Self {
        let enqueue = async || {
            let answer = api.ask(key, &Method::POST, "/v1/jobs", serde_json::from_str(JOB).ok()).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            answer.json()["id"].as_str().unwrap().parse::<JobId>().unwrap()
        };
        let (queued, dead, succeeded) = (enqueue().await, enqueue().await, enqueue().await);
        let result = RawValue::from_string(r#""secret of the tenant""#.into()).ok();
        for (job, outcome) in [
            (dead, Outcome::Dead { error: "secret of the tenant".into() }),
            (succeeded, Outcome::Succeeded { result, keep: None }),
        ] {
            let attempt = api.claim(job).await;
            api.say(job, attempt.fence, 0..3).await;
            api.end(attempt, outcome).await;
        }
        let graph = json!({"name": "w", "jobs": [{"name": "a", "kind": "mail", "payload": 1}]});
        let workflow = api.ask(key, &Method::POST, "/v1/workflows", Some(graph)).await;
        assert_eq!(workflow.status, 202, "{workflow:?}");
        let hook = json!({"url": "https://example.com/hook"});
        let webhook = api.ask(key, &Method::POST, "/v1/webhooks", Some(hook)).await;
        assert_eq!(webhook.status, 201, "{webhook:?}");
        let id = |answer: &Answer| answer.json()["id"].as_str().unwrap().to_owned();
        Self { queued, dead, succeeded, workflow: id(&workflow), webhook: id(&webhook) }
    }

    /// A request about these things; a route without one must get one here.
    fn sample(&self, route: &RouteInfo) -> Sample {
        let (dead, queued) = (self.dead, self.queued);
        let body = match (&route.method, route.path) {
            (&Method::POST, "/v1/jobs") => serde_json::from_str(JOB).ok(),
            (_, "/v1/jobs/batch") => Some(json!({"jobs": [{"kind": "mail", "payload": 1}]})),
            (_, "/v1/jobs/cancel") => Some(json!({"ids": [queued]})),
            (_, "/v1/jobs/retry" | "/v1/jobs/delete") => Some(json!({"ids": [dead]})),
            (_, "/v1/dead/retry" | "/v1/dead/delete") => Some(json!({})),
            (&Method::POST, "/v1/workflows") => {
                Some(json!({"name": "w", "jobs": [{"name": "a", "kind": "mail", "payload": 1}]}))
            }
            (&Method::PUT, "/v1/schedules/{name}") => {
                Some(json!({"every": "1h", "job": {"kind": "mail", "payload": 1}}))
            }
            (&Method::PUT, "/v1/tenants/{tenant}/quota") => Some(json!({"max_unfinished": 100})),
            (&Method::POST, "/v1/webhooks") | (&Method::PUT, "/v1/webhooks/{id}") => {
                Some(json!({"url": "https://example.com/another"}))
            }
            (&Method::PUT, _) => Some(json!({"max_running": 1})),
            _ => None,
        };
        let id = match route.path {
            path if path.starts_with("/v1/workflows") => self.workflow.clone(),
            path if path.starts_with("/v1/webhooks") => self.webhook.clone(),
            "/v1/jobs/{id}/cancel" => queued.to_string(),
            "/v1/jobs/{id}/result" => self.succeeded.to_string(),
            _ => dead.to_string(),
        };
        let path = route
            .path
            .replace("{id}", &id)
            .replace("{name}", "thing")
            .replace("{kind}", "mail")
            .replace("{tenant}", "acme");
        let query = match route.path {
            "/v1/jobs/events" => format!("?id={dead}"),
            // Which never ends by itself.
            "/v1/queues/{name}/events" => "?for=0s".into(),
            _ => String::new(),
        };
        Sample { path: path + &query, body }
    }
}

/// Each route needs its scope, whatever other scopes a key has; `admin` will do for each.
#[tokio::test]
async fn every_route_needs_its_scope() {
    for route in routes() {
        let api = with_keys().await;
        let everyone = api.key(scopes(&[Scope::Admin]), None).await.expose();
        let sample = Things::of(&api, &everyone).await.sample(&route);
        let ask = async |key: &str| api.ask(key, &route.method, &sample.path, sample.body.clone()).await;
        let Some(needed) = route.scope else {
            assert!(ask("nonsense").await.status.is_success(), "{route:?}");
            continue;
        };
        ask("nonsense").await.problem(401);
        let others: Vec<Scope> =
            Scope::ALL.into_iter().filter(|scope| *scope != needed && *scope != Scope::Admin).collect();
        let refused = ask(&api.key(scopes(&others), None).await.expose()).await;
        let problem = refused.problem(403);
        assert!(problem["detail"].as_str().unwrap().contains(needed.as_str()), "{route:?}: {problem}");
        assert!(refused.header("www-authenticate").contains(&format!("scope=\"{needed}\"")), "{refused:?}");
        let answer = ask(&api.key(scopes(&[needed]), None).await.expose()).await;
        assert!(![401, 403].contains(&answer.status.as_u16()), "{route:?}: {answer:?}");
        let answer = ask(&everyone).await;
        assert!(![401, 403].contains(&answer.status.as_u16()), "{route:?}: {answer:?}");
    }
}

/// Whatever route tenant B takes, with whatever it knows of A's things: it sees nothing of them, and they stay as they
/// are; and the same route does its work for A.
#[tokio::test]
async fn no_route_leads_to_another_tenant() {
    for route in routes().into_iter().filter(|route| route.scope.is_some()) {
        let api = with_keys().await;
        let all = scopes(&[Scope::Admin]);
        let [a, b] = ["acme", "globex"];
        let (a, b) = (api.key(all, Some(a)).await.expose(), api.key(all, Some(b)).await.expose());
        let operator = api.key(all, None).await.expose();
        let things = Things::of(&api, &a).await;
        let sample = things.sample(&route);
        let picture = async || {
            let mut seen = Vec::new();
            for job in [things.queued, things.dead, things.succeeded] {
                let job = api.ask(&operator, &Method::GET, &format!("/v1/jobs/{job}"), None).await;
                assert_eq!(job.status, 200);
                seen.push(job.json());
            }
            let workflow = format!("/v1/workflows/{}", things.workflow);
            let workflow = api.ask(&operator, &Method::GET, &workflow, None).await;
            assert_eq!(workflow.status, 200);
            seen.push(workflow.json());
            let webhook = format!("/v1/webhooks/{}", things.webhook);
            seen.push(api.ask(&operator, &Method::GET, &webhook, None).await.json());
            for list in ["schedules", "limits", "queues"] {
                seen.push(api.ask(&operator, &Method::GET, &format!("/v1/{list}"), None).await.json());
            }
            // How much is in a queue is nobody's own.
            for queue in seen.iter_mut().flat_map(|list| list["queues"].as_array_mut()).flatten() {
                queue["depth"].take();
                queue["lanes"].take();
            }
            seen
        };
        let before = picture().await;
        assert_eq!((&before[0]["tenant"], &before[3]["tenant"]), (&json!("acme"), &json!("acme")));
        let answer = api.ask(&b, &route.method, &sample.path, sample.body.clone()).await;
        assert_eq!(picture().await, before, "{route:?}: {answer:?}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            !["acme", "secret of", "rendering", "line 1"].iter().any(|thing| text.contains(thing)),
            "{route:?}: {text}"
        );
        match route.reach {
            Reach::Fleet => drop(answer.problem(403)),
            Reach::Tenant if route.path.contains("{id}") || sample.path.contains("?id=") => {
                let problem = answer.problem(404);
                // As if there were none.
                let nothing = Things {
                    queued: JobId::new(),
                    dead: JobId::new(),
                    succeeded: JobId::new(),
                    workflow: JobId::new().to_string(),
                    webhook: JobId::new().to_string(),
                };
                let other = nothing.sample(&route);
                let absent = api.ask(&b, &route.method, &other.path, None).await.problem(404);
                let is_id = |part: &&str| part.parse::<JobId>().is_ok();
                let id = |path: &str| path.split(['/', '=']).find(is_id).unwrap().to_owned();
                let detail = problem["detail"].as_str().unwrap().replace(&id(&sample.path), &id(&other.path));
                assert_eq!(
                    (&problem["type"], detail.as_str()),
                    (&absent["type"], absent["detail"].as_str().unwrap())
                );
            }
            Reach::Tenant => {
                assert!(answer.status.is_success(), "{route:?}: {answer:?}");
                let others = [&things.workflow, &things.webhook].map(Clone::clone);
                for id in [things.queued, things.dead].map(|id| id.to_string()).into_iter().chain(others) {
                    assert!(!text.contains(&id), "{route:?}: {text}");
                }
                if route.path.ends_with("/cancel") || text.contains("\"count\"") {
                    assert_eq!(answer.json()["count"], 0, "{route:?}");
                }
            }
        }
        let named = format!("/v1/jobs?id={}&id={}", things.queued, things.dead);
        assert_eq!(api.ask(&b, &Method::GET, &named, None).await.json()["jobs"], json!([]));
        // Its owner gets through to it.
        let answer = api.ask(&a, &route.method, &sample.path, sample.body.clone()).await;
        if route.reach == Reach::Tenant {
            assert!(answer.status.is_success(), "{route:?}: {answer:?}");
            if text.contains("\"count\"") {
                assert_eq!(answer.json()["count"], 1, "{route:?}");
            }
        }
    }
}

/// Nothing that a request says makes it another tenant's, and what it makes is its own.
#[tokio::test]
async fn requests_cannot_name_another_tenant() {
    let api = with_keys().await;
    let all = scopes(&[Scope::Admin]);
    let key = api.key(all, Some("acme")).await.expose();
    let operator = api.key(all, None).await.expose();
    let job = |tenant: &str| json!({"kind": "mail", "payload": 1, "tenant": tenant});
    let named = |tenant: &str| json!({"kind": "mail", "payload": 1, "tenant": tenant, "name": "a"});
    let (get, post) = (Method::GET, Method::POST);
    let requests = |tenant: &str| {
        let filter = json!({"filter": {"tenant": tenant}});
        vec![
            (&post, "/v1/jobs".to_owned(), Some(job(tenant))),
            (&post, "/v1/workflows".into(), Some(json!({"name": "w", "jobs": [named(tenant)]}))),
            (&get, format!("/v1/jobs?tenant={tenant}"), None),
            (&get, format!("/v1/dead?tenant={tenant}"), None),
            (&post, "/v1/jobs/cancel".into(), Some(filter.clone())),
            (&post, "/v1/jobs/retry".into(), Some(filter.clone())),
            (&post, "/v1/jobs/delete".into(), Some(filter)),
            (&post, "/v1/dead/retry".into(), Some(json!({"tenant": tenant}))),
            (&post, "/v1/dead/delete".into(), Some(json!({"tenant": tenant}))),
        ]
    };
    for (method, path, body) in requests("globex") {
        let problem = api.ask(&key, method, &path, body).await.problem(403);
        assert!(!problem.to_string().contains("globex"), "{problem}");
    }
    assert_eq!(api.jobs().await, 0);
    for (method, path, body) in requests("acme") {
        let answer = api.ask(&key, method, &path, body).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
    }
    let batch = json!({"jobs": [job("globex"), job("acme"), {"kind": "mail", "payload": 1}]});
    let answer = api.ask(&key, &post, "/v1/jobs/batch", Some(batch)).await.json();
    assert_eq!(answer["jobs"][0]["error"]["status"], 403, "{answer}");
    assert!(answer["jobs"][1]["id"].is_string() && answer["jobs"][2]["id"].is_string(), "{answer}");
    let listed = api.ask(&operator, &get, "/v1/jobs", None).await.json();
    let tenants: BTreeSet<&str> =
        listed["jobs"].as_array().unwrap().iter().map(|job| job["tenant"].as_str().unwrap()).collect();
    assert_eq!(tenants, BTreeSet::from(["acme"]));
}

/// Keys of all sorts that tenants share by chance: each gets its own job, and hears nothing of the other's.
#[tokio::test]
async fn tenants_share_no_keys() {
    let api = with_keys().await;
    let all = scopes(&[Scope::Admin]);
    let mut keys = vec![api.key(all, None).await.expose()];
    for tenant in ["acme", "globex"] {
        keys.push(api.key(all, Some(tenant)).await.expose());
    }
    let mut made = BTreeSet::new();
    for (number, key) in keys.iter().enumerate() {
        let ask = async |path: &str, body: &Value| {
            let request = Request::post(path)
                .header("authorization", format!("Bearer {key}"))
                .header("content-type", "application/json")
                // Of several kinds, since a key is for one request.
                .header("idempotency-key", format!("same{}", path.len()));
            api.send(request.body(Body::from(body.to_string())).unwrap()).await
        };
        // Another request under the same key for each, which would be refused if they shared it.
        let body =
            json!({"kind": "mail", "payload": number, "unique": {"key": "u", "on_conflict": "refuse"}});
        let graph = json!({"name": "w", "jobs": [{"name": "a", "kind": "mail", "payload": number}]});
        let batch = json!({"jobs": [{"kind": "mail", "payload": number}]});
        for (path, body) in [("/v1/jobs", &body), ("/v1/workflows", &graph), ("/v1/jobs/batch", &batch)] {
            let answer = ask(path, body).await;
            assert!(answer.status.is_success(), "{path}: {answer:?}");
            let (first, again) = (answer.json(), ask(path, body).await.json());
            let id = |answer: &Value| {
                answer["id"].as_str().or(answer["jobs"][0]["id"].as_str()).unwrap().to_owned()
            };
            assert_eq!(id(&first), id(&again), "its own repeat is known");
            assert!(made.insert(id(&first)), "{path} gave another's");
        }
    }
    assert_eq!(made.len(), 9);
}
