use std::time::Duration;

use sqlx::Error;
use windlass_core::WorkerId;

use super::{PostgresStore, finish::seconds};

/// A lease that ends later than anyone can have taken it for shows that the clock has been set back since. Then whatever was
/// to happen some time after an instant that is now in the future is brought to the present: a worker that is silent
/// is lost one lease from now, gates that wait for a rate are looked at, and so is the outbox. Plan: the three
/// updates are filtered out by what is known before they begin.
const TAKE: &str = "
WITH set_back AS MATERIALIZED (
    SELECT FROM {schema}.leases WHERE name = $1 AND expires_at > {now} + make_interval(secs => $4)
), workers AS (
    UPDATE {schema}.workers SET heartbeat_at = {now}
    WHERE EXISTS (SELECT FROM set_back) AND heartbeat_at > {now}
), gates AS (
    UPDATE {schema}.gates SET next_at = (extract(epoch FROM {now}) * 1000000)::int8
    WHERE EXISTS (SELECT FROM set_back) AND next_at > (extract(epoch FROM {now}) * 1000000)::int8
), outbox AS (
    UPDATE {schema}.outbox SET due_at = {now} WHERE EXISTS (SELECT FROM set_back) AND due_at > {now}
)
INSERT INTO {schema}.leases AS l (name, holder, expires_at)
VALUES ($1, $2, {now} + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE l.holder = excluded.holder OR l.expires_at <= {now}
   OR l.expires_at > {now} + make_interval(secs => $4)";

impl PostgresStore {
    pub(super) async fn take_lease(
        &self,
        name: &str,
        holder: WorkerId,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let mut session = self.statement().await?;
        let beyond = crate::leader::beyond(ttl);
        let take = self.rare(TAKE).bind(name.to_owned()).bind(holder.as_uuid());
        let take = take.bind(seconds(ttl)).bind(seconds(beyond));
        let taken = take.execute(&mut *session).await?;
        session.commit().await?;
        Ok(taken.rows_affected() == 1)
    }
}
