//! A small HTTP server that webhooks are delivered to.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

/// An answer that never comes.
pub const NEVER: u16 = 0;

/// A request that has arrived whole.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Gives the answers in turn, and the last one from then on. Ends with the value.
pub struct Receiver {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _task: AbortOnDropHandle<()>,
}

impl Receiver {
    /// One that answers with these status codes, and with this header besides.
    pub async fn start(answers: &[u16], header: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (all, answers, header) = (received.clone(), answers.to_vec(), header.to_owned());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (all, answers, header) = (all.clone(), answers.clone(), header.clone());
                tokio::spawn(async move { serve(stream, &all, &answers, &header).await });
            }
        });
        Self { address, received, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

/// Takes one request; whoever goes away before its end has sent none.
async fn serve(
    mut stream: TcpStream,
    all: &Mutex<Vec<Received>>,
    answers: &[u16],
    header: &str,
) -> Option<()> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let headers: HashMap<String, String> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(bytes[head..].to_vec()).ok()?;
    let number = {
        let mut all = all.lock().unwrap();
        all.push(Received { headers, body });
        all.len()
    };
    let status = answers.get(number - 1).or(answers.last()).copied()?;
    if status == NEVER {
        // Until the other side goes away.
        while stream.read_buf(&mut bytes).await.ok()? > 0 {}
        return None;
    }
    let answer = format!("HTTP/1.1 {status} X\r\n{header}content-length: 2\r\nconnection: close\r\n\r\nok");
    stream.write_all(answer.as_bytes()).await.ok()
}
