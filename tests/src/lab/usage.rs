//! What a process uses of the machine.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Processor time that the living threads of a process have used, to the nanosecond (`/proc/<pid>/task/*/schedstat`).
///
/// # Errors
/// When it has ended, or the kernel has no CONFIG_SCHED_INFO.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let on_cpu = text
            .split_whitespace()
            .next()
            .and_then(|ns| ns.parse().ok());
        total += Duration::from_nanos(on_cpu.with_context(|| format!("schedstat: {text}"))?);
    }
    Ok(total)
}

/// Resident memory of a process in bytes, exactly (`/proc/<pid>/smaps_rollup`; VmRSS is approximate on machines with many processors).
///
/// # Errors
/// When it has ended.
pub fn rss_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).context(path)?;
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"))
        .context("smaps_rollup has no Rss")?
        .trim()
        .parse()?;
    Ok(kib * 1024)
}
