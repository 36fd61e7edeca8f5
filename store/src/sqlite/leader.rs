use std::time::Duration;

use sqlx::Error;
use windlass_core::WorkerId;

use super::{Commit, SqliteStore, micros};

impl SqliteStore {
    /// A lease that ends later than anyone can have taken it for shows that the clock has been set back since. Then
    /// whatever was to happen some time after an instant that is now in the future is brought to the present: a worker that
    /// is silent is lost one lease from now, gates that wait for a rate are looked at, and so is the outbox.
    pub(super) async fn take_lease(
        &self,
        name: &str,
        holder: WorkerId,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let mut transaction = self.write(Commit::Soft).await?;
        let now = self.now();
        let latest = now.saturating_add(micros(crate::leader::beyond(ttl)));
        let set_back = sqlx::query("SELECT 1 FROM leases WHERE name = ? AND expires_at > ?")
            .bind(name)
            .bind(latest)
            .fetch_optional(&mut *transaction)
            .await?;
        if set_back.is_some() {
            for statement in [
                "UPDATE workers SET heartbeat_at = ?1 WHERE heartbeat_at > ?1",
                "UPDATE gates SET next_at = ?1 WHERE next_at > ?1",
                "UPDATE outbox SET due_at = ?1 WHERE due_at > ?1",
            ] {
                sqlx::query(statement).bind(now).execute(&mut *transaction).await?;
            }
        }
        let taken = sqlx::query(
            "INSERT INTO leases AS l (name, holder, expires_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
             WHERE l.holder = excluded.holder OR l.expires_at <= ?4 OR l.expires_at > ?5",
        )
        .bind(name)
        .bind(holder.to_string())
        .bind(now + micros(ttl))
        .bind(now)
        .bind(latest)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(taken.rows_affected() == 1)
    }
}
