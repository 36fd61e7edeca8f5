use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use reqwest::{
    Client, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use windlass_client::{Outside, Refused};

/// How long a receiver has for its answer, and for a connection.
const DEADLINE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
/// How much of an answer is read, so that its connection can be used again. Nothing of it is kept.
const ANSWER: usize = 4096;
/// How long a connection is kept for the next delivery to the same receiver.
const IDLE: Duration = Duration::from_secs(30);

type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

/// Sends deliveries to where webhooks may be, and nowhere else.
///
/// A host's addresses are asked for once; all of them are checked, and the connection is to one of those, so that no
/// second answer can lead elsewhere. Redirects are not followed, and no proxy is used.
#[derive(Clone)]
pub struct WebhookSender {
    http: Client,
    outside: Arc<Outside>,
}

/// The HTTP client cannot be set up, for want of the system's certificates perhaps.
#[derive(Debug, thiserror::Error)]
#[error("webhooks cannot be delivered: {0}")]
pub struct NoSender(reqwest::Error);

/// A delivery as it is sent.
pub(super) struct Message {
    pub(super) id: String,
    /// In seconds since 1970.
    pub(super) timestamp: i64,
    pub(super) signatures: String,
    pub(super) body: String,
}

/// Why a request was no delivery. It shows nothing of what was answered: who makes a webhook would read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    #[error("the webhook's url: {0}")]
    Url(Refused),
    #[error("the webhook's url {0}")]
    Host(Refused),
    #[error("the host's name has no address")]
    NoAddress,
    #[error("the receiver did not answer within {} seconds", DEADLINE.as_secs())]
    Timeout,
    #[error("no connection to the receiver")]
    Connect,
    #[error("the connection to the receiver was lost before it answered")]
    Lost,
    #[error("the receiver answered {0}, a redirect, and those are not followed; change the webhook's url")]
    Redirect(u16),
    #[error("the receiver answered 410, gone: the webhook was disabled")]
    Gone,
    #[error("the receiver answered {0}")]
    Status(u16),
}

impl SendError {
    /// What the receiver answered.
    pub(super) const fn status(&self) -> Option<u16> {
        match self {
            Self::Redirect(status) | Self::Status(status) => Some(*status),
            Self::Gone => Some(410),
            _ => None,
        }
    }

    /// Whether another attempt would fail as well.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Url(_))
    }
}

impl WebhookSender {
    /// One that sends to where `outside` says.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(outside: Outside) -> Result<Self, NoSender> {
        Self::resolving(outside, |host| {
            Box::pin(async move {
                Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
            })
        })
    }

    /// As [`new`](Self::new), with a way of its own to the addresses of a host: for tests.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn resolving(
        outside: Outside,
        lookup: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    ) -> Result<Self, NoSender> {
        // Among the features of a build may be one by which reqwest leaves the choice to the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let outside = Arc::new(outside);
        let guard = Guard { outside: outside.clone(), lookup: Arc::new(lookup) };
        let http = Client::builder()
            .dns_resolver(Arc::new(guard))
            .redirect(redirect::Policy::none())
            // A proxy would resolve names by itself, and has another view of what is outside.
            .no_proxy()
            .timeout(DEADLINE)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(NoSender)?;
        Ok(Self { http, outside })
    }

    pub(super) async fn send(&self, url: &str, message: Message) -> Result<u16, SendError> {
        // Again, since the rules may have changed; and an address in the place of a name is never resolved.
        let url = self.outside.check_url(url).map_err(SendError::Url)?;
        let request = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp)
            .header("webhook-signature", message.signatures)
            .body(message.body);
        let mut answer = request.send().await.map_err(|error| failure(&error))?;
        let status = answer.status();
        // Whatever it says and however it ends: the status has arrived.
        let mut read = 0;
        while let Ok(Some(part)) = answer.chunk().await {
            read += part.len();
            if read > ANSWER {
                break;
            }
        }
        match status {
            status if status.is_success() => Ok(status.as_u16()),
            StatusCode::GONE => Err(SendError::Gone),
            status if status.is_redirection() => Err(SendError::Redirect(status.as_u16())),
            status => Err(SendError::Status(status.as_u16())),
        }
    }
}

impl fmt::Debug for WebhookSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSender").field("outside", &self.outside).finish_non_exhaustive()
    }
}

/// What an error of the HTTP client comes to. Ours is among its causes if the guard refused.
fn failure(error: &reqwest::Error) -> SendError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if let Some(refused) = one.downcast_ref::<SendError>() {
            return refused.clone();
        }
        cause = one.source();
    }
    if error.is_timeout() {
        SendError::Timeout
    } else if error.is_connect() {
        SendError::Connect
    } else {
        SendError::Lost
    }
}

/// Resolves the names of hosts, and gives only addresses that are allowed.
struct Guard {
    outside: Arc<Outside>,
    lookup: Arc<Lookup>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (outside, host) = (self.outside.clone(), name.as_str().to_owned());
        let addresses = (self.lookup)(host.clone());
        Box::pin(async move {
            let addresses = addresses.await.unwrap_or_default();
            if addresses.is_empty() {
                return Err(SendError::NoAddress.into());
            }
            // One that is not public among others is an attempt, or a mistake that would work now and then.
            for address in &addresses {
                outside.check_address(&host, *address).map_err(SendError::Host)?;
            }
            // The port is that of the URL.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}
