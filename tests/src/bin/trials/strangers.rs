//! The attackers as a process of their own, and the handle that a scenario has of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use argh::FromArgs;
use carbontube_tests::{Process, Signal};
use serde::{Deserialize, Serialize};
use signal_hook::consts::SIGTERM;

use crate::attackers::{Attackers, dead_port, silent_port};
use crate::process::processor_time;
use crate::scenario::garbage;

/// How often the report is written anew.
const REPORT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections ask and do not read, and how many subscribe and do not read.
const READ_NOTHING: usize = 40;

/// Attack until SIGTERM, and report what was done.
#[derive(FromArgs)]
#[argh(subcommand, name = "strangers")]
pub(crate) struct Strangers {
    /// the sockets to connect to: a manager's four, then its workers'
    #[argh(option)]
    target: Vec<String>,
    /// how many silent connections to each
    #[argh(option)]
    silent: usize,
    /// how many that dribble to each
    #[argh(option)]
    slow: usize,
    /// garbage, floods and liars as well, about workers of this type
    #[argh(option)]
    job_type: Option<String>,
    /// the file to report to
    #[argh(option)]
    report: PathBuf,
    /// file that appears once they are at work
    #[argh(option)]
    ready_file: PathBuf,
}

/// What attackers did so far.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report {
    /// Connections that were opened, and pieces of garbage that got through.
    pub(crate) raw: u64,
    /// Valid messages about nothing.
    pub(crate) stray: u64,
    /// Heartbeats of workers that lie.
    pub(crate) lies: u64,
    /// Messages that a lying worker took off its pipe.
    pub(crate) taken: u64,
}

/// Runs until SIGTERM.
pub(crate) fn run(strangers: &Strangers) -> Result<()> {
    carbontube_transport::init_runtime();
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, stop.clone())?;
    let targets = &strangers.target;
    let [pull, sub, api, publish, worker, other, ..] = &targets[..] else {
        anyhow::bail!("name the manager's four sockets and those of two workers");
    };
    let (mut raw, mut floods, mut liars) = (Attackers::new(), Attackers::new(), Attackers::new());
    let taken = Arc::new(AtomicU64::new(0));
    let (_listener, silent) = silent_port()?;
    raw.hold(targets, strangers.silent, false)?;
    raw.hold(targets, strangers.slow, true)?;
    if let Some(job_type) = &strangers.job_type {
        raw.throw(targets, garbage)?;
        floods.flood_pull(pull)?;
        floods.flood_api(api)?;
        floods.read_nothing(api, publish, READ_NOTHING)?;
        floods.pose_as_managers(worker)?;
        // Nowhere, at a port that never answers, at the manager itself, at another's address.
        let places = [&dead_port()?, &silent, pull, api, worker, other];
        liars.announce(sub, places.map(String::clone).to_vec(), job_type)?;
        liars.swallow(sub, job_type, taken.clone())?;
    }
    std::fs::write(&strangers.ready_file, "{}")?;
    while !stop.load(Ordering::Relaxed) {
        write(
            &strangers.report,
            Report {
                raw: raw.done(),
                stray: floods.done(),
                lies: liars.done(),
                taken: taken.load(Ordering::Relaxed),
            },
        )?;
        std::thread::sleep(REPORT_PAUSE);
    }
    Ok(())
}

/// Replaces the report as a whole, so that no reader sees half of one.
fn write(path: &Path, report: Report) -> Result<()> {
    let aside = path.with_extension("new");
    std::fs::write(&aside, serde_json::to_vec(&report)?)?;
    Ok(std::fs::rename(&aside, path)?)
}

/// A process of attackers that runs.
pub(crate) struct Attack {
    process: Process,
    report: PathBuf,
}

impl Attack {
    /// Lets `silent` and `slow` connections wait at each of the targets; with a job type
    /// everything else strikes as well.
    pub(crate) fn start(
        folder: &Path,
        targets: &[String],
        silent: usize,
        slow: usize,
        job_type: Option<&str>,
    ) -> Self {
        let program = std::env::current_exe().expect("a process knows its own path");
        let report = folder.join("attack.json");
        let mut arguments = vec!["strangers".to_owned()];
        let mut add = |name: &str, value: String| {
            arguments.extend([format!("--{name}"), value]);
        };
        for target in targets {
            add("target", target.clone());
        }
        add("silent", silent.to_string());
        add("slow", slow.to_string());
        add("report", report.display().to_string());
        if let Some(job_type) = job_type {
            add("job-type", job_type.to_owned());
        }
        Attack {
            process: Process::start_program(folder, &program, &arguments),
            report,
        }
    }

    /// What was done so far.
    pub(crate) fn report(&self) -> Result<Report> {
        match std::fs::read(&self.report) {
            Ok(bytes) => serde_json::from_slice(&bytes).context("a report of attackers"),
            Err(_) => Ok(Report::default()),
        }
    }

    /// The processor time that the attackers used so far.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        processor_time(self.process.id())
    }

    /// Ends them, their connections with them.
    pub(crate) fn end(mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait();
    }
}
