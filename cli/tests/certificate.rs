//! SIGHUP, as a command gets it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{fs, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use rcgen::CertifiedKey;
use reqwest::{Certificate, Client};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Writes a key and a certificate for a name; answers how to make a client that trusts it and nobody else, and finds the
/// name at this address.
fn certify(folder: &Path, name: &str) -> impl Fn(SocketAddr) -> Client + use<> {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    fs::write(folder.join("certificate.pem"), cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    let (root, name) = (Certificate::from_pem(cert.pem().as_bytes()).unwrap(), name.to_owned());
    move |address| {
        let client = Client::builder().no_proxy().timeout(PATIENCE);
        client.tls_certs_only([root.clone()]).resolve(&name, address).build().unwrap()
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_at_a_hangup() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let before = certify(folder.path(), "before.test");
    let mut process = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(["dev", "--listen", "127.0.0.1:0", "--data-dir", "data"])
        .current_dir(folder.path())
        .env("WINDLASS_API_TLS_CERTIFICATE", "certificate.pem")
        .env("WINDLASS_API_TLS_KEY", "key.pem")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let address: SocketAddr = timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it ended");
            if let Some((_, address)) = line.split_once("API    https://") {
                return address.parse().unwrap();
            }
        }
    })
    .await
    .expect("no address");
    // A new client, for a connection of its own.
    let answers = async |client: &dyn Fn(SocketAddr) -> Client, name: &str| {
        client(address).get(format!("https://{name}:{}/healthz", address.port())).send().await.is_ok()
    };
    assert!(answers(&before, "before.test").await);
    let after = certify(folder.path(), "after.test");
    assert!(!answers(&after, "after.test").await, "nobody has asked for it to be read yet");
    let pid = process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    timeout(PATIENCE, async {
        while !answers(&after, "after.test").await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the new certificate is not taken");
    assert!(!answers(&before, "before.test").await);
    assert!(process.try_wait().unwrap().is_none(), "it goes on");
}
