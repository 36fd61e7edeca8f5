//! Who passes which gate. One pass sees to all jobs that have come to their gates or have left them, and runs under a
//! lock, one at a time: so what it counts is true, nothing can wait in a circle, and order is a matter of one list.
//!
//! The rule that keeps a pass short: **when it ends, nobody waits at a gate that has room.** So whoever comes to open gates
//! passes at once, and only gates that something left, or whose time has come, need be looked at. Jobs with the same
//! gates wait in one line, which as a whole stands at a gate that is shut; so a flood behind one gate is one line to all the
//! others.
//!
//! An ordering key's gate comes first, alone: who has its turn keeps it while waiting for the others. Those are taken all
//! together or not at all, so a job that waits for one of them takes nothing from the jobs behind another.

mod books;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::Error;
use windlass_core::{JobId, Limit, OnFailure, State};

pub(crate) use self::books::{Books, Call, Gate, Line, Noted, Place, QueueRule, Rules};

/// What a pass leaves to do with jobs.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// To be queued.
    pub admitted: Vec<JobId>,
    /// How many gates were looked at because it was time.
    pub due: usize,
}

/// Sees to the jobs noted and to the gates that are due at `now`, in microseconds.
pub(crate) async fn pass<B: Books>(
    books: &mut B,
    noted: Vec<Noted>,
    now: i64,
    limit: usize,
) -> Result<Passed, Error> {
    let rules = books.rules().await?;
    let due = books.due_gates(now, limit).await?;
    let mut passed = Passed { due: due.len(), ..Passed::default() };
    let mut pass = Pass {
        books,
        now,
        rules,
        gates: BTreeMap::new(),
        open: BTreeSet::new(),
        left: Vec::new(),
        taken: Vec::new(),
        through: Vec::new(),
        admitted: Vec::new(),
        shares: HashMap::new(),
    };
    for mut gate in due {
        gate.next_at = None;
        pass.open.insert(gate.key.clone());
        pass.know(gate);
    }
    let arrivals = pass.depart(noted).await?;
    pass.work_off().await?;
    for job in arrivals {
        pass.arrive(job).await?;
    }
    passed.admitted = pass.write().await?;
    Ok(passed)
}

enum Room {
    Yes,
    No,
    /// Not before.
    At(i64),
}

struct Pass<'a, B> {
    books: &'a mut B,
    now: i64,
    rules: Rules,
    gates: BTreeMap<String, Gate>,
    /// Gates that may have room for those who wait.
    open: BTreeSet<String>,
    left: Vec<(JobId, String)>,
    taken: Vec<(JobId, String)>,
    /// Through without having waited.
    through: Vec<JobId>,
    admitted: Vec<JobId>,
    shares: HashMap<(String, String), i64>,
}

impl<B: Books> Pass<'_, B> {
    /// Frees what jobs have left. Answers with those that want to go through now.
    async fn depart(&mut self, noted: Vec<Noted>) -> Result<Vec<Noted>, Error> {
        let wanted: BTreeSet<String> = noted.iter().flat_map(|job| job.slots.iter().cloned()).collect();
        self.load(wanted).await?;
        let (mut over, mut paused, mut lines) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut arrivals = Vec::new();
        for mut job in noted {
            let call = &job.call;
            let turn = call.order().filter(|_| call.gating.on_failure == OnFailure::Block);
            let share = call.share();
            let keeps = |gate: &String| match job.state {
                State::Queued => true,
                State::Running => *gate != share,
                State::Waiting if !job.admitted => true,
                State::Waiting | State::Scheduled | State::Retrying => Some(gate) == turn.as_ref(),
                State::Succeeded | State::Cancelled | State::Dead => false,
            };
            let (kept, freed): (Vec<_>, Vec<_>) = job.slots.iter().cloned().partition(keeps);
            for gate in freed {
                if let Some(gate) = self.gates.get_mut(&gate) {
                    gate.taken = gate.taken.saturating_sub(1);
                }
                self.open.insert(gate.clone());
                self.left.push((call.id, gate));
            }
            job.slots = kept;
            match job.state {
                State::Succeeded | State::Cancelled | State::Dead => {
                    over.push(call.id);
                    lines.extend(job.line);
                }
                State::Scheduled | State::Retrying => paused.push(call.id),
                State::Waiting if job.line.is_none() => {
                    // Which also gives a new one its number, in the order of the notes.
                    paused.push(call.id);
                    arrivals.push(job);
                }
                // It was running before its queue had a limit. It counts, wherever that leads.
                State::Running if !job.admitted => {
                    let gate = call.queue();
                    self.load([gate.clone()]).await?;
                    self.take(call.id, &gate);
                    self.through.push(call.id);
                }
                State::Waiting | State::Queued | State::Running => {}
            }
        }
        if !over.is_empty() {
            self.books.forget(&over).await?;
        }
        if !paused.is_empty() {
            self.books.leave(&paused, false).await?;
        }
        for line in lines {
            self.close_ranks(line, None).await?;
        }
        Ok(arrivals)
    }

    /// Lets through who waits at gates that may have room, until none of them has both.
    async fn work_off(&mut self) -> Result<(), Error> {
        while let Some(key) = self.open.pop_first() {
            self.load([key.clone()]).await?;
            loop {
                let room = self.room(&key);
                if matches!(room, Room::No) {
                    break;
                }
                let Some(line) = self.books.best_line(&key).await? else { break };
                if let Room::At(at) = room {
                    self.look_again(&key, at);
                    break;
                }
                self.load(line.gates.iter().cloned()).await?;
                let Some((job, place)) = self.books.first_in(line.id).await? else {
                    self.books.drop_line(line.id).await?;
                    continue;
                };
                match self.shut(&line.gates) {
                    Some(gate) => self.books.move_line(line.id, &gate, seen_at(&gate, place)).await?,
                    None => self.let_through(&line, job, place).await?,
                }
            }
        }
        Ok(())
    }

    async fn let_through(&mut self, line: &Line, job: JobId, place: Place) -> Result<(), Error> {
        for gate in &line.gates {
            self.take(job, gate);
        }
        let turn = line.gates.iter().any(|gate| gate.starts_with("order:"));
        self.books.leave(&[job], !turn).await?;
        if !turn {
            self.note_rank(&line.gates, place.rank);
            self.admitted.push(job);
        } else if let Some(call) = self.books.call(job).await? {
            self.proceed(call).await?;
        }
        self.close_ranks(line.id, Some(&line.waits_at)).await
    }

    /// Notes who is first in a line that somebody has left.
    async fn close_ranks(&mut self, line: i64, waits_at: Option<&str>) -> Result<(), Error> {
        match (self.books.first_in(line).await?, waits_at) {
            (None, _) => self.books.drop_line(line).await,
            (Some((_, place)), Some(gate)) => self.books.move_line(line, gate, seen_at(gate, place)).await,
            // Left from within: at worst the place shown is better than that of its first.
            (Some(_), None) => Ok(()),
        }
    }

    async fn arrive(&mut self, job: Noted) -> Result<(), Error> {
        let call = job.call;
        let Some(turn) = call.order().filter(|turn| !job.slots.contains(turn)) else {
            return self.proceed(call).await;
        };
        self.load([turn.clone()]).await?;
        match self.shut(std::slice::from_ref(&turn)) {
            None => {
                self.take(call.id, &turn);
                self.proceed(call).await
            }
            // Neither urgency nor tenants change the order of a key.
            Some(_) => self.wait(call.id, std::slice::from_ref(&turn), &turn, 0, 0).await,
        }
    }

    /// Goes on to all gates but that of the ordering key.
    async fn proceed(&mut self, call: Call) -> Result<(), Error> {
        let mut gates = vec![call.queue()];
        let fair = self.rules.queues.get(&call.queue).is_some_and(|rule| rule.window.is_some());
        if fair {
            gates.push(call.share());
        }
        let limits: BTreeSet<_> = call.gating.limits.iter().map(|limit| format!("limit:{limit}")).collect();
        gates.extend(limits);
        self.load(gates.iter().cloned()).await?;
        let rank = if fair { self.rank(&call).await? } else { 0 };
        match self.shut(&gates) {
            None => {
                for gate in &gates {
                    self.take(call.id, gate);
                }
                self.note_rank(&gates, rank);
                self.through.push(call.id);
                self.admitted.push(call.id);
                Ok(())
            }
            Some(gate) => self.wait(call.id, &gates, &gate, call.urgency, rank).await,
        }
    }

    async fn wait(
        &mut self,
        job: JobId,
        gates: &[String],
        at: &str,
        urgency: i16,
        rank: i64,
    ) -> Result<(), Error> {
        let text = serde_json::to_string(gates).map_err(|error| Error::Decode(error.into()))?;
        let line = match self.books.find_line(&text).await? {
            Some(line) => {
                let seq = self.books.join(job, urgency, rank, line.id).await?;
                let place = seen_at(&line.waits_at, Place { urgency, rank, seq });
                if place < line.place {
                    self.books.move_line(line.id, &line.waits_at, place).await?;
                }
                return Ok(());
            }
            None => self.books.add_line(&text, at).await?,
        };
        let seq = self.books.join(job, urgency, rank, line).await?;
        self.books.move_line(line, at, seen_at(at, Place { urgency, rank, seq })).await
    }

    /// The job's rank among the tenants of its queue: as if each tenant's jobs took turns from when its first one came
    /// (start-time fair queueing).
    async fn rank(&mut self, call: &Call) -> Result<i64, Error> {
        let tenant = call.gating.tenant.as_ref().map_or("", |tenant| tenant.as_str());
        let key = (call.queue.clone(), tenant.to_owned());
        let least = self.gates.get(&call.queue()).map_or(0, |gate| gate.rank);
        let next = match self.shares.get(&key) {
            Some(next) => *next,
            None => self.books.share(&call.queue, tenant).await?.unwrap_or(0),
        };
        let rank = next.max(least);
        self.shares.insert(key, rank + 1);
        Ok(rank)
    }

    fn note_rank(&mut self, gates: &[String], rank: i64) {
        if let Some(gate) = gates.first().and_then(|queue| self.gates.get_mut(queue)) {
            gate.rank = gate.rank.max(rank);
        }
    }

    /// The first of these gates without room.
    fn shut(&mut self, gates: &[String]) -> Option<String> {
        let shut = gates.iter().map(|gate| (gate, self.room(gate))).find(|(_, r)| !matches!(r, Room::Yes));
        let (gate, room) = shut.map(|(gate, room)| (gate.clone(), room))?;
        if let Room::At(at) = room {
            self.look_again(&gate, at);
        }
        Some(gate)
    }

    fn look_again(&mut self, key: &str, at: i64) {
        if let Some(gate) = self.gates.get_mut(key) {
            gate.next_at = Some(at);
        }
    }

    fn room(&self, key: &str) -> Room {
        let Some(gate) = self.gates.get(key) else { return Room::Yes };
        let limit = self.limit(key);
        if limit.max_running.is_some_and(|most| gate.taken >= most) {
            return Room::No;
        }
        match Bucket::of(&limit) {
            Some(bucket) if gate.full_at - bucket.rest > self.now => Room::At(gate.full_at - bucket.rest),
            _ => Room::Yes,
        }
    }

    fn take(&mut self, job: JobId, key: &str) {
        let bucket = Bucket::of(&self.limit(key));
        if let Some(gate) = self.gates.get_mut(key) {
            gate.taken += 1;
            if let Some(bucket) = bucket {
                gate.full_at = gate.full_at.max(self.now) + bucket.interval;
            }
        }
        self.taken.push((job, key.to_owned()));
    }

    fn limit(&self, key: &str) -> Limit {
        let rules = &self.rules;
        let limit = match key.split_once(':') {
            Some(("order", _)) => Some(Limit::concurrent(1)),
            Some(("limit", limit)) => rules.limits.get(limit.split('/').next().unwrap_or_default()).copied(),
            Some(("queue", queue)) => rules.queues.get(queue).map(|rule| rule.limit),
            Some(("share", queue)) => {
                rules.queues.get(queue).map(|rule| Limit { max_running: rule.window, ..Limit::default() })
            }
            _ => None,
        };
        limit.unwrap_or_default()
    }

    async fn load(&mut self, keys: impl IntoIterator<Item = String> + Send) -> Result<(), Error> {
        let keys: Vec<String> = keys.into_iter().filter(|key| !self.gates.contains_key(key)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        for gate in self.books.gates(&keys).await? {
            self.know(gate);
        }
        for key in keys {
            let new = Gate { key: key.clone(), taken: 0, full_at: 0, next_at: None, rank: 0 };
            self.gates.entry(key).or_insert(new);
        }
        Ok(())
    }

    fn know(&mut self, mut gate: Gate) {
        // Under rules that have changed since, it could be later than an empty bucket takes to fill.
        let fills = Bucket::of(&self.limit(&gate.key)).map_or(0, |bucket| bucket.rest + bucket.interval);
        gate.full_at = gate.full_at.min(self.now.saturating_add(fills));
        self.gates.insert(gate.key.clone(), gate);
    }

    async fn write(self) -> Result<Vec<JobId>, Error> {
        let Self { books, now, gates, left, taken, through, admitted, shares, .. } = self;
        let (idle, used): (Vec<_>, Vec<_>) = gates.into_values().partition(|gate| gate.is_idle(now));
        if !idle.is_empty() || !used.is_empty() {
            books.write_gates(&used, &idle).await?;
        }
        if !left.is_empty() || !taken.is_empty() {
            books.write_slots(&left, &taken).await?;
        }
        if !through.is_empty() {
            books.leave(&through, true).await?;
        }
        if !shares.is_empty() {
            books.write_shares(&shares).await?;
        }
        Ok(admitted)
    }
}

/// A token bucket: how long a token takes to come, and how long all but the first take.
struct Bucket {
    interval: i64,
    rest: i64,
}

impl Bucket {
    fn of(limit: &Limit) -> Option<Self> {
        let rate = limit.rate?;
        let per = i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX / 4);
        // Rounded up, so that there is never more than the rate allows.
        let interval = per.div_euclid(i64::from(rate.count.max(1)))
            + i64::from(per.rem_euclid(i64::from(rate.count.max(1))) > 0);
        let rest = interval.saturating_mul(i64::from(rate.burst.max(1)) - 1).min(i64::MAX / 8);
        Some(Self { interval, rest })
    }
}

/// The place of a line at a gate: ranks only compare within a queue.
fn seen_at(gate: &str, place: Place) -> Place {
    let shared = gate.starts_with("queue:") || gate.starts_with("share:");
    Place { rank: if shared { place.rank } else { 0 }, ..place }
}
