use clap::Args;
use windlass::{
    QueueName, Settings,
    driver::{self, Broker, Lane},
};

use crate::Failure;

/// Show whether the broker answers, and what waits in it; while moving, in the old one too.
///
/// To move a running system: set `broker_url` to the new broker and `broker_from_url` to the old one, restart the workers,
/// then the API. Once the old one shows nothing waiting, remove `broker_from_url`.
#[derive(Debug, Args)]
pub(crate) struct ShowBroker {}

impl ShowBroker {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let store = driver::open_store(settings.store_url.expose(), &settings.store_options()).await?;
        let mut queues: Vec<QueueName> = store.kinds().await?.into_iter().map(|kind| kind.queue).collect();
        queues.extend(settings.worker_queues.iter().cloned());
        queues.sort();
        queues.dedup();
        for url in [Some(settings.broker()), settings.broker_from()].into_iter().flatten() {
            let broker = driver::open_broker(url.expose()).await?;
            println!("{url}");
            let shown = show(&*broker, &queues).await;
            broker.close().await;
            shown?;
        }
        Ok(())
    }
}

async fn show(broker: &dyn Broker, queues: &[QueueName]) -> Result<(), Failure> {
    broker.ping().await?;
    for queue in queues {
        let mut waiting = Some(0);
        for lane in Lane::of(queue) {
            waiting = waiting.zip(broker.depth(&lane).await?).map(|(sum, depth)| sum + depth);
        }
        match waiting {
            Some(waiting) => println!("  {queue}: {waiting} waiting"),
            None => println!("  {queue}: this broker cannot tell what waits"),
        }
    }
    Ok(())
}
