use std::{io, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use windlass_client::Client;

use crate::{ApiOptions, router_until};

/// How long to wait when the system has no more connections to give.
const PAUSE: Duration = Duration::from_secs(1);

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
    let (idle_timeout, drain_timeout) = (options.idle_timeout, options.drain_timeout);
    let router = router_until(client, options, shutdown.clone());
    let mut connections = JoinSet::new();
    let mut failing = false;
    // Accepting and joining lose nothing when another branch is taken.
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    connections.spawn(connection(stream, router.clone(), idle_timeout, shutdown.clone()));
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

async fn connection(stream: TcpStream, router: Router, idle_timeout: Duration, shutdown: CancellationToken) {
    // Answers are written whole, so there is nothing to gather.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(idle_timeout);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
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

fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection was lost to a panic");
    }
}
