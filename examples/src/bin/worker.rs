//! A worker with the example handlers. Settings are those of every worker; the files are in the folder that
//! `WINDLASS_EXAMPLE_DATA` names, by default `windlass-data`.

use std::{error::Error, path::PathBuf};

use windlass::{Settings, prelude::*};
use windlass_examples::{Workspace, register};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::load()?;
    windlass::init_logging(&settings)?;
    windlass::init_metrics(&settings)?;
    let data_dir = std::env::var_os("WINDLASS_EXAMPLE_DATA").map_or("windlass-data".into(), PathBuf::from);
    let workspace = Workspace::with_samples(&data_dir)?;
    register(Worker::from_env().await?, workspace)?.run().await?;
    Ok(())
}
