//! The demo: a catalogue of real files by seven processes, two of which are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use argh::FromArgs;
use carbontube_client::NewJob;
use comfy_table::{CellAlignment, Table, presets};
use file_catalogue::{Entry, Manifest, PHASES, PIPELINE, Part, Run, hex, read_ledgers};

use crate::cluster::{Cluster, Plan, WORKER_TIMEOUT, binaries};
use crate::fault::{Deed, Whom};
use crate::feeder::{feed, joined};
use crate::web_page::Page;

/// Catalogue real files with separate processes, kill a worker and the manager in the
/// middle, and check that nothing was lost.
#[derive(FromArgs)]
#[argh(subcommand, name = "demo")]
pub(crate) struct Demo {
    /// folder with the files (the cargo registry's sources, or this workspace)
    #[argh(option)]
    input: Option<PathBuf>,
    /// how many files (4000, at least 2000)
    #[argh(option, default = "4000")]
    files: usize,
    /// leave everything running, and tell how to talk to it
    #[argh(switch)]
    keep: bool,
    /// show it in a browser: tells the page's address first, goes slowly enough to watch,
    /// and stays with a trickle of jobs until Ctrl-C (with --keep it ends, and all runs on)
    #[argh(switch)]
    web: bool,
}

/// Jobs under way at once, so that the latency is the pipeline's, not the backlog's.
const WINDOW: usize = 256;
/// Larger files are catalogued in parts, so that no job holds much memory.
const PART_BYTES_MAX: u64 = 4 << 20;
/// Jobs a second that a person can watch, and of the trickle afterwards.
const WATCHED_RATE: f64 = 200.0;
const TRICKLE_RATE: f64 = 10.0;
/// How long nothing may happen.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Runs the demo.
pub(crate) fn run(demo: &Demo) -> Result<()> {
    ensure!(
        demo.files >= 2000,
        "--files {}: 2000 is the least",
        demo.files
    );
    let folder = tempfile::Builder::new()
        .prefix("carbontube-demo-")
        .tempdir()?;
    let plan = Plan {
        pipeline: PIPELINE,
        phases: &PHASES,
        program: "file-catalogue",
        settings: "attempts = 5\nbackoff = \"100ms..2s\"",
        storage: None,
        worker_timeout: WORKER_TIMEOUT,
        history_jobs: None,
    };
    let mut cluster = Cluster::start(folder.path(), &plan)?;
    let page = demo.web.then(|| Page::open(&cluster));
    if let Some(page) = &page {
        println!("{}", page.url());
    }
    let parts = parts(&input(demo)?, demo.files)?;
    for phase in PHASES {
        cluster.add_worker(phase, 4);
        cluster.add_worker(phase, 4);
    }
    eprintln!(
        "demo: 1 manager and 6 workers run, each a process; the journal is {}",
        cluster.storage()
    );
    let pace = page.as_ref().map(|_| WATCHED_RATE);
    let seen = drive(&mut cluster, &parts, pace)?;
    let outcome = judge(&cluster, &seen)?;
    println!("{}", outcome.table);
    let stays = if demo.keep {
        ""
    } else {
        " (removed with this run's folder; --keep leaves it)"
    };
    println!("journal: {}{stays}", cluster.storage());
    if demo.keep {
        // Not even a failed check should take away what could explain it.
        let kept = folder.keep();
        println!("{}", how_to_talk(&cluster, &kept));
        let mut ids: Vec<String> = cluster.keep().iter().map(u32::to_string).collect();
        if let Some(page) = page {
            println!("the page: {}", page.url());
            ids.push(page.keep().to_string());
        }
        println!("end them with: kill {}", ids.join(" "));
        return verdict(&outcome);
    }
    verdict(&outcome)?;
    match page {
        Some(page) => stay(&mut cluster, &parts, &page),
        None => Ok(()),
    }
}

fn verdict(outcome: &Judgement) -> Result<()> {
    ensure!(
        outcome.problems.is_empty(),
        "the demo found {} problems:\n{}",
        outcome.problems.len(),
        outcome.problems.join("\n")
    );
    println!("demo: every confirmed job is finished, and the manifest is true to the files");
    Ok(())
}

/// Goes on with a few jobs a second for whoever looks at the page, until Ctrl-C ends it all.
fn stay(cluster: &mut Cluster, parts: &[Part], page: &Page) -> Result<()> {
    println!("{}", how_to_talk(cluster, cluster.folder()));
    for index in 0..cluster.workers() {
        let (phase, id) = (cluster.phase_of(index), cluster.worker(index).id());
        println!("  kill -9 {id}    # a {phase} worker: see it lost, nothing else is");
    }
    println!(
        "demo: {} stays, with {TRICKLE_RATE} jobs a second, until Ctrl-C",
        page.url()
    );
    let (client, pipeline) = (cluster.client()?, cluster.pipeline());
    for part in parts.iter().cycle() {
        let mut job = serde_json::to_value(part)?;
        job["enqueued_us"] = crate::cluster::now_us().into();
        let enqueued = async_std::task::block_on(client.enqueue(&pipeline, NewJob::new(&job)?));
        if let Err(error) = enqueued {
            // Whoever watches may have ended the manager.
            note(&format!("a job was not taken: {error}"));
        }
        std::thread::sleep(Duration::from_secs_f64(1.0 / TRICKLE_RATE));
    }
    Ok(())
}

fn how_to_talk(cluster: &Cluster, folder: &Path) -> String {
    let binary = binaries().join("carbontube");
    let (binary, api, publish) = (
        binary.display(),
        cluster.address("api"),
        cluster.address("pub"),
    );
    format!(
        "it all keeps running, in {}:
  {binary} stats --api {api}
  {binary} workers --api {api}
  {binary} jobs --api {api}
  {binary} tail --api {api} --sub-connect {publish}
  {binary} enqueue {api} {PIPELINE} '{{\"path\": \"/etc/hostname\", \"offset\": 0, \"length\": 1}}' --wait",
        folder.display()
    )
}

fn input(demo: &Demo) -> Result<PathBuf> {
    if let Some(input) = &demo.input {
        return input
            .canonicalize()
            .with_context(|| format!("finding {}", input.display()));
    }
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let sources = cargo.or(home).map(|cargo| cargo.join("registry/src"));
    Ok(match sources {
        Some(sources) if sources.is_dir() => sources,
        _ => carbontube_tests::workspace().to_owned(),
    })
}

/// The files below `input`, as parts: one for each file if there are enough.
fn parts(input: &Path, wanted: usize) -> Result<Vec<Part>> {
    let mut files: Vec<(PathBuf, u64)> = Vec::new();
    let mut folders = vec![input.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut entries: Vec<_> = entries.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if kind.is_dir() && name != "target" && name != ".git" {
                folders.push(entry.path());
            } else if kind.is_file() {
                let length = entry.metadata()?.len();
                if length > 0 {
                    files.push((entry.path(), length));
                }
            }
        }
        if files.len() >= wanted {
            break;
        }
    }
    ensure!(
        !files.is_empty(),
        "{} has no file that is not empty",
        input.display()
    );
    files.truncate(wanted);
    let bytes: u64 = files.iter().map(|(_, length)| length).sum();
    let mut step = PART_BYTES_MAX;
    if files.len() < wanted {
        step = (bytes / wanted as u64).clamp(1, PART_BYTES_MAX);
        while count(&files, step) < wanted && step > 1 {
            step /= 2;
        }
        eprintln!(
            "demo: {} has {} files, fewer than {wanted}: they are taken in parts of {step} bytes",
            input.display(),
            files.len()
        );
    }
    let mut parts = Vec::new();
    for (path, length) in files {
        let mut offset = 0;
        while offset < length {
            let part = step.min(length - offset);
            parts.push(Part {
                path: path.clone(),
                offset,
                length: part,
            });
            offset += part;
        }
    }
    eprintln!(
        "demo: {} parts of files, {:.1} MB, from {}",
        parts.len(),
        bytes as f64 / 1e6,
        input.display()
    );
    Ok(parts)
}

fn count(files: &[(PathBuf, u64)], step: u64) -> usize {
    files
        .iter()
        .map(|(_, length)| length.div_ceil(step) as usize)
        .sum()
}

/// What there is to judge.
struct Seen {
    confirmed: BTreeSet<String>,
    took: Duration,
    /// When a worker was killed, in microseconds since 1970.
    worker_kill_us: u64,
    worker_killed: u32,
}

/// Jobs at a pace; as fast as they are taken without one.
fn paced(
    jobs: Vec<serde_json::Value>,
    pace: Option<f64>,
) -> impl Iterator<Item = serde_json::Value> + Send + 'static {
    let began = Instant::now();
    jobs.into_iter().enumerate().map(move |(number, job)| {
        if let Some(rate) = pace {
            let due = began + Duration::from_secs_f64(number as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        job
    })
}

fn drive(cluster: &mut Cluster, parts: &[Part], pace: Option<f64>) -> Result<Seen> {
    let mut jobs = Vec::new();
    for part in parts {
        let mut job = serde_json::to_value(part)?;
        job["enqueued_us"] = 0.into();
        jobs.push(job);
    }
    let total = jobs.len();
    let started = Instant::now();
    let batch = if pace.is_some() { 8 } else { 64 };
    let jobs = paced(jobs, pace);
    let (told, feeder) = feed(cluster.client()?, cluster.pipeline(), jobs, WINDOW, batch);
    let manifest = cluster.folder().join("manifest");
    let (mut lines, mut read, mut moved) = (0, 0, Instant::now());
    let (mut worker_kill_us, mut worker_killed, mut shown) = (0, 0, Instant::now());
    while lines < total {
        let length = std::fs::metadata(&manifest).map_or(0, |data| data.len());
        if length > read {
            let text = std::fs::read(&manifest)?;
            read = text.len() as u64;
            lines = text.iter().filter(|byte| **byte == b'\n').count();
            told.finished.store(lines, Ordering::Relaxed);
            moved = Instant::now();
        }
        if worker_kill_us == 0 && lines > total / 4 {
            worker_killed = cluster.worker(2).id();
            note(&format!(
                "kill -9 of a compress worker ({worker_killed}) at {lines} of {total}"
            ));
            cluster.kill_worker(2);
            worker_kill_us = crate::cluster::now_us();
            cluster.start_worker(2);
        }
        if cluster
            .faults
            .count(Deed::Killed, |whom| whom == Whom::Manager)
            == 0
            && lines > total / 2
        {
            let id = cluster.manager().id();
            note(&format!(
                "kill -9 of the manager ({id}) at {lines} of {total}"
            ));
            cluster.kill_manager();
            cluster.start_manager()?;
            note("the manager is back");
        }
        if shown.elapsed() > Duration::from_millis(200) {
            shown = Instant::now();
            let rate = lines as f64 / started.elapsed().as_secs_f64();
            eprint!(
                "\r{:>6} of {total} catalogued, {} confirmed, {rate:.0} jobs/s ",
                lines,
                told.count()
            );
            std::io::stderr().flush()?;
        }
        if moved.elapsed() > STALL_MAX {
            eprintln!("\n--- manager\n{}", cluster.manager().log());
            bail!("nothing was catalogued for {STALL_MAX:?}, at {lines} of {total}");
        }
        if feeder.is_finished() && told.count() < total {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = started.elapsed();
    eprintln!(
        "\r{lines:>6} of {total} catalogued in {:.1} s {:20}",
        took.as_secs_f64(),
        ""
    );
    joined(feeder)?;
    wait_until_finished(cluster)?;
    Ok(Seen {
        confirmed: told.ids(),
        took,
        worker_kill_us,
        worker_killed,
    })
}

/// The manifest is ahead of the manager by the last results.
fn wait_until_finished(cluster: &Cluster) -> Result<()> {
    let deadline = Instant::now() + STALL_MAX;
    while cluster.stats()?.live > 0 {
        ensure!(
            Instant::now() < deadline,
            "jobs are still live {STALL_MAX:?} after the last line"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn note(text: &str) {
    eprintln!("\rdemo: {text:60}");
}

struct Judgement {
    table: Table,
    problems: Vec<String>,
}

fn judge(cluster: &Cluster, seen: &Seen) -> Result<Judgement> {
    let mut problems = Vec::new();
    let text = std::fs::read_to_string(cluster.folder().join("manifest"))?;
    let mut entries: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for line in Manifest::check(&text) {
        match line {
            Ok(entry) => entries.entry(entry.job.clone()).or_default().push(entry),
            Err(error) => problems.push(error.to_string()),
        }
    }
    let lost = seen
        .confirmed
        .iter()
        .filter(|id| !entries.contains_key(*id))
        .count();
    if lost > 0 {
        problems.push(format!("{lost} confirmed jobs are not in the manifest"));
    }
    for entry in entries.values().flatten() {
        if let Err(error) = check_entry(entry) {
            problems.push(format!("{}: {error:#}", entry.part.path.display()));
        }
    }
    let stats = cluster.stats()?;
    if stats.failed > 0 {
        problems.push(format!("{} jobs failed", stats.failed));
    }
    let (repeats, unexplained) = repeats(&read_ledgers(cluster.folder())?, seen);
    if unexplained > 0 {
        problems.push(format!(
            "{unexplained} phases ran again for no known reason"
        ));
    }
    let mut latencies: Vec<u64> = entries
        .values()
        .filter_map(|lines| lines.first())
        .map(|entry| entry.catalogued_us.saturating_sub(entry.enqueued_us))
        .collect();
    latencies.sort_unstable();
    let at = |part: usize| {
        latencies
            .get(latencies.len() * part / 100)
            .copied()
            .unwrap_or(0)
    };
    let finished = entries
        .keys()
        .filter(|id| seen.confirmed.contains(*id))
        .count();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("enqueued (confirmed)", seen.confirmed.len().to_string());
    row("finished", finished.to_string());
    row("failed", stats.failed.to_string());
    row("lost", lost.to_string());
    row(
        "phases run more than once",
        repeats.values().sum::<usize>().to_string(),
    );
    for (cause, count) in &repeats {
        row(&format!("  {cause}"), count.to_string());
    }
    row(
        "jobs/s",
        format!("{:.0}", finished as f64 / seen.took.as_secs_f64()),
    );
    row("latency p50", format!("{:.1} ms", at(50) as f64 / 1e3));
    row("latency p99", format!("{:.1} ms", at(99) as f64 / 1e3));
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(Judgement { table, problems })
}

/// Reads the file and its compressed form, and compares.
fn check_entry(entry: &Entry) -> Result<()> {
    let bytes = entry.part.read()?;
    let found = hex(&bytes);
    ensure!(
        found == entry.sha256,
        "the manifest says SHA-256 {}, it is {found}",
        entry.sha256
    );
    let compressed = std::fs::read(&entry.compressed)?;
    let unpacked = lz4_flex::decompress_size_prepended(&compressed)?;
    ensure!(
        unpacked == bytes,
        "its compressed form is of something else"
    );
    Ok(())
}

/// How often phases ran again, by cause; and how often nobody knows why.
fn repeats(
    runs: &BTreeMap<(String, String), Vec<Run>>,
    seen: &Seen,
) -> (BTreeMap<&'static str, usize>, usize) {
    let (mut causes, mut unexplained) = (BTreeMap::new(), 0);
    for runs in runs.values() {
        for pair in runs.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            let between = |at: u64| first.began_us <= at && at <= second.began_us;
            let cause = if first.process == seen.worker_killed && between(seen.worker_kill_us) {
                match first.ended_us {
                    None => "the killed worker had begun it",
                    Some(_) => "the killed worker had ended it, its result was not yet taken",
                }
            } else {
                unexplained += 1;
                "for no known reason"
            };
            *causes.entry(cause).or_insert(0) += 1;
        }
    }
    (causes, unexplained)
}
