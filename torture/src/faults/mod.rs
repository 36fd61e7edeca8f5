//! Does to the cluster what the schedule says.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    Failure,
    cluster::{Cluster, Slot},
    journal::Event,
    plan::{Fault, Kind, Target},
};

/// Lets all of `plan` happen, each at its time from now on; returns once all is mended.
pub(crate) async fn inject(cluster: Arc<Cluster>, plan: Vec<Fault>) {
    let started = Instant::now();
    let mut under_way = JoinSet::new();
    for (number, fault) in plan.into_iter().enumerate() {
        tokio::time::sleep_until(started + fault.at).await;
        let cluster = cluster.clone();
        under_way.spawn(async move {
            cluster.journal.note(Event::Begun {
                fault: number,
                what: fault.to_string(),
                kind: fault.kind.to_string(),
                target: fault.target.to_string(),
                isolated: fault.isolated,
            });
            match happen(&cluster, number, fault).await {
                Ok(()) => cluster.journal.note(Event::Over { fault: number }),
                Err(error) => cluster.journal.note(Event::Omitted { fault: number, why: error.to_string() }),
            }
        });
    }
    while under_way.join_next().await.is_some() {}
}

async fn happen(cluster: &Cluster, number: usize, fault: Fault) -> Result<(), Failure> {
    match fault.kind {
        Kind::Kill => {
            let slot = slot(cluster, fault.target)?;
            cluster.kill(slot).await;
            tokio::time::sleep(fault.lasts).await;
            cluster.life(slot).await.down = false;
        }
        Kind::Stop => cluster.freeze(slot(cluster, fault.target)?, fault.lasts).await?,
        Kind::BrokerRestart => server(cluster, number, fault, &["stop"]).await?,
        Kind::BrokerCrash | Kind::DbCrash => server(cluster, number, fault, &["kill"]).await?,
        Kind::BrokerWipe => server(cluster, number, fault, &["kill", "wipe"]).await?,
        Kind::DbRestart => server(cluster, number, fault, &["stop"]).await?,
        Kind::Backends => {
            let cut = sqlx::query_scalar::<_, i64>(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE application_name LIKE 'api-%' OR application_name LIKE 'worker-%'",
            );
            let cut = cut.fetch_one(&cluster.pool).await?;
            cluster.journal.say(format!("#{number} has ended {cut} connections"));
        }
    }
    Ok(())
}

fn slot(cluster: &Cluster, target: Target) -> Result<&Slot, Failure> {
    cluster.slot(target).ok_or_else(|| format!("there is no {target}").into())
}

/// For how long a server is left alone after it has come back. RabbitMQ loses a queue for good when it is killed while it
/// declares it, which `settle` can only see once it has begun; that is a fault of its own, and for an operator to mend.
const BETWEEN: Duration = Duration::from_secs(5);

/// Takes a server down by these orders, and starts it again. One after the other, where the schedule has been overtaken.
async fn server(cluster: &Cluster, number: usize, fault: Fault, orders: &[&str]) -> Result<(), Failure> {
    let server = match fault.target {
        Target::Database => Some(&cluster.database),
        Target::Broker => cluster.broker.as_ref(),
        Target::Api(_) | Target::Worker(_) => None,
    };
    let server = server.ok_or_else(|| format!("there is no {} of its own", fault.target))?;
    let mut ready = server.ready.lock().await;
    tokio::time::sleep_until(*ready + BETWEEN).await;
    if fault.kind == Kind::BrokerCrash {
        server.services.order("settle", &server.name).await?;
    }
    for order in orders {
        server.services.order(order, &server.name).await?;
    }
    tokio::time::sleep(fault.lasts).await;
    server.services.order("start", &server.name).await?;
    cluster.journal.note(Event::Ready { fault: number });
    *ready = Instant::now();
    Ok(())
}
