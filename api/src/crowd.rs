//! How many requests to enqueue may be under way, so that those that are let in are answered in time.
//!
//! The bound follows what is seen: when even the quickest of a moment's requests took much longer than one does on a quiet
//! server, there is a queue that does not drain, and fewer are let in; else more. A burst, of which the first are quick, is
//! no such queue, and a slow store none either.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A moment lasts at least this long, and has at least so many requests.
const MOMENT: Duration = Duration::from_millis(50);
const FEW: u32 = 8;
/// A moment that lasts longer than this was a quiet one.
const QUIET: Duration = Duration::from_secs(1);
/// As many are let in whatever it takes: a slow machine is no reason to send away a few dozen callers that wait for their
/// answers. Where as many and more are sent away in a moment, it is not those who come.
const LEAST: usize = 64;
/// As many are let in even then.
const LEAST_OF_MANY: usize = 32;
/// The bound grows by this part of it in a moment,
const STEP: usize = 4;
/// and where many are sent away by this: some of a moment are lucky, and a bound that follows them is soon far too high.
const STEP_OF_MANY: usize = 32;
/// As many are let in as long as nothing is known of how quickly more would be answered.
const FIRST: usize = 512;
/// How much of the bound is left after a moment of the longest queue.
const LEAST_SHARE: f64 = 0.25;
/// For how long it is remembered how quick a request can be: for this and the same again.
const PERIOD: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) struct Crowd {
    most: usize,
    max_delay: Duration,
    bound: AtomicUsize,
    inside: AtomicUsize,
    /// The most that were inside in this moment.
    crest: AtomicUsize,
    /// How many were sent away in this moment.
    refused: AtomicUsize,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// Of the moment.
    since: Instant,
    count: u32,
    quickest: Duration,
    /// The shortest of this period and of the one before.
    period: Instant,
    quick: Duration,
    quick_before: Duration,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entered<'a>(&'a Crowd);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crowd {
    pub(crate) fn new(most: usize, max_delay: Duration) -> Self {
        let now = Instant::now();
        let seen = Seen {
            since: now,
            count: 0,
            quickest: Duration::MAX,
            period: now,
            quick: Duration::MAX,
            quick_before: Duration::MAX,
        };
        Self {
            most,
            max_delay,
            bound: AtomicUsize::new(FIRST.min(most)),
            inside: AtomicUsize::new(0),
            crest: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            seen: Mutex::new(seen),
        }
    }

    /// A place, if there is one.
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        let inside = self.inside.fetch_add(1, Ordering::Relaxed);
        let entered = Entered(self);
        let is_let_in = inside < self.bound();
        if is_let_in {
            self.crest.fetch_max(inside + 1, Ordering::Relaxed);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        is_let_in.then_some(entered)
    }

    /// Whether none may enter just now, so that one who would is to be sent away.
    pub(crate) fn refuses(&self) -> bool {
        let is_full = self.inside.load(Ordering::Relaxed) >= self.bound();
        if is_full {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        is_full
    }

    /// How many may be inside.
    pub(crate) fn bound(&self) -> usize {
        self.bound.load(Ordering::Relaxed)
    }

    /// Takes note that a job was accepted, and how long that took.
    pub(crate) fn accepted(&self, took: Duration, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.count += 1;
        seen.quickest = seen.quickest.min(took);
        let lasted = now.saturating_duration_since(seen.since);
        if lasted < MOMENT || seen.count < FEW {
            return;
        }
        if now.saturating_duration_since(seen.period) >= PERIOD {
            (seen.period, seen.quick_before, seen.quick) = (now, seen.quick, Duration::MAX);
        }
        seen.quick = seen.quick.min(seen.quickest);
        let delay = seen.quickest - seen.quick.min(seen.quick_before);
        let (bound, crest) = (self.bound(), self.crest.swap(0, Ordering::Relaxed));
        let many = self.refused.swap(0, Ordering::Relaxed) > LEAST;
        let (least, step) = if many { (LEAST_OF_MANY, STEP_OF_MANY) } else { (LEAST, STEP) };
        let bound = if lasted >= QUIET {
            FIRST
        } else if delay > self.max_delay {
            // The bound may be far above what there has been.
            let share = self.max_delay.div_duration_f64(delay).max(LEAST_SHARE);
            (bound.min(crest) as f64 * share) as usize
        } else {
            // What was not made use of says nothing of more.
            bound.saturating_add(bound / step).min(FIRST.max(crest.saturating_mul(2)))
        };
        self.bound.store(bound.clamp(least.min(self.most), self.most), Ordering::Relaxed);
        (seen.since, seen.count, seen.quickest) = (now, 0, Duration::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Server {
        crowd: Crowd,
        now: Instant,
    }

    impl Server {
        fn new() -> Self {
            Self { crowd: Crowd::new(1000, Duration::from_millis(10)), now: Instant::now() }
        }

        /// One where as many have been quick as ever may enter.
        fn grown() -> Self {
            let mut server = Self::new();
            for _ in 0..20 {
                server.moment(2, 4);
            }
            server
        }

        /// As many come as may enter, and are accepted over the next moment: the first after `first`, the last after `last`.
        fn moment(&mut self, first: u64, last: u64) {
            self.moment_of(1000, first, last);
        }

        fn moment_of(&mut self, most: usize, first: u64, last: u64) {
            let entered: Vec<_> = std::iter::from_fn(|| self.crowd.enter()).take(most).collect();
            let many = entered.len() as u64;
            for at in 0..many {
                let took = Duration::from_millis(first + (last - first) * at / (many - 1));
                self.crowd.accepted(took, self.now + MOMENT * at as u32 / (many - 1) as u32);
            }
            self.now += MOMENT;
        }
    }

    #[test]
    fn no_more_enter_than_the_bound() {
        let crowd = Crowd::new(2, Duration::from_millis(20));
        let first = crowd.enter().unwrap();
        let _second = crowd.enter().unwrap();
        assert!(crowd.enter().is_none());
        drop(first);
        assert!(crowd.enter().is_some());
    }

    #[test]
    fn more_are_let_in_as_those_before_are_quick() {
        let mut server = Server::new();
        assert_eq!(server.crowd.bound(), FIRST);
        server.moment(2, 4);
        assert_eq!(server.crowd.bound(), FIRST + FIRST / 4);
        for _ in 0..20 {
            server.moment(2, 4);
        }
        assert_eq!(server.crowd.bound(), 1000);
        // There were no more than that, so nothing is known of more.
        for _ in 0..20 {
            server.moment_of(300, 2, 4);
        }
        assert_eq!(server.crowd.bound(), 600);
    }

    #[test]
    fn a_queue_that_does_not_drain_closes_the_doors_until_it_has() {
        let mut server = Server::grown();
        server.moment(30, 100);
        let once = server.crowd.bound();
        assert!((300..500).contains(&once), "{once}");
        for _ in 0..20 {
            server.moment(30, 100);
        }
        assert_eq!(server.crowd.bound(), LEAST);
        for _ in 0..40 {
            server.moment(10, 30);
        }
        assert_eq!(server.crowd.bound(), 1000);
    }

    #[test]
    fn where_many_are_sent_away_even_fewer_are_let_in() {
        let mut server = Server::grown();
        for _ in 0..20 {
            let inside: Vec<_> = std::iter::from_fn(|| server.crowd.enter()).collect();
            (0..LEAST).for_each(|_| assert!(server.crowd.refuses()));
            drop(inside);
            server.moment(30, 100);
        }
        assert_eq!(server.crowd.bound(), LEAST_OF_MANY);
        server.moment(30, 100);
        assert_eq!(server.crowd.bound(), LEAST);
    }

    #[test]
    fn where_many_are_sent_away_more_are_let_in_bit_by_bit() {
        let mut server = Server::new();
        server.moment(2, 4);
        for moment in 1..=200 {
            server.crowd.refused.store(LEAST + 1, Ordering::Relaxed);
            server.moment(if moment <= 20 { 30 } else { 2 }, 100);
            match moment {
                20 => assert_eq!(server.crowd.bound(), LEAST_OF_MANY),
                30 => assert!(server.crowd.bound() <= LEAST_OF_MANY * 3 / 2),
                _ => {}
            }
        }
        assert_eq!(server.crowd.bound(), 1000);
    }

    #[test]
    fn a_burst_is_let_in() {
        let mut server = Server::grown();
        for _ in 0..20 {
            server.moment(2, 500);
        }
        assert_eq!(server.crowd.bound(), 1000);
    }

    #[test]
    fn a_slow_store_is_no_crowd() {
        let mut server = Server::new();
        for _ in 0..20 {
            server.moment(200, 215);
        }
        assert_eq!(server.crowd.bound(), 1000);
        // One that has become slow is not for ever.
        for _ in 0..20 {
            server.moment(300, 315);
        }
        assert_eq!(server.crowd.bound(), LEAST);
        server.now += PERIOD;
        server.moment(300, 315);
        server.now += PERIOD;
        for _ in 0..40 {
            server.moment(300, 315);
        }
        assert_eq!(server.crowd.bound(), 1000);
    }

    #[test]
    fn when_it_is_quiet_all_is_forgotten() {
        let mut server = Server::new();
        server.moment(2, 4);
        for _ in 0..20 {
            server.moment(30, 100);
        }
        assert_eq!(server.crowd.bound(), LEAST);
        server.now += QUIET;
        server.moment(30, 100);
        assert_eq!(server.crowd.bound(), FIRST);
    }
}
