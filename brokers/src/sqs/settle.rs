use windlass_core::Lane;

use super::BATCH;
use super::api::Settle;
use super::problem::Problem;
use super::queues::Queues;

/// Calls of one kind under way at once for a lane, at most.
const CALLS: usize = 16;
/// Times to try each message.
const TRIES: usize = 3;

/// Receipts that wait to be settled in the same way. What comes while a call is under way goes with the next, so that
/// calls get fuller the more there is to do.
#[derive(Default)]
pub(super) struct Settling {
    pub(super) pending: Vec<String>,
    pub(super) calls: usize,
}

impl Settling {
    /// What to send now, if anything: one call at a time, more only when they are full.
    pub(super) fn next_batch(&mut self) -> Option<Vec<String>> {
        let full = self.pending.len() >= BATCH;
        if self.pending.is_empty() || self.calls >= if full { CALLS } else { 1 } {
            return None;
        }
        self.calls += 1;
        Some(self.pending.drain(..self.pending.len().min(BATCH)).collect())
    }
}

/// Settles up to ten messages, and answers with the places of those that are not ours any more.
pub(super) async fn settle(
    queues: &Queues,
    lane: &Lane,
    receipts: Vec<String>,
    how: Settle,
) -> Result<Vec<usize>, Problem> {
    let Some(queue) = queues.existing(lane).await? else { return Ok((0..receipts.len()).collect()) };
    let mut gone = Vec::new();
    let mut left: Vec<(usize, String)> = receipts.into_iter().enumerate().collect();
    for _ in 0..TRIES {
        let receipts: Vec<String> = left.iter().map(|(_, receipt)| receipt.clone()).collect();
        let failed = queues.api.settle(queue.url(), &receipts, how).await?;
        let mut again = Vec::new();
        for failed in failed {
            let Some((place, receipt)) = left.get(failed.index) else { continue };
            if failed.final_ {
                tracing::debug!(%lane, ?how, problem = ?failed.problem, "a message is not ours any more");
                gone.push(*place);
            } else {
                again.push((*place, receipt.clone()));
            }
        }
        if again.is_empty() {
            return Ok(gone);
        }
        left = again;
    }
    Err(Problem::Refused(format!("SQS failed {TRIES} times for {} messages", left.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_call_has_to_be_full() {
        let mut settling = Settling::default();
        let receive = |settling: &mut Settling, count| settling.pending.resize(count, String::new());
        receive(&mut settling, 3);
        assert_eq!(settling.next_batch().map(|batch| batch.len()), Some(3));
        receive(&mut settling, 9);
        assert_eq!(settling.next_batch(), None);
        receive(&mut settling, 11);
        assert_eq!(settling.next_batch().map(|batch| batch.len()), Some(10));
        assert_eq!(settling.next_batch(), None);
        settling.calls = 0;
        assert_eq!(settling.next_batch().map(|batch| batch.len()), Some(1));
    }
}
