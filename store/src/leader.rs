//! What the stores have in common about leases of leaders.

use std::time::Duration;

/// How far from now a lease that is asked for with this `ttl` cannot end, whoever took it, unless the clock has been set back
/// since. Whoever gives a lease back, by no time at all, knows nothing of how long others take it for.
pub(crate) fn beyond(ttl: Duration) -> Duration {
    if ttl.is_zero() { Duration::MAX } else { ttl.saturating_mul(2) }
}
