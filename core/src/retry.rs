use std::{error::Error, time::Duration};

/// When a failed attempt is tried again, if at all.
///
/// | policy | the wait after the n-th failure | up to | jitter |
/// |---|---|---|---|
/// | [`exponential`](Self::exponential) | `base * 2^(n-1)`, or another [`factor`](Self::factor) | one hour | yes |
/// | [`linear`](Self::linear) | `step * n` | one hour | no |
/// | [`fixed`](Self::fixed) | always the same | | no |
/// | [`custom`](Self::custom) | what your function says, which may give up | | no |
///
/// [`cap`](Self::cap) and [`jitter`](Self::jitter) change the last two columns. With jitter, the wait is a random part of
/// what the policy says, all of it from zero on: this spreads the retries of many jobs that failed together, which is
/// when it matters.
///
/// ```
/// # use std::time::Duration;
/// # use windlass_core::RetryPolicy;
/// let error = std::io::Error::other("connection refused");
/// let secs = Duration::from_secs;
/// let policy = RetryPolicy::exponential(secs(2)).cap(secs(60));
/// assert_eq!(policy.ceiling(1, &error), Some(secs(2)));
/// assert_eq!(policy.ceiling(3, &error), Some(secs(8)));
/// assert_eq!(policy.ceiling(30, &error), Some(secs(60)));
/// assert!(policy.delay(3, &error, &mut fastrand::Rng::new()) <= Some(secs(8)));
/// assert_eq!(RetryPolicy::linear(secs(10)).ceiling(3, &error), Some(secs(30)));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    curve: Curve,
    cap: Duration,
    jitter: bool,
}

/// A function that decides on a failed attempt: its number, counted from 1, and the error at hand give the wait until the
/// next one; `None` gives up, and the job is `dead`.
///
/// The error is the one the handler returned and can be downcast to its type. It is a mere text when the attempt timed
/// out or panicked.
pub type RetryFn = fn(attempt: u32, error: &(dyn Error + Send + Sync + 'static)) -> Option<Duration>;

#[derive(Debug, Clone, Copy)]
enum Curve {
    Exponential { base: Duration, factor: f64 },
    Linear { step: Duration },
    Fixed { wait: Duration },
    Custom { decide: RetryFn },
}

impl RetryPolicy {
    /// Exponential from 5 seconds, up to one hour, with jitter.
    pub const DEFAULT: Self = Self::exponential(Duration::from_secs(5));

    /// Doubles from `base`, up to one hour, with jitter.
    #[must_use]
    pub const fn exponential(base: Duration) -> Self {
        Self { curve: Curve::Exponential { base, factor: 2.0 }, cap: HOUR, jitter: true }
    }

    /// Grows by `step` with each failure, up to one hour.
    #[must_use]
    pub const fn linear(step: Duration) -> Self {
        Self { curve: Curve::Linear { step }, cap: HOUR, jitter: false }
    }

    /// Waits the same time after each failure.
    #[must_use]
    pub const fn fixed(wait: Duration) -> Self {
        Self { curve: Curve::Fixed { wait }, cap: Duration::MAX, jitter: false }
    }

    /// Asks a function of your own, see [`RetryFn`].
    ///
    /// ```
    /// # use std::{error::Error, io, time::Duration};
    /// # use windlass_core::RetryPolicy;
    /// /// A full disk is not filled any more; anything else is tried three times, a minute apart.
    /// fn patience(attempt: u32, error: &(dyn Error + Send + Sync + 'static)) -> Option<Duration> {
    ///     let full = error.downcast_ref().is_some_and(|e: &io::Error| e.kind() == io::ErrorKind::StorageFull);
    ///     (!full && attempt < 3).then_some(Duration::from_secs(60))
    /// }
    ///
    /// const POLICY: RetryPolicy = RetryPolicy::custom(patience);
    /// assert_eq!(POLICY.ceiling(1, &io::Error::other("busy")), Some(Duration::from_secs(60)));
    /// assert_eq!(POLICY.ceiling(3, &io::Error::other("busy")), None);
    /// assert_eq!(POLICY.ceiling(1, &io::Error::from(io::ErrorKind::StorageFull)), None);
    /// ```
    #[must_use]
    pub const fn custom(decide: RetryFn) -> Self {
        Self { curve: Curve::Custom { decide }, cap: Duration::MAX, jitter: false }
    }

    /// The longest wait between two attempts.
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Whether the wait is a random part of what the policy says, or all of it.
    #[must_use]
    pub const fn jitter(mut self, jitter: bool) -> Self {
        self.jitter = jitter;
        self
    }

    /// What each further failure multiplies the wait by; below 1 counts as 1. Changes exponential policies only.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        if let Curve::Exponential { base, .. } = self.curve {
            let factor = if factor >= 1.0 { factor } else { 1.0 };
            self.curve = Curve::Exponential { base, factor };
        }
        self
    }

    /// The longest possible wait after the `attempt`-th attempt failed (counted from 1) with `error`; `None` gives up.
    #[must_use]
    pub fn ceiling(&self, attempt: u32, error: &(dyn Error + Send + Sync + 'static)) -> Option<Duration> {
        let wait = match self.curve {
            Curve::Exponential { base, factor } => {
                let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
                let seconds = base.as_secs_f64() * factor.powi(exponent);
                Duration::try_from_secs_f64(seconds).unwrap_or(self.cap)
            }
            Curve::Linear { step } => step.saturating_mul(attempt),
            Curve::Fixed { wait } => wait,
            Curve::Custom { decide } => decide(attempt, error)?,
        };
        Some(wait.min(self.cap))
    }

    /// How long to wait after the `attempt`-th attempt failed (counted from 1) with `error`; `None` gives up.
    #[must_use]
    pub fn delay(
        &self,
        attempt: u32,
        error: &(dyn Error + Send + Sync + 'static),
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        let ceiling = self.ceiling(attempt, error)?;
        Some(if self.jitter { ceiling.mul_f64(rng.f64()) } else { ceiling })
    }
}

const HOUR: Duration = Duration::from_secs(3600);

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

    fn error() -> std::io::Error {
        std::io::Error::other("refused")
    }

    /// A wait that says what the function was given; it gives up at the tenth attempt.
    fn told(attempt: u32, error: &(dyn Error + Send + Sync + 'static)) -> Option<Duration> {
        let length = error.to_string().len() as u32;
        (attempt < 10).then(|| Duration::from_secs((attempt * 100 + length).into()))
    }

    fn any_wait() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0u64..100_000).prop_map(Duration::from_millis),
            (any::<u64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        ]
    }

    /// Every policy that never gives up.
    fn any_curve() -> impl Strategy<Value = RetryPolicy> {
        prop_oneof![
            (any_wait(), any::<f64>())
                .prop_map(|(base, factor)| RetryPolicy::exponential(base).factor(factor)),
            any_wait().prop_map(RetryPolicy::linear),
            any_wait().prop_map(RetryPolicy::fixed),
        ]
    }

    proptest! {
        #[test]
        fn waits_grow_up_to_the_cap_and_jitter_stays_below(
            curve in any_curve(), cap in any_wait(), jitter: bool, attempt: u32, seed: u64,
        ) {
            let policy = curve.cap(cap).jitter(jitter);
            let ceiling = policy.ceiling(attempt, &error()).unwrap();
            prop_assert!(ceiling <= cap);
            prop_assert!(ceiling <= policy.ceiling(attempt.saturating_add(1), &error()).unwrap());
            let delay = policy.delay(attempt, &error(), &mut fastrand::Rng::with_seed(seed)).unwrap();
            let fits = if jitter { delay <= ceiling } else { delay == ceiling };
            prop_assert!(fits, "{:?} of {:?}", delay, ceiling);
        }

        #[test]
        fn linear_and_fixed_are_exact(wait_ms in 0u64..1_000_000, attempt in 1u32..1000, seed: u64) {
            let wait = Duration::from_millis(wait_ms);
            let mut rng = fastrand::Rng::with_seed(seed);
            let linear = RetryPolicy::linear(wait).cap(Duration::MAX);
            prop_assert_eq!(linear.delay(attempt, &error(), &mut rng), Some(wait * attempt));
            prop_assert_eq!(RetryPolicy::linear(wait).delay(attempt, &error(), &mut rng), Some((wait * attempt).min(HOUR)));
            prop_assert_eq!(RetryPolicy::fixed(wait).delay(attempt, &error(), &mut rng), Some(wait));
        }

        #[test]
        fn a_custom_function_decides(attempt: u32, cap_s in 0u64..2000, text in "[a-z]{0,20}") {
            let policy = RetryPolicy::custom(told).cap(Duration::from_secs(cap_s));
            let error = std::io::Error::other(text);
            let expected = told(attempt, &error).map(|wait| wait.min(Duration::from_secs(cap_s)));
            prop_assert_eq!(policy.delay(attempt, &error, &mut fastrand::Rng::new()), expected);
            prop_assert_eq!(expected.is_none(), attempt >= 10);
        }

        /// Full jitter: the whole range is used, not a narrow band at its end.
        #[test]
        fn jitter_uses_the_whole_range(seed: u64, exponential: bool) {
            let wait = Duration::from_secs(100);
            let policy =
                if exponential { RetryPolicy::exponential(wait) } else { RetryPolicy::fixed(wait).jitter(true) };
            let mut rng = fastrand::Rng::with_seed(seed);
            let waits: Vec<_> =
                (0..200).map(|_| policy.delay(1, &error(), &mut rng).unwrap().as_secs_f64()).collect();
            prop_assert!(waits.iter().any(|w| *w < 25.0) && waits.iter().any(|w| *w > 75.0));
        }
    }

    /// Payload types name their policy in a constant.
    #[test]
    fn policies_are_constants() {
        const POLICIES: [RetryPolicy; 4] = [
            RetryPolicy::DEFAULT.factor(3.0).jitter(false),
            RetryPolicy::linear(Duration::from_secs(1)).cap(Duration::from_secs(5)),
            RetryPolicy::fixed(Duration::from_secs(1)),
            RetryPolicy::custom(told),
        ];
        let waits = POLICIES.map(|policy| policy.ceiling(2, &error()).map(|wait| wait.as_secs()));
        assert_eq!(waits, [Some(15), Some(2), Some(1), Some(207)]);
    }
}
