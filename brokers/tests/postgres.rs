//! Postgres as the broker through the conformance suite, killed and wiped, and what only a database can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/server.rs"]
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use server::OwnServer;
use sqlx::{Connection, PgConnection, Row};
use windlass_brokers::conformance::{Case, Fixture, messages, until, within};
use windlass_core::{Broker, BrokerError, JobId, Lane, Priorities, Priority};

fn url() -> String {
    std::env::var("WINDLASS_TEST_POSTGRES_URL")
        .expect("WINDLASS_TEST_POSTGRES_URL is not set: run scripts/test, which starts the servers")
}

/// A connection past the driver.
async fn raw() -> PgConnection {
    PgConnection::connect(&url()).await.unwrap()
}

struct Postgres;

#[async_trait]
impl Fixture for Postgres {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&url()).await.unwrap()
    }

    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool {
        let insert = "INSERT INTO windlass_broker.parcels (lane, size, messages) VALUES ($1, 1, ARRAY[$2])";
        sqlx::query(insert).bind(lane.to_string()).bind(bytes).execute(&mut raw().await).await.unwrap();
        true
    }
}

fn nobody() -> Lane {
    Lane { queue: "nobody".parse().unwrap(), priority: Priority::Normal }
}

windlass_brokers::broker_conformance!(Postgres);
windlass_brokers::broker_outage_conformance!(OwnServer::start("postgres", &[]).await);

/// A parcel that outgrows a subscription's room is split, and each part is settled by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parcels_are_split_and_settled_in_part() {
    Case::run(&Postgres, async |case: Case<'_>| {
        let sent = case.publish(100).await;
        let mut small = case.subscribe(30).await;
        let held = within("messages", small.receive(30)).await.unwrap();
        assert_eq!(held.len(), 30);
        case.depth_becomes(&case.lane(), 70).await;
        let tags: Vec<_> = held.iter().map(|delivery| delivery.tag).collect();
        small.ack(&tags[..10]).await.unwrap();
        small.release(&tags[10..15]).await.unwrap();
        case.depth_becomes(&case.lane(), 75).await;
        drop(small);
        case.depth_becomes(&case.lane(), 90).await;

        let mut other = case.subscribe(500).await;
        let mut left: Vec<_> = Vec::new();
        while left.len() < 90 {
            left.extend(within("the rest", other.receive(500)).await.unwrap());
        }
        let mut found: Vec<_> =
            held[..10].iter().chain(&left).map(|delivery| delivery.message.job_id).collect();
        found.sort_unstable();
        let mut sent: Vec<_> = sent.iter().map(|message| message.job_id).collect();
        sent.sort_unstable();
        assert_eq!(found, sent);
        let tags: Vec<_> = left.iter().map(|delivery| delivery.tag).collect();
        other.ack(&tags).await.unwrap();
        let rows = "SELECT count(*) FROM windlass_broker.parcels WHERE lane = $1";
        let row = sqlx::query(rows).bind(case.lane().to_string()).fetch_one(&mut raw().await).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 0, "nothing is left behind");
    })
    .await;
}

/// What a process held that died without a word is free once its lease has run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parcels_of_the_dead_come_again() {
    Case::run(&Postgres, async |case: Case<'_>| {
        case.publish(3).await;
        let lane = case.lane().to_string();
        let take =
            "UPDATE windlass_broker.parcels SET holder = gen_random_uuid(), until = now() - interval '1 s'
                    WHERE lane = $1";
        sqlx::query(take).bind(&lane).execute(&mut raw().await).await.unwrap();
        case.depth_becomes(&case.lane(), 0).await;
        let other = case.fixture.client().await;
        let mut subscription = other.subscribe(&[case.lane()], 3, Priorities::Weighted).await.unwrap();
        assert_eq!(within("messages", subscription.receive(3)).await.unwrap().len(), 3);
        other.close().await;
    })
    .await;
}

/// Connections that are cut lose nothing, whatever was under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_nothing() {
    Case::run(&Postgres, async |case: Case<'_>| {
        let name = format!("cut_{}", case.queue.as_str().replace('-', "_"));
        let client = windlass_brokers::open(&format!("{}?application_name={name}", url())).await.unwrap();
        let sent = case.publish(2000).await;
        let mut subscription = client.subscribe(&[case.lane()], 20, Priorities::Weighted).await.unwrap();
        let mut connection = raw().await;
        let mut missing: std::collections::HashSet<_> = sent.iter().map(|message| message.job_id).collect();
        let mut rounds = 0;
        let all = async {
            while !missing.is_empty() {
                rounds += 1;
                if rounds % 10 == 0 {
                    let cut =
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
                    sqlx::query(cut).bind(&name).execute(&mut connection).await.unwrap();
                }
                match subscription.receive(20).await {
                    Ok(found) => {
                        let tags: Vec<_> = found.iter().map(|delivery| delivery.tag).collect();
                        found.iter().for_each(|delivery| {
                            missing.remove(&delivery.message.job_id);
                        });
                        let _ = subscription.ack(&tags).await;
                    }
                    Err(error) => assert!(error.retryable(), "{error:?}"),
                }
            }
        };
        within("all messages", all).await;
        until("everything acknowledged to be gone", async || {
            let _ = subscription.ack(&[]).await;
            let rows = "SELECT count(*) FROM windlass_broker.parcels WHERE lane = $1";
            let row =
                sqlx::query(rows).bind(case.lane().to_string()).fetch_one(&mut raw().await).await.unwrap();
            row.get::<i64, _>(0) == 0
        })
        .await;
        client.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_must_mend_is_said_with_setting_and_remedy() {
    let lane = nobody();
    let mut stranger: url::Url = url().parse().unwrap();
    stranger.set_username("nobody").unwrap();
    stranger.set_password(Some("s3cret")).unwrap();
    let mut nowhere: url::Url = url().parse().unwrap();
    nowhere.set_path("/no_such_database");
    for url in [stranger, nowhere] {
        let broker = windlass_brokers::open(url.as_str()).await.unwrap();
        let publish = broker.publish(&messages(&lane, 1)).await.remove(0);
        let subscribe =
            broker.subscribe(std::slice::from_ref(&lane), 1, Priorities::Weighted).await.map(drop);
        for result in [broker.ping().await, publish, subscribe] {
            let error = result.unwrap_err();
            assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
            assert!(error.to_string().contains("broker_url"), "{error}");
            assert!(!format!("{error} {error:?} {broker:?}").contains("s3cret"));
        }
    }
    for url in ["postgres://u:s3cret@host:notaport/d", "postgres://u:s3cret@host/d?schema=No"] {
        let error = windlass_brokers::open(url).await.unwrap_err().to_string();
        assert!(error.contains("broker_url") && !error.contains("s3cret"), "{error}");
    }
}

/// What each kind of call has to say to the operator.
async fn refusals(url: &url::Url) -> Vec<String> {
    let lane = nobody();
    let broker = windlass_brokers::open(url.as_str()).await.unwrap();
    let start = Instant::now();
    let publish = broker.publish(&messages(&lane, 1)).await.remove(0);
    let receive = match broker.subscribe(std::slice::from_ref(&lane), 1, Priorities::Weighted).await {
        Ok(mut subscription) => within("a report", subscription.receive(1)).await.map(drop),
        Err(error) => Err(error),
    };
    let results = [publish, receive, broker.depth(&lane).await.map(drop)];
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    broker.close().await;
    let refusal = |result: Result<(), BrokerError>| match result {
        Err(error @ BrokerError::Config { .. }) if error.to_string().contains("broker_url") => {
            error.to_string()
        }
        other => panic!("{other:?}"),
    };
    results.map(refusal).into()
}

/// A role that may neither use the schema nor make one.
#[tokio::test]
async fn missing_rights_are_for_the_operator() {
    let role = format!("narrow_{}", JobId::new().to_string().replace('-', "_"));
    let mut raw = raw().await;
    let tell = async |raw: &mut PgConnection, statement: String| {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(raw).await.unwrap();
    };
    tell(&mut raw, format!("CREATE ROLE {role} LOGIN PASSWORD 's3cret'")).await;
    let mut url: url::Url = url().parse().unwrap();
    // There is such a schema from here on.
    windlass_brokers::open(url.as_str()).await.unwrap().depth(&nobody()).await.unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("s3cret")).unwrap();
    let there = refusals(&url).await;
    url.set_query(Some(&format!("schema={role}")));
    let missing = refusals(&url).await;
    tell(&mut raw, format!("DROP ROLE {role}")).await;
    for error in there.iter().chain(&missing) {
        assert!(error.contains("lacks a right") && error.contains("grant"), "{error}");
    }
}

#[tokio::test]
async fn a_table_of_somebody_else_is_for_the_operator() {
    let schema = format!("theirs_{}", JobId::new().to_string().replace('-', "_"));
    let mut raw = raw().await;
    let tell = async |raw: &mut PgConnection, statement: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(raw).await.unwrap();
    };
    tell(&mut raw, format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.parcels (id text, lane int)"))
        .await;
    let mut url: url::Url = url().parse().unwrap();
    url.set_query(Some(&format!("schema={schema}")));
    let errors = refusals(&url).await;
    tell(&mut raw, format!("DROP SCHEMA {schema} CASCADE")).await;
    for error in errors {
        assert!(error.contains("parcels") && error.contains("`schema`"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_down_fails_calls_soon_but_not_the_opening() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let broker = windlass_brokers::open(&format!("postgres://u:p@{unused}/d")).await.unwrap();
    let lane = nobody();
    let start = Instant::now();
    let error = broker.publish(&messages(&lane, 1)).await.remove(0).unwrap_err();
    assert!(error.retryable() && error.to_string().contains(&unused.to_string()), "{error}");
    assert!(broker.ping().await.unwrap_err().retryable());
    let mut subscription = broker.subscribe(&[lane], 10, Priorities::Weighted).await.unwrap();
    assert!(subscription.receive(1).await.unwrap_err().retryable());
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    broker.close().await;
}
