//! The bench: jobs a second and latency of separate processes with a durable journal,
//! beside what the sockets and the disk allow in the same run.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use argh::FromArgs;
use async_std::task;
use carbontube_client::NewJob;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use crate::cluster::{Cluster, Plan, binaries};

/// Measure jobs a second for one and two phases, and the latency of a single job, beside
/// the socket's and the journal's own limits.
#[derive(FromArgs)]
#[argh(subcommand, name = "bench")]
pub(crate) struct Bench {
    /// how many jobs for each measurement (100000)
    #[argh(option, default = "100_000")]
    pub(crate) jobs: usize,
    /// how many rounds, of which the median is shown (3)
    #[argh(option, default = "3")]
    pub(crate) rounds: usize,
    /// slots of each worker (64)
    #[argh(option, default = "64")]
    pub(crate) slots: u32,
    /// print one JSON object
    #[argh(switch)]
    pub(crate) json: bool,
    /// measure the web interface instead: pages in Chromium, and what they cost the pipeline
    #[argh(switch)]
    pub(crate) web: bool,
    /// only this part of --web: paint, lost, smooth, heap or pages
    #[argh(option)]
    pub(crate) part: Option<String>,
    /// how long the page of --web's heap part stays open, in minutes (3)
    #[argh(option, default = "3.0")]
    pub(crate) minutes: f64,
}

/// Bytes of each job's instructions.
const INSTRUCTIONS_BYTES: usize = 200;
/// How many jobs one after the other make the latency.
const SINGLE_JOBS: usize = 1000;
/// Records that one job of two phases leaves in the journal.
const RECORDS_OF_A_JOB: f64 = 5.0;
/// How long nothing may move.
const STALL_MAX: Duration = Duration::from_secs(60);

/// What the layers below allow by themselves.
struct Limits {
    /// Jobs a second through one pair of our sockets, 256 in a message.
    socket_jobs: f64,
    /// Journal records a second to a plain file with one fdatasync for 2,048 of them.
    file_records: f64,
    /// The same through our store.
    store_records: f64,
    /// Round trip of one message through our sockets, in microseconds.
    round_trip_us: f64,
    /// One durable commit of one record through our store, in microseconds.
    commit_us: f64,
}

/// Measures and prints.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    ensure!(
        bench.rounds > 0 && bench.jobs > 0,
        "--rounds and --jobs must be 1 or more"
    );
    if bench.web {
        return crate::web_bench::run(bench);
    }
    ensure!(bench.part.is_none(), "--part is for --web");
    eprintln!("bench: the layers below");
    let limits = limits()?;
    let mut rates = Vec::new();
    for phases in [1, 2] {
        let mut found = Vec::new();
        for round in 1..=bench.rounds {
            let rate = throughput(bench, phases)?;
            eprintln!("bench: {phases} phases, round {round}: {rate:.0} jobs/s");
            found.push(rate);
        }
        found.sort_by(f64::total_cmp);
        rates.push(found[found.len() / 2]);
    }
    let (p50, p99) = latency()?;
    let journal_jobs = limits.file_records / RECORDS_OF_A_JOB;
    let store_jobs = limits.store_records / RECORDS_OF_A_JOB;
    if bench.json {
        let all = json!({
            "jobs": bench.jobs,
            "rounds": bench.rounds,
            "slots": bench.slots,
            "instructions_bytes": INSTRUCTIONS_BYTES,
            "one_phase_jobs_per_second": rates[0],
            "two_phases_jobs_per_second": rates[1],
            "latency_two_phases_us": { "p50": p50, "p99": p99 },
            "socket_jobs_per_second": limits.socket_jobs,
            "file_jobs_per_second": journal_jobs,
            "store_jobs_per_second": store_jobs,
            "socket_round_trip_us": limits.round_trip_us,
            "commit_us": limits.commit_us,
        });
        println!("{all}");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "",
        "jobs/s",
        "of the socket",
        "of a plain file",
        "of the store",
    ]);
    for (name, rate) in ["one phase", "two phases"].iter().zip(&rates) {
        table.add_row([
            (*name).to_owned(),
            format!("{rate:.0}"),
            share(*rate, limits.socket_jobs),
            share(*rate, journal_jobs),
            share(*rate, store_jobs),
        ]);
    }
    table.add_row([
        "our PUSH to PULL, 256 jobs a message".to_owned(),
        format!("{:.0}", limits.socket_jobs),
    ]);
    table.add_row([
        "plain file, 2,048 records an fdatasync".to_owned(),
        format!("{journal_jobs:.0}"),
    ]);
    table.add_row([
        "our store, 2,048 records a commit".to_owned(),
        format!("{store_jobs:.0}"),
    ]);
    align(&mut table);
    println!("{table}");
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["", "p50 ms", "p99 ms"]);
    let ms = |us: f64| format!("{:.3}", us / 1e3);
    table.add_row(["one job through two phases".to_owned(), ms(p50), ms(p99)]);
    table.add_row([
        "one message there and back".to_owned(),
        ms(limits.round_trip_us),
    ]);
    table.add_row(["one durable commit".to_owned(), ms(limits.commit_us)]);
    align(&mut table);
    println!("\n{table}");
    Ok(())
}

fn align(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn share(rate: f64, of: f64) -> String {
    format!("{:.0} %", 100.0 * rate / of)
}

fn start(folder: &std::path::Path, phases: &[&str], slots: u32) -> Result<Cluster> {
    let plan = Plan {
        pipeline: "bench",
        phases,
        program: "scenario-phases",
        settings: "",
        storage: None,
        worker_timeout: crate::cluster::WORKER_TIMEOUT,
        history_jobs: None,
    };
    let mut cluster = Cluster::start(folder, &plan)?.without_ledgers();
    for phase in phases {
        cluster.add_worker(phase, slots);
    }
    Ok(cluster)
}

/// A folder on the disk that the builds are on: a temporary folder may be in memory.
pub(crate) fn folder() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(binaries())?)
}

pub(crate) fn instructions() -> Vec<u8> {
    let bare = r#"{"filler":""}"#.len();
    format!(
        r#"{{"filler":"{}"}}"#,
        "x".repeat(INSTRUCTIONS_BYTES - bare)
    )
    .into_bytes()
}

fn throughput(bench: &Bench, phases: usize) -> Result<f64> {
    let folder = folder()?;
    let cluster = start(folder.path(), &["first", "second"][..phases], bench.slots)?;
    let client = cluster.client()?;
    run_jobs(&cluster, &client, (bench.jobs / 20).max(1), 0, None)?;
    let done = (bench.jobs / 20).max(1);
    let took = run_jobs(&cluster, &client, bench.jobs, done as u64, None)?;
    Ok(bench.jobs as f64 / took.as_secs_f64())
}

/// Enqueues jobs, confirmed and in batches, and waits until all of them have finished; so
/// many a second, or as fast as they are taken.
pub(crate) fn run_jobs(
    cluster: &Cluster,
    client: &carbontube_client::PipelineClient,
    jobs: usize,
    done_before: u64,
    rate: Option<f64>,
) -> Result<Duration> {
    let payload = bytes::Bytes::from(instructions());
    let pipeline = cluster.pipeline();
    let started = Instant::now();
    task::block_on(async {
        let mut enqueuer = client.enqueuer(&pipeline);
        let mut confirmed = 0;
        for number in 0..jobs {
            if let Some(rate) = rate
                && number % 256 == 0
            {
                let due = Duration::from_secs_f64(number as f64 / rate);
                task::sleep(due.saturating_sub(started.elapsed())).await;
            }
            enqueuer.add(NewJob::from_json(payload.clone())).await?;
            confirmed += enqueuer
                .take_receipts()
                .iter()
                .filter(|receipt| receipt.is_confirmed())
                .count();
        }
        enqueuer.flush().await?;
        confirmed += enqueuer
            .take_receipts()
            .iter()
            .filter(|receipt| receipt.is_confirmed())
            .count();
        ensure!(
            confirmed == jobs,
            "{confirmed} of {jobs} jobs were confirmed"
        );
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let stats = client.stats().await?;
            if stats.success >= done_before + jobs as u64 {
                return Ok(started.elapsed());
            }
            ensure!(stats.failed == 0, "{} jobs failed", stats.failed);
            if stats.success != last {
                (last, moved) = (stats.success, Instant::now());
            }
            ensure!(
                moved.elapsed() < STALL_MAX,
                "no job finished for {STALL_MAX:?}, {} of {jobs} live",
                stats.live
            );
            task::sleep(Duration::from_millis(5)).await;
        }
    })
}

/// One job after the other, from before it is enqueued until its end is known.
fn latency() -> Result<(f64, f64)> {
    let folder = folder()?;
    let cluster = start(folder.path(), &["first", "second"], 4)?;
    let client = cluster.client()?;
    let pipeline = cluster.pipeline();
    let mut times = Vec::new();
    for _ in 0..SINGLE_JOBS {
        let job = NewJob::from_json(instructions());
        let id = job.id().clone();
        let started = Instant::now();
        task::block_on(async {
            client.enqueue(&pipeline, job).await?;
            client.wait(&pipeline, &id, Some(STALL_MAX)).await
        })?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    // The first few pay for connections.
    let mut times = times.split_off(SINGLE_JOBS / 20);
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

fn limits() -> Result<Limits> {
    let sockets = example("throughput", &[])?;
    let commits = example("commit_rate", &[])?;
    let socket = numbers(&sockets, "256 jobs x 256 B")?;
    let trip = numbers(&sockets, "ours")?;
    let many = numbers(&commits, "2048")?;
    let single = numbers(&commits, "1 ")?;
    let at = |numbers: &[f64], index: usize| {
        numbers
            .get(index)
            .copied()
            .context("the example printed too few numbers")
    };
    Ok(Limits {
        socket_jobs: at(&socket, 1)? * 1000.0,
        file_records: at(&many, 5)?,
        store_records: at(&many, 1)?,
        round_trip_us: at(&trip, 0)?,
        commit_us: at(&single, 2)? * 1000.0,
    })
}

fn example(name: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(binaries().join("examples").join(name))
        .args(arguments)
        .current_dir(binaries())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting the example {name}"))?;
    ensure!(
        output.status.success(),
        "{name} ended with {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The numbers after `label` on the line that begins with it.
fn numbers(text: &str, label: &str) -> Result<Vec<f64>> {
    let rest = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(label));
    let rest = rest.with_context(|| format!("no line {label:?} in:\n{text}"))?;
    let words = rest.split_whitespace();
    Ok(words
        .filter_map(|word| word.trim_end_matches('%').parse().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_an_object_of_the_said_size() {
        let bytes = instructions();
        assert_eq!(bytes.len(), INSTRUCTIONS_BYTES);
        assert!(
            serde_json::from_slice::<serde_json::Value>(&bytes)
                .unwrap()
                .is_object()
        );
    }

    #[test]
    fn numbers_of_a_line_are_read() {
        let text = "  N  commits\n     1  300 12.5 40%\n  2048  9 8\n";
        assert_eq!(numbers(text, "1 ").unwrap(), [300.0, 12.5, 40.0]);
        assert_eq!(numbers(text, "2048").unwrap(), [9.0, 8.0]);
        assert!(numbers(text, "77").is_err());
    }
}
