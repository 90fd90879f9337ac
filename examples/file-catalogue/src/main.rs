//! Runs one phase of the file catalogue as a worker process.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use argh::FromArgs;
use async_std::task;
use carbontube_protocol::{Address, JobType};
use carbontube_transport::Endpoint;
use carbontube_worker::{Worker, WorkerOptions};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Runs one phase of the file catalogue: fingerprint, compress or catalogue.
#[derive(FromArgs)]
struct Arguments {
    #[argh(positional)]
    phase: String,
    /// folder of the compressed files, the manifest and the ledgers
    #[argh(option)]
    folder: PathBuf,
    /// how many jobs at once (1)
    #[argh(option, default = "1")]
    concurrency: u32,
    /// the manager's pull address
    #[argh(option)]
    push_connect: Vec<Address>,
    /// the manager's sub address
    #[argh(option)]
    pub_connect: Vec<Address>,
    /// file that gets the worker's address as JSON once it serves
    #[argh(option)]
    ready_file: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments: Arguments = argh::from_env();
    let phase = file_catalogue::phase(&arguments.phase, &arguments.folder)
        .map_err(|error| anyhow!("{error}"))?;
    let job_type = arguments.phase.parse::<JobType>()?;
    let mut options = WorkerOptions::new(job_type);
    options.slots = arguments.concurrency;
    options.pull = vec![Endpoint::Bind("tcp://127.0.0.1".parse()?)];
    options.push_connect = arguments.push_connect;
    options.pub_connect = arguments.pub_connect;
    task::block_on(async {
        let worker = Worker::start(options, phase).await?;
        let handle = worker.handle();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        std::thread::spawn(move || {
            let mut signals = signals.forever();
            // The first asks for an orderly end, the second for one at once.
            if signals.next().is_some() {
                handle.drain();
            }
            if signals.next().is_some() {
                handle.stop_now();
            }
        });
        if let Some(path) = &arguments.ready_file {
            let ready = serde_json::json!({ "address": worker.address().to_string() });
            // Whoever waits for the file must never see half of it.
            let unfinished = path.with_extension("unfinished");
            std::fs::write(&unfinished, ready.to_string())
                .and_then(|()| std::fs::rename(&unfinished, path))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        worker.run().await;
        Ok(())
    })
}
