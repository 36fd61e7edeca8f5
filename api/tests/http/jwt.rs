//! JSON Web Tokens, of an issuer that each test runs for itself, with keys made in the test.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use windlass_api::{Authentication, Jwt, JwtOptions};

use crate::{
    auth::guarded,
    support::{Answer, Api},
};

/// An issuer at work.
struct Issuer {
    url: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    address: SocketAddr,
    /// The JWK of each key that is published.
    keys: Mutex<BTreeMap<String, Value>>,
    fetches: AtomicUsize,
    /// Instead of keys.
    answer: Mutex<Option<(StatusCode, String)>>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn discovery(State(issuer): State<Arc<Shared>>) -> Json<Value> {
    let url = format!("http://{}", issuer.address);
    Json(json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "more": true}))
}

async fn keys(State(issuer): State<Arc<Shared>>) -> Response {
    issuer.fetches.fetch_add(1, Ordering::SeqCst);
    if let Some(answer) = issuer.answer.lock().unwrap().clone() {
        return answer.into_response();
    }
    let keys: Vec<Value> = issuer.keys.lock().unwrap().values().cloned().collect();
    Json(json!({ "keys": keys })).into_response()
}

impl Issuer {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (keys_by_id, fetches, answer) = (Mutex::default(), AtomicUsize::new(0), Mutex::default());
        let shared = Arc::new(Shared { address, keys: keys_by_id, fetches, answer });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url: format!("http://{address}"), shared, serving }
    }

    fn options(&self) -> JwtOptions {
        let at_once = Duration::ZERO;
        JwtOptions { keys_fresh: at_once, keys_pause: at_once, ..JwtOptions::new(&*self.url, "windlass") }
    }

    async fn api(&self) -> Api {
        self.api_with(self.options()).await
    }

    async fn api_with(&self, options: JwtOptions) -> Api {
        guarded(Authentication::Required { jwt: Some(Arc::new(Jwt::new(options).unwrap())) }).await
    }

    fn publish(&self, key: &Key) {
        self.shared.keys.lock().unwrap().insert(key.id.to_owned(), key.jwk());
    }

    fn withdraw(&self, key: &Key) {
        self.shared.keys.lock().unwrap().remove(key.id);
    }

    fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// Claims that are good, as far as they go.
    fn claims(&self, scope: &str) -> Value {
        json!({"iss": self.url, "aud": "windlass", "sub": "u1", "exp": now() + 600, "scope": scope})
    }
}

struct Key {
    id: &'static str,
    pair: Pair,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

impl Key {
    fn p256(id: &'static str) -> Self {
        let (random, how) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self { id, pair: Pair::P256(EcdsaKeyPair::from_pkcs8(how, made.as_ref(), &random).unwrap()) }
    }

    fn ed25519(id: &'static str) -> Self {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id, pair: Pair::Ed25519(Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap()) }
    }

    fn jwk(&self) -> Value {
        match &self.pair {
            Pair::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "x": base64(x), "y": base64(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": base64(pair.public_key())})
            }
        }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_under(&json!({"alg": self.algorithm(), "kid": self.id, "typ": "JWT"}), claims)
    }

    fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        let signature = match &self.pair {
            Pair::P256(pair) => {
                pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", base64(signature))
    }
}

async fn list(api: &Api, token: &str) -> Answer {
    api.ask(token, &Method::GET, "/v1/jobs", None).await
}

fn detail(answer: &Answer, status: u16) -> String {
    answer.problem(status)["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn tokens_let_one_do_what_their_scopes_say() {
    let issuer = Issuer::new().await;
    let (one, other) = (Key::p256("one"), Key::ed25519("other"));
    issuer.publish(&one);
    issuer.publish(&other);
    let api = issuer.api().await;
    for key in [&one, &other] {
        for scope in ["read", "email windlass:read", "admin"] {
            let answer = list(&api, &key.sign(&issuer.claims(scope))).await;
            assert_eq!(answer.status, 200, "{scope}: {answer:?}");
        }
        let refused = list(&api, &key.sign(&issuer.claims("enqueue operate"))).await;
        assert!(detail(&refused, 403).contains("read"));
    }
    let mut claims = issuer.claims("");
    claims["scope"] = json!(["read"]);
    claims["aud"] = json!(["others", "windlass"]);
    assert_eq!(list(&api, &one.sign(&claims)).await.status, 200);
    // API keys are taken as well.
    let key = api.key(crate::auth::scopes(&[windlass_core::Scope::Read]), None).await;
    assert_eq!(list(&api, &key.expose()).await.status, 200);
}

#[tokio::test]
async fn what_is_not_meant_for_us_is_refused() {
    let issuer = Issuer::new().await;
    let (key, stranger) = (Key::p256("one"), Key::p256("one"));
    issuer.publish(&key);
    // A key of another sort under the same set: of a secret, which everyone knows.
    let secret = base64("known to all");
    issuer.shared.keys.lock().unwrap().insert("s".into(), json!({"kty": "oct", "kid": "s", "k": secret}));
    let mut for_encryption = Key::p256("enc").jwk();
    for_encryption["use"] = json!("enc");
    issuer.shared.keys.lock().unwrap().insert("enc".into(), for_encryption);
    let api = issuer.api().await;
    let good = issuer.claims("read");
    assert_eq!(list(&api, &key.sign(&good)).await.status, 200);
    for (claim, value, wanted) in [
        ("exp", json!(now() - 60), "expired"),
        ("exp", Value::Null, "exp"),
        ("exp", json!("never"), "exp"),
        ("nbf", json!(now() + 60), "not good yet"),
        ("nbf", json!("soon"), "not valid"),
        ("iss", json!("https://id.example"), "issuer"),
        ("iss", Value::Null, "iss"),
        ("aud", json!("others"), "audience"),
        ("aud", json!([]), "audience"),
        ("aud", Value::Null, "aud"),
    ] {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        let refused = list(&api, &key.sign(&claims)).await;
        let detail = detail(&refused, 401);
        assert!(detail.contains(wanted), "{claim} {value}: {detail}");
        assert!(refused.header("www-authenticate").contains("invalid_token"));
    }
    // Within what clocks may be apart.
    for (claim, value) in [("exp", json!(now() - 5)), ("nbf", json!(now() + 5))] {
        let mut claims = good.clone();
        claims[claim] = value;
        assert_eq!(list(&api, &key.sign(&claims)).await.status, 200, "{claim}");
    }

    detail(&list(&api, &stranger.sign(&good)).await, 401);
    let unsigned = |alg: &str| {
        format!("{}.{}.", base64(json!({"alg": alg, "kid": "one"}).to_string()), base64(good.to_string()))
    };
    let header = |header: Value| key.sign_under(&header, &good);
    for token in [
        unsigned("none"),
        unsigned("ES256"),
        unsigned("HS256"),
        header(json!({"alg": "HS256", "kid": "one"})),
        header(json!({"alg": "HS256", "kid": "s"})),
        header(json!({"alg": "ES384", "kid": "one"})),
        header(json!({"alg": "EdDSA", "kid": "one"})),
        header(json!({"alg": "ES256", "kid": "nobody's"})),
        header(json!({"alg": "ES256", "kid": "enc"})),
        header(json!({"alg": "ES256", "kid": "one", "crit": ["exp"]})),
        header(json!({"kid": "one"})),
        format!("{}x", key.sign(&good)),
        format!("{}.more", key.sign(&good)),
        "a.b.c".into(),
        "..".into(),
        "x".repeat(20_000),
    ] {
        let refused = list(&api, &token).await;
        assert!(!detail(&refused, 401).is_empty(), "{token}");
    }
    // A secret that is public is none.
    let message =
        format!("{}.{}", base64(json!({"alg": "HS256", "kid": "s"}).to_string()), base64(good.to_string()));
    let tag =
        ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"known to all"), message.as_bytes());
    detail(&list(&api, &format!("{message}.{}", base64(tag))).await, 401);
    // An algorithm that the settings do not list, with a good signature.
    let options = JwtOptions { algorithms: vec![windlass_client::JwtAlgorithm::RS256], ..issuer.options() };
    detail(&list(&issuer.api_with(options).await, &key.sign(&good)).await, 503);
}

#[tokio::test]
async fn tenants_come_from_a_claim() {
    let issuer = Issuer::new().await;
    let key = Key::ed25519("one");
    issuer.publish(&key);
    let options = JwtOptions {
        tenant_claim: Some("/org/id".into()),
        scopes_claim: "/org/may".into(),
        ..issuer.options()
    };
    let api = issuer.api_with(options).await;
    let token = |org: Value| {
        let mut claims = issuer.claims("admin");
        claims["org"] = org;
        key.sign(&claims)
    };
    let acme = token(json!({"id": "acme", "may": ["windlass:admin"]}));
    let body = json!({"kind": "mail", "payload": 1});
    let made = api.ask(&acme, &Method::POST, "/v1/jobs", Some(body)).await;
    assert_eq!((made.status.as_u16(), &made.json()["tenant"]), (202, &json!("acme")));
    let other = token(json!({"id": 7, "may": ["read"]}));
    assert_eq!(list(&api, &other).await.json()["jobs"], json!([]));
    assert_eq!(list(&api, &acme).await.json()["jobs"].as_array().unwrap().len(), 1);
    api.ask(&acme, &Method::GET, "/v1/queues", None).await.problem(403);
    for org in [
        json!({}),
        json!({"may": ["admin"]}),
        json!({"id": "", "may": ["admin"]}),
        json!("acme"),
        Value::Null,
    ] {
        assert!(detail(&list(&api, &token(org)).await, 401).contains("/org/id"), "nobody is everybody");
    }
}

#[tokio::test]
async fn keys_of_the_issuer_come_and_go() {
    let issuer = Issuer::new().await;
    let (old, new) = (Key::p256("old"), Key::p256("new"));
    issuer.publish(&old);
    let options =
        JwtOptions { keys_pause: Duration::ZERO, keys_fresh: Duration::from_secs(600), ..issuer.options() };
    let api = issuer.api_with(options).await;
    let status = async |key: &Key| list(&api, &key.sign(&issuer.claims("read"))).await.status.as_u16();
    for _ in 0..3 {
        assert_eq!(status(&old).await, 200);
    }
    assert_eq!(issuer.fetches(), 1);
    issuer.publish(&new);
    assert_eq!(status(&new).await, 200, "it is looked for at once");
    assert_eq!(issuer.fetches(), 2);
    issuer.withdraw(&old);
    // Of a key that nobody has, until which the old one is good.
    assert_eq!((status(&old).await, status(&Key::p256("third")).await, status(&old).await), (200, 401, 401));
    // A token need not name the only key there is.
    let unnamed = new.sign_under(&json!({"alg": "ES256"}), &issuer.claims("read"));
    assert_eq!(list(&api, &unnamed).await.status, 200);
}

#[tokio::test]
async fn an_issuer_that_fails_is_not_flooded() {
    let issuer = Issuer::new().await;
    let key = Key::p256("one");
    issuer.publish(&key);
    let minute = Duration::from_secs(60);
    let options = JwtOptions { keys_pause: minute, ..issuer.options() };
    let api = issuer.api_with(options.clone()).await;
    let token = |key: &Key| key.sign(&issuer.claims("read"));
    assert_eq!(list(&api, &token(&key)).await.status, 200);
    for _ in 0..5 {
        detail(&list(&api, &token(&Key::p256("unknown"))).await, 401);
    }
    assert_eq!(issuer.fetches(), 1, "tokens of unknown keys make no traffic");

    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        (StatusCode::OK, "no JSON".into()),
        (StatusCode::OK, json!({"keys": []}).to_string()),
        (StatusCode::OK, json!({"keys": [{"kty": "oct", "k": "AA"}]}).to_string()),
        (StatusCode::OK, format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(300_000))),
    ] {
        *issuer.shared.answer.lock().unwrap() = Some((status, body));
        let api = issuer.api_with(options.clone()).await;
        let before = issuer.fetches();
        for _ in 0..3 {
            let refused = list(&api, &token(&key)).await;
            detail(&refused, 503);
            assert!(!refused.header("retry-after").is_empty());
        }
        assert_eq!(issuer.fetches() - before, 1);
    }
    // What was fetched before is good for a while more.
    let options = issuer.options();
    *issuer.shared.answer.lock().unwrap() = None;
    let api = issuer.api_with(options).await;
    assert_eq!(list(&api, &token(&key)).await.status, 200);
    *issuer.shared.answer.lock().unwrap() = Some((StatusCode::BAD_GATEWAY, String::new()));
    assert_eq!(list(&api, &token(&key)).await.status, 200);
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let good = JwtOptions::new("https://id.example", "windlass");
    assert!(Jwt::new(good.clone()).is_ok());
    for (options, setting) in [
        (JwtOptions { issuer: "http://id.example".into(), ..good.clone() }, "api_jwt_issuer"),
        (JwtOptions { issuer: "id".into(), ..good.clone() }, "api_jwt_issuer"),
        (JwtOptions { jwks_url: Some("http://id.example/keys".into()), ..good.clone() }, "api_jwt_jwks_url"),
        (JwtOptions { audience: Vec::new(), ..good.clone() }, "api_jwt_audience"),
        (JwtOptions { algorithms: Vec::new(), ..good }, "api_jwt_algorithms"),
    ] {
        let message = Jwt::new(options).unwrap_err().to_string();
        assert!(message.contains(setting), "{message}");
    }
}
