use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Error, Row, sqlite::SqliteRow};
use windlass_core::{KeyId, KeyRecord, Keys, LiveKey, NewKey, StoreError, Timestamp};

use super::{Commit, SqliteStore, ids, micros, timestamp, unexpected};
use crate::{keys::hash, workflow::tenant};

/// A use is not noted again so soon.
const NOTED: i64 = 60_000_000;

#[async_trait]
impl Keys for SqliteStore {
    async fn create_key(&self, key: &NewKey) -> Result<(), StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            sqlx::query(
                "INSERT INTO api_keys (id, hash, name, scopes, tenant, expires_at, created_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            )
            .bind(key.id.as_str())
            .bind(key.hash.as_slice())
            .bind(&key.name)
            .bind(key.scopes.to_string())
            .bind(key.tenant.as_ref().map(|tenant| tenant.as_str()))
            .bind(key.expires_at.map(|at| at.timestamp_micros()))
            .bind(self.now())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await
        })
        .await
    }

    async fn all_keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.within(async {
            let rows = sqlx::query(
                "SELECT id, name, scopes, tenant, created_at, expires_at, revoked_at, last_used_at,
                     iif(old_until > ?, old_until, NULL)
                 FROM api_keys ORDER BY created_at, id",
            )
            .bind(self.now())
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(record).collect()
        })
        .await
    }

    async fn live_keys(&self) -> Result<Vec<LiveKey>, StoreError> {
        self.within(async {
            let rows = sqlx::query(
                "SELECT id, hash, iif(old_until > ?1, old_hash, NULL), scopes, tenant FROM api_keys
                 WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?1)",
            )
            .bind(self.now())
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(live).collect()
        })
        .await
    }

    async fn rotate_key(&self, id: &KeyId, hash: [u8; 32], grace: Duration) -> Result<bool, StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            // A repeat finds the hash there, and leaves everything as it is.
            let rotated = sqlx::query(
                "UPDATE api_keys
                 SET hash = ?2, old_hash = iif(hash = ?2, old_hash, hash), old_until = iif(hash = ?2, old_until, ?3)
                 WHERE id = ?1 AND revoked_at IS NULL",
            )
            .bind(id.as_str())
            .bind(hash.as_slice())
            .bind(self.now() + micros(grace))
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(rotated.rows_affected() > 0)
        })
        .await
    }

    async fn revoke_key(&self, id: &KeyId) -> Result<bool, StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            let revoked = sqlx::query(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2), old_hash = NULL, old_until = NULL
                 WHERE id = ?1",
            )
            .bind(id.as_str())
            .bind(self.now())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(revoked.rows_affected() > 0)
        })
        .await
    }

    async fn keys_used(&self, used: &[KeyId]) -> Result<(), StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Soft).await?;
            sqlx::query(
                "UPDATE api_keys SET last_used_at = ?2
                 WHERE id IN (SELECT value FROM json_each(?1)) AND (last_used_at IS NULL OR last_used_at <= ?3)",
            )
            .bind(ids(used))
            .bind(self.now())
            .bind(self.now() - NOTED)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await
        })
        .await
    }
}

fn record(row: &SqliteRow) -> Result<KeyRecord, Error> {
    let time = |column: usize| -> Result<Option<Timestamp>, Error> {
        row.try_get::<Option<i64>, _>(column)?.map(timestamp).transpose()
    };
    Ok(KeyRecord {
        id: row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?,
        name: row.try_get(1)?,
        scopes: row.try_get::<&str, _>(2)?.parse().map_err(unexpected)?,
        tenant: tenant(row.try_get(3)?)?,
        created_at: timestamp(row.try_get(4)?)?,
        expires_at: time(5)?,
        revoked_at: time(6)?,
        last_used_at: time(7)?,
        old_until: time(8)?,
    })
}

fn live(row: &SqliteRow) -> Result<LiveKey, Error> {
    let hashes: [Option<Vec<u8>>; 2] = [row.try_get(1)?, row.try_get(2)?];
    Ok(LiveKey {
        id: row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?,
        hashes: hashes.into_iter().flatten().map(hash).collect::<Result<_, _>>()?,
        scopes: row.try_get::<&str, _>(3)?.parse().map_err(unexpected)?,
        tenant: tenant(row.try_get(4)?)?,
    })
}
