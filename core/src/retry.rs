use std::time::Duration;

/// When a failed attempt is tried again: exponential back-off with full jitter, up to a cap.
///
/// The n-th failure waits a random time between zero and `min(cap, base * factor^(n-1))`. Full jitter spreads the
/// retries of many jobs that failed together, which is when it matters.
///
/// ```
/// # use std::time::Duration;
/// # use windlass_core::RetryPolicy;
/// let policy = RetryPolicy::exponential(Duration::from_secs(2)).cap(Duration::from_secs(60));
/// assert_eq!(policy.ceiling(1), Duration::from_secs(2));
/// assert_eq!(policy.ceiling(3), Duration::from_secs(8));
/// assert_eq!(policy.ceiling(30), Duration::from_secs(60));
/// assert!(policy.delay(3, &mut fastrand::Rng::new()) <= Duration::from_secs(8));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    base: Duration,
    factor: f64,
    cap: Duration,
}

impl RetryPolicy {
    /// From 5 seconds, doubling, up to one hour.
    pub const DEFAULT: Self = Self::exponential(Duration::from_secs(5));

    /// Doubles from `base`, up to one hour.
    #[must_use]
    pub const fn exponential(base: Duration) -> Self {
        Self { base, factor: 2.0, cap: Duration::from_secs(3600) }
    }

    /// The longest wait between two attempts.
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// What each further failure multiplies the wait by; below 1 counts as 1.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor >= 1.0 { factor } else { 1.0 };
        self
    }

    /// The longest possible wait after the `attempt`-th attempt failed (counted from 1).
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.powi(exponent);
        Duration::try_from_secs_f64(seconds).unwrap_or(self.cap).min(self.cap)
    }

    /// How long to wait after the `attempt`-th attempt failed (counted from 1).
    #[must_use]
    pub fn delay(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        self.ceiling(attempt).mul_f64(rng.f64())
    }
}

impl Default for RetryPolicy {
    /// [`RetryPolicy::DEFAULT`].
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_up_to_the_cap_and_jitter_stays_below(
            base_ms in 0u64..100_000, factor in 0.0f64..10.0, cap_ms in 0u64..10_000_000,
            attempt in 0u32..=u32::MAX, seed in any::<u64>(),
        ) {
            let policy = RetryPolicy::exponential(Duration::from_millis(base_ms))
                .factor(factor)
                .cap(Duration::from_millis(cap_ms));
            let ceiling = policy.ceiling(attempt);
            prop_assert!(ceiling <= Duration::from_millis(cap_ms));
            prop_assert!(ceiling <= policy.ceiling(attempt.saturating_add(1)));
            let mut rng = fastrand::Rng::with_seed(seed);
            prop_assert!(policy.delay(attempt, &mut rng) <= ceiling);
        }

        /// Full jitter: the whole range is used, not a narrow band at its end.
        #[test]
        fn jitter_uses_the_whole_range(seed in any::<u64>()) {
            let policy = RetryPolicy::exponential(Duration::from_secs(100));
            let mut rng = fastrand::Rng::with_seed(seed);
            let waits: Vec<_> = (0..200).map(|_| policy.delay(1, &mut rng).as_secs_f64()).collect();
            prop_assert!(waits.iter().any(|w| *w < 25.0) && waits.iter().any(|w| *w > 75.0));
        }
    }
}
