use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::DEADLINE;
use super::address::Address;
use super::link::Link;
use super::problem::Problem;

/// A connection that lived this long ends the row of failures before it.
const STABLE: Duration = Duration::from_secs(10);

/// Keeps one connection up: a single task connects and reconnects, everyone else looks at its state.
pub(super) struct Keeper {
    state: watch::Receiver<State>,
    /// Ends the task with the keeper.
    _guard: DropGuard,
}

#[derive(Clone)]
enum State {
    /// Not yet connected for the first time, or just lost: worth waiting for.
    Connecting,
    Up(Arc<Link>),
    /// The last attempt failed. Attempts go on.
    Down(Problem),
    Closed,
}

impl Keeper {
    pub(super) fn start(
        runtime: &Handle,
        address: Arc<Address>,
        purpose: &'static str,
        closing: CancellationToken,
    ) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let guard = closing.clone().drop_guard();
        // The task owns the sender: should it ever end by a panic, waiters see the channel close.
        runtime.spawn(keep(address, purpose, sender, closing));
        Self { state, _guard: guard }
    }

    /// The connection, at once when it is known to be up or down, otherwise as soon as that is known.
    pub(super) async fn link(&self) -> Result<Arc<Link>, Problem> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| match state {
            State::Connecting => false,
            State::Up(link) => link.connected(),
            State::Down(_) | State::Closed => true,
        });
        let known = match timeout(DEADLINE, known).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => return Err(Problem::Outage("the connection's task has failed".into())),
            Err(_) => return Err(Problem::Outage("no connection yet".into())),
        };
        match known {
            State::Up(link) => Ok(link),
            State::Down(problem) => Err(problem),
            State::Connecting | State::Closed => Err(Problem::Closed),
        }
    }

    /// Lets `pause` pass, less when a connection that was down comes up before.
    pub(super) async fn pause(&self, pause: Duration) {
        let mut state = self.state.clone();
        if matches!(&*state.borrow(), State::Up(link) if link.connected()) {
            return sleep(pause).await;
        }
        let up = state.wait_for(|state| match state {
            State::Up(link) => link.connected(),
            State::Closed => true,
            State::Connecting | State::Down(_) => false,
        });
        let _ = timeout(pause, up).await;
    }

    /// Waits until the task has ended, after its token was cancelled.
    pub(super) async fn ended(&self) {
        let mut state = self.state.clone();
        let closed = state.wait_for(|state| matches!(state, State::Closed));
        let _ = timeout(DEADLINE, closed).await;
    }
}

/// Delays between attempts: fast at first, since most interruptions are short, with jitter so that a fleet does
/// not come back all at once.
pub(super) fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
        .with_jitter()
        .build()
}

async fn keep(
    address: Arc<Address>,
    purpose: &'static str,
    state: watch::Sender<State>,
    closing: CancellationToken,
) {
    let mut delays_left = delays();
    // What was last logged: an outage is reported when it begins, changes its reason, and ends.
    let mut reported: Option<Problem> = None;
    loop {
        let opened = tokio::select! {
            () = closing.cancelled() => break,
            opened = Link::open(&address, purpose) => opened,
        };
        match opened {
            Ok(link) => {
                if reported.take().is_some() {
                    tracing::info!(broker = %address, purpose, "connected to the broker again");
                }
                let since = Instant::now();
                state.send_replace(State::Up(Arc::clone(&link)));
                let reason = tokio::select! {
                    () = closing.cancelled() => {
                        link.close().await;
                        break;
                    }
                    reason = link.lost() => reason,
                };
                tracing::warn!(broker = %address, purpose, reason, "lost the connection to the broker");
                reported = Some(Problem::Outage(reason));
                state.send_replace(State::Connecting);
                if since.elapsed() > STABLE {
                    delays_left = delays();
                }
            }
            Err(problem) => {
                let changed = match (&reported, &problem) {
                    (Some(Problem::Outage(_)), Problem::Outage(_)) => false,
                    (reported, problem) => reported.as_ref() != Some(problem),
                };
                if changed {
                    let error = windlass_core::BrokerError::from(problem.clone());
                    // The calls that fail meanwhile say so.
                    tracing::debug!(broker = %address, purpose, %error, "cannot connect to the broker; trying on");
                    reported = Some(problem.clone());
                }
                state.send_replace(State::Down(problem));
            }
        }
        let delay = delays_left.next().unwrap_or(STABLE);
        tokio::select! {
            () = closing.cancelled() => break,
            () = sleep(delay) => {}
        }
    }
    state.send_replace(State::Closed);
}
