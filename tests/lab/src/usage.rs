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
    kibibytes(&text, "Rss:")
}

/// Greatest resident memory of a process in bytes since it started or [`reset_peak_rss`] was called (`VmHWM` in `/proc/<pid>/status`).
///
/// # Errors
/// When it has ended.
pub fn peak_rss_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).context(path)?;
    kibibytes(&text, "VmHWM:")
}

/// Makes the greatest resident memory of a process what it has now (`/proc/<pid>/clear_refs`, proc_pid_clear_refs(5)).
///
/// # Errors
/// When it has ended.
pub fn reset_peak_rss(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").context(path)
}

/// The value of a line such as `Rss:  123 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Result<u64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    let kib: u64 = value
        .with_context(|| format!("no {name}"))?
        .trim()
        .parse()?;
    Ok(kib * 1024)
}
