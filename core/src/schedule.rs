use std::{fmt, str::FromStr as _, time::Duration};

use chrono::{DateTime, TimeDelta, Timelike as _};
use chrono_tz::Tz;
use croner::Cron;
use serde::{Deserialize, Serialize};

use crate::{InvalidName, ScheduleName, Timestamp};

/// When jobs are made again and again, and what becomes of times that nobody was there for.
///
/// A cron expression has five fields, or six with seconds before them, or seven with a year after them. It is read in a
/// named time zone, whose days of 23 and 25 hours it meets like this:
///
/// | expression | in the hour that is skipped | in the hour that comes twice |
/// |---|---|---|
/// | one fixed time a day, such as `30 2 * * *` | runs at the first instant after the gap | runs once, the first time |
/// | any other, such as `*/15 * * * *` or `0 2,14 * * *` | those times do not exist, and do not run | runs both times |
///
/// ```
/// # use windlass_core::{Missed, Schedule};
/// # use std::time::Duration;
/// let schedule = Schedule::cron("0 30 2 * * *", "Europe/Berlin")?.missed(Missed::Skip).jitter(Duration::from_secs(60));
/// let next = schedule.next_after("2026-03-28T12:00:00Z".parse()?);
/// assert_eq!(next, Some("2026-03-29T01:00:00Z".parse()?), "02:30 is skipped: it runs at 03:00 summer time");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Schedule {
    name: Option<ScheduleName>,
    timing: Timing,
    missed: Missed,
    jitter: Duration,
}

/// When it fires.
#[derive(Debug, Clone, PartialEq)]
pub enum Timing {
    /// When the clocks of a time zone show what an expression says.
    Cron(CronTiming),
    /// At every multiple of an interval, counted from 1970.
    Every(Duration),
}

/// A cron expression with its time zone, both checked.
#[derive(Clone)]
pub struct CronTiming {
    expression: String,
    zone: Tz,
    cron: Box<Cron>,
}

/// What becomes of ticks for which no scheduler was there in time (half a minute).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// They are dropped.
    Skip,
    /// One run stands for all of them: the next one, if that is in time, else one for the newest of them.
    #[default]
    Once,
    /// Each runs, up to the newest hundred.
    All,
}

/// What a schedule comes to at some instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The ticks to fire now, oldest first.
    pub ticks: Vec<Timestamp>,
    /// The next one after them; `None` for never.
    pub next: Option<Timestamp>,
}

/// A schedule that can never work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// The expression cannot be read.
    #[error(
        "not a cron expression: {0}; write five fields such as \"30 2 * * *\", or six with seconds first"
    )]
    Cron(String),
    /// The expression can be read, but no such time ever comes.
    #[error("no such time ever comes")]
    Never,
    /// The zone is not in the IANA database.
    #[error("unknown time zone; write an IANA name such as \"Europe/Berlin\" or \"UTC\"")]
    Zone,
    /// The interval is too short or too long.
    #[error("an interval is between 1 second and 10 years")]
    Interval,
    /// The jitter is too long.
    #[error("a jitter is at most 1 day")]
    Jitter,
}

/// Ticks that are late by no more than this have not been missed: another scheduler may have had to take over.
const IN_TIME: TimeDelta = TimeDelta::seconds(30);
/// The most missed ticks that are made up for.
const MOST_MISSED: usize = 100;
const LONGEST_EXPRESSION: usize = 256;
const LONGEST_INTERVAL: Duration = Duration::from_secs(10 * 365 * 86_400);
const LONGEST_JITTER: Duration = Duration::from_secs(86_400);

impl Schedule {
    /// By a cron expression in a time zone.
    ///
    /// # Errors
    /// An expression that cannot be read or never comes true, or an unknown zone.
    pub fn cron(expression: &str, zone: &str) -> Result<Self, InvalidSchedule> {
        let zone: Tz = zone.parse().map_err(|_| InvalidSchedule::Zone)?;
        if expression.len() > LONGEST_EXPRESSION {
            return Err(InvalidSchedule::Cron(format!("longer than {LONGEST_EXPRESSION} bytes")));
        }
        let cron =
            Cron::from_str(expression).map_err(|error| InvalidSchedule::Cron(error.to_string()))?.into();
        let timing = CronTiming { expression: expression.to_owned(), zone, cron };
        timing.next_after(Timestamp::UNIX_EPOCH).ok_or(InvalidSchedule::Never)?;
        Ok(Self::new(Timing::Cron(timing)))
    }

    /// At every multiple of `interval`, counted from 1970: every `30s` fires at :00 and :30 of each minute.
    ///
    /// # Errors
    /// An interval of less than a second or more than ten years.
    pub fn every(interval: Duration) -> Result<Self, InvalidSchedule> {
        if !(Duration::from_secs(1)..=LONGEST_INTERVAL).contains(&interval) {
            return Err(InvalidSchedule::Interval);
        }
        Ok(Self::new(Timing::Every(interval)))
    }

    fn new(timing: Timing) -> Self {
        Self { name: None, timing, missed: Missed::default(), jitter: Duration::ZERO }
    }

    /// Gives it a name of its own. Without one it is named after its job's kind.
    ///
    /// # Errors
    /// A name that breaks the naming rule.
    pub fn named(mut self, name: &str) -> Result<Self, InvalidName> {
        self.name = Some(name.parse()?);
        Ok(self)
    }

    /// What becomes of ticks for which no scheduler was there in time.
    #[must_use]
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// Spreads the runs: each starts up to `jitter` (at most a day) after its tick, by a time that depends on nothing but
    /// the schedule's name and the tick.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter.min(LONGEST_JITTER);
        self
    }

    /// Its own name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&ScheduleName> {
        self.name.as_ref()
    }

    /// When it fires.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// What becomes of ticks that were missed.
    #[must_use]
    pub fn missed_policy(&self) -> Missed {
        self.missed
    }

    /// The longest time by which a run may start after its tick.
    #[must_use]
    pub fn longest_jitter(&self) -> Duration {
        self.jitter
    }

    /// The first tick after `after`; `None` if there is none any more.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.timing {
            Timing::Cron(cron) => cron.next_after(after),
            Timing::Every(interval) => multiple(*interval, after, 1),
        }
    }

    /// The newest tick that is not after `at`.
    fn last_before(&self, at: Timestamp) -> Option<Timestamp> {
        match &self.timing {
            Timing::Cron(cron) => cron.last_before(at),
            Timing::Every(interval) => multiple(*interval, at, 0),
        }
    }

    /// The next `count` ticks after `after`.
    #[must_use]
    pub fn upcoming(&self, after: Timestamp, count: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after), |tick| self.next_after(*tick)).take(count).collect()
    }

    /// What there is to fire at `now`, when `next` is the first tick that has not been dealt with.
    #[must_use]
    pub fn due(&self, next: Timestamp, now: Timestamp) -> Due {
        if next > now {
            return Due { ticks: Vec::new(), next: Some(next) };
        }
        let in_time_after = now - IN_TIME;
        let mut ticks = Vec::new();
        let first_in_time = if next > in_time_after { Some(next) } else { self.next_after(in_time_after) }
            .filter(|t| *t <= now);
        if next <= in_time_after {
            let most = match self.missed {
                Missed::Skip => 0,
                Missed::Once => usize::from(first_in_time.is_none()),
                Missed::All => MOST_MISSED,
            };
            let newest = self.last_before(in_time_after).filter(|tick| *tick >= next).unwrap_or(next);
            let before = |tick: &Timestamp| self.last_before(*tick - TimeDelta::microseconds(1));
            let missed = std::iter::successors(Some(newest), before).take_while(|tick| *tick >= next);
            ticks.extend(missed.take(most));
            ticks.reverse();
        }
        let in_time = std::iter::successors(first_in_time, |tick| self.next_after(*tick));
        ticks.extend(in_time.take_while(|tick| *tick <= now));
        Due { ticks, next: self.next_after(now) }
    }

    /// When the run of a tick is to start: within the jitter, and the same whoever asks.
    #[must_use]
    pub fn start_of(&self, name: &ScheduleName, tick: Timestamp) -> Timestamp {
        let micros = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return tick;
        }
        // FNV-1a, which stays the same for ever, and a finish that spreads ticks close together.
        let bytes = name.as_str().bytes().chain(tick.timestamp_micros().to_be_bytes());
        let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        tick + TimeDelta::microseconds(i64::try_from(hash % micros).unwrap_or(0))
    }
}

impl CronTiming {
    /// The expression as it was given.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone's name.
    #[must_use]
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let start = whole_seconds(after)?.with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&start, false).ok()?.to_utc();
        (next > after).then_some(next)
    }

    fn last_before(&self, at: Timestamp) -> Option<Timestamp> {
        let start = whole_seconds(at)?.with_timezone(&self.zone);
        let last = self.cron.find_previous_occurrence(&start, true).ok()?.to_utc();
        (last <= at).then_some(last)
    }
}

impl PartialEq for CronTiming {
    fn eq(&self, other: &Self) -> bool {
        (&self.expression, self.zone) == (&other.expression, other.zone)
    }
}

impl fmt::Debug for CronTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}", self.expression, self.zone)
    }
}

fn whole_seconds(at: Timestamp) -> Option<Timestamp> {
    // Before 1970 nothing is ever scheduled, and the search need not begin there.
    at.max(DateTime::UNIX_EPOCH).with_nanosecond(0)
}

/// The multiple of `interval` that is `steps` after the newest one up to `at`.
fn multiple(interval: Duration, at: Timestamp, steps: i64) -> Option<Timestamp> {
    let interval = i64::try_from(interval.as_micros()).ok().filter(|micros| *micros > 0)?;
    let number = at.timestamp_micros().div_euclid(interval).checked_add(steps)?;
    Timestamp::from_timestamp_micros(number.checked_mul(interval)?)
}

/// How a schedule is kept.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<ScheduleName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    missed: Missed,
    jitter_ms: u64,
}

impl From<Schedule> for Stored {
    fn from(schedule: Schedule) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (cron, zone, every_ms) = match schedule.timing {
            Timing::Cron(cron) => (Some(cron.expression), Some(cron.zone.name().to_owned()), None),
            Timing::Every(interval) => (None, None, Some(millis(interval))),
        };
        let (missed, jitter_ms) = (schedule.missed, millis(schedule.jitter));
        Self { name: schedule.name, cron, zone, every_ms, missed, jitter_ms }
    }
}

impl TryFrom<Stored> for Schedule {
    type Error = InvalidSchedule;

    fn try_from(stored: Stored) -> Result<Self, InvalidSchedule> {
        let schedule = match (&stored.cron, stored.every_ms) {
            (Some(cron), _) => Self::cron(cron, stored.zone.as_deref().unwrap_or("UTC"))?,
            (None, millis) => Self::every(Duration::from_millis(millis.unwrap_or(0)))?,
        };
        let schedule = schedule.missed(stored.missed).jitter(Duration::from_millis(stored.jitter_ms));
        Ok(Self { name: stored.name, ..schedule })
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
