//! The network between two parts, and what may happen to it: every connection goes through a TCP proxy of its own pair.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Weather {
    Clear,
    /// Connections end, and new ones are closed at once.
    Cut,
    /// What is sent arrives this much later.
    Delay(Duration),
    /// Bytes a second, each way of each connection.
    Throttle(u64),
    /// Connections are taken and stay, but what is sent is swallowed; nobody is told. A connection that has lost
    /// bytes stays deaf when the weather clears, as behind a firewall that has forgotten it.
    HalfOpen,
    /// Each connection is reset, mid-message, once so many more bytes have passed through it.
    Reset(u64),
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clear => f.write_str("clear"),
            Self::Cut => f.write_str("cut"),
            Self::Delay(by) => write!(f, "delayed by {by:?}"),
            Self::Throttle(rate) => write!(f, "{rate} bytes/s"),
            Self::HalfOpen => f.write_str("half-open"),
            Self::Reset(after) => write!(f, "reset after {after} bytes"),
        }
    }
}

/// A proxy before one server, for one process.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens at a port of its own.
    pub(crate) async fn before(target: SocketAddr) -> io::Result<Self> {
        Self::at(TcpListener::bind("127.0.0.1:0").await?, target)
    }

    pub(crate) fn at(listener: TcpListener, target: SocketAddr) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let target = Arc::new(Mutex::new(target));
        let weather = watch::Sender::new(Weather::Clear);
        let (to, seen) = (target.clone(), weather.clone());
        let accepting = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => {
                        let to = *to.lock().unwrap_or_else(PoisonError::into_inner);
                        tokio::spawn(carry(client, to, seen.subscribe()));
                    }
                    // Out of descriptors, say: others will end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Ok(Self { address, target, weather, accepting })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Leads new connections elsewhere; those that stand are for whoever moved to end.
    pub(crate) fn retarget(&self, target: SocketAddr) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What both ways of a connection share.
struct Shared {
    /// It has lost bytes, so it must not deliver any more.
    deaf: AtomicBool,
    /// What may still pass before the reset, once it is to come.
    left: AtomicU64,
}

/// Why a way of a connection has ended.
#[derive(PartialEq)]
enum End {
    Closed,
    Cut,
    Reset,
}

async fn carry(client: TcpStream, target: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let now = *weather.borrow_and_update();
    if now == Weather::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let shared = Shared { deaf: AtomicBool::new(false), left: AtomicU64::new(allowance(now)) };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let reset = {
        let up = pump(&mut from_client, &mut to_server, &shared, weather.clone());
        let down = pump(&mut from_server, &mut to_client, &shared, weather.clone());
        let changed = ended_by_weather(&shared, weather);
        tokio::pin!(up, down);
        // One way's orderly end lets the other go on; anything else ends both.
        let end = tokio::select! {
            end = changed => end,
            end = &mut up => if end == End::Closed { down.await } else { end },
            end = &mut down => if end == End::Closed { up.await } else { end },
        };
        end == End::Reset
    };
    if reset {
        for socket in [to_client, to_server] {
            // What is closed with a linger of zero sends RST instead of FIN; a write half that is dropped sends FIN before.
            let _ = socket.as_ref().set_zero_linger();
            socket.forget();
        }
    }
}

fn allowance(weather: Weather) -> u64 {
    if let Weather::Reset(after) = weather { after } else { u64::MAX }
}

/// Watches for weather that ends a connection at which nothing moves.
async fn ended_by_weather(shared: &Shared, mut weather: watch::Receiver<Weather>) -> End {
    loop {
        let now = *weather.borrow_and_update();
        if now == Weather::Cut {
            return End::Cut;
        }
        shared.left.store(allowance(now), Ordering::Relaxed);
        if weather.changed().await.is_err() {
            return End::Cut;
        }
    }
}

/// Carries bytes one way.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    weather: watch::Receiver<Weather>,
) -> End {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) if shared.deaf.load(Ordering::Relaxed) => return End::Cut,
            Ok(0) => {
                let _ = to.shutdown().await;
                return End::Closed;
            }
            Ok(count) => count,
            Err(_) => return End::Cut,
        };
        let now = *weather.borrow();
        match now {
            Weather::Delay(by) => tokio::time::sleep(by).await,
            Weather::Throttle(rate) => {
                tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate.max(1) as f64)).await;
            }
            Weather::HalfOpen => shared.deaf.store(true, Ordering::Relaxed),
            Weather::Clear | Weather::Cut | Weather::Reset(_) => {}
        }
        if shared.deaf.load(Ordering::Relaxed) {
            continue;
        }
        let mut passing = count;
        let mut reset = false;
        if let Weather::Reset(_) = now {
            let left = shared.left.load(Ordering::Relaxed);
            passing = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            shared.left.store(left - passing as u64, Ordering::Relaxed);
            reset = passing < count;
        }
        if to.write_all(&buffer[..passing]).await.is_err() {
            return End::Cut;
        }
        if reset {
            return End::Reset;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that sends everything back, and a proxy before it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Proxy::before(target).await.unwrap()
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address()).await.unwrap()
    }

    async fn echoes(socket: &mut TcpStream) -> bool {
        let mut answer = [0; 5];
        socket.write_all(b"hello").await.is_ok()
            && timeout(SOON, socket.read_exact(&mut answer)).await.unwrap().is_ok()
            && answer == *b"hello"
    }

    #[tokio::test]
    async fn carries_and_cuts() {
        let proxy = echo().await;
        let mut socket = connect(&proxy).await;
        assert!(echoes(&mut socket).await);
        proxy.set(Weather::Cut);
        assert_eq!(timeout(SOON, socket.read(&mut [0])).await.unwrap().unwrap_or(0), 0, "it ends by itself");
        assert!(!echoes(&mut connect(&proxy).await).await);
        proxy.set(Weather::Clear);
        assert!(echoes(&mut connect(&proxy).await).await);
    }

    #[tokio::test]
    async fn a_half_open_connection_stays_deaf() {
        let proxy = echo().await;
        let (mut deaf, mut idle) = (connect(&proxy).await, connect(&proxy).await);
        assert!(echoes(&mut deaf).await && echoes(&mut idle).await);
        proxy.set(Weather::HalfOpen);
        deaf.write_all(b"hello").await.unwrap();
        let silence = timeout(Duration::from_millis(100), deaf.read(&mut [0])).await;
        assert!(silence.is_err(), "nothing comes, not even an end");
        proxy.set(Weather::Clear);
        assert!(echoes(&mut idle).await, "one that lost nothing goes on");
        deaf.write_all(b"hello").await.unwrap();
        assert!(timeout(Duration::from_millis(100), deaf.read(&mut [0])).await.is_err());
    }

    #[tokio::test]
    async fn resets_in_the_midst_of_a_message() {
        let proxy = echo().await;
        let mut socket = connect(&proxy).await;
        assert!(echoes(&mut socket).await);
        proxy.set(Weather::Reset(8));
        tokio::task::yield_now().await;
        socket.write_all(b"hello").await.unwrap();
        let mut got = Vec::new();
        let end = timeout(SOON, socket.read_to_end(&mut got)).await.unwrap();
        assert!(got.len() < 5, "{got:?}");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn delays_throttles_and_retargets() {
        let proxy = echo().await;
        let mut socket = connect(&proxy).await;
        for (weather, least) in
            [(Weather::Delay(Duration::from_millis(40)), 80), (Weather::Throttle(100), 100)]
        {
            proxy.set(weather);
            let started = std::time::Instant::now();
            assert!(echoes(&mut socket).await);
            assert!(started.elapsed() >= Duration::from_millis(least), "{weather}: {:?}", started.elapsed());
        }
        proxy.set(Weather::Clear);
        let greeter = TcpListener::bind("127.0.0.1:0").await.unwrap();
        proxy.retarget(greeter.local_addr().unwrap());
        let mut socket = connect(&proxy).await;
        let (mut other, _) = greeter.accept().await.unwrap();
        other.write_all(b"x").await.unwrap();
        assert_eq!(timeout(SOON, socket.read_u8()).await.unwrap().unwrap(), b'x');
    }
}
