use std::{net::SocketAddr, sync::Arc};

use clap::Args;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass::{
    ApiAuth, Client, Metrics, SecretUrl, Settings, WorkflowLimits, driver::BrokerError, init_metrics,
    stop_by_signal,
};
use windlass_api::{
    ApiOptions, Authentication, Jwt, JwtOptions, MetricsPage, Proxies, RateLimits, SharedRates, Tls,
};

use crate::Failure;

/// Serve the HTTP API: accept jobs, publish them, answer polls. Run as many as you like behind a load balancer.
#[derive(Debug, Args)]
pub(crate) struct Api {
    /// The address to listen on [setting: api_listen]
    #[arg(long)]
    listen: Option<String>,
}

impl Api {
    pub(crate) async fn run(self, mut settings: Settings) -> Result<(), Failure> {
        if let Some(listen) = self.listen {
            settings.api_listen = listen;
        }
        if settings.broker_url.expose().starts_with("memory:") {
            return Err(Failure::usage(
                "broker_url is memory:, which reaches no other process; set it to the broker that your workers use \
                 (WINDLASS_BROKER_URL), or run everything in one process with `windlass dev`",
            ));
        }
        let metrics = init_metrics(&settings).map_err(Failure::usage)?;
        let shutdown = CancellationToken::new();
        stop_by_signal(shutdown.clone()).map_err(Failure::running)?;
        let client = Client::connect(&settings).await?;
        client.store().ping().await?;
        match client.broker().ping().await {
            Ok(()) => {}
            Err(error @ BrokerError::Config { .. }) => return Err(Failure::usage(error)),
            // Jobs are accepted all the same, and published when it is back (P6).
            Err(error) => tracing::warn!(
                %error,
                broker = %settings.broker(),
                "the broker does not answer; jobs are accepted, and published when it does: check broker_url \
                 (WINDLASS_BROKER_URL), and whether it runs"
            ),
        }
        client.check_objects().await?;
        let listener = listen(&settings).await?;
        let address = listener.local_addr().map_err(Failure::running)?;
        let options = options(&settings, address, metrics)?;
        reload_by_signal(options.tls.as_ref()).map_err(Failure::running)?;
        tracing::info!(%address, store = %settings.store_url, broker = %settings.broker_url, "serving the API");
        let served = serve(&settings, listener, client.clone(), options, shutdown).await;
        client.close().await;
        served
    }
}

/// How many connections may wait to be accepted, if the system allows as many: with fewer, the clients of another instance
/// that has gone wait for seconds here.
const BACKLOG: i32 = 4096;

pub(crate) async fn listen(settings: &Settings) -> Result<TcpListener, Failure> {
    listen_on(&settings.api_listen, "api_listen").await
}

async fn listen_on(address: &str, setting: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await.and_then(|listener| {
        SockRef::from(&listener).listen(BACKLOG)?;
        Ok(listener)
    });
    listener.map_err(|e| Failure::usage(format!("cannot listen on {address}: {e} (setting {setting})")))
}

/// Serves the API until `shutdown`, over gRPC as well if the settings say where.
pub(crate) async fn serve(
    settings: &Settings,
    listener: TcpListener,
    client: Client,
    options: ApiOptions,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let served = match &settings.grpc_listen {
        None => windlass_api::serve(listener, client, options, shutdown).await,
        #[cfg(feature = "grpc")]
        Some(listen) => {
            let grpc_listener = listen_on(listen, "grpc_listen").await?;
            let address = grpc_listener.local_addr().map_err(Failure::running)?;
            // This address may be one that others reach, where the other is not.
            authentication(settings, address)?;
            tracing::info!(%address, "serving gRPC");
            windlass_api::serve_with_grpc(listener, grpc_listener, client, options, shutdown).await
        }
        #[cfg(not(feature = "grpc"))]
        Some(listen) => {
            return Err(Failure::usage(format!(
                "grpc_listen is {listen}, but this build does not speak gRPC: build it with the feature grpc, or leave \
                 the setting out (WINDLASS_GRPC_LISTEN)"
            )));
        }
    };
    served.map_err(Failure::running)
}

/// The API's options for listening at this address.
pub(crate) fn options(
    settings: &Settings,
    address: SocketAddr,
    metrics: Metrics,
) -> Result<ApiOptions, Failure> {
    Ok(ApiOptions {
        authentication: authentication(settings, address)?,
        tls: tls(settings)?,
        rates: rates(settings)?,
        metrics: Some(MetricsPage::new(move || metrics.render())),
        ..open_options(settings)
    })
}

fn rates(settings: &Settings) -> Result<RateLimits, Failure> {
    let shared = |url: &SecretUrl| SharedRates::open(url.expose(), SharedRates::PATIENCE);
    Ok(RateLimits {
        ip: settings.api_rate_ip,
        key: settings.api_rate_key,
        tenant: settings.api_rate_tenant,
        shared: settings.shared_url.as_ref().map(shared).transpose().map_err(Failure::usage)?,
        proxies: Proxies { trusted: settings.api_trusted_proxies.clone(), header: settings.api_proxy_header },
    })
}

fn tls(settings: &Settings) -> Result<Option<Tls>, Failure> {
    // The settings have both or neither.
    let Some((certificate, key)) = settings.api_tls_certificate.as_ref().zip(settings.api_tls_key.as_ref())
    else {
        return Ok(None);
    };
    let tls = Tls::load(certificate, key);
    tls.map(Some)
        .map_err(|error| Failure::usage(format!("{error} (settings api_tls_certificate, api_tls_key)")))
}

/// Has the certificate read again whenever the process is told to, by SIGHUP.
pub(crate) fn reload_by_signal(tls: Option<&Tls>) -> std::io::Result<()> {
    #[cfg(unix)]
    if let Some(tls) = tls.cloned() {
        use tokio::signal::unix::{SignalKind, signal};
        let mut signals = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                match tls.reload() {
                    Ok(()) => tracing::info!("the certificate has been read again"),
                    Err(error) => tracing::error!(
                        %error,
                        "the certificate stays as it was (settings api_tls_certificate, api_tls_key)"
                    ),
                }
            }
        });
    }
    #[cfg(not(unix))]
    let _ = tls;
    Ok(())
}

/// The API's options for those who have the store itself, and so need no key.
pub(crate) fn open_options(settings: &Settings) -> ApiOptions {
    ApiOptions {
        max_body: settings.api_max_body,
        max_batch_body: settings.api_max_batch_body,
        max_depth: settings.api_max_depth,
        unknown_kinds: settings.api_unknown_kinds,
        workflow_limits: WorkflowLimits {
            jobs: settings.api_workflow_jobs,
            parents: settings.api_workflow_parents,
            ..WorkflowLimits::default()
        },
        outside: settings.outside(),
        idempotency_ttl: settings.api_idempotency_ttl,
        request_timeout: settings.api_timeout,
        max_wait: settings.api_max_wait,
        max_waiting: settings.api_max_waiting,
        max_in_flight: settings.api_max_in_flight,
        max_delay: settings.api_max_delay,
        max_connections: settings.api_max_connections,
        max_head: settings.api_max_head,
        body_memory: settings.api_body_memory,
        cors_origins: settings.api_cors_origins.clone(),
        ..ApiOptions::default()
    }
}

/// Whether requests need a key. Nobody is to open the API to a network by leaving something out.
fn authentication(settings: &Settings, address: SocketAddr) -> Result<Authentication, Failure> {
    let jwt = settings.api_jwt_issuer.as_ref().map(|issuer| {
        Jwt::new(JwtOptions {
            audience: settings.api_jwt_audience.clone(),
            jwks_url: settings.api_jwt_jwks_url.clone(),
            scopes_claim: settings.api_jwt_scopes_claim.clone(),
            tenant_claim: settings.api_jwt_tenant_claim.clone(),
            leeway: settings.api_jwt_leeway,
            algorithms: settings.api_jwt_algorithms.clone(),
            ..JwtOptions::new(issuer, "")
        })
    });
    let jwt = jwt.transpose().map_err(Failure::usage)?.map(Arc::new);
    match settings.api_auth {
        Some(ApiAuth::Required) => Ok(Authentication::Required { jwt }),
        _ if jwt.is_some() => Ok(Authentication::Required { jwt }),
        None if !address.ip().is_loopback() => Err(Failure::usage(format!(
            "the API would listen on {address}, where others can reach it, and let everyone do everything: set api_auth \
             to \"required\" (WINDLASS_API_AUTH=required) and make a key with `windlass keys create`, or to \"off\" if \
             something before it lets only the right ones through"
        ))),
        Some(ApiAuth::Off) | None => {
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "whoever can reach this address may do everything (setting api_auth)");
            }
            Ok(Authentication::Off)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_not_opened_to_a_network_by_leaving_something_out() {
        let of = |auth, issuer: Option<&str>, address: &str| {
            let mut settings = Settings { api_auth: auth, ..Settings::default() };
            settings.api_jwt_issuer = issuer.map(Into::into);
            settings.api_jwt_audience = vec!["windlass".into()];
            let address = address.parse().unwrap_or_else(|_| panic!("{address}"));
            authentication(&settings, address).map(|auth| matches!(auth, Authentication::Required { .. }))
        };
        let issuer = Some("https://id.example");
        for address in ["127.0.0.1:80", "[::1]:80"] {
            assert!(matches!(of(None, None, address), Ok(false)));
            assert!(matches!(of(None, issuer, address), Ok(true)));
            assert!(matches!(of(Some(ApiAuth::Required), None, address), Ok(true)));
        }
        for address in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80"] {
            let refusal =
                of(None, None, address).err().map(|failure| failure.to_string()).unwrap_or_default();
            assert!(refusal.contains("api_auth"), "{refusal}");
            assert!(matches!(of(None, issuer, address), Ok(true)));
            assert!(matches!(of(Some(ApiAuth::Off), None, address), Ok(false)));
            assert!(matches!(of(Some(ApiAuth::Required), issuer, address), Ok(true)));
        }
    }
}
