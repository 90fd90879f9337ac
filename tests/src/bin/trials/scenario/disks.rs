//! A whole manager on a disk that fills up, and on one that loses its power.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_std::task;
use carbontube_client::protocol::message::{EventKind, ManagerState};
use carbontube_client::{EventStream, Notice};
use carbontube_protocol::Limits;
use carbontube_tests::{Process, Signal};

use super::load::{Load, sleepers};
use super::{Figures, PHASES, Size, journal, judge, plan, settle, wait_for};
use crate::cluster::{Cluster, binaries};
use crate::mount::{Mount, copy_image, make_ext4};
use crate::process::resident_kib;

/// How many jobs are under way at once.
const WINDOW: usize = 128;
/// The most milliseconds that most phases take.
const PHASE_MS: u64 = 10;
/// After this a manager whose disk has space again confirms jobs.
const RECOVERS_WITHIN: Duration = Duration::from_secs(5);

/// Each phase's workers.
fn add_workers(cluster: &mut Cluster) {
    for phase in PHASES {
        cluster.add_worker(phase, 8);
        cluster.add_worker(phase, 8);
    }
}

/// The disk under the journal fills up while jobs run, several times.
pub(super) fn full_disk_manager(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let disk = Mount::memory(&folder.path().join("disk"), 96)?;
    let mut plan = plan("attempts = 10\nbackoff = \"10ms..100ms\"");
    plan.storage = Some(format!("sled:{}", disk.path().join("journal").display()));
    let mut cluster = Cluster::start(folder.path(), &plan)?;
    add_workers(&mut cluster);
    let address = cluster.address("pub").parse()?;
    let mut events = task::block_on(EventStream::subscribe(
        &[address],
        ["scenario.manager"],
        Limits::default(),
    ))?;
    let jobs = sleepers(size.random(), PHASE_MS);
    let mut load = Load::start(&cluster, cluster.client()?, jobs, WINDOW);
    let client = cluster.client()?;
    let rounds = size.of(1, 3);
    let (mut slowest, mut told_after, mut grown) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..rounds {
        load.advance(300)?;
        let before_kib = resident_kib(cluster.manager().id())?;
        let started = Instant::now();
        let ballast = disk.fill("ballast")?;
        wait_for("state impaired", || {
            let stats = task::block_on(client.stats())?;
            Ok(stats.state == ManagerState::Impaired && stats.journal.trouble.is_some())
        })?;
        told_after = told_after.max(started.elapsed());
        // What was durable before may still be on its way to the client.
        std::thread::sleep(Duration::from_millis(300));
        let confirmed = load.told.count();
        std::thread::sleep(Duration::from_secs(size.of(2, 4)));
        let falsely = load.told.count() - confirmed;
        ensure!(falsely == 0, "{falsely} jobs were confirmed on a full disk");
        ensure!(cluster.manager().is_running(), "the manager ended");
        let log = cluster.manager().log();
        ensure!(
            log.contains("no space left"),
            "its log does not say so: {log}"
        );
        grown = grown.max(resident_kib(cluster.manager().id())?.saturating_sub(before_kib));
        let freed = Instant::now();
        drop(ballast);
        wait_for("confirmations with space again", || {
            Ok(load.told.count() > confirmed)
        })?;
        slowest = slowest.max(freed.elapsed());
        let stats = task::block_on(client.stats())?;
        ensure!(
            stats.state == ManagerState::Running,
            "it is {:?} still",
            stats.state
        );
    }
    let impaired = count_impaired(&mut events)?;
    ensure!(
        impaired >= rounds,
        "{impaired} events told of {rounds} full disks"
    );
    load.advance(300)?;
    load.finish()?;
    settle(&mut cluster)?;
    let figures = judge(&mut cluster, &load.told)?;
    ensure!(figures.repeated() == 0, "phases ran again: {figures}");
    ensure!(
        slowest <= RECOVERS_WITHIN,
        "it confirmed again only after {slowest:?}"
    );
    Ok(figures.saying(format!(
        "the disk was full {rounds} times, impaired after {:.2} s, none confirmed meanwhile, \
         confirmed again {:.2} s after there was space, grew by {grown} KiB meanwhile",
        told_after.as_secs_f64(),
        slowest.as_secs_f64()
    )))
}

/// How many of the events so far say that the manager became impaired.
fn count_impaired(events: &mut EventStream) -> Result<usize> {
    let mut impaired = 0;
    task::block_on(async {
        loop {
            let next = events.next();
            let Ok(notice) = async_std::future::timeout(Duration::from_millis(300), next).await
            else {
                return Ok(impaired);
            };
            let Notice::Events { events, .. } = notice? else {
                continue;
            };
            impaired += events
                .events
                .iter()
                .filter(|event| {
                    matches!(
                        event.kind,
                        EventKind::Manager {
                            state: ManagerState::Impaired,
                            ..
                        }
                    )
                })
                .count();
        }
    })
}

/// The journal's disk as a power cut leaves it at the moment of a confirmation.
pub(super) fn power_loss(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk.img");
    make_ext4(&image, 192)?;
    let disk = Mount::image(&folder.path().join("disk"), &image)?;
    let mut plan = plan("attempts = 10\nbackoff = \"10ms..100ms\"");
    plan.storage = Some(format!("sled:{}", disk.path().join("journal").display()));
    let mut cluster = Cluster::start(folder.path(), &plan)?;
    add_workers(&mut cluster);
    let mut random = size.random();
    let jobs = sleepers(size.random(), PHASE_MS);
    let mut load = Load::start(&cluster, cluster.client()?, jobs, WINDOW);
    let cuts = size.of(3, 10);
    let mut left = Vec::new();
    for number in 0..cuts {
        load.advance(random.usize(50..400))?;
        let confirmed = load.told.count();
        wait_for("a confirmation", || Ok(load.told.count() > confirmed))?;
        // It stands still, so that the copy is of one moment; what the kernel writes
        // meanwhile is what a disk's cache may write, too.
        cluster.suspend_manager();
        let confirmed = load.told.ids();
        let cut = folder.path().join(format!("cut-{number}.img"));
        copy_image(&image, &cut)?;
        cluster.continue_manager();
        left.push((cut, confirmed));
    }
    load.finish()?;
    settle(&mut cluster)?;
    let figures = judge(&mut cluster, &load.told)?;
    // Only now: a manager dials the workers that its journal knows, and would take those
    // of the original away from it.
    for index in 0..cluster.workers() {
        cluster.kill_worker(index);
    }
    let (mut checked, mut slowest) = (0, Duration::ZERO);
    for (cut, confirmed) in left {
        let opened = check_cut(&cluster, folder.path(), &cut, &confirmed)?;
        slowest = slowest.max(opened);
        checked += confirmed.len();
        std::fs::remove_file(&cut)?;
    }
    Ok(figures.saying(format!(
        "{cuts} power cuts, a manager opened what was left within {:.2} s, all {checked} \
         confirmations before them were there",
        slowest.as_secs_f64()
    )))
}

/// A manager opens what a power cut left, and everything confirmed before it is there.
fn check_cut(
    cluster: &Cluster,
    folder: &std::path::Path,
    cut: &std::path::Path,
    confirmed: &std::collections::BTreeSet<String>,
) -> Result<Duration> {
    let disk = Mount::image(&folder.join("cut"), cut)?;
    let storage = format!("sled:{}", disk.path().join("journal").display());
    let mut arguments = vec![
        "pipeline".to_owned(),
        "pipeline.toml".to_owned(),
        cluster.pipeline().to_string(),
        format!("--storage={storage}"),
    ];
    for kind in ["pull", "sub", "api", "pub"] {
        arguments.push(format!("--{kind}-bind=tcp://127.0.0.1"));
    }
    let started = Instant::now();
    let program = binaries().join("carbontube");
    let mut manager = Process::start_program(folder, &program, &arguments);
    let opened = started.elapsed();
    manager.signal(Signal::TERM);
    let status = manager.wait();
    ensure!(
        status.success(),
        "the manager on the copy ended with {status}"
    );
    let says = journal::read_at(folder, &storage, &cluster.pipeline().to_string())
        .context("after a power cut")?;
    let missing: Vec<&String> = confirmed
        .iter()
        .filter(|id| !says.live.contains_key(*id) && !says.past.contains_key(*id))
        .collect();
    ensure!(
        missing.is_empty(),
        "{} of {} confirmed jobs are gone after a power cut, {} among them",
        missing.len(),
        confirmed.len(),
        missing[0]
    );
    Ok(opened)
}
