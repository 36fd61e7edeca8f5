use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use windlass_core::{ClaimId, Finish, Outcome, Store, StoreError, WorkerId};

use crate::session::Session;

/// The largest group of outcomes in one statement.
const GROUP: usize = 500;
/// Statements under way at once: while one commits, the next group gathers.
const IN_FLIGHT: usize = 2;

/// What the completer is told.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A claim has brought this many jobs, whose ends will follow.
    Claimed {
        /// The claim.
        claim: ClaimId,
        /// How many jobs.
        jobs: usize,
    },
    /// An attempt has ended, with an outcome unless its handler has committed that itself.
    Attempt {
        /// The claim it came with.
        claim: ClaimId,
        /// What to record.
        finish: Option<Finish>,
        /// Whether other jobs wait for it.
        followed: bool,
    },
}

/// Records outcomes in groups: whatever waits leaves together as soon as a statement may be sent. Nothing is given up
/// until it is written or the lease is lost.
pub(crate) struct Completer {
    session: Arc<Session>,
    ended: mpsc::UnboundedReceiver<Ended>,
    /// Jobs of each claim that are not recorded yet.
    open: HashMap<ClaimId, usize>,
    /// Claims whose jobs are all recorded, to be forgotten with the next statement.
    closed: Vec<ClaimId>,
    writing: JoinSet<Group>,
}

/// Outcomes that are written together, and how many of each claim they are.
#[derive(Debug, Default)]
struct Group {
    finishes: Vec<Finish>,
    claims: BTreeMap<ClaimId, usize>,
    closed: Vec<ClaimId>,
    /// Whether other jobs wait for some of them.
    followed: bool,
}

impl Completer {
    pub(crate) fn new(session: Arc<Session>, ended: mpsc::UnboundedReceiver<Ended>) -> Self {
        Self { session, ended, open: HashMap::new(), closed: Vec::new(), writing: JoinSet::new() }
    }

    /// Records until `last` is cancelled, which must be after the last attempt's end, and all is written.
    pub(crate) async fn run(mut self, last: CancellationToken) {
        let mut news = Vec::with_capacity(GROUP);
        let mut ending = false;
        loop {
            // A claim's row goes at the latest when nothing else is to be written.
            if self.writing.is_empty() && self.ended.is_empty() && !self.closed.is_empty() {
                self.write(Group::default());
            }
            // `recv_many` and `join_next` are cancel-safe.
            tokio::select! {
                biased;
                () = last.cancelled(), if !ending => {
                    ending = true;
                    self.ended.close();
                }
                Some(written) = self.writing.join_next() => self.settle(written),
                taken = self.ended.recv_many(&mut news, GROUP), if self.writing.len() < IN_FLIGHT => {
                    if taken == 0 && self.writing.is_empty() && self.closed.is_empty() {
                        return;
                    }
                    if taken == 0 {
                        self.written().await;
                        continue;
                    }
                    let group = self.gather(news.drain(..));
                    self.write(group);
                }
            }
        }
    }

    fn gather(&mut self, news: impl Iterator<Item = Ended>) -> Group {
        let mut group = Group::default();
        for ended in news {
            match ended {
                Ended::Claimed { claim, jobs: 0 } => self.closed.push(claim),
                Ended::Claimed { claim, jobs } => {
                    self.open.insert(claim, jobs);
                }
                Ended::Attempt { claim, finish, followed } => {
                    group.followed |= followed;
                    *group.claims.entry(claim).or_default() += 1;
                    group.finishes.extend(finish);
                }
            }
        }
        group
    }

    /// Sends a group on its way, with the claims that are over once it is written.
    ///
    /// A claim may only be forgotten in the statement that records its last outcome or in a later one: forgotten
    /// earlier, its other jobs would be running for ever if this process died.
    fn write(&mut self, mut group: Group) {
        group.closed = std::mem::take(&mut self.closed);
        let open = &self.open;
        let whole = group.claims.iter().filter(|(claim, ended)| open.get(claim) == Some(*ended));
        group.closed.extend(whole.map(|(claim, _)| *claim));
        if group.finishes.is_empty() && group.closed.is_empty() {
            if group.followed {
                self.session.follow_up.notify_one();
            }
            self.settle(Ok(group));
            return;
        }
        let (store, worker) = (self.session.client.store().clone(), self.session.id);
        let (lost, follow_up) = (self.session.lost.clone(), self.session.follow_up.clone());
        self.writing.spawn(async move {
            // Once the lease is lost, nothing more is sent: it could forget claims whose outcomes were dropped here.
            tokio::select! {
                biased;
                () = lost.cancelled() => {}
                () = record(&*store, worker, &mut group) => {}
            }
            if group.followed {
                follow_up.notify_one();
            }
            group
        });
    }

    async fn written(&mut self) {
        if let Some(written) = self.writing.join_next().await {
            self.settle(written);
        }
    }

    fn settle(&mut self, written: Result<Group, tokio::task::JoinError>) {
        let group = match written {
            Ok(group) => group,
            Err(error) => {
                // Cannot happen short of a bug; the lease is the way out that always works.
                tracing::error!(%error, "recording outcomes panicked; giving up the lease");
                self.session.lost.cancel();
                return;
            }
        };
        for claim in group.closed {
            self.open.remove(&claim);
            self.session.closes(claim);
        }
        for (claim, ended) in group.claims {
            if let Some(open) = self.open.get_mut(&claim) {
                *open -= ended.min(*open);
                if *open == 0 {
                    self.open.remove(&claim);
                    self.closed.push(claim);
                }
            }
        }
    }
}

/// Writes a group, however often that takes.
async fn record(store: &dyn Store, worker: WorkerId, group: &mut Group) {
    let mut repeated = false;
    let mut pause = Duration::from_millis(50);
    loop {
        match store.finish(worker, &group.finishes, &group.closed).await {
            Ok(recorded) => {
                // After a repeat, those missing may have been recorded the first time.
                if !repeated && recorded.len() < group.finishes.len() {
                    let refused = group.finishes.len() - recorded.len();
                    tracing::warn!(
                        refused,
                        "outcomes refused: their lease was lost, the jobs were given to others"
                    );
                }
                if repeated {
                    tracing::info!("outcomes can be recorded again");
                }
                return;
            }
            Err(error) => {
                if !repeated {
                    tracing::warn!(%error, outcomes = group.finishes.len(), "outcomes cannot be recorded; trying again");
                }
                if matches!(error, StoreError::Unexpected(_)) {
                    isolate(store, worker, group, &error).await;
                }
                repeated = true;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Finds the outcome that the store cannot take, and makes it a failure that it can.
async fn isolate(store: &dyn Store, worker: WorkerId, group: &mut Group, error: &StoreError) {
    for finish in &mut group.finishes {
        if let Err(StoreError::Unexpected(_)) = store.finish(worker, std::slice::from_ref(finish), &[]).await
        {
            tracing::error!(job_id = %finish.id, %error, "the outcome cannot be stored; the job is dead");
            finish.outcome = Outcome::Dead { error: "the outcome could not be stored".into() };
        }
    }
}
