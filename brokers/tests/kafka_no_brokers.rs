//! A Kafka broker that has just started names no brokers in its answers, not even itself, until it has heard of the
//! cluster. That depends on the moment, so here a proxy leaves them out of the answers of a real one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use windlass_brokers::conformance::{messages, until, within};
use windlass_core::{JobId, Lane, Priorities, Priority};

const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;

/// How many topics the misleading answer names besides: the library errs when one of its threads is quicker to see
/// that all brokers are gone than another is to read the rest.
const STRANGERS: u32 = 50_000;

/// Stands between the clients and the broker, and names itself in its place.
struct Proxy {
    target: String,
    port: u16,
    names_none: AtomicBool,
    /// How many such answers consumers in groups have got.
    misled: AtomicUsize,
    /// Ends the connections there are.
    cut: watch::Sender<()>,
}

impl Proxy {
    async fn start(target: String) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (names_none, misled) = (AtomicBool::new(false), AtomicUsize::new(0));
        let proxy = Arc::new(Self { target, port, names_none, misled, cut: watch::Sender::new(()) });
        let accepting = Arc::clone(&proxy);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&accepting).serve(client));
            }
        });
        proxy
    }

    async fn serve(self: Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.target).await else { return };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let asked = Mutex::default();
        let mut cut = self.cut.subscribe();
        tokio::select! {
            _ = requests(from_client, to_server, &asked) => {}
            _ = self.answers(from_server, to_client, &asked) => {}
            _ = cut.changed() => {}
        }
    }

    async fn answers(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        asked: &Mutex<Asked>,
    ) -> Option<()> {
        loop {
            let mut frame = frame(&mut from).await?;
            let asked = asked.lock().unwrap().remove(&frame[..4]);
            match asked {
                Some((METADATA, member)) => {
                    let none = self.names_none.load(Ordering::SeqCst);
                    frame = renamed(&frame, self.port, none);
                    self.misled.fetch_add(usize::from(none && member), Ordering::SeqCst);
                }
                Some((FIND_COORDINATOR, _)) => {
                    let port = frame.len() - 4;
                    if frame[port - 2..port] != [0, 0] {
                        frame[port..].copy_from_slice(&i32::from(self.port).to_be_bytes());
                    }
                }
                _ => {}
            }
            send(&mut to, &frame).await?;
        }
    }
}

/// By the number of the request: what it asks for, and whether a member of a group does.
type Asked = HashMap<Vec<u8>, (i16, bool)>;

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: &Mutex<Asked>) -> Option<()> {
    loop {
        let frame = frame(&mut from).await?;
        let what = i16::from_be_bytes([frame[0], frame[1]]);
        if what == METADATA || what == FIND_COORDINATOR {
            let version = i16::from_be_bytes([frame[2], frame[3]]);
            assert!(
                if what == METADATA { version >= 10 } else { version <= 2 },
                "{what} in version {version}"
            );
            let length = usize::from(u16::from_be_bytes([frame[8], frame[9]]));
            // Members have names of their own.
            let member = frame[10..10 + length].starts_with(b"windlass-");
            asked.lock().unwrap().insert(frame[4..8].to_vec(), (what, member));
        }
        send(&mut to, &frame).await?;
    }
}

async fn frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut frame = vec![0; length as usize];
    from.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

async fn send(to: &mut OwnedWriteHalf, frame: &[u8]) -> Option<()> {
    to.write_u32(u32::try_from(frame.len()).unwrap()).await.ok()?;
    to.write_all(frame).await.ok()
}

/// The answer to a metadata request with `port` for that of each broker, or without brokers.
fn renamed(frame: &[u8], port: u16, none: bool) -> Vec<u8> {
    // Its number, no tags, and the throttle time.
    let (start, mut rest) = frame.split_at(4 + 1 + 4);
    let mut renamed = start.to_vec();
    let count = take(&mut rest, 1)[0] - 1;
    renamed.push(if none { 1 } else { count + 1 });
    for _ in 0..count {
        let mut broker = take(&mut rest, 4).to_vec();
        let host = take(&mut rest, 1)[0];
        broker.push(host);
        broker.extend_from_slice(take(&mut rest, usize::from(host) - 1));
        take(&mut rest, 4);
        broker.extend_from_slice(&i32::from(port).to_be_bytes());
        let rack = take(&mut rest, 1)[0];
        broker.push(rack);
        broker.extend_from_slice(take(&mut rest, usize::from(rack.saturating_sub(1))));
        broker.extend_from_slice(take(&mut rest, 1));
        if !none {
            renamed.extend(broker);
        }
    }
    if none {
        // The name of the cluster, and its controller's number.
        let name = take(&mut rest, 1)[0];
        renamed.push(name);
        renamed.extend_from_slice(take(&mut rest, usize::from(name.saturating_sub(1)) + 4));
        let count = take(&mut rest, 1)[0];
        assert!(count < 0x80, "too many topics asked for");
        renamed.extend(number(u32::from(count) + STRANGERS));
        let unknown_topic = [[0, 3, 2, b'x'].as_slice(), &[0; 16], &[0, 1, 0x80, 0, 0, 0, 0]].concat();
        (0..STRANGERS).for_each(|_| renamed.extend_from_slice(&unknown_topic));
    }
    renamed.extend_from_slice(rest);
    renamed
}

/// In groups of seven bits.
fn number(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = from.split_at(count);
    *from = rest;
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_names_none_does_not_cut_consumers_off_for_ever() {
    let url = std::env::var("WINDLASS_TEST_KAFKA_URL")
        .expect("WINDLASS_TEST_KAFKA_URL is not set: run scripts/test, which starts the servers");
    let (login, rest) = url.split_once('@').unwrap();
    let (host, settings) = rest.split_once('?').unwrap();
    let proxy = Proxy::start(host.to_owned()).await;
    let broker =
        windlass_brokers::open(&format!("{login}@127.0.0.1:{}?{settings}", proxy.port)).await.unwrap();
    let lane = Lane { queue: format!("t-{}", JobId::new()).parse().unwrap(), priority: Priority::Normal };
    let lanes = std::slice::from_ref(&lane);
    let mut subscription = broker.subscribe(lanes, 10, Priorities::Weighted).await.unwrap();
    broker.publish(&messages(&lane, 1)).await.remove(0).unwrap();
    let found = within("a message", subscription.receive(1)).await.unwrap();
    subscription.ack(&[found[0].tag]).await.unwrap();

    proxy.names_none.store(true, Ordering::SeqCst);
    proxy.cut.send_replace(());
    until("the consumer to be told of no broker", async || proxy.misled.load(Ordering::SeqCst) > 0).await;
    proxy.names_none.store(false, Ordering::SeqCst);

    let sent = messages(&lane, 1);
    until("a message to be published", async || broker.publish(&sent).await.remove(0).is_ok()).await;
    let arrives = async {
        loop {
            // It says first that no broker could be reached.
            match subscription.receive(1).await {
                Ok(found) if found[0].message.job_id == sent[0].job_id => return,
                _ => {}
            }
        }
    };
    within("the message", arrives).await;
    drop(subscription);
    broker.delete(lanes).await.unwrap();
    broker.close().await;
}
