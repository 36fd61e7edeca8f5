use futures::future::try_join;
use redis::{Client, cmd, pipe};

use crate::{BATCH, Result, WINDOW, in_batches, rate};

/// Of each stream, its entries, each with its fields.
type Streams = Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>;

pub(crate) async fn run(url: &str, stream: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    let client = Client::open(url)?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut sender = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut receiver = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut create = cmd("XGROUP");
    let () = create
        .arg("CREATE")
        .arg(stream)
        .arg("bare")
        .arg("0")
        .arg("MKSTREAM")
        .query_async(&mut sender)
        .await?;

    let mut read = cmd("XREADGROUP");
    read.arg("GROUP").arg("bare").arg("one").arg("COUNT").arg(BATCH).arg("BLOCK").arg(1000);
    read.arg("STREAMS").arg(stream).arg(">");
    let rate = rate(payloads, async |payloads| {
        let publish = in_batches(payloads, BATCH, WINDOW / BATCH, async |batch| {
            let mut commands = pipe();
            for payload in batch {
                commands.cmd("XADD").arg(stream).arg("*").arg("m").arg(payload.as_slice()).ignore();
            }
            let () = commands.query_async(&mut sender.clone()).await?;
            Ok(())
        });
        let consume = async {
            let mut found = 0;
            while found < payloads.len() {
                let reply: Option<Streams> = read.query_async(&mut receiver).await?;
                let entries = reply.into_iter().flatten().flat_map(|(_, entries)| entries);
                let ids: Vec<String> = entries.map(|(id, _)| id).collect();
                if !ids.is_empty() {
                    found += ids.len();
                    let mut commands = pipe();
                    commands.cmd("XACK").arg(stream).arg("bare").arg(&ids).ignore();
                    commands.cmd("XDEL").arg(stream).arg(&ids).ignore();
                    let () = commands.query_async(&mut receiver).await?;
                }
            }
            Result::Ok(())
        };
        try_join(publish, consume).await.map(drop)
    });
    let rate = rate.await?;
    let () = cmd("DEL").arg(stream).query_async(&mut sender).await?;
    Ok(rate)
}
