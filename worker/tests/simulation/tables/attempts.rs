//! Attempts, and the workers that make them.

use std::{collections::BTreeSet, time::Duration};

use windlass_core::{
    ClaimId, ClaimedJob, Event, Finish, HeartbeatReply, JobId, KindInfo, NewWorker, Outcome, Rescued, State,
    StoreError, Timestamp, WorkerId,
};

use super::{Row, Tables, WorkerRow};

impl Tables {
    pub fn claim(
        &mut self,
        worker: WorkerId,
        claim: ClaimId,
        ids: &[JobId],
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        if !self.workers.iter().any(|row| row.id == worker) {
            return Err(StoreError::WorkerUnknown(worker));
        }
        let now = self.now;
        if let Some((holder, claimed)) = self.claims.get(&claim) {
            let mine =
                |row: &&Row| *holder == worker && row.state == State::Running && row.worker == Some(worker);
            let rows = claimed.iter().filter_map(|id| self.jobs.get(id)).filter(mine);
            return Ok(rows.map(|row| claimed_job(row, now)).collect());
        }
        let ids: BTreeSet<JobId> = ids.iter().copied().collect();
        let mut claimed = Vec::new();
        for id in ids {
            let Some(row) = self.jobs.get_mut(&id) else { continue };
            if row.state.after(Event::Claim).is_none() || row.is_over(now).is_some() {
                continue;
            }
            row.fence += 1;
            (row.worker, row.started_at) = (Some(worker), Some(now));
            claimed.push(claimed_job(row, now));
            self.step(id, Event::Claim);
        }
        if !claimed.is_empty() {
            self.claims.insert(claim, (worker, claimed.iter().map(|job| job.id).collect()));
        }
        Ok(claimed)
    }

    pub fn finish(&mut self, worker: WorkerId, finishes: &[Finish], closed: &[ClaimId]) -> Vec<JobId> {
        let (mut recorded, mut released) = (Vec::new(), Vec::new());
        for Finish { id, fence, outcome } in finishes {
            let due = match outcome {
                Outcome::Retry { after, .. } | Outcome::Snoozed { after } => Some(self.after(*after)),
                _ => None,
            };
            let until = match outcome {
                Outcome::Succeeded { keep, .. } => keep.map(|keep| self.after(keep)),
                _ => None,
            };
            let Some(row) = self.jobs.get_mut(id) else { continue };
            if row.state != State::Running || row.fence != *fence {
                continue;
            }
            row.uncounted += u32::from(!outcome.counts());
            row.run_at = due;
            if let Outcome::Succeeded { result, .. } = outcome {
                (row.result, row.result_until) = (result.clone(), until);
            }
            let stands = matches!(outcome, Outcome::Succeeded { .. } | Outcome::Dead { .. });
            let event = if row.cancel_requested && !stands { Event::Abort } else { outcome.event() };
            if let Outcome::Retry { error, .. } | Outcome::Dead { error } = outcome {
                self.note_error(*id, Some(worker), error.clone());
            }
            if self.step(*id, event) == Some(State::Queued) {
                released.push(*id);
            }
            recorded.push(*id);
        }
        self.announce(released, Duration::ZERO);
        for claim in closed {
            self.claims.remove(claim);
        }
        recorded
    }

    pub fn register(&mut self, worker: &NewWorker) {
        let now = Some(self.now);
        match self.workers.iter_mut().find(|row| row.id == worker.id) {
            Some(row) => row.heard_of = now,
            None => self.workers.push(WorkerRow {
                id: worker.id,
                label: worker.label.clone(),
                lease: worker.lease,
                heard_of: now,
            }),
        }
        for info in &worker.kinds {
            let known = self.kinds.remove(info.kind.as_str());
            let mut said = info.clone();
            if let Some(known) = known {
                said.schemas = known.schemas;
                said.schemas.remove(&info.version);
                said.schemas.extend(info.schemas.clone());
                said.version = said.version.max(known.version);
            }
            self.kinds.insert(info.kind.as_str().to_owned(), said);
        }
    }

    pub fn heartbeat(&mut self, worker: WorkerId) -> Result<HeartbeatReply, StoreError> {
        let row = self.workers.iter_mut().find(|row| row.id == worker && row.heard_of.is_some());
        row.ok_or(StoreError::WorkerUnknown(worker))?.heard_of = Some(self.now);
        let asked = self.jobs.iter().filter(|(_, row)| {
            row.state == State::Running && row.cancel_requested && row.worker == Some(worker)
        });
        let cancel = asked.map(|(id, _)| *id).collect();
        let claims = self.claims.iter().filter(|(_, (holder, _))| *holder == worker);
        Ok(HeartbeatReply { cancel, claims: claims.map(|(claim, _)| *claim).collect() })
    }

    /// Forgets a worker that holds nothing; one that does is dead from now on, and rescued.
    pub fn deregister(&mut self, worker: WorkerId) {
        let holds = self.claims.values().any(|(holder, _)| *holder == worker);
        self.workers.retain_mut(|row| {
            if row.id == worker {
                row.heard_of = None;
            }
            row.id != worker || holds
        });
    }

    pub fn rescue(&mut self, crash_limit: u32) -> Rescued {
        let silent = |row: &&WorkerRow| row.heard_of.is_none_or(|at| at <= self.before(row.lease));
        let dead: Vec<WorkerId> = self.workers.iter().filter(silent).map(|row| row.id).collect();
        let (mut rescued, mut requeued) = (Rescued::default(), Vec::new());
        for worker in dead {
            let claimed = self.claims.values().filter(|(holder, _)| *holder == worker);
            let held: BTreeSet<JobId> = claimed.flat_map(|(_, jobs)| jobs.iter().copied()).collect();
            for id in held {
                let Some(row) = self.jobs.get_mut(&id) else { continue };
                if row.state != State::Running || row.worker != Some(worker) {
                    continue;
                }
                row.crashes += 1;
                let used_up = row.crashes >= crash_limit || row.attempt() >= row.new.max_attempts;
                let event = match (row.cancel_requested, used_up) {
                    (true, _) => Event::Abort,
                    (false, true) => Event::Quarantine,
                    (false, false) => Event::LeaseLost,
                };
                self.note_error(id, Some(worker), "the worker was lost during this attempt".into());
                match self.step(id, event) {
                    Some(State::Queued) => requeued.push(id),
                    Some(State::Dead) => rescued.dead += 1,
                    _ => rescued.requeued += 1,
                }
            }
            self.claims.retain(|_, (holder, _)| *holder != worker);
            self.workers.retain(|row| row.id != worker);
            rescued.workers.push(worker);
        }
        rescued.requeued += requeued.len() as u64;
        self.announce(requeued, Duration::ZERO);
        rescued
    }

    pub fn kinds(&self) -> Vec<KindInfo> {
        self.kinds.values().cloned().collect()
    }
}

fn claimed_job(row: &Row, now: Timestamp) -> ClaimedJob {
    ClaimedJob {
        id: row.new.id,
        fence: row.fence,
        attempt: row.attempt(),
        max_attempts: row.new.max_attempts,
        kind: row.new.kind.clone(),
        queue: row.new.queue.clone(),
        priority: row.new.priority,
        payload: row.new.payload.clone(),
        timeout: row.new.timeout,
        created_at: row.created_at,
        labels: row.new.labels.clone(),
        trace: row.new.trace.clone(),
        version: row.new.version,
        time_left: row.new.deadline.map(|deadline| (deadline - now).to_std().unwrap_or_default()),
        followed: false,
        tenant: row.new.gating.tenant.clone(),
    }
}
