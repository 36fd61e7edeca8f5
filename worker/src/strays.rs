use std::{collections::BTreeSet, sync::Arc};

use windlass_core::{ClaimId, Finish, Outcome};

use crate::{completer::Ended, intake::claim_under, session::Session};

/// Claims that the store keeps for this session, and the session does not know of.
///
/// A call that was given up here may lie somewhere in the network, and come to the store when its claim has long been
/// repeated, and closed. Then it claims anew, for nobody: the jobs would be running for as long as the worker lives.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    /// As of the heartbeat before. Of those seen for the first time, some may just be about to be closed.
    seen: BTreeSet<ClaimId>,
}

impl Strays {
    /// Looks at what a heartbeat has brought, and has what is seen for the second time given back.
    pub(crate) fn look(&mut self, session: &Arc<Session>, held: Vec<ClaimId>) {
        let unknown: BTreeSet<_> = held.into_iter().filter(|claim| !session.knows(*claim)).collect();
        for claim in unknown.intersection(&self.seen) {
            session.opens(*claim);
            session.attempts.spawn(give_back(session.clone(), *claim));
        }
        self.seen = unknown;
    }
}

/// The attempts have not begun, so they do not count.
async fn give_back(session: Arc<Session>, claim: ClaimId) {
    let Some(jobs) = claim_under(&session, claim, &[]).await else { return };
    tracing::warn!(
        jobs = jobs.len(),
        "a claim that was given up has come through all the same; its jobs are given back"
    );
    // The completer ends after all attempts have, of which this counts as one.
    let _ = session.ended.send(Ended::Claimed { claim, jobs: jobs.len() });
    for job in jobs {
        let finish = Finish { id: job.id, fence: job.fence, outcome: Outcome::Released };
        let _ = session.ended.send(Ended::Attempt { claim, finish: Some(finish), followed: job.followed });
    }
}
