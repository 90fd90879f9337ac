//! Phases that behave as their job says: for the scenarios.
//!
//! A job's instructions hold, under the phase's name, what to do: `{"do": "sleep",
//! "ms": 5}`, or `fail`, `panic`, `abort`, `hang`. With `"times": N` only the first N
//! attempts do so. Whatever it is, the ledger has its beginning and, if it came to it,
//! its end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use argh::FromArgs;
use async_std::task;
use carbontube_protocol::{Address, JobType};
use carbontube_transport::Endpoint;
use carbontube_worker::{AnyPhase, JobContext, Phase, PhaseError, Worker, WorkerOptions};
use file_catalogue::Ledger;
use serde::Deserialize;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Runs one phase of a scenario.
#[derive(FromArgs)]
struct Arguments {
    #[argh(positional)]
    phase: String,
    /// folder of the ledgers; without it there are none, and every job does nothing
    #[argh(option)]
    folder: Option<PathBuf>,
    /// how many jobs at once (1)
    #[argh(option, default = "1")]
    concurrency: u32,
    /// the manager's pull address
    #[argh(option)]
    push_connect: Vec<Address>,
    /// the manager's sub address
    #[argh(option)]
    pub_connect: Vec<Address>,
    /// where the worker listens (any free port of 127.0.0.1)
    #[argh(option)]
    pull_bind: Option<Address>,
    /// where managers reach the worker, when that is not where it listens
    #[argh(option)]
    advertise: Option<Address>,
    /// file that gets the worker's address and id as JSON once it serves
    #[argh(option)]
    ready_file: Option<PathBuf>,
}

/// A phase that does what it is told, and no more than that where `ledger` is `None`.
struct Obedient {
    ledger: Option<Ledger>,
    phase: String,
}

#[derive(Deserialize)]
struct Order {
    #[serde(rename = "do")]
    deed: String,
    #[serde(default)]
    ms: u64,
    /// How many attempts do it; the others do nothing.
    times: Option<u32>,
}

impl Phase for Obedient {
    type Instructions = serde_json::Map<String, serde_json::Value>;
    type Output = ();

    async fn execute(
        &self,
        job: &JobContext,
        instructions: Self::Instructions,
    ) -> Result<(), PhaseError> {
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        let id = job.job().to_string();
        ledger.note("began", &id)?;
        if let Some(order) = instructions.get(&self.phase) {
            let order: Order = serde_json::from_value(order.clone())?;
            if order
                .times
                .is_none_or(|times| job.attempt_number() <= times)
            {
                obey(&order).await?;
            }
        }
        ledger.note("ended", &id)?;
        Ok(())
    }
}

async fn obey(order: &Order) -> Result<(), PhaseError> {
    match &*order.deed {
        "sleep" => task::sleep(Duration::from_millis(order.ms)).await,
        "fail" => return Err(PhaseError::new("told to fail")),
        "panic" => panic!("told to panic"),
        "abort" => std::process::abort(),
        "hang" => std::future::pending().await,
        other => {
            return Err(PhaseError::fatal(format!(
                "told to {other}, which is unknown"
            )));
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Arguments = argh::from_env();
    let ledger = arguments.folder.as_deref();
    let ledger = ledger
        .map(|folder| Ledger::open(folder, &arguments.phase))
        .transpose()?;
    let phase = AnyPhase::from_async(Obedient {
        ledger,
        phase: arguments.phase.clone(),
    });
    let job_type = arguments.phase.parse::<JobType>()?;
    let mut options = WorkerOptions::new(job_type);
    options.slots = arguments.concurrency;
    let anywhere = "tcp://127.0.0.1".parse()?;
    options.pull = vec![Endpoint::Bind(arguments.pull_bind.unwrap_or(anywhere))];
    options.advertise = arguments.advertise;
    options.push_connect = arguments.push_connect;
    options.pub_connect = arguments.pub_connect;
    task::block_on(async {
        let worker = Worker::start(options, phase).await?;
        let handle = worker.handle();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        std::thread::spawn(move || {
            let mut signals = signals.forever();
            if signals.next().is_some() {
                handle.drain();
            }
            if signals.next().is_some() {
                handle.stop_now();
            }
        });
        if let Some(path) = &arguments.ready_file {
            let ready = serde_json::json!({
                "address": worker.address().to_string(),
                "bound": worker.bound(),
                "worker": worker.id().to_string(),
            });
            let unfinished = path.with_extension("unfinished");
            std::fs::write(&unfinished, ready.to_string())
                .and_then(|()| std::fs::rename(&unfinished, path))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        worker.run().await;
        anyhow::Ok(())
    })
    .map_err(|error| anyhow!("{error:#}"))
}
