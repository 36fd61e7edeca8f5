use clap::Args;
use windlass::{Settings, driver};

use crate::Failure;

/// Bring the store's schema up to date. Safe to run from many places at once, and again.
#[derive(Debug, Args)]
pub(crate) struct Migrate {}

impl Migrate {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let store = driver::open_store(settings.store_url.expose(), &settings.store_options()).await?;
        store.migrate().await?;
        println!("{} is up to date", settings.store_url);
        Ok(())
    }
}
