use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// An instant of the machine's monotonic clock, in nanoseconds: comparable between processes, and what a step of the wall
/// clock does not touch.
pub(crate) type Instant = u64;

/// Asked of the kernel, not through libc, where libfaketime may sit.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// A time span as one adds it to an [`Instant`].
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The time from one instant to another, in seconds; none if it is not later.
pub(crate) fn seconds_between(from: Instant, to: Instant) -> f64 {
    Duration::from_nanos(to.saturating_sub(from)).as_secs_f64()
}
