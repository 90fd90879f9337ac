//! How long a journal of many live jobs takes to open.
//!
//! `cargo run --release -p carbontube-storage --example open_time -- [JOBS]`
//!
//! Each job is a record of 300 bytes, packed into pages of about 64 KiB.
//! Opening copies the database, verifies the copy, then opens and verifies
//! the journal itself; the scan after it is what a manager reads to recover.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;
use carbontube_storage::{Commit, Log, OpenOptions, PAGE_BYTES_TARGET, PageSeq, open};

const RECORD_BYTES: u64 = 300;

fn main() -> Result<()> {
    let jobs: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(1_000_000), |text| text.parse())?;
    let folder = tempfile::tempdir_in(".")?;
    let place = format!("sled:{}", folder.path().join("journal").display());
    let options = OpenOptions::new("open-time");
    let mut store = open(&place, &options)?;
    let jobs_in_page = PAGE_BYTES_TARGET as u64 / RECORD_BYTES;
    let mut random = fastrand::Rng::with_seed(1);
    let mut left = jobs.div_ceil(jobs_in_page);
    while left > 0 {
        let mut commit = Commit::new();
        let mut next = store.bounds(Log::Journal).next;
        for _ in 0..left.min(16) {
            let mut page = vec![0; (jobs_in_page * RECORD_BYTES) as usize];
            random.fill(&mut page);
            commit.put(Log::Journal, next, page);
            next = next.next();
        }
        left = left.saturating_sub(16);
        store.commit(&commit)?;
    }
    let bytes = store.usage()?.bytes;
    drop(store);
    let start = Instant::now();
    let mut store = open(&place, &options)?;
    let opened = start.elapsed();
    let mut read = 0;
    store.scan(Log::Journal, PageSeq::FIRST, &mut |_, page| {
        read += page.len();
        ControlFlow::Continue(())
    })?;
    println!(
        "{jobs} jobs, {:.0} MB on disk: opened and verified in {:.2} s, scanned {:.0} MB in {:.2} s",
        bytes as f64 / 1e6,
        opened.as_secs_f64(),
        read as f64 / 1e6,
        (start.elapsed() - opened).as_secs_f64()
    );
    Ok(())
}
