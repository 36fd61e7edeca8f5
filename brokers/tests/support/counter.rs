//! Counts what goes to a server that speaks SQS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Stands before a server and counts the calls by their names.
pub(crate) struct Counter {
    pub(crate) endpoint: String,
    counts: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Counter {
    pub(crate) async fn start(endpoint: &str) -> Self {
        let server = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let counts: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let counted = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, counted) = (server.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    let (mut from_server, mut to_server) = server.into_split();
                    let (mut from_client, mut to_client) = client.into_split();
                    let back = tokio::io::copy(&mut from_server, &mut to_client);
                    let forth = async {
                        let (mut line, mut bytes) = (Vec::new(), [0; 4096]);
                        loop {
                            let count = from_client.read(&mut bytes).await?;
                            if count == 0 {
                                return std::io::Result::Ok(());
                            }
                            for byte in &bytes[..count] {
                                line.push(byte.to_ascii_lowercase());
                                if *byte == b'\n' {
                                    if let Some(call) = line.strip_prefix(b"x-amz-target: amazonsqs.") {
                                        let call = String::from_utf8_lossy(call).trim().to_owned();
                                        *counted.lock().unwrap().entry(call).or_default() += 1;
                                    }
                                    line.clear();
                                }
                            }
                            to_server.write_all(&bytes[..count]).await?;
                        }
                    };
                    let _ = tokio::join!(back, forth);
                });
            }
        });
        Self { endpoint, counts }
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.counts.lock().unwrap().clone()
    }
}
