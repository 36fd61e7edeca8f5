//! All that a run leaves, as the checker reads it: from its folder alone, so that it can be checked again.

use std::{collections::HashMap, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use uuid::Uuid;
use windlass::JobState;

use crate::{
    Failure,
    clock::Instant,
    cluster::{SCHEMA, effects_file},
    history::{Call, History, Wish},
    jobs::{How, Line},
    journal::{Entry, Event, Journal},
    lines::{self, Lines},
};

/// A job as the store has it in the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) id: Uuid,
    pub(crate) tag: String,
    pub(crate) kind: String,
    pub(crate) state: JobState,
    /// How often it has been claimed.
    pub(crate) fence: u32,
    /// Of those, the claims that do not count.
    pub(crate) uncounted: u32,
    pub(crate) max_attempts: u32,
    /// The run that its result names.
    pub(crate) run: Option<Uuid>,
    /// Microseconds of the store's clock.
    pub(crate) created: i64,
    pub(crate) finished: Option<i64>,
    /// What its newest error record says.
    pub(crate) error: Option<String>,
}

/// A row written in the transaction that completed a job.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payment {
    pub(crate) job: Uuid,
    pub(crate) run: Uuid,
}

/// One call of a handler.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run {
    pub(crate) id: Uuid,
    pub(crate) job: Uuid,
    pub(crate) attempt: u32,
    pub(crate) life: u32,
    pub(crate) start: Instant,
    /// By its own word, or at the latest when its process ended.
    pub(crate) end: Instant,
    /// `None`: it did not live to tell.
    pub(crate) how: Option<How>,
    pub(crate) effects: Vec<Instant>,
}

/// A process from its start to its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Life {
    pub(crate) number: u32,
    pub(crate) process: String,
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    pub(crate) killed: bool,
    /// From before SIGSTOP until after SIGCONT, or its end.
    pub(crate) frozen: Vec<(Instant, Instant)>,
}

/// A fault as it happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Happened {
    pub(crate) number: usize,
    pub(crate) kind: String,
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) isolated: bool,
    pub(crate) begun: Instant,
    pub(crate) ready: Option<Instant>,
    pub(crate) over: Option<Instant>,
    pub(crate) omitted: Option<String>,
}

/// What the checker must know of how the run was made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Terms {
    pub(crate) lease: Duration,
    /// The machine has other work, so how long a recovery takes breaks no rule.
    pub(crate) busy: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    pub(crate) terms: Terms,
    pub(crate) calls: Vec<Call>,
    pub(crate) jobs: Vec<Stored>,
    pub(crate) payments: Vec<Payment>,
    pub(crate) runs: Vec<Run>,
    pub(crate) lives: Vec<Life>,
    pub(crate) faults: Vec<Happened>,
    /// Effects and ends in a log whose run never started there.
    pub(crate) strays: Vec<String>,
}

const JOBS: &str = "store-jobs.jsonl";
const PAYMENTS: &str = "store-payments.jsonl";
const TERMS: &str = "terms.jsonl";

/// Writes down what the store has.
pub(crate) async fn dump(pool: &PgPool, folder: &Path, terms: Terms) -> Result<(), Failure> {
    Lines::append(&folder.join(TERMS))?.write(&terms)?;
    let statement = format!(
        "SELECT id, kind, state, attempt, uncounted, max_attempts, payload::jsonb->>'tag' AS tag, \
         result::jsonb->>'run' AS run, (extract(epoch FROM created_at) * 1000000)::bigint AS created, \
         (extract(epoch FROM finished_at) * 1000000)::bigint AS finished, \
         (SELECT message FROM {SCHEMA}.job_errors e WHERE e.job_id = j.id ORDER BY fence DESC LIMIT 1) AS error \
         FROM {SCHEMA}.jobs j"
    );
    let jobs = Lines::append(&folder.join(JOBS))?;
    for row in sqlx::query(AssertSqlSafe(statement)).fetch_all(pool).await? {
        let number =
            |name: &str| row.try_get::<i32, _>(name).map(|number| u32::try_from(number).unwrap_or(0));
        jobs.write(&Stored {
            id: row.try_get("id")?,
            tag: row.try_get::<Option<String>, _>("tag")?.unwrap_or_default(),
            kind: row.try_get("kind")?,
            state: JobState::try_from(row.try_get::<i16, _>("state")?)?,
            fence: number("attempt")?,
            uncounted: number("uncounted")?,
            max_attempts: number("max_attempts")?,
            run: row.try_get::<Option<String>, _>("run")?.and_then(|run| run.parse().ok()),
            created: row.try_get("created")?,
            finished: row.try_get("finished")?,
            error: row.try_get("error")?,
        })?;
    }
    let payments = Lines::append(&folder.join(PAYMENTS))?;
    let statement = format!("SELECT job_id, run FROM {SCHEMA}.payments");
    for row in sqlx::query(AssertSqlSafe(statement)).fetch_all(pool).await? {
        payments.write(&Payment { job: row.try_get(0)?, run: row.try_get(1)? })?;
    }
    Ok(())
}

impl Evidence {
    pub(crate) fn load(folder: &Path) -> io::Result<Self> {
        let terms = lines::read::<Terms>(&folder.join(TERMS))?.into_iter().next();
        let terms = terms.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{}: no {TERMS}, so no run that came to its end", folder.display()),
            )
        })?;
        let (lives, faults) = happened(&lines::read::<Entry>(&folder.join(Journal::FILE))?);
        let mut evidence = Self {
            terms,
            calls: lines::read::<Call>(&folder.join(History::FILE))?,
            jobs: lines::read(&folder.join(JOBS))?,
            payments: lines::read(&folder.join(PAYMENTS))?,
            runs: Vec::new(),
            lives,
            faults,
            strays: Vec::new(),
        };
        for life in &evidence.lives {
            let log = lines::read::<Line>(&folder.join(effects_file(life.number)))?;
            let (runs, strays) = runs(life, &log);
            evidence.runs.extend(runs);
            evidence.strays.extend(strays);
        }
        evidence.runs.sort_by_key(|run| run.start);
        Ok(evidence)
    }

    pub(crate) fn life(&self, number: u32) -> Option<&Life> {
        self.lives.iter().find(|life| life.number == number)
    }

    /// The runs of each job, in the order of their starts.
    pub(crate) fn runs_by_job(&self) -> HashMap<Uuid, Vec<&Run>> {
        let mut runs: HashMap<Uuid, Vec<&Run>> = HashMap::new();
        for run in &self.runs {
            runs.entry(run.job).or_default().push(run);
        }
        runs
    }

    pub(crate) fn jobs_by_id(&self) -> HashMap<Uuid, &Stored> {
        self.jobs.iter().map(|job| (job.id, job)).collect()
    }

    /// Every wish that was ever sent, by its tag.
    pub(crate) fn wishes(&self) -> HashMap<&str, &Wish> {
        self.calls.iter().flat_map(|call| call.request.wishes()).map(|wish| (&*wish.tag, wish)).collect()
    }
}

fn happened(entries: &[Entry]) -> (Vec<Life>, Vec<Happened>) {
    let (mut lives, mut faults) = (Vec::<Life>::new(), Vec::<Happened>::new());
    for Entry { t, event } in entries {
        let life = |lives: &mut Vec<Life>, number: u32, change: &dyn Fn(&mut Life)| {
            lives.iter_mut().filter(|life| life.number == number).for_each(change);
        };
        let fault = |faults: &mut Vec<Happened>, number: usize, change: &dyn Fn(&mut Happened)| {
            faults.iter_mut().filter(|fault| fault.number == number).for_each(change);
        };
        match event {
            Event::Spawned { process, life, .. } => lives.push(Life {
                number: *life,
                process: process.clone(),
                from: *t,
                until: Instant::MAX,
                killed: false,
                frozen: Vec::new(),
            }),
            Event::Frozen { life: number } => {
                life(&mut lives, *number, &|life| life.frozen.push((*t, Instant::MAX)));
            }
            Event::Thawed { life: number } => life(&mut lives, *number, &|life| {
                if let Some((_, until)) = life.frozen.last_mut() {
                    *until = *t;
                }
            }),
            Event::Died { life: number, how } => life(&mut lives, *number, &|life| {
                life.until = *t;
                life.killed = how == "killed";
                for (_, until) in &mut life.frozen {
                    *until = (*until).min(*t);
                }
            }),
            Event::Begun { fault: number, what, kind, target, isolated } => faults.push(Happened {
                number: *number,
                kind: kind.clone(),
                what: what.clone(),
                target: target.clone(),
                isolated: *isolated,
                begun: *t,
                ready: None,
                over: None,
                omitted: None,
            }),
            Event::Ready { fault: number } => fault(&mut faults, *number, &|fault| fault.ready = Some(*t)),
            Event::Over { fault: number } => fault(&mut faults, *number, &|fault| fault.over = Some(*t)),
            Event::Omitted { fault: number, why } => {
                fault(&mut faults, *number, &|fault| fault.omitted = Some(why.clone()));
            }
            Event::Note { .. } => {}
        }
    }
    (lives, faults)
}

/// The runs of a process, and what its log says of runs that it never started.
fn runs(life: &Life, log: &[Line]) -> (Vec<Run>, Vec<String>) {
    let mut runs: HashMap<Uuid, Run> = HashMap::new();
    let mut strays = Vec::new();
    for line in log {
        match line {
            Line::Start { run, job, attempt, t } => {
                let began = Run {
                    id: *run,
                    job: *job,
                    attempt: *attempt,
                    life: life.number,
                    start: *t,
                    end: life.until,
                    how: None,
                    effects: Vec::new(),
                };
                runs.insert(*run, began);
            }
            Line::Effect { run, t } => match runs.get_mut(run) {
                Some(run) if run.how.is_none() => run.effects.push(*t),
                _ => strays
                    .push(format!("life {}: an effect of run {run}, which is not under way", life.number)),
            },
            Line::End { run, how, t } => match runs.get_mut(run) {
                Some(run) => (run.end, run.how) = (*t, Some(*how)),
                None => {
                    strays.push(format!("life {}: the end of run {run}, which never started", life.number))
                }
            },
        }
    }
    (runs.into_values().collect(), strays)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(t: Instant, event: Event) -> Entry {
        Entry { t, event }
    }

    #[test]
    fn a_killed_process_ends_its_runs_and_its_frost() {
        let spawned = Event::Spawned { process: "worker-0".into(), life: 3, pid: 1 };
        let (lives, _) = happened(&[
            entry(10, spawned),
            entry(20, Event::Frozen { life: 3 }),
            entry(30, Event::Thawed { life: 3 }),
            entry(40, Event::Frozen { life: 3 }),
            entry(50, Event::Died { life: 3, how: "killed".into() }),
        ]);
        assert_eq!(lives[0].frozen, [(20, 30), (40, 50)]);
        assert!(lives[0].killed);
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let start = |run| Line::Start { run, job: Uuid::nil(), attempt: 1, t: 12 };
        let (mut found, strays) = runs(
            &lives[0],
            &[
                start(first),
                start(second),
                Line::Effect { run: first, t: 13 },
                Line::End { run: first, how: How::Returned, t: 14 },
                Line::Effect { run: first, t: 15 },
                Line::Effect { run: Uuid::max(), t: 16 },
            ],
        );
        found.sort_by_key(|run| run.id);
        assert_eq!((found[0].end, found[0].effects.len()), (14, 1));
        assert_eq!((found[1].end, found[1].how), (50, None));
        assert_eq!(strays.len(), 2, "after its end, and without a start: {strays:?}");
    }

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let (kind, target) = ("kill".into(), "worker-0".into());
        journal.note(Event::Begun { fault: 0, what: "kill".into(), kind, target, isolated: true });
        journal.note(Event::Spawned { process: "worker-0".into(), life: 0, pid: 7 });
        assert!(Evidence::load(folder.path()).unwrap_err().to_string().contains("terms"));
        Lines::append(&folder.path().join(TERMS))
            .unwrap()
            .write(&Terms { lease: Duration::from_secs(8), busy: false })
            .unwrap();
        let run = Uuid::from_u128(4);
        let log = Lines::append(&folder.path().join(effects_file(0))).unwrap();
        log.write(&Line::Start { run, job: Uuid::nil(), attempt: 2, t: 5 }).unwrap();
        let evidence = Evidence::load(folder.path()).unwrap();
        assert_eq!((evidence.runs[0].id, evidence.runs[0].attempt), (run, 2));
        assert!(evidence.faults[0].isolated);
    }
}
