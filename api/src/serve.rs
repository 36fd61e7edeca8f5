use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;
use windlass_client::Client;

use crate::{ApiOptions, router_until, shed::Crowded};

/// How long to wait when the system has no more connections to give.
const PAUSE: Duration = Duration::from_secs(1);
/// How many connections are taken beyond the most, to answer probes, and to say to others that there are too many; and
/// how long one of them may take to ask.
const SPARE: usize = 256;
const SPARE_IDLE: Duration = Duration::from_secs(2);

/// Serves the API until `shutdown`, then takes no more connections and lets requests under way finish for a while.
///
/// # Errors
/// What the listener says when it cannot be used at all.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    options: ApiOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let drain_timeout = options.drain_timeout;
    let options = Arc::new(options);
    let router = router_until(client, ApiOptions::clone(&options), shutdown.clone());
    let mut connections = JoinSet::new();
    let mut failing = false;
    // Accepting and joining lose nothing when another branch is taken.
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    failing = false;
                    let crowded = connections.len() >= options.max_connections;
                    if connections.len() < options.max_connections.saturating_add(SPARE) {
                        let connection = Connection { peer, crowded, options: options.clone() };
                        connections.spawn(connection.serve(stream, router.clone(), shutdown.clone()));
                    }
                }
                // The client gave up before we came to it.
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%address, %error, "no more connections can be accepted for now");
                    }
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            },
            Some(ended) = connections.join_next() => report_panic(ended),
        }
    }
    // Clients are refused from here on, instead of waiting in the listener's queue.
    drop(listener);
    let drained = tokio::time::timeout(drain_timeout, async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "requests still under way are cut off");
        connections.shutdown().await;
    }
    Ok(())
}

struct Connection {
    peer: SocketAddr,
    /// One too many.
    crowded: bool,
    options: Arc<ApiOptions>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, router: Router, shutdown: CancellationToken) {
        // Answers are written whole, so there is nothing to gather.
        let _ = stream.set_nodelay(true);
        let idle_timeout = self.options.idle_timeout;
        let mut stream = TimeoutStream::new(stream);
        // A client that does not read its answers holds them in memory.
        stream.set_write_timeout(Some(idle_timeout));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(if self.crowded { SPARE_IDLE.min(idle_timeout) } else { idle_timeout })
            .keep_alive(!self.crowded)
            // What is read at a time, as well. Less than 8 KiB is what hyper cannot do.
            .max_buf_size(self.options.max_head.max(8192));
        let service = MapRequest::new(router, move |mut request: Request<Incoming>| {
            let extensions = request.extensions_mut();
            extensions.insert(ConnectInfo(self.peer));
            if self.crowded {
                extensions.insert(Crowded);
            }
            request
        });
        let serving =
            builder.serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service));
        let mut serving = std::pin::pin!(serving);
        // Polled by reference: the branch not taken goes on below.
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "connection ended early");
        }
    }
}

fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection was lost to a panic");
    }
}
