//! A process that is sent too much keeps its memory within bounds, and goes on serving others.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{future::Future, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

/// How long anything that must come may take.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;
/// What may come and go of itself: caches, the database, memory that the allocator keeps.
const SLACK: usize = 48 * MIB;

struct Dev {
    process: Child,
    address: String,
    _folder: TempDir,
}

impl Dev {
    /// Bodies may take 32 MiB, and 5 s.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_windlass"))
            .args(["dev", "--listen", "127.0.0.1:0", "--data-dir", "data"])
            .current_dir(folder.path())
            .env("WINDLASS_API_BODY_MEMORY", (32 * MIB).to_string())
            .env("WINDLASS_API_TIMEOUT", "5s")
            .env("WINDLASS_LOG", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = soon("the address", async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it ended");
                if let Some((_, address)) = line.split_once("API    http://") {
                    return address.to_owned();
                }
            }
        })
        .await;
        let dev = Self { process, address, _folder: folder };
        soon("the worker to make its kinds known", async {
            while dev.status(job()).await != 202 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // What is there from the first requests on is no growth.
        for _ in 0..50 {
            dev.serves().await;
        }
        dev
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Sends a request and answers the status.
    async fn status(&self, request: impl AsRef<[u8]>) -> u16 {
        soon("an answer", async {
            let mut stream = self.connect().await;
            stream.write_all(request.as_ref()).await.unwrap();
            status(&mut stream).await
        })
        .await
    }

    /// Takes a job as if nothing were the matter.
    async fn serves(&self) {
        assert_eq!(self.status(job()).await, 202);
    }

    /// The memory that the process has, in bytes.
    fn memory(&self) -> usize {
        let file = format!("/proc/{}/status", self.process.id().unwrap());
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Fails if the process has grown by more than what the abuse may take.
    fn assert_growth(&self, before: usize, bound: usize) {
        let grown = self.memory().saturating_sub(before);
        assert!(grown < bound + SLACK, "grown by {} MiB, not {}", grown / MIB, bound / MIB);
    }
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{body}")
}

fn job() -> String {
    let body = r#"{"kind": "report.build", "payload": {"orders": "orders.csv", "group_by": "region"}, "delay": "1h"}"#;
    post(&format!("content-length: {}", body.len()), body)
}

async fn status(stream: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

#[tokio::test]
async fn a_thousand_connections_that_say_little_cost_little() {
    let dev = Dev::start().await;
    let before = dev.memory();
    let mut idle = Vec::new();
    for number in 0..1_000 {
        let mut stream = dev.connect().await;
        let said: &[&[u8]] = &[b"", b"POST /v1/jobs HT", b"GET /healthz HTTP/1.1\r\nhost: x\r\n"];
        stream.write_all(said[number % said.len()]).await.unwrap();
        idle.push(stream);
    }
    dev.serves().await;
    dev.assert_growth(before, 1_000 * 16 * 1024);
    drop(idle);
    dev.serves().await;
}

#[tokio::test]
async fn a_flood_of_headers_is_held_to_the_largest_head() {
    let dev = Dev::start().await;
    let before = dev.memory();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}", "x".repeat(30_000));
    let mut flood = Vec::new();
    for _ in 0..1_000 {
        let mut stream = dev.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        flood.push(stream);
    }
    dev.serves().await;
    dev.assert_growth(before, 1_000 * 64 * 1024);
    // One header too many, and one endless one.
    let many: String = (0..200).map(|n| format!("x{n}: x\r\n")).collect();
    assert_eq!(dev.status(format!("GET /healthz HTTP/1.1\r\n{many}\r\n")).await, 431);
    let mut stream = dev.connect().await;
    let endless = "x".repeat(MIB);
    let _ = stream.write_all(head.as_bytes()).await;
    soon("the cut", async { while stream.write_all(endless.as_bytes()).await.is_ok() {} }).await;
    dev.serves().await;
}

#[tokio::test]
async fn a_body_of_a_gibibyte_is_refused_while_it_is_sent() {
    let dev = Dev::start().await;
    let before = dev.memory();
    let chunk = vec![b' '; 64 * 1024];
    for headers in ["content-length: 1073741824", "transfer-encoding: chunked"] {
        let (mut read, mut write) = dev.connect().await.into_split();
        write.write_all(post(headers, "").as_bytes()).await.unwrap();
        let chunk = match headers.starts_with("transfer") {
            true => [b"10000\r\n", &*chunk, b"\r\n"].concat(),
            false => chunk.clone(),
        };
        let sending = tokio::spawn(async move {
            let mut sent = 0;
            while sent < 1024 * MIB && write.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        });
        let mut head = [0; 12];
        soon("the answer", read.read_exact(&mut head)).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 413");
        let sent = soon("the cut", sending).await.unwrap();
        assert!(sent < 64 * MIB, "{} MiB were taken", sent / MIB);
    }
    dev.assert_growth(before, MIB);
    dev.serves().await;
}

#[tokio::test]
async fn bodies_that_never_end_share_their_memory() {
    let dev = Dev::start().await;
    let before = dev.memory();
    let most_of_it = post(&format!("content-length: {MIB}"), &" ".repeat(MIB - 1_000));
    let mut hogs = Vec::new();
    for _ in 0..200 {
        let mut stream = dev.connect().await;
        // The server may cut it off before all is written.
        let _ = stream.write_all(most_of_it.as_bytes()).await;
        hogs.push(stream);
    }
    dev.assert_growth(before, 32 * MIB);
    // Each is told to go away, at once or when its time is up.
    for mut stream in hogs {
        let status = soon("an answer", status(&mut stream)).await;
        assert!([408, 503].contains(&status), "{status}");
    }
    dev.serves().await;
}

#[tokio::test]
async fn deep_json_is_refused_before_it_is_read() {
    let dev = Dev::start().await;
    let before = dev.memory();
    let open = MIB - 100;
    for deep in ["[".repeat(open), r#"{"a":"#.repeat(open / 5), "[{\"\":".repeat(open / 6)] {
        let body = format!(r#"{{"kind": "report.build", "payload": {deep}"#);
        let status = dev.status(post(&format!("content-length: {}", body.len()), &body)).await;
        assert!([400, 422].contains(&status), "{status}");
    }
    dev.assert_growth(before, 4 * MIB);
    dev.serves().await;
}

/// Ten thousand, unless the system allows fewer files: then as many as it does, and the test says so.
#[tokio::test]
async fn ten_thousand_idle_connections_keep_nobody_from_being_served() {
    const WANTED: usize = 10_000;
    let most = raise_limit(WANTED + 1_000);
    let count = WANTED.min(most.saturating_sub(1_000));
    if count < WANTED {
        eprintln!("only {count} connections instead of {WANTED}: the limit on open files is {most}");
    }
    let dev = Dev::start().await;
    let before = dev.memory();
    let mut idle = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = dev.connect().await;
        // Half of them have been of use before.
        if number % 2 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            assert_eq!(soon("an answer", status(&mut stream)).await, 204);
        }
        idle.push(stream);
    }
    dev.serves().await;
    dev.assert_growth(before, count * 24 * 1024);
    drop(idle);
    dev.serves().await;
}

/// Raises the limit on this process's files, which its children inherit, as far as it may go. Answers what it is then.
fn raise_limit(wanted: usize) -> usize {
    let limits = || {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<usize>().ok());
        (numbers.next().unwrap(), numbers.next().unwrap_or(usize::MAX))
    };
    let (soft, hard) = limits();
    if soft < wanted {
        let limit = format!("--nofile={}:", wanted.min(hard));
        let own = std::process::id().to_string();
        let raised = std::process::Command::new("prlimit").args(["--pid", &own, &limit]).status();
        if !raised.is_ok_and(|status| status.success()) {
            eprintln!("the limit on open files stays {soft}: there is no prlimit that would raise it");
        }
    }
    limits().0
}

/// Heads and bodies that come a byte at a time end when their time is up, and others are served meanwhile.
#[tokio::test]
async fn slow_heads_and_slow_bodies_end_by_themselves() {
    let dev = Dev::start().await;
    let before = dev.memory();
    let mut slow = Vec::new();
    for _ in 0..500 {
        let mut head = dev.connect().await;
        head.write_all(b"POST /v1/jobs HTTP/1.1\r\nx: ").await.unwrap();
        let mut body = dev.connect().await;
        body.write_all(post("content-length: 1000", "{").as_bytes()).await.unwrap();
        slow.push((head, body));
    }
    let trickling = tokio::spawn(async move {
        let mut ended = 0;
        while !slow.is_empty() {
            let mut going_on = Vec::new();
            for (mut head, mut body) in slow {
                let _ = head.write_all(b"x").await;
                let _ = body.write_all(b" ").await;
                // The body's answer tells that its time was up.
                let mut answer = [0; 12];
                match body.try_read(&mut answer) {
                    Ok(read) => {
                        assert_eq!(&answer[..read], b"HTTP/1.1 408");
                        ended += 1;
                    }
                    Err(_) => going_on.push((head, body)),
                }
            }
            slow = going_on;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ended
    });
    while !trickling.is_finished() {
        dev.serves().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(soon("all of them", trickling).await.unwrap(), 500);
    dev.assert_growth(before, 1_000 * 24 * 1024);
    dev.serves().await;
}
