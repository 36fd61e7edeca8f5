use clap::Args;
use windlass::{Settings, driver};

use crate::Failure;

/// Bring the store's schema up to date, and the broker's table where that is a database. Safe to run from many places at
/// once, and again.
#[derive(Debug, Args)]
pub(crate) struct Migrate {}

impl Migrate {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let store = driver::open_store(settings.store_url.expose(), &settings.store_options()).await?;
        store.migrate().await?;
        println!("{} is up to date", settings.store_url);
        let broker = settings.broker();
        if ["postgres", "sqlite:"].iter().any(|scheme| broker.expose().starts_with(scheme)) {
            let broker = driver::open_broker(broker.expose()).await?;
            // It makes its table when it first answers.
            broker.ping().await?;
            broker.close().await;
        }
        Ok(())
    }
}
