//! A journal is restored while the workers live on, as the manual says and as it does not;
//! and workers are greeted by somebody who is not their manager.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_std::task;
use carbontube_client::protocol::message::{Hello, PipeHead, WorkerStatus};
use carbontube_client::protocol::{Codec, ManagerId, Message, encode};
use carbontube_tests::run_program;
use carbontube_transport::{Options, Push};

use super::{Figures, PHASES, Size, judge, order, plan, settle, wait_for};
use crate::cluster::{Cluster, binaries};
use crate::feeder::{Told, feed, joined};

const WORKER_TIMEOUT: Duration = Duration::from_secs(2);
/// Starts of the manager that the restored journal does not know of.
const STARTS: usize = 3;
const WORKERS: usize = 2;

/// How the journal comes back.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// `journal export`, then `journal import` into a new place.
    Import,
    /// The same export into another place: its epoch is taken already.
    ImportAgain,
    /// The folder was copied.
    Copy,
}

/// Restores an export, the same export again and a copied folder, each time after more
/// starts of the manager, and forges hellos; all confirmed jobs run, no worker is restarted.
pub(super) fn restore(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut plan = plan("");
    plan.worker_timeout = WORKER_TIMEOUT;
    let mut cluster = Cluster::start(folder.path(), &plan)?;
    for phase in PHASES {
        for _ in 0..WORKERS {
            cluster.add_worker(phase, 2);
        }
    }
    let jobs = size.of(20, 200);
    let told = Told::default();
    enqueue(&cluster, jobs, &told)?;
    settle(&mut cluster)?;

    let mut recovery = Duration::ZERO;
    let mut say = Vec::new();
    for way in [Way::Import, Way::ImportAgain, Way::Copy] {
        let began = restored(&mut cluster, way, jobs, &told).with_context(|| format!("{way:?}"))?;
        settle(&mut cluster).with_context(|| format!("{way:?}"))?;
        recovery = recovery.max(began.elapsed());
        say.push(format!(
            "{way:?} {:.2} s at epoch {}",
            began.elapsed().as_secs_f64(),
            epoch(&cluster)?
        ));
    }
    ensure!(
        counted(&cluster, "epochs_raised")? > 0,
        "nothing was raised"
    );
    let log = cluster.manager().log();
    ensure!(
        log.contains("the epoch is raised"),
        "nothing is told: {log}"
    );

    for (what, wild) in [("next", 1), ("far", 1 << 47), ("absurd", 1 << 62)] {
        forge(&cluster, wild)?;
        enqueue(&cluster, jobs, &told)?;
        let began = Instant::now();
        settle(&mut cluster).with_context(|| format!("a forged hello, {what}"))?;
        recovery = recovery.max(began.elapsed());
        say.push(format!(
            "forged {what} {:.2} s",
            began.elapsed().as_secs_f64()
        ));
    }
    // Beyond its worker timeout only for what it takes to start and to run.
    let limit = 3 * WORKER_TIMEOUT;
    ensure!(
        recovery <= limit,
        "it took {recovery:?}: {}",
        say.join(", ")
    );
    let figures = judge(&mut cluster, &told)?;
    ensure!(figures.repeated() == 0, "{figures}");
    Ok(figures.saying(say.join(", ")))
}

fn enqueue(cluster: &Cluster, jobs: usize, told: &Told) -> Result<()> {
    let orders = vec![order("sleep", 5); jobs];
    let (more, feeder) = feed(cluster.client()?, cluster.pipeline(), orders, jobs, 16);
    joined(feeder)?;
    ensure!(more.count() == jobs, "{} of {jobs} confirmed", more.count());
    told.merge(&more);
    Ok(())
}

/// Backs the journal up with jobs that wait, starts the manager some times more, and puts
/// the back-up in its place. Tells when the restored manager was started.
fn restored(cluster: &mut Cluster, way: Way, jobs: usize, told: &Told) -> Result<Instant> {
    // What runs after the back-up would run again after it, as the manual says.
    task::block_on(cluster.client()?.pause(None))?;
    enqueue(cluster, jobs, told)?;
    cluster.drain_manager()?;
    let folder = cluster.folder().to_owned();
    let journal = folder.join(format!("restored-{way:?}"));
    let storage = format!("sled:{}", journal.display());
    let export = folder.join(format!("export-{way:?}"));
    match way {
        Way::Import | Way::ImportAgain => export_to(cluster, &export)?,
        Way::Copy => copy(
            Path::new(cluster.storage().trim_start_matches("sled:")),
            &journal,
        )?,
    }
    if matches!(way, Way::ImportAgain) {
        let first = folder.join("restored-first");
        let first = format!("sled:{}", first.display());
        import(cluster, &export, &first)?;
        cluster.set_storage(first);
    }
    for _ in 0..STARTS {
        cluster.start_manager()?;
        all_available(cluster)?;
        cluster.kill_manager();
    }
    if matches!(way, Way::Import | Way::ImportAgain) {
        import(cluster, &export, &storage)?;
    }
    cluster.set_storage(storage);
    let began = Instant::now();
    cluster.start_manager()?;
    task::block_on(cluster.client()?.resume(None))?;
    Ok(began)
}

fn export_to(cluster: &Cluster, file: &Path) -> Result<()> {
    let arguments = ["journal", "export", cluster.storage()];
    journal(cluster, &arguments, file)
}

fn import(cluster: &Cluster, file: &Path, storage: &str) -> Result<()> {
    journal(cluster, &["journal", "import", storage], file)
}

fn journal(cluster: &Cluster, arguments: &[&str], file: &Path) -> Result<()> {
    let mut arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    arguments.extend([cluster.pipeline().to_string(), file.display().to_string()]);
    let finished = run_program(cluster.folder(), &binaries().join("carbontube"), &arguments);
    ensure!(
        finished.code == Some(0),
        "{arguments:?}: {}",
        finished.stderr
    );
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}

/// Waits until every worker follows this start of the manager.
fn all_available(cluster: &mut Cluster) -> Result<()> {
    let client = cluster.client()?;
    wait_for("available workers", || {
        let workers = task::block_on(client.workers())?;
        let available = workers
            .iter()
            .filter(|worker| worker.status == WorkerStatus::Available);
        Ok(available.count() == WORKERS * PHASES.len())
    })
}

fn epoch(cluster: &Cluster) -> Result<u64> {
    Ok(task::block_on(cluster.client()?.info())?.epoch)
}

fn counted(cluster: &Cluster, name: &str) -> Result<u64> {
    let counters = cluster.stats()?.counters;
    let found = counters.into_iter().find(|(counter, _)| counter == name);
    Ok(found.map_or(0, |(_, count)| count))
}

/// Greets every worker once under the manager's id, with a wild epoch.
fn forge(cluster: &Cluster, wild: u64) -> Result<()> {
    let client = cluster.client()?;
    let info = task::block_on(client.info())?;
    let manager: ManagerId = info.manager;
    for worker in task::block_on(client.workers())? {
        let hello: Message = Hello {
            head: PipeHead {
                manager,
                epoch: info.epoch + wild,
                sequence: 1 << 50,
            },
            pipeline: info.pipeline.clone(),
            worker_timeout_ms: u64::MAX,
        }
        .into();
        task::block_on(async {
            let push = Push::open(Options::default(), worker.address).await?;
            let until = Instant::now() + Duration::from_secs(10);
            while push.try_send(encode(&hello, Codec::Bincode)).is_err() {
                if Instant::now() > until {
                    bail!("a worker takes no hello");
                }
                task::sleep(Duration::from_millis(5)).await;
            }
            push.close(Duration::from_secs(2)).await;
            Ok(())
        })?;
    }
    Ok(())
}
