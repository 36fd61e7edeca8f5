use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, ClientError, ConnectOptions, Event, ServerError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::DEADLINE;
use super::address::{Address, Login};
use super::problem::Problem;

/// How long connecting may take: less than a call's deadline, so that the call can say what was wrong.
const CONNECT: Duration = Duration::from_secs(4);
/// A failed attempt to connect counts for this long for everyone.
const RETRY: Duration = Duration::from_millis(500);
/// A peer silent for three times this is given up.
const PING: Duration = Duration::from_secs(5);

/// The connection to the server. It is made when first needed; after that, the library keeps it up, and knows where
/// the other servers of a cluster are.
pub(super) struct Link {
    address: Arc<Address>,
    client: Mutex<Option<Client>>,
    /// The last attempt to connect for the first time, where it failed. Held during an attempt: others wait for it.
    failed: tokio::sync::Mutex<Option<(Instant, Problem)>>,
    news: Arc<News>,
}

/// What the library tells of the connection.
struct News {
    state: watch::Sender<State>,
    /// When a subject was last denied to the user, and what the server said. No request is answered by it: those it
    /// concerns are met with silence.
    denied: Mutex<Option<(Instant, String)>>,
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Up, and how often it has come up.
    Up(u64),
    Down {
        problem: Problem,
        after: u64,
    },
}

impl Link {
    pub(super) fn new(address: Arc<Address>) -> Self {
        let state = State::Down { problem: Problem::Outage("not connected yet".into()), after: 0 };
        let news = News { state: watch::Sender::new(state), denied: Mutex::default() };
        Self {
            address,
            client: Mutex::default(),
            failed: tokio::sync::Mutex::default(),
            news: Arc::new(news),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Follows the state of the connection.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.news.state.subscribe()
    }

    /// Makes one call within the usual deadline.
    pub(super) async fn run<T, F: Future<Output = Result<T, Problem>>>(
        &self,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, Problem> {
        self.run_within(DEADLINE, call).await
    }

    /// Makes one call. It fails when the connection goes down. What it asked for may have happened even so.
    pub(super) async fn run_within<T, F: Future<Output = Result<T, Problem>>>(
        &self,
        deadline: Duration,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, Problem> {
        let start = Instant::now();
        let mut state = self.state();
        let work = async {
            let client = self.client().await?;
            tokio::select! {
                answer = call(client) => answer,
                problem = lost(&mut state) => Err(problem),
            }
        };
        match timeout(deadline, work).await {
            Ok(answer) => answer,
            Err(_) => Err(match &*self.news.denied() {
                Some((at, text)) if *at >= start => Problem::right(text),
                _ => Problem::Timeout(deadline),
            }),
        }
    }

    /// The library's client, when the connection is up.
    pub(super) async fn client(&self) -> Result<Client, Problem> {
        if let Some(client) = self.known().clone() {
            return self.usable(client);
        }
        let mut failed = self.failed.lock().await;
        if let Some(client) = self.known().clone() {
            return self.usable(client);
        }
        if let Some((at, problem)) = &*failed
            && at.elapsed() < RETRY
        {
            return Err(problem.clone());
        }
        match connect(&self.address, &self.news).await {
            Ok(client) => {
                if failed.take().is_some() {
                    tracing::info!(broker = %self.address, "connected to the broker");
                }
                *self.known() = Some(client.clone());
                Ok(client)
            }
            Err(problem) => {
                // An outage is reported when it begins or changes its kind.
                let known = match (&*failed, &problem) {
                    (Some((_, Problem::Outage(_))), Problem::Outage(_)) => true,
                    (before, problem) => before.as_ref().is_some_and(|(_, before)| before == problem),
                };
                if !known {
                    let error = windlass_core::BrokerError::from(problem.clone());
                    tracing::error!(broker = %self.address, %error, "cannot connect to the broker");
                }
                *failed = Some((Instant::now(), problem.clone()));
                Err(problem)
            }
        }
    }

    fn usable(&self, client: Client) -> Result<Client, Problem> {
        match &*self.news.state.borrow() {
            State::Up(_) => Ok(client),
            State::Down { problem, .. } => Err(problem.clone()),
        }
    }

    /// Sends what is still to be sent, and lets go of the connection, which ends with the last of its users.
    pub(super) async fn close(&self) {
        let client = self.known().take();
        if let Some(client) = client {
            let _ = timeout(DEADLINE, client.flush()).await;
        }
    }

    /// The lock is never held across an await.
    fn known(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
    fn note(&self, event: Event, address: &Address) {
        match event {
            Event::Connected => {
                let before = self.state.send_replace(State::Up(self.ups() + 1));
                if matches!(before, State::Down { after, .. } if after > 0) {
                    tracing::info!(broker = %address, "connected to the broker again");
                }
            }
            Event::Disconnected => {
                tracing::warn!(broker = %address, "lost the connection to the broker");
                self.went_down(Problem::Outage("lost the connection to the broker".into()));
            }
            // How an attempt to connect again failed.
            Event::ClientError(ClientError::Other(text)) if self.is_down() => {
                if text.contains("authorization violation") {
                    self.went_down(Problem::login_refused(address));
                } else {
                    self.went_down(Problem::Outage(format!("{address}: {text}")));
                }
            }
            Event::ServerError(ServerError::Other(text)) if text.contains("Permissions Violation") => {
                tracing::error!(broker = %address, error = text, "the broker denies a right");
                *self.denied() = Some((Instant::now(), text));
            }
            event => tracing::debug!(broker = %address, %event, "the broker's connection"),
        }
    }

    fn went_down(&self, problem: Problem) {
        self.state.send_replace(State::Down { problem, after: self.ups() });
    }

    fn is_down(&self) -> bool {
        matches!(&*self.state.borrow(), State::Down { .. })
    }

    fn ups(&self) -> u64 {
        match &*self.state.borrow() {
            State::Up(ups) => *ups,
            State::Down { after, .. } => *after,
        }
    }

    fn denied(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(address: &Arc<Address>, news: &Arc<News>) -> Result<Client, Problem> {
    // The library takes the process's choice, and panics where there is none. The server may ask for TLS whatever the
    // URL says.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (news_of, address_of) = (Arc::clone(news), Arc::clone(address));
    let options = ConnectOptions::new()
        .name(format!("windlass {}", std::process::id()))
        .connection_timeout(CONNECT)
        // Deadlines are set around whole calls.
        .request_timeout(None)
        .ping_interval(PING)
        .require_tls(address.tls())
        .reconnect_delay_callback(|attempts| {
            // With jitter, so that a fleet does not come back all at once.
            let most = 50_u64 << attempts.min(7);
            Duration::from_millis(fastrand::u64(most / 2..=most))
        })
        .event_callback(move |event| {
            news_of.note(event, &address_of);
            std::future::ready(())
        });
    let options = match address.login() {
        Login::None => options,
        Login::Token(token) => options.token(token.clone()),
        Login::User { name, password } => options.user_and_password(name.clone(), password.clone()),
    };
    let connected = match timeout(CONNECT, options.connect(address.server())).await {
        Ok(connected) => connected.map_err(|error| Problem::connecting(&error, address))?,
        Err(_) => return Err(Problem::Outage(format!("{address} did not answer within {CONNECT:?}"))),
    };
    // The library's word on it comes through a channel, and may be late.
    let mut state = news.state.subscribe();
    let up = state.wait_for(|state| matches!(state, State::Up(_)));
    match timeout(CONNECT, up).await {
        Ok(Ok(_)) => Ok(connected),
        _ => Err(Problem::Outage(format!("{address}: no word of the connection"))),
    }
}

/// Waits until the connection is another than it is now.
async fn lost(state: &mut watch::Receiver<State>) -> Problem {
    let now = state.borrow_and_update().clone();
    match state.wait_for(|state| *state != now).await {
        Ok(state) => match &*state {
            State::Down { problem, .. } => problem.clone(),
            State::Up(_) => Problem::Outage("lost the connection to the broker for a moment".into()),
        },
        Err(_) => Problem::Closed,
    }
}
