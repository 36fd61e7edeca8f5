//! Brokers that speak TLS with a certificate of an authority that only `broker_url` makes known.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/checks.rs"]
mod checks;
#[path = "support/server.rs"]
mod server;

use std::net::TcpListener;
use std::path::PathBuf;

use checks::{lane, refuses, suffices};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use server::OwnServer;
use tempfile::TempDir;

/// An authority, and a server's key and certificate signed by it.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Or OpenSSL would take the server, with the same name, for its own authority.
        authority.distinguished_name.push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = server.signed_by(&key, &authority).unwrap().pem();
        for (name, text) in [
            ("authority.pem", authority.pem()),
            ("certificate.pem", certificate.clone()),
            ("key.pem", key.serialize_pem()),
            ("both.pem", key.serialize_pem() + &certificate),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Starts a server; it must be of this machine's packages, since only they see its files.
async fn start(name: &'static str, variable: &'static str, value: String) -> OwnServer {
    let value: &'static str = value.leak();
    OwnServer::start(name, vec![("WINDLASS_SERVICES", "packages"), (variable, value)].leak()).await
}

/// Works with the authority that signed the server's certificate, and with no other, which is for the operator.
async fn trusts_whom_it_is_told(url: &str, parameter: &str, certificates: &Certificates) {
    let with = |certificates: &Certificates| {
        let mark = if url.contains('?') { '&' } else { '?' };
        format!("{url}{mark}{parameter}={}", certificates.file("authority.pem").display())
    };
    suffices(&with(certificates), lane()).await;
    for error in refuses(&with(&Certificates::new())).await {
        assert!(error.contains("no secure connection") && error.contains(parameter), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq() {
    let certificates = Certificates::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let configuration = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
         ssl_options.keyfile = {}",
        certificates.file("authority.pem").display(),
        certificates.file("certificate.pem").display(),
        certificates.file("key.pem").display(),
    );
    let _server = start("rabbitmq", "WINDLASS_RABBITMQ_CONF", configuration).await;
    let url = format!("amqps://windlass:windlass@127.0.0.1:{port}/%2f");
    trusts_whom_it_is_told(&url, "cacertfile", &certificates).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka() {
    let certificates = Certificates::new();
    let file = certificates.file("both.pem").display().to_string();
    let server = start("kafka", "WINDLASS_KAFKA_PEM", file).await;
    trusts_whom_it_is_told(&server.tls_url().await, "ssl.ca.location", &certificates).await;
}
