use sqlx::{
    Error, PgConnection, Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
    raw_sql,
};
use uuid::Uuid;
use windlass_core::{Found, JobFilter, JobId};

use super::{PostgresStore, unexpected};
use crate::find::{self, LOOK};

/// What a job must be, for the filter in $3 to $7.
const FITS: &str = "(cardinality($3::int2[]) = 0 OR state = ANY($3)) AND ($4::text IS NULL OR queue = $4)
AND ($5::text IS NULL OR kind = $5) AND labels @> $6::jsonb
AND ($7::text IS NULL OR gating::jsonb ->> 'tenant' = $7)";

/// The next jobs by id, which ends as soon as enough of them fit. Plan: backwards through the primary keys of the
/// partitions in range, side by side.
pub(super) const SCAN: &str = "
SELECT id, coalesce(octet_length(result), 0) FROM (
    SELECT id, state, kind, queue, labels, gating, result FROM {schema}.jobs
    WHERE id >= $1 AND id <= $2 ORDER BY id DESC LIMIT {look}
) AS looked_at
WHERE {fits} ORDER BY id DESC LIMIT $8";

/// The last of the jobs that a scan looks at, if it comes to its bound.
pub(super) const LAST: &str =
    "SELECT id FROM {schema}.jobs WHERE id >= $1 AND id <= $2 ORDER BY id DESC OFFSET {look} - 1 LIMIT 1";

/// Those of the jobs in $9 that fit. Plan: as for a claim.
pub(super) const FITTING: &str = "
SELECT id, coalesce(octet_length(result), 0) FROM {schema}.jobs
WHERE id = ANY($9) AND id >= $1 AND id <= $2 AND {fits} ORDER BY id DESC LIMIT $8";

/// Among the statements of one search, jobs come and go, and the planner must not be tempted by statistics of a table
/// that was empty a moment ago.
pub(super) const SNAPSHOT: &str =
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL enable_sort = off";

impl PostgresStore {
    pub(super) async fn find_jobs(
        &self,
        filter: &JobFilter,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Found, Error> {
        let Some(range) = find::range(filter, before) else { return Ok(Found::default()) };
        // One more than asked for tells whether there are more.
        let some = limit.saturating_add(1);
        let mut session = self.transaction().await?;
        raw_sql(SNAPSHOT).execute(&mut *session).await?;
        let (mut found, last) = match find::side_tables(&filter.states) {
            Some(tables) => {
                let ids = self.side_rows(&mut session, &tables, range).await?;
                let last = ids.get(LOOK - 1).copied();
                (find::page(&self.fitting(&mut session, filter, ids, some).await?, limit), last)
            }
            None => {
                let scan = self.fitted(SCAN, filter, range, some)?.fetch_all(&mut *session).await?;
                let found = find::page(&sized(&scan)?, limit);
                let last = match found.next {
                    Some(_) => None,
                    None => {
                        self.rare(&filled(LAST))
                            .bind(range.0)
                            .bind(range.1)
                            .fetch_optional(&mut *session)
                            .await?
                    }
                };
                (found, last.map(|row| row.try_get(0)).transpose()?)
            }
        };
        session.commit().await?;
        found.next = found.next.or(last.map(Into::into));
        Ok(found)
    }

    pub(super) async fn fitting_jobs(&self, filter: &JobFilter, ids: &[JobId]) -> Result<Vec<JobId>, Error> {
        let mut session = self.transaction().await?;
        let wanted = ids.iter().map(|id| id.as_uuid()).collect();
        let fitting = self.fitting(&mut session, filter, wanted, ids.len()).await?;
        session.commit().await?;
        Ok(fitting.into_iter().map(|(id, _)| id).collect())
    }

    /// Those of `ids` that fit, with the sizes of their results, greatest first.
    pub(super) async fn fitting(
        &self,
        connection: &mut PgConnection,
        filter: &JobFilter,
        ids: Vec<Uuid>,
        limit: usize,
    ) -> Result<Vec<(JobId, usize)>, Error> {
        // For none, any range does.
        let range = super::range(&ids).unwrap_or_default();
        let fitting = self.fitted(FITTING, filter, range, limit)?.bind(ids);
        sized(&fitting.fetch_all(connection).await?)
    }

    /// A statement with the filter's arguments bound.
    fn fitted(
        &self,
        template: &str,
        filter: &JobFilter,
        (least, greatest): (Uuid, Uuid),
        limit: usize,
    ) -> Result<Query<'static, Postgres, PgArguments>, Error> {
        // As insert keeps them, since a text cannot hold it.
        let text = |text: &str| text.replace('\0', "\u{fffd}");
        let labels = filter.labels.iter().map(|(name, value)| (text(name), text(value)));
        let labels: std::collections::BTreeMap<_, _> = labels.collect();
        let states: Vec<i16> = filter.states.iter().map(|state| state.code()).collect();
        Ok(self
            .rare(&filled(template))
            // Planned for these very bounds, which differ by orders of magnitude.
            .persistent(false)
            .bind(least)
            .bind(greatest)
            .bind(states)
            .bind(filter.queue.as_ref().map(|queue| queue.as_str().to_owned()))
            .bind(filter.kind.as_ref().map(|kind| kind.as_str().to_owned()))
            .bind(serde_json::to_string(&labels).map_err(unexpected)?)
            .bind(filter.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX)))
    }

    /// The greatest ids in these side tables, as many as one call looks at.
    pub(super) async fn side_rows(
        &self,
        connection: &mut PgConnection,
        tables: &[&str],
        (least, greatest): (Uuid, Uuid),
    ) -> Result<Vec<Uuid>, Error> {
        let parts: Vec<String> =
            tables.iter().map(|table| format!("SELECT * FROM ({}) AS {table}", side(table))).collect();
        let rows = format!("{} ORDER BY job_id DESC LIMIT {{look}}", parts.join(" UNION "));
        let rows = self.rare(&filled(&rows)).bind(least).bind(greatest).fetch_all(connection).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }
}

fn side(table: &str) -> String {
    let rows = match table {
        // As many as jobs run, in groups that are in no order.
        "claims" => "SELECT job_id FROM {schema}.claims CROSS JOIN unnest(job_ids) AS job_id".to_owned(),
        table => format!("SELECT job_id FROM {{schema}}.{table}"),
    };
    format!("{rows} WHERE job_id >= $1 AND job_id <= $2 ORDER BY job_id DESC LIMIT {{look}}")
}

pub(super) fn filled(template: &str) -> String {
    template.replace("{fits}", FITS).replace("{look}", &LOOK.to_string())
}

fn sized(rows: &[PgRow]) -> Result<Vec<(JobId, usize)>, Error> {
    let size = |row: &PgRow| usize::try_from(row.try_get::<i32, _>(1)?).map_err(unexpected);
    rows.iter().map(|row| Ok((row.try_get::<Uuid, _>(0)?.into(), size(row)?))).collect()
}
