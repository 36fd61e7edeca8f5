//! The plans of the hot statements, from empty tables to large ones: a prepared statement keeps its plan while the
//! table grows, and one that reads a whole partition makes it slower by the row.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use sqlx::{AssertSqlSafe, PgConnection, Row, raw_sql};
use uuid::Uuid;
use windlass_core::Store;

use super::{PostgresStore, dead, find, notes, support::Scratch, timers, unique};
use crate::StoreOptions;

#[tokio::test]
async fn hot_statements_find_jobs_by_primary_key_at_every_size() {
    let scratch = Scratch::new();
    let options = StoreOptions { schema: scratch.schema.clone(), connections: 1, ..StoreOptions::default() };
    let store = PostgresStore::open(&scratch.url, &options).unwrap();
    store.migrate().await.unwrap();
    let mut connection = scratch.connect().await;
    // As the store's own connections have it.
    let mut own = store.connections.acquire().await.unwrap();
    let mode: String = sqlx::query_scalar("SHOW plan_cache_mode").fetch_one(&mut *own).await.unwrap();
    assert_eq!(mode, "force_generic_plan");
    scratch.run(&mut connection, "SET plan_cache_mode = force_generic_plan").await;

    check(&store, &mut connection, "never analysed").await;
    scratch.run(&mut connection, "VACUUM ANALYZE {schema}.jobs, {schema}.outbox, {schema}.due").await;
    check(&store, &mut connection, "known to be empty").await;
    let rows: u32 = std::env::var("WINDLASS_TEST_PLAN_ROWS").map_or(200_000, |rows| rows.parse().unwrap());
    load(&scratch, &mut connection, rows).await;
    check(&store, &mut connection, "filled, not analysed").await;
    scratch
        .run(&mut connection, "ANALYZE {schema}.jobs, {schema}.outbox, {schema}.due, {schema}.claims")
        .await;
    check(&store, &mut connection, "filled").await;
}

/// Where nobody hears of jobs, accepting them asks so once for the group, and looks at nothing for each job.
#[tokio::test]
async fn without_webhooks_no_job_is_looked_at_for_them() {
    let scratch = Scratch::new();
    let options = StoreOptions { schema: scratch.schema.clone(), connections: 1, ..StoreOptions::default() };
    let store = PostgresStore::open(&scratch.url, &options).unwrap();
    store.migrate().await.unwrap();
    let mut connection = scratch.connect().await;
    let texts = "ARRAY['a', 'b']";
    let arguments = format!(
        "ARRAY['{}', '{}']::uuid[], {texts}, {texts}, '{{1,1}}', {texts}, '{{1,1}}', '{{1,1}}', \
         '{{NULL,NULL}}', '{{\"{{}}\",\"{{}}\"}}', '{{NULL,NULL}}', 5",
        Uuid::now_v7(),
        Uuid::now_v7()
    );
    for (statement, nulls) in [(&store.sql.insert_plain, 0), (&store.sql.insert, 8)] {
        let arguments = arguments.clone() + &", '{NULL,NULL}'".repeat(nulls);
        let prepare = format!("PREPARE accept AS {}", statement.as_str());
        let explain = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE accept({arguments})");
        for statement in [prepare, "BEGIN".into()] {
            raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        }
        let plan = raw_sql(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
        raw_sql("ROLLBACK; DEALLOCATE accept").execute(&mut connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let looks: Vec<&String> = plan.iter().filter(|line| line.contains(" on webhooks")).collect();
        let once = |line: &&&String| line.contains("loops=1") || line.contains("never executed");
        assert!(!looks.is_empty() && looks.iter().all(|line| once(&line)), "{}", plan.join("\n"));
        let each = looks.iter().filter(|line| line.contains("webhooks w")).count();
        let never = looks.iter().filter(|line| line.contains("never executed")).count();
        assert!(each >= 1 && never == each, "{}", plan.join("\n"));
        // Nor are quotas, but for all jobs at once.
        let mut quotas = plan.iter().filter(|line| line.contains(" on quotas"));
        assert!(
            quotas.clone().count() == nulls.min(1) && quotas.all(|line| once(&&line)),
            "{}",
            plan.join("\n")
        );
    }
}

async fn check(store: &PostgresStore, connection: &mut PgConnection, when: &str) {
    check_searches(store, connection, when).await;
    let id = format!("'{}'::uuid", Uuid::now_v7());
    let ids = format!("ARRAY[{id}, {id}]");
    let nulls = |kind: &str| format!("ARRAY[NULL, NULL]::{kind}[]");
    let sql = &store.sql;
    let texts = |text: &str| format!("ARRAY['{text}', '{text}']");
    let (expire, keep) = (store.fill(timers::EXPIRE), store.fill(timers::KEEP));
    let (holders, replace) =
        (store.fill(&unique::HOLDERS.replace("{lock}", "FOR UPDATE")), store.fill(unique::REPLACE));
    let clean = store.fill(unique::CLEAN);
    let settle = store.fill(super::workflows::SETTLE);
    let cancel_all = store.fill(super::cancel::CANCEL_ALL);
    let reopen = store.fill(super::workflows::REOPEN);
    let retry_all = store.fill(super::workflows::RETRY_ALL);
    let cases = [
        ("claim", &sql.claim, vec![id.clone(), id.clone(), ids.clone(), id.clone(), id.clone()]),
        ("claimed_before", &sql.claimed_before, vec![id.clone(), id.clone()]),
        (
            "finish",
            &sql.finish,
            vec![
                id.clone(),
                ids.clone(),
                "ARRAY[1, 1]".into(),
                "ARRAY[4, 4]::int2[]".into(),
                "ARRAY[0, 0]".into(),
                nulls("float8"),
                nulls("text"),
                nulls("text"),
                id.clone(),
                id.clone(),
                ids.clone(),
                "ARRAY[60, NULL]::float8[]".into(),
            ],
        ),
        (
            "finish_plain",
            &sql.finish_plain,
            vec![ids.clone(), id.clone(), id.clone(), "1".into(), ids.clone()],
        ),
        ("get", &sql.get, vec![ids.clone(), id.clone(), id.clone()]),
        ("payloads", &sql.payloads, vec![ids.clone(), id.clone(), id.clone()]),
        ("cancel", &sql.cancel, vec![id.clone()]),
        ("outbox_take", &sql.outbox_take, vec!["10".into()]),
        ("promote_due", &sql.promote_due, vec!["10".into()]),
        ("expire", &expire, vec![ids.clone(), id.clone(), id.clone(), "'a'".into(), "'b'".into()]),
        ("keep", &keep, vec![ids.clone(), id.clone(), id.clone(), ids.clone(), "ARRAY[true, false]".into()]),
        ("holders", &holders, vec![ids.clone(), id.clone(), id.clone()]),
        (
            "replace",
            &replace,
            vec![
                ids.clone(),
                texts("1"),
                "ARRAY[1, 1]::int2[]".into(),
                nulls("timestamptz"),
                id.clone(),
                id.clone(),
            ],
        ),
        ("clean", &clean, vec![]),
        ("settle", &settle, vec![ids.clone(), nulls("text"), id.clone(), id.clone()]),
        ("cancel_all", &cancel_all, vec![ids.clone(), id.clone(), id.clone(), "ARRAY[1]::int2[]".into()]),
        ("reopen", &reopen, vec![ids.clone(), id.clone(), id.clone()]),
        ("retry_all", &retry_all, vec![ids.clone(), id.clone(), id.clone()]),
        ("rescue", &sql.rescue, vec![ids.clone(), ids.clone(), id.clone(), id.clone(), "3".into()]),
    ];
    let (retry, fitting) = (store.fill(dead::RETRY), store.fill(&find::filled(find::FITTING)));
    let (progress, lines) = (store.fill(notes::PROGRESS), store.fill(notes::LINES));
    let checkpoint = store.fill(notes::CHECKPOINT);
    let standing = store.fill(super::standing::STANDING);
    let ended = store.fill(super::webhooks::ENDED);
    let (ones, words) = ("ARRAY[1, 1]".to_owned(), "ARRAY['a', 'b']".to_owned());
    let two = |number: &str, kind: &str| format!("ARRAY[{number}, {number}]::{kind}[]");
    let rare = [
        ("retry", &retry, vec![ids.clone(), id.clone(), id.clone()]),
        (
            "fitting",
            &fitting,
            [&*id, &id, "'{}'", "NULL", "NULL", "'{}'", "NULL", "10", &ids].map(ToString::to_string).to_vec(),
        ),
        (
            "progress",
            &progress,
            vec![
                ids.clone(),
                ones.clone(),
                two("0", "float8"),
                two("0.5", "float8"),
                words.clone(),
                id.clone(),
                id.clone(),
            ],
        ),
        (
            "lines",
            &lines,
            vec![
                ids.clone(),
                ones.clone(),
                ones.clone(),
                ones,
                two("0", "float8"),
                two("1", "int2"),
                words,
                nulls("text"),
                id.clone(),
                id.clone(),
            ],
        ),
        ("standing", &standing, vec![ids.clone(), id.clone(), id.clone()]),
        ("ended", &ended, vec![ids.clone(), id.clone(), id.clone()]),
        ("checkpoint", &checkpoint, vec![id.clone(), "1".into(), "'1'".into()]),
    ];
    for (name, statement, arguments) in cases.into_iter().chain(rare) {
        let prepare = format!("PREPARE {name} AS {}", statement.as_str());
        let arguments =
            if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
        let explain = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE {name}{arguments}");
        for statement in [prepare, "BEGIN".into()] {
            raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await.unwrap();
        }
        let plan = raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
        raw_sql(AssertSqlSafe(format!("ROLLBACK; DEALLOCATE {name}")))
            .execute(&mut *connection)
            .await
            .unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        if let Err(fault) = find_fault(&plan, name != "claimed_before") {
            panic!("{name}, {when}: {fault} in\n{}", plan.join("\n"));
        }
    }
}

/// A search goes backwards through the primary keys, and stops where it has enough.
async fn check_searches(store: &PostgresStore, connection: &mut PgConnection, when: &str) {
    for (template, arguments) in [(find::SCAN, ", '{}', NULL, 'a', '{}', 'acme', 10"), (find::LAST, "")] {
        let statement = store.fill(&find::filled(template));
        let [least, greatest] = [Uuid::nil(), Uuid::max()];
        let prepare = format!("PREPARE search AS {}", statement.as_str());
        let explain =
            format!("EXPLAIN (COSTS OFF) EXECUTE search('{least}'::uuid, '{greatest}'::uuid{arguments})");
        for statement in [prepare.as_str(), "BEGIN", find::SNAPSHOT] {
            raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut *connection).await.unwrap();
        }
        let plan = raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
        raw_sql("ROLLBACK; DEALLOCATE search").execute(&mut *connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let looks = |line: &&String| line.contains(" on jobs_");
        assert!(plan.iter().any(|line| looks(&line)), "{plan:?}");
        for line in plan.iter().filter(|line| looks(line) || line.contains("Sort  ")) {
            let backwards = line.contains("Index Scan Backward") || line.contains("Index Only Scan Backward");
            assert!(backwards, "a search, {when}: {line} in\n{}", plan.join("\n"));
        }
    }
}

/// Every look at jobs is by primary key, and joined with given arrays by a hash or in order; where the range of ids is given, only in the partition of today.
fn find_fault(plan: &[String], pruned: bool) -> Result<(), String> {
    let mut partitions = std::collections::BTreeSet::new();
    let arrays = plan.iter().any(|line| line.contains("Function Scan"));
    for (at, line) in plan.iter().enumerate() {
        if arrays && line.contains("Join Filter: ") && line.contains("j.id = ") {
            return Err(format!("each is compared with each: {line}"));
        }
        let Some((node, table)) = line.split_once(" on jobs_") else { continue };
        if !node.contains("Scan") || line.contains("never executed") {
            continue;
        }
        partitions.insert(table.split([' ', '_']).next().unwrap_or_default());
        // A bitmap's index is a node of its own, without an "on".
        let condition = plan[at + 1..].iter().find(|line| line.contains("Index Cond:"));
        let by_key = condition.is_some_and(|condition| condition.contains("(id = "));
        if node.contains("Seq Scan") || !by_key {
            return Err(format!("not by primary key: {line}"));
        }
    }
    if pruned && partitions.len() > 1 {
        return Err(format!("more than one partition read: {partitions:?}"));
    }
    Ok(())
}

/// Jobs of today, nearly all of them done, and a long backlog of groups and times.
async fn load(scratch: &Scratch, connection: &mut PgConnection, rows: u32) {
    let load = "
        INSERT INTO {schema}.jobs (id, max_attempts, state, priority, kind, queue, payload)
        SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::int8), 12, '0') || '7'
                || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
               20, CASE WHEN n % 1000 = 0 THEN 1 ELSE 4 END, 1, 'test.kind', 'default', repeat('x', 200)
        FROM generate_series(1, {rows}) AS n;
        INSERT INTO {schema}.outbox (due_at, job_ids)
        SELECT now(), array_agg(id) FROM (SELECT id, row_number() OVER () / 100 AS g FROM {schema}.jobs) AS j GROUP BY g;
        INSERT INTO {schema}.due (job_id, run_at) SELECT id, now() FROM {schema}.jobs;
        INSERT INTO {schema}.timers (job_id, deadline, at) SELECT id, false, now() FROM {schema}.jobs;
        INSERT INTO {schema}.unique_keys (key, job_id, check_at)
        SELECT uuid_send(id), id, now() FROM {schema}.jobs";
    scratch.run(connection, &load.replace("{rows}", &rows.to_string())).await;
}
