//! TLS and HTTP/2 over real sockets: what is agreed on, new certificates, slow clients, and how it ends.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use axum::http::Version;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, ClientBuilder, Response};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use windlass_api::{ApiOptions, Tls};

use crate::{
    connections::{BODY, Served},
    faults::Fault,
    support::{PATIENCE, soon},
};

/// An authority, and the files of a certificate that it gave.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: tempfile::tempdir().unwrap() };
        authority.certify("api.test");
        authority
    }

    /// Writes a new key, and a certificate for a name.
    fn certify(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.certificate(), certificate.pem()).unwrap();
        fs::write(self.key(), key.serialize_pem()).unwrap();
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls::load(self.certificate(), self.key()).unwrap()
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client that trusts it and nobody else, and finds everything at this address.
    fn client(&self, address: SocketAddr) -> ClientBuilder {
        let root = Certificate::from_pem(self.pem().as_bytes()).unwrap();
        client().tls_certs_only([root]).resolve("api.test", address).resolve("new.test", address)
    }
}

fn client() -> ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(PATIENCE)
}

async fn served(tls: &Tls, options: ApiOptions) -> Served {
    Served::new(ApiOptions { tls: Some(tls.clone()), ..options }).await
}

fn url(scheme: &str, name: &str, served: &Served, path: &str) -> String {
    format!("{scheme}://{name}:{}{path}", served.address.port())
}

async fn enqueue(client: &Client, url: String) -> Response {
    let request = client.post(url).header("content-type", "application/json").body(BODY);
    request.send().await.unwrap()
}

/// Holds what comes to the store: it cancels the first token then, and goes on with the second.
fn held(served: &Served) -> (CancellationToken, CancellationToken) {
    let (knocked, release) = (CancellationToken::new(), CancellationToken::new());
    let fault = Fault::Held { knocked: knocked.clone(), release: release.clone() };
    *served.fault.lock().unwrap() = Some(fault);
    (knocked, release)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_are_spoken_over_tls_and_without() {
    let authority = Authority::new();
    let secure = served(&authority.tls(), ApiOptions::default()).await;
    let plain = Served::new(ApiOptions::default()).await;
    let clients = [
        (&secure, "https", authority.client(secure.address), Version::HTTP_2),
        (&secure, "https", authority.client(secure.address).http1_only(), Version::HTTP_11),
        (
            &plain,
            "http",
            client().resolve("api.test", plain.address).http2_prior_knowledge(),
            Version::HTTP_2,
        ),
        (&plain, "http", client().resolve("api.test", plain.address), Version::HTTP_11),
    ];
    for (served, scheme, client, version) in clients {
        let client = client.build().unwrap();
        let answer = enqueue(&client, url(scheme, "api.test", served, "/v1/jobs")).await;
        assert_eq!((answer.status().as_u16(), answer.version()), (202, version));
        // Browsers are to come by TLS only, once they did.
        let strict = answer.headers().get("strict-transport-security");
        assert_eq!(strict.is_some(), scheme == "https", "{answer:?}");
        let place = answer.headers()["location"].to_str().unwrap().to_owned();
        let job = client.get(url(scheme, "api.test", served, &place)).send().await.unwrap();
        assert!(job.headers().contains_key("etag"), "{job:?}");
        assert!(job.text().await.unwrap().contains("\"queued\""));
    }
    // Nobody is answered in the clear where TLS is meant.
    let mut clear = secure.connect().await;
    clear.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    clear.closed().await;
    secure.stop().await;
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_without_a_restart_and_a_bad_one_is_not() {
    let authority = Authority::new();
    let tls = authority.tls();
    let served = served(&tls, ApiOptions::default()).await;
    // Each client opens a connection of its own.
    let answers = async |name: &str| {
        let client = authority.client(served.address).build().unwrap();
        client.get(url("https", name, &served, "/healthz")).send().await.is_ok()
    };
    assert!(answers("api.test").await);
    assert!(!answers("new.test").await, "the certificate is for another name");
    authority.certify("new.test");
    assert!(answers("api.test").await, "nobody has asked for it to be read yet");
    tls.reload().unwrap();
    assert!(answers("new.test").await);
    assert!(!answers("api.test").await);

    let (certificate, key) = (fs::read(authority.certificate()).unwrap(), fs::read(authority.key()).unwrap());
    let other = Authority::new();
    let bad: [(&str, PathBuf, Vec<u8>); 5] = [
        ("cannot be used with the key", authority.key(), fs::read(other.key()).unwrap()),
        ("PEM with a private key: there is none", authority.key(), certificate.clone()),
        ("PEM with a private key", authority.key(), b"-----BEGIN PRIVATE KEY-----\nhunter2\n".to_vec()),
        ("PEM with a certificate: there is none", authority.certificate(), key.clone()),
        ("PEM with a certificate: there is none", authority.certificate(), Vec::new()),
    ];
    for (problem, file, content) in bad {
        fs::write(&file, content).unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains(file.to_str().unwrap()), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert!(answers("new.test").await, "{error}");
        fs::write(authority.certificate(), &certificate).unwrap();
        fs::write(authority.key(), &key).unwrap();
    }
    fs::remove_file(authority.key()).unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.starts_with("cannot read") && error.contains("key.pem"), "{error}");
    assert!(answers("new.test").await);
    // Nor does what is logged about it show the key.
    assert!(!format!("{tls:?}").contains("PRIVATE"), "{tls:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_nobody_vouches_for_is_not_talked_to() {
    let (authority, other) = (Authority::new(), Authority::new());
    let served = served(&authority.tls(), ApiOptions::default()).await;
    let client = other.client(served.address).build().unwrap();
    let error = client.get(url("https", "api.test", &served, "/healthz")).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_get_on_is_cut_off() {
    let authority = Authority::new();
    let options = ApiOptions { idle_timeout: Duration::from_millis(300), ..ApiOptions::default() };
    let secure = served(&authority.tls(), options.clone()).await;
    let plain = Served::new(options).await;
    // Nothing at all, a handshake that does not go on, a preface without its end, and one that nothing follows.
    let slow: [(&Served, &[u8]); 6] = [
        (&secure, b""),
        (&secure, b"\x16\x03\x01\x02\0\x01"),
        (&plain, b""),
        (&plain, b"PRI * HTT"),
        (&plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        // The settings, and the first half of a head.
        (&plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x02\x01\0\0\0\0\x01\x82\x86"),
    ];
    for (served, bytes) in slow {
        let mut connection = served.connect().await;
        connection.write(bytes).await;
        connection.closed().await;
    }
    secure.stop().await;
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_no_more_requests_or_headers_than_it_may() {
    let options = ApiOptions { max_in_flight: 1, ..ApiOptions::default() };
    let served = Served::new(options).await;
    let client = client().resolve("api.test", served.address).http2_prior_knowledge().build().unwrap();
    let path = url("http", "api.test", &served, "/v1/jobs");
    let long = "x".repeat(40_000);
    let answer = client.get(path.clone()).header("x", long).send().await.unwrap();
    assert_eq!(answer.status(), 431);
    // The same bound on what is in flight as with connections of their own.
    let (knocked, release) = held(&served);
    let first = tokio::spawn({
        let (client, path) = (client.clone(), path.clone());
        async move { enqueue(&client, path).await.status() }
    });
    soon("the request to be at the store", knocked.cancelled()).await;
    assert_eq!(client.get(path).send().await.unwrap().status(), 503);
    release.cancel();
    assert_eq!(first.await.unwrap(), 202);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_requests_of_http2_finish_and_takes_no_more() {
    let authority = Authority::new();
    let served = served(&authority.tls(), ApiOptions::default()).await;
    let client = authority.client(served.address).build().unwrap();
    let path = url("https", "api.test", &served, "/v1/jobs");
    let (knocked, release) = held(&served);
    let busy = tokio::spawn({
        let (client, path) = (client.clone(), path.clone());
        async move { enqueue(&client, path).await.status() }
    });
    soon("the request to be at the store", knocked.cancelled()).await;
    served.begin_to_stop();
    // The client knows from the GOAWAY that it needs another connection, and gets none.
    soon("requests to be refused", async {
        while client.get(url("https", "api.test", &served, "/healthz")).send().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!busy.is_finished());
    release.cancel();
    assert_eq!(busy.await.unwrap(), 202);
    assert_eq!(served.jobs().await, 1);
    served.stop().await;
}
