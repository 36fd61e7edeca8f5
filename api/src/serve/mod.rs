mod activity;
mod connection;
mod preface;
mod tls;

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use windlass_client::Client;

use self::connection::Connection;
pub use self::tls::{Tls, TlsError};
use crate::{ApiOptions, Service};

/// How long to wait when the system has no more connections to give.
const PAUSE: Duration = Duration::from_secs(1);
/// How many connections are taken beyond the most, to answer probes, and to say to others that there are too many.
const SPARE: usize = 256;

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
    let service = Service::new(client, options, shutdown.clone());
    accept(listener, service.router(), service, shutdown).await
}

/// The same over gRPC as well, at another listener: with the same TLS, and the same bounds for its own connections.
///
/// # Errors
/// What a listener says when it cannot be used at all.
#[cfg(feature = "grpc")]
pub async fn serve_with_grpc(
    listener: TcpListener,
    grpc_listener: TcpListener,
    client: Client,
    options: ApiOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let service = Service::new(client, options, shutdown.clone());
    let (bodies, options) = (service.bodies.clone(), &service.options);
    let calls = crate::grpc::router(service.router(), bodies, options, shutdown.clone());
    // An error comes before anything has been accepted.
    tokio::try_join!(
        accept(listener, service.router(), service.clone(), shutdown.clone()),
        accept(grpc_listener, calls, service.clone(), shutdown),
    )?;
    Ok(())
}

/// Serves these routes to whoever connects.
async fn accept(
    listener: TcpListener,
    router: Router,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let options = &service.options;
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
                        let connection = Connection { peer, crowded, service: service.clone() };
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
    let drained = tokio::time::timeout(options.drain_timeout, async {
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

fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection was lost to a panic");
    }
}
