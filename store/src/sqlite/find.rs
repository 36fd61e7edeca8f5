use sqlx::{AssertSqlSafe, Error, Row, SqlSafeStr, SqlStr, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;
use windlass_core::{Found, JobFilter, JobId};

use super::{SqliteStore, ids, read, unexpected};
use crate::find::{self, LOOK};

/// What a job must be, for the filter in ?3 to ?7.
const FITS: &str = "(?3 = '[]' OR state IN (SELECT value FROM json_each(?3)))
AND (?4 IS NULL OR queue = ?4) AND (?5 IS NULL OR kind = ?5)
AND (?7 IS NULL OR gating ->> 'tenant' = ?7) AND (?6 = '{}' OR NOT EXISTS (
    SELECT 1 FROM json_each(?6) w
    WHERE NOT EXISTS (SELECT 1 FROM json_each(labels) l WHERE l.key = w.key AND l.value = w.value)
))";

/// The next jobs by id, which ends as soon as enough of them fit.
pub(super) const SCAN: &str = "
SELECT id, coalesce(octet_length(result), 0) FROM (
    SELECT id, state, kind, queue, labels, gating, result FROM jobs
    WHERE id >= ?1 AND id <= ?2 ORDER BY id DESC LIMIT {look}
)
WHERE {fits} LIMIT ?8";

/// The last of the jobs that a scan looks at, if it comes to its bound.
pub(super) const LAST: &str =
    "SELECT id FROM jobs WHERE id >= ?1 AND id <= ?2 ORDER BY id DESC LIMIT 1 OFFSET {look} - 1";

/// Those of the jobs in ?9 that fit.
pub(super) const FITTING: &str = "
SELECT id, coalesce(octet_length(result), 0) FROM jobs
WHERE id IN (SELECT value FROM json_each(?9)) AND id >= ?1 AND id <= ?2 AND {fits} ORDER BY id DESC LIMIT ?8";

impl SqliteStore {
    pub(super) async fn find_jobs(
        &self,
        filter: &JobFilter,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Found, Error> {
        let Some(range) = find::range(filter, before) else { return Ok(Found::default()) };
        // One more than asked for tells whether there are more.
        let some = limit.saturating_add(1);
        // One snapshot for all statements.
        let mut transaction = self.readers.begin().await?;
        let (mut found, last) = match find::side_tables(&filter.states) {
            Some(tables) => {
                let looked_at = side_rows(&mut transaction, &tables, range).await?;
                let last = looked_at.get(LOOK - 1).copied();
                (find::page(&fitting(&mut transaction, filter, &looked_at, some).await?, limit), last)
            }
            None => {
                let fitting = select(&mut transaction, SCAN, filter, range, some, None).await?;
                let found = find::page(&fitting, limit);
                let last = match found.next {
                    Some(_) => None,
                    None => {
                        let last =
                            sqlx::query(filled(LAST)).bind(range.0.to_string()).bind(range.1.to_string());
                        last.fetch_optional(&mut *transaction).await?
                    }
                };
                (found, last.map(|row| read::id(row.try_get(0)?)).transpose()?)
            }
        };
        found.next = found.next.or(last);
        Ok(found)
    }

    pub(super) async fn fitting_jobs(&self, filter: &JobFilter, ids: &[JobId]) -> Result<Vec<JobId>, Error> {
        let mut connection = self.readers.acquire().await?;
        let fitting = fitting(&mut connection, filter, ids, ids.len()).await?;
        Ok(fitting.into_iter().map(|(id, _)| id).collect())
    }
}

/// Those of `ids` that fit, with the sizes of their results, greatest first.
pub(super) async fn fitting(
    connection: &mut SqliteConnection,
    filter: &JobFilter,
    ids: &[JobId],
    limit: usize,
) -> Result<Vec<(JobId, usize)>, Error> {
    select(connection, FITTING, filter, (Uuid::nil(), Uuid::max()), limit, Some(ids)).await
}

async fn select(
    connection: &mut SqliteConnection,
    template: &str,
    filter: &JobFilter,
    (least, greatest): (Uuid, Uuid),
    limit: usize,
    among: Option<&[JobId]>,
) -> Result<Vec<(JobId, usize)>, Error> {
    let states: Vec<i16> = filter.states.iter().map(|state| state.code()).collect();
    let mut query = sqlx::query(filled(template))
        .bind(least.to_string())
        .bind(greatest.to_string())
        .bind(serde_json::to_string(&states).map_err(unexpected)?)
        .bind(filter.queue.as_ref().map(|queue| queue.as_str()))
        .bind(filter.kind.as_ref().map(|kind| kind.as_str()))
        .bind(serde_json::to_string(&filter.labels).map_err(unexpected)?)
        .bind(filter.tenant.as_ref().map(|tenant| tenant.as_str()))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX));
    if let Some(among) = among {
        query = query.bind(ids(among));
    }
    query.fetch_all(connection).await?.iter().map(sized).collect()
}

/// The greatest ids in these side tables, as many as one call looks at.
pub(super) async fn side_rows(
    connection: &mut SqliteConnection,
    tables: &[&str],
    (least, greatest): (Uuid, Uuid),
) -> Result<Vec<JobId>, Error> {
    let parts: Vec<String> = tables.iter().map(|table| format!("SELECT * FROM ({})", side(table))).collect();
    let rows = format!("{} ORDER BY job_id DESC LIMIT {{look}}", parts.join(" UNION "));
    let rows = sqlx::query(filled(&rows)).bind(least.to_string()).bind(greatest.to_string());
    rows.fetch_all(connection).await?.iter().map(|row| read::id(row.try_get(0)?)).collect()
}

fn side(table: &str) -> String {
    let rows = match table {
        // As many as jobs run, in groups that are in no order.
        "claims" => "SELECT value AS job_id FROM claims, json_each(claims.job_ids)".to_owned(),
        table => format!("SELECT job_id FROM {table}"),
    };
    format!("{rows} WHERE job_id >= ?1 AND job_id <= ?2 ORDER BY job_id DESC LIMIT {{look}}")
}

pub(super) fn filled(template: &str) -> SqlStr {
    // Only our own texts are in it.
    AssertSqlSafe(template.replace("{fits}", FITS).replace("{look}", &LOOK.to_string())).into_sql_str()
}

fn sized(row: &SqliteRow) -> Result<(JobId, usize), Error> {
    Ok((read::id(row.try_get(0)?)?, row.try_get::<u32, _>(1)?.try_into().map_err(unexpected)?))
}
