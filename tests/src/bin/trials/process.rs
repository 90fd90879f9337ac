//! What the kernel says of a process.

use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of times in `/proc`: USER_HZ is 100 wherever Linux runs today.
const TICKS_PER_SECOND: u64 = 100;

/// How much memory it has, in KiB.
pub(crate) fn resident_kib(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("process {process} is gone"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

/// How many files and sockets it has open.
pub(crate) fn open_files(process: u32) -> Result<usize> {
    let folder = std::fs::read_dir(format!("/proc/{process}/fd"));
    Ok(folder
        .with_context(|| format!("process {process} is gone"))?
        .count())
}

/// How much time of the processors it has used, in user and in kernel mode.
pub(crate) fn processor_time(process: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .with_context(|| format!("process {process} is gone"))?;
    // The program's name may have blanks, and stands in brackets.
    let rest = text.rsplit_once(')').context("no name")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|word| word.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}
