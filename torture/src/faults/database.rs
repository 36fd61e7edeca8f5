//! What may befall Postgres beside restarts.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::BETWEEN;
use crate::{Failure, cluster::Cluster, journal::Event};

/// How long Postgres may take to answer again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Leaves no byte on its disk for a while. It may end over that, and is started again then.
pub(super) async fn disk_full(cluster: &Cluster, number: usize, lasts: Duration) -> Result<(), Failure> {
    let mut standing = cluster.database.standing.lock().await;
    sleep_until(standing.ready + BETWEEN).await;
    let disk = cluster.disks.iter().find(|disk| disk.server() == standing.name);
    let disk = disk.ok_or("this machine does not let us mount a disk for Postgres")?;
    tokio::task::block_in_place(|| disk.fill())?;
    sleep(lasts).await;
    disk.empty()?;
    until_it_answers(cluster, &standing.name).await?;
    cluster.journal.note(Event::Ready { fault: number });
    standing.ready = Instant::now();
    Ok(())
}

/// Starts it unless it runs, until it takes a write.
async fn until_it_answers(cluster: &Cluster, name: &str) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        cluster.database.services.order("start", name).await?;
        let write = sqlx::query("SELECT txid_current()").execute(&cluster.pool);
        match timeout(Duration::from_secs(5), write).await {
            Ok(Ok(_)) => return Ok(()),
            _ if Instant::now() > until => {
                return Err(format!("{name} does not answer within {PATIENCE:?}").into());
            }
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Takes all connections that are left, and those that become free.
pub(super) async fn exhaust(cluster: &Cluster, number: usize, lasts: Duration) -> Result<(), Failure> {
    // Nothing else is done to it meanwhile.
    let _standing = cluster.database.standing.lock().await;
    let url = cluster.own_store_url();
    let (until, mut taken) = (Instant::now() + lasts, Vec::new());
    while Instant::now() < until {
        match timeout(Duration::from_secs(2), PgConnection::connect(&url)).await {
            Ok(Ok(connection)) => taken.push(connection),
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
    cluster.journal.say(format!("#{number} has taken {} connections", taken.len()));
    for connection in taken {
        // What does not end in order ends when it is dropped.
        let _ = connection.close().await;
    }
    Ok(())
}

/// Kills it, and promotes its replica once that has all that was confirmed.
pub(super) async fn fail_over(cluster: &Cluster, number: usize, lasts: Duration) -> Result<(), Failure> {
    let mut standing = cluster.database.standing.lock().await;
    sleep_until(standing.ready + BETWEEN).await;
    // Whoever watches over a pair fails over only to a replica that follows.
    let until = Instant::now() + PATIENCE;
    let follows =
        "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'";
    while sqlx::query_scalar::<_, i64>(follows).fetch_one(&cluster.pool).await? == 0 {
        if Instant::now() > until {
            return Err("the replica does not follow".into());
        }
        sleep(Duration::from_millis(100)).await;
    }
    cluster.database.services.order("kill", &standing.name).await?;
    sleep(lasts).await;
    if let Err(error) = cluster.fail_over().await {
        // Rather the old one, alone, than none.
        cluster.database.services.order("start", &standing.name).await?;
        cluster.stand_alone().await?;
        until_it_answers(cluster, &standing.name).await?;
        standing.ready = Instant::now();
        return Err(error);
    }
    standing.name = "replica".to_owned();
    cluster.journal.note(Event::Ready { fault: number });
    standing.ready = Instant::now();
    Ok(())
}
