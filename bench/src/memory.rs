//! What a worker occupies, idle and full, in the resident memory of this process.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use windlass::{Client, QueueName, Settings, prelude::*};

use crate::{Error, enqueue_many};

/// Resident bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// With an idle worker.
    pub(crate) idle: u64,
    /// With all the jobs running, at the same time.
    pub(crate) full: u64,
}

#[derive(Debug, Serialize, Deserialize, Job)]
#[job(kind = "bench.wait")]
struct Wait {}

/// What the waiting jobs say when they start, and wait for.
#[derive(Clone)]
struct Gate {
    started: mpsc::UnboundedSender<()>,
    open: Arc<Semaphore>,
}

async fn wait(_: Wait, gate: State<Gate>) -> Result<(), JobError> {
    let _ = gate.started.send(());
    let _ = gate.open.acquire().await;
    Ok(())
}

/// Runs `jobs` jobs at the same time. To be measured first, while the process has not grown for other reasons. `None`
/// where the system does not tell.
pub(crate) async fn measure(
    client: &Client,
    settings: &Settings,
    queue: &QueueName,
    jobs: usize,
) -> Result<Option<Memory>, Error> {
    let (started, mut starts) = mpsc::unbounded_channel();
    let open = Arc::new(Semaphore::new(0));
    let mut settings = settings.clone();
    settings.worker_concurrency = jobs;
    let gate = Gate { started, open: open.clone() };
    let worker = Worker::new(client.clone(), (&settings).into()).state(gate).handle(wait);
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.run_until(stop.clone()));
    client.enqueue(Wait {}).queue(queue.clone()).await?;
    starts.recv().await.ok_or("the worker has ended")?;
    let idle = resident();
    enqueue_many(client, queue, jobs - 1, || Wait {}).await?;
    for _ in 1..jobs {
        starts.recv().await.ok_or("the worker has ended")?;
    }
    let full = resident();
    open.close();
    stop.cancel();
    working.await??;
    Ok(idle.zip(full).map(|(idle, full)| Memory { idle, full }))
}

/// Linux tells in kibibytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}
