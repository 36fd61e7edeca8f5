//! The generic cell rate algorithm: token bucket and leaky bucket, of which one number per key is all there is to know.
//! Pure, so that a clock is the caller's matter.

use windlass_client::{Excess, RequestRate};

/// A rate in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gcra {
    /// The time between two requests at the rate.
    pub(super) interval: u64,
    /// How many may come at once.
    pub(super) capacity: u64,
    /// Whether those that come at once go on one at a time.
    pub(super) paced: bool,
}

/// What a request is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether it may go on, and after what wait; or else when to come again. In nanoseconds.
    pub(super) goes: Result<u64, u64>,
    /// How many more could come now.
    pub(super) remaining: u64,
    /// In how many nanoseconds all of the capacity is there again.
    pub(super) full_in: u64,
}

impl Gcra {
    pub(super) fn new(rate: &RequestRate) -> Self {
        Self {
            // At most a day.
            interval: u64::try_from(rate.interval().as_nanos()).unwrap_or(u64::MAX),
            capacity: u64::from(rate.capacity()),
            paced: matches!(rate.excess(), Excess::Queue(_)),
        }
    }

    /// Whether a request may go on at `now`, where the next one is expected at `expected`; and when the next is expected
    /// then. A key that is not known is one with `expected` in the past.
    pub(super) fn decide(&self, expected: u64, now: u64) -> (Verdict, u64) {
        let expected = expected.max(now);
        // The settings see to it that this is 30 days at most.
        let most = self.interval.saturating_mul(self.capacity);
        let next = expected.saturating_add(self.interval);
        let (goes, next) = match next - now <= most {
            true => (Ok(if self.paced { expected - now } else { 0 }), next),
            false => (Err(next - now - most), expected),
        };
        (self.verdict(goes, next - now), next)
    }

    /// What there is to tell where the next request is expected in `ahead` nanoseconds.
    pub(super) fn verdict(&self, goes: Result<u64, u64>, ahead: u64) -> Verdict {
        let most = self.interval.saturating_mul(self.capacity);
        Verdict { goes, remaining: most.saturating_sub(ahead) / self.interval.max(1), full_in: ahead }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gcra(rate: &str) -> Gcra {
        Gcra::new(&rate.parse().unwrap())
    }

    /// Verdicts for requests at these times, in milliseconds.
    fn at(rate: &str, times: &[u64]) -> Vec<Result<u64, u64>> {
        let gcra = gcra(rate);
        let mut expected = 0;
        let mut verdicts = Vec::new();
        for time in times {
            let (verdict, next) = gcra.decide(expected, time * 1_000_000);
            expected = next;
            verdicts.push(verdict.goes.map(|wait| wait / 1_000_000).map_err(|wait| wait / 1_000_000));
        }
        verdicts
    }

    #[test]
    fn a_token_bucket_lets_a_burst_go_and_refuses_the_rest() {
        assert_eq!(
            at("10/s burst 3", &[0, 0, 0, 0, 50, 100, 100, 10_000]),
            [Ok(0), Ok(0), Ok(0), Err(100), Err(50), Ok(0), Err(100), Ok(0)]
        );
    }

    #[test]
    fn a_leaky_bucket_makes_them_wait_their_turn() {
        assert_eq!(
            at("10/s queue 2", &[0, 0, 0, 0, 99, 100, 300, 1000]),
            [Ok(0), Ok(100), Ok(200), Err(100), Err(1), Ok(200), Ok(100), Ok(0)]
        );
    }

    #[test]
    fn what_remains_and_when_all_is_there_again() {
        let gcra = gcra("10/s burst 5");
        let (verdict, next) = gcra.decide(0, 0);
        assert_eq!((verdict.remaining, verdict.full_in), (4, 100_000_000));
        let (verdict, _) = gcra.decide(next, 50_000_000);
        // The second half of an interval is missing.
        assert_eq!((verdict.remaining, verdict.full_in), (3, 150_000_000));
    }

    proptest! {
        /// A bucket that holds tokens, counted in the nanoseconds that they take to come.
        #[test]
        fn it_is_a_bucket_of_tokens(
            count in 1..50u32, seconds in 1..5u64, burst in 1..20u32,
            gaps in prop::collection::vec(0..400_000_000u64, 1..200),
        ) {
            let gcra = gcra(&format!("{count}/{seconds}s burst {burst}"));
            let full = gcra.interval * gcra.capacity;
            let (mut now, mut expected, mut level) = (0, 0, full);
            for gap in gaps {
                now += gap;
                level = full.min(level + gap);
                let (verdict, next) = gcra.decide(expected, now);
                expected = next;
                prop_assert_eq!(verdict.goes.is_ok(), level >= gcra.interval);
                match verdict.goes {
                    Ok(_) => level -= gcra.interval,
                    Err(wait) => prop_assert_eq!(level + wait, gcra.interval),
                }
                prop_assert_eq!(verdict.remaining, level / gcra.interval);
                prop_assert_eq!(verdict.full_in, full - level);
            }
        }

        /// Whatever comes: in any window, no more than the burst and what the rate adds.
        #[test]
        fn no_window_has_more_than_the_rate_allows(
            count in 1..50u32, burst in 1..20u32, gaps in prop::collection::vec(0..100_000_000u64, 1..200),
        ) {
            let gcra = gcra(&format!("{count}/s burst {burst}"));
            let (mut now, mut expected) = (0, 0);
            let mut let_go: Vec<u64> = Vec::new();
            for gap in gaps {
                now += gap;
                let (verdict, next) = gcra.decide(expected, now);
                expected = next;
                if verdict.goes.is_ok() {
                    let_go.push(now);
                }
            }
            for (at, start) in let_go.iter().enumerate() {
                for (number, end) in let_go[at..].iter().enumerate() {
                    let allowed = f64::from(burst) + f64::from(count) * ((end - start) as f64 / 1e9);
                    prop_assert!((number + 1) as f64 <= allowed + 1e-6);
                }
            }
        }

        /// Of a queue, no two leave closer together than the rate says, and none waits longer than its length.
        #[test]
        fn a_queue_is_left_at_the_rate(
            count in 1..50u32, queue in 1..20u32, gaps in prop::collection::vec(0..100_000_000u64, 1..200),
        ) {
            let gcra = gcra(&format!("{count}/s queue {queue}"));
            let (mut now, mut expected, mut last) = (0, 0, None);
            for gap in gaps {
                now += gap;
                let (verdict, next) = gcra.decide(expected, now);
                expected = next;
                if let Ok(wait) = verdict.goes {
                    prop_assert!(wait <= gcra.interval * u64::from(queue));
                    prop_assert!(last.is_none_or(|last| now + wait >= last + gcra.interval));
                    last = Some(now + wait);
                }
            }
        }
    }
}
