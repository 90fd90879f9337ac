//! What the kernel says of a process.

use std::time::Duration;

use anyhow::{Context, Result};

/// How much memory it has, in KiB.
pub(crate) fn resident_kib(process: u32) -> Result<u64> {
    status_kib(process, "VmRSS:")
}

/// The most memory that it ever had, in KiB.
pub(crate) fn peak_kib(process: u32) -> Result<u64> {
    status_kib(process, "VmHWM:")
}

/// How much of its addresses it uses, in KiB.
pub(crate) fn virtual_kib(process: u32) -> Result<u64> {
    status_kib(process, "VmSize:")
}

fn status_kib(process: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("process {process} is gone"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {name}"))?.parse()?)
}

/// How many files and sockets it has open.
pub(crate) fn open_files(process: u32) -> Result<usize> {
    let folder = std::fs::read_dir(format!("/proc/{process}/fd"));
    Ok(folder
        .with_context(|| format!("process {process} is gone"))?
        .count())
}

/// What `/proc` counts in: a hundredth of a second, whatever the kernel's own clock.
const TICK_MS: u64 = 10;

/// How much processor time it has used, with that of the kernel on its behalf.
pub(crate) fn processor_time(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .with_context(|| format!("process {process} is gone"))?;
    // The name in brackets may have spaces; the fields behind it have none.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [user, system] = [11, 12].map(|at| fields.get(at).copied().unwrap_or("0"));
    let ticks = user.parse::<u64>()? + system.parse::<u64>()?;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_grows_with_work() {
        let own = std::process::id();
        let before = processor_time(own).unwrap();
        let mut number = 1_u64;
        while processor_time(own).unwrap() < before + Duration::from_millis(30) {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(processor_time(own).unwrap() > before, "{number}");
    }
}
