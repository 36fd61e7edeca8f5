use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Error, Row, postgres::PgRow};
use windlass_core::{KeyId, KeyRecord, Keys, LiveKey, NewKey, StoreError};

use super::{PostgresStore, finish::seconds, unexpected};
use crate::{keys::hash, workflow::tenant};

const LIVE: &str = "
SELECT id, hash, CASE WHEN old_until > {now} THEN old_hash END, scopes, tenant FROM {schema}.api_keys
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > {now})";

/// A repeat finds the hash there, and leaves everything as it is.
const ROTATE: &str = "
UPDATE {schema}.api_keys
SET hash = $2,
    old_hash = CASE WHEN hash = $2 THEN old_hash ELSE hash END,
    old_until = CASE WHEN hash = $2 THEN old_until ELSE {now} + make_interval(secs => $3) END
WHERE id = $1 AND revoked_at IS NULL";

#[async_trait]
impl Keys for PostgresStore {
    async fn create_key(&self, key: &NewKey) -> Result<(), StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            self.rare(
                "INSERT INTO {schema}.api_keys (id, hash, name, scopes, tenant, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
            )
            .bind(key.id.as_str().to_owned())
            .bind(key.hash.to_vec())
            .bind(key.name.replace('\0', "\u{fffd}"))
            .bind(key.scopes.to_string())
            .bind(key.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()))
            .bind(key.expires_at)
            .execute(&mut *session)
            .await?;
            session.commit().await
        })
        .await
    }

    async fn all_keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let rows = self
                .rare(
                    "SELECT id, name, scopes, tenant, created_at, expires_at, revoked_at, last_used_at,
                         CASE WHEN old_until > {now} THEN old_until END
                     FROM {schema}.api_keys ORDER BY created_at, id",
                )
                .fetch_all(&mut *session)
                .await?;
            session.commit().await?;
            rows.iter().map(record).collect()
        })
        .await
    }

    async fn live_keys(&self) -> Result<Vec<LiveKey>, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let rows = self.rare(LIVE).fetch_all(&mut *session).await?;
            session.commit().await?;
            rows.iter().map(live).collect()
        })
        .await
    }

    async fn rotate_key(&self, id: &KeyId, hash: [u8; 32], grace: Duration) -> Result<bool, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let rotate = self.rare(ROTATE).bind(id.as_str().to_owned()).bind(hash.to_vec());
            let rotated = rotate.bind(seconds(grace)).execute(&mut *session).await?;
            session.commit().await?;
            Ok(rotated.rows_affected() > 0)
        })
        .await
    }

    async fn revoke_key(&self, id: &KeyId) -> Result<bool, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let revoke = self.rare(
                "UPDATE {schema}.api_keys SET revoked_at = coalesce(revoked_at, {now}), old_hash = NULL, old_until = NULL
                 WHERE id = $1",
            );
            let revoked = revoke.bind(id.as_str().to_owned()).execute(&mut *session).await?;
            session.commit().await?;
            Ok(revoked.rows_affected() > 0)
        })
        .await
    }

    async fn keys_used(&self, ids: &[KeyId]) -> Result<(), StoreError> {
        self.within(async {
            let mut session = self.transaction().await?;
            // In one order, so that two instances cannot wait for each other in a circle.
            self.rare(
                "WITH used AS (
                     SELECT id FROM {schema}.api_keys
                     WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at <= {now} - interval '1 minute')
                     ORDER BY id FOR UPDATE SKIP LOCKED
                 )
                 UPDATE {schema}.api_keys SET last_used_at = {now} WHERE id IN (SELECT id FROM used)",
            )
            .bind(ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>())
            .execute(&mut *session)
            .await?;
            session.commit().await
        })
        .await
    }
}

fn record(row: &PgRow) -> Result<KeyRecord, Error> {
    Ok(KeyRecord {
        id: row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?,
        name: row.try_get(1)?,
        scopes: row.try_get::<&str, _>(2)?.parse().map_err(unexpected)?,
        tenant: tenant(row.try_get(3)?)?,
        created_at: row.try_get(4)?,
        expires_at: row.try_get(5)?,
        revoked_at: row.try_get(6)?,
        last_used_at: row.try_get(7)?,
        old_until: row.try_get(8)?,
    })
}

fn live(row: &PgRow) -> Result<LiveKey, Error> {
    let hashes: [Option<Vec<u8>>; 2] = [row.try_get(1)?, row.try_get(2)?];
    Ok(LiveKey {
        id: row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?,
        hashes: hashes.into_iter().flatten().map(hash).collect::<Result<_, _>>()?,
        scopes: row.try_get::<&str, _>(3)?.parse().map_err(unexpected)?,
        tenant: tenant(row.try_get(4)?)?,
    })
}
