//! How many commits and records a second a store makes durable, beside a raw file.
//!
//! `cargo run --release -p carbontube-storage --example commit_rate -- [URI] [SECONDS]`
//!
//! A job's life is five records: one of about 300 bytes when it is accepted
//! and four of 40. `N` records make one commit, packed into pages of about
//! 64 KiB. Old pages are removed so that about 20,000 jobs stay live. The raw
//! figure is the same bytes appended to a plain file with one fdatasync each.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use carbontube_storage::{Commit, Log, OpenOptions, PAGE_BYTES_TARGET, PageSeq, Store, open};

const LIVE_RECORDS: u64 = 100_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments.next();
    let seconds = arguments.next().map_or(Ok(3.0), |text| text.parse())?;
    let duration = Duration::from_secs_f64(seconds);
    println!(
        "{:>6}  {:>10} {:>12} {:>9} {:>9}  {:>10} {:>12} {:>9}  {:>9} {:>9}",
        "N",
        "commits/s",
        "records/s",
        "p50 ms",
        "p99 ms",
        "raw c/s",
        "raw rec/s",
        "share",
        "disk MB",
        "mem MB"
    );
    for records in [1_usize, 16, 256, 2048] {
        let folder = tempfile::tempdir_in(".")?;
        let place = match &uri {
            Some(uri) => uri.clone(),
            None => format!("sled:{}", folder.path().join("journal").display()),
        };
        let raw = raw_rate(&folder.path().join("raw"), records, duration)?;
        let options = OpenOptions::new(&format!("commit-rate-{records}"));
        let mut store = open(&place, &options).with_context(|| format!("opening {place}"))?;
        let ours = store_rate(store.as_mut(), records, duration)?;
        let bytes = store.usage()?.bytes;
        let per_second = |rate: &Rate| rate.commits as f64 / rate.took.as_secs_f64();
        println!(
            "{records:>6}  {:>10.0} {:>12.0} {:>9.3} {:>9.3}  {:>10.0} {:>12.0} {:>8.0}%  {:>9.1} {:>9.1}",
            per_second(&ours),
            per_second(&ours) * records as f64,
            ours.percentile(0.50),
            ours.percentile(0.99),
            per_second(&raw),
            per_second(&raw) * records as f64,
            100.0 * per_second(&ours) / per_second(&raw),
            bytes as f64 / 1e6,
            memory_mb().unwrap_or(f64::NAN),
        );
    }
    Ok(())
}

struct Rate {
    commits: u64,
    took: Duration,
    latencies: Vec<Duration>,
}

impl Rate {
    fn percentile(&self, part: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let at = (sorted.len() as f64 * part) as usize;
        let latency = sorted.get(at.min(sorted.len().saturating_sub(1)));
        latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

fn measure(duration: Duration, mut step: impl FnMut(u64) -> Result<()>) -> Result<Rate> {
    let start = Instant::now();
    let mut latencies = Vec::new();
    while start.elapsed() < duration {
        let before = Instant::now();
        step(latencies.len() as u64)?;
        latencies.push(before.elapsed());
    }
    Ok(Rate {
        commits: latencies.len() as u64,
        took: start.elapsed(),
        latencies,
    })
}

/// The records of one commit as they would be packed into pages.
fn pages(records: usize, commit: u64) -> Vec<Vec<u8>> {
    let mut pages = vec![Vec::new()];
    for record in 0..records as u64 {
        let number = commit * records as u64 + record;
        let bytes = if number.is_multiple_of(5) { 300 } else { 40 };
        let page = match pages.last_mut() {
            Some(page) if page.len() + bytes <= PAGE_BYTES_TARGET => page,
            _ => pages.push_mut(Vec::new()),
        };
        let mut state = number;
        for _ in 0..bytes / 4 {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            page.extend_from_slice(&state.to_be_bytes()[..4]);
        }
    }
    pages
}

fn store_rate(store: &mut dyn Store, records: usize, duration: Duration) -> Result<Rate> {
    let first = store.bounds(Log::Journal).next;
    let pages_each = pages(records, 0).len() as u64;
    let live = LIVE_RECORDS.div_ceil(records as u64) * pages_each;
    measure(duration, |number| {
        let mut commit = Commit::new();
        let mut next = store.bounds(Log::Journal).next;
        for page in pages(records, number) {
            commit.put(Log::Journal, next, page);
            next = next.next();
        }
        if next.0 > first.0 + live {
            commit.truncate_before(Log::Journal, PageSeq(next.0 - live));
        }
        Ok(store.commit(&commit)?)
    })
}

fn raw_rate(path: &std::path::Path, records: usize, duration: Duration) -> Result<Rate> {
    let mut file = File::create(path)?;
    measure(duration / 2, |number| {
        for page in pages(records, number) {
            file.write_all(&page)?;
        }
        Ok(file.sync_data()?)
    })
}

fn memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1e3)
}
