//! What the kernel says of a process.

use anyhow::{Context, Result};

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
