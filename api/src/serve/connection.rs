use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, response::Response};
use futures::future::{Either, ready};
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::{Service as _, service_fn};

use super::{activity::Activity, preface::Begun};
use crate::{
    Service,
    headers::Secure,
    shed::{self, Crowded},
};

/// How long one of the connections that are too many may take to ask.
const SPARE_IDLE: Duration = Duration::from_secs(2);
/// How long a client may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many requests of one HTTP/2 connection may be under way. What is reset counts until it is answered, and hyper
/// ends connections that reset too much.
const STREAMS: u32 = 128;
/// How much of the bodies of an HTTP/2 connection may come before it is read, and of an answer before it is sent.
const WINDOW: u32 = 64 * 1024;
/// How often an HTTP/2 client has to show that it is still there.
const PING: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    /// One too many.
    pub(super) crowded: bool,
    pub(super) service: Arc<Service>,
}

impl Connection {
    pub(super) async fn serve(self, stream: TcpStream, router: Router, shutdown: CancellationToken) {
        // Answers are written whole, so there is nothing to gather.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        // A client that does not read its answers holds them in memory.
        stream.set_write_timeout(Some(self.service.options.idle_timeout));
        let stream = Box::pin(stream);
        match &self.service.options.tls {
            None => self.begin(stream, router, shutdown).await,
            Some(tls) => {
                let handshake = timeout(HANDSHAKE.min(self.idle()), tls.acceptor().accept(stream));
                // Whoever has not been let in yet has nothing under way.
                let secured = tokio::select! {
                    secured = handshake => secured,
                    () = shutdown.cancelled() => return,
                };
                match secured {
                    Ok(Ok(stream)) => self.begin(Box::new(stream), router, shutdown).await,
                    Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "no TLS"),
                    Err(_) => tracing::debug!(peer = %self.peer, "TLS took too long"),
                }
            }
        }
    }

    /// How long nothing may come.
    fn idle(&self) -> Duration {
        let idle = self.service.options.idle_timeout;
        if self.crowded { SPARE_IDLE.min(idle) } else { idle }
    }

    /// Finds out which version of HTTP it is: over TLS as without, so that clients may know beforehand.
    async fn begin<S>(self, stream: S, router: Router, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = tokio::select! {
            begun = timeout(self.idle(), Begun::new(stream)) => begun,
            () = shutdown.cancelled() => return,
        };
        match begun {
            Ok(Ok((stream, true))) => self.http2(stream, router, shutdown).await,
            Ok(Ok((stream, false))) => self.http1(stream, router, shutdown).await,
            // It has said nothing that could be answered.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    async fn http1<S>(self, stream: Begun<S>, router: Router, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.idle())
            .keep_alive(!self.crowded)
            // What is read at a time, as well. Less than 8 KiB is what hyper cannot do.
            .max_buf_size(self.service.options.max_head.max(8192));
        let service = service_fn(move |request| self.answer(&router, request));
        let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut serving = std::pin::pin!(serving);
        // Polled by reference: the branch not taken goes on below.
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        report(served);
    }

    async fn http2<S>(self, stream: Begun<S>, router: Router, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let idle = self.idle();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(self.service.options.max_head).unwrap_or(u32::MAX))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(WINDOW as usize)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let activity = Activity::new();
        let counted = activity.clone();
        let service = service_fn(move |request| {
            let (busy, answer) = (counted.begin(), self.answer(&router, request));
            async move { answer.await.map(|response| busy.until_taken(response)) }
        });
        let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut serving = std::pin::pin!(serving);
        let ending = tokio::select! {
            served = serving.as_mut() => return report(served),
            () = shutdown.cancelled() => None,
            () = activity.idle_for(idle) => Some(idle),
        };
        // The client is told which requests will still be answered, and to send no more.
        serving.as_mut().graceful_shutdown();
        match ending {
            // The whole server's patience is the limit.
            None => report(serving.await),
            // What has begun meanwhile is answered, but nobody waits for a client that does not hear.
            Some(idle) => tokio::select! {
                served = serving.as_mut() => report(served),
                () = shutdown.cancelled() => report(serving.as_mut().await),
                () = activity.idle_for(idle) => {}
            },
        }
    }

    fn answer(
        &self,
        router: &Router,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<> {
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(self.peer));
        if self.crowded {
            extensions.insert(Crowded);
        }
        if self.service.options.tls.is_some() {
            extensions.insert(Secure);
        }
        match shed::refuse_early(&self.service, &request) {
            Some(refused) => Either::Left(ready(Ok(refused))),
            None => Either::Right(router.clone().call(request)),
        }
    }
}

fn report(served: hyper::Result<()>) {
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended early");
    }
}
