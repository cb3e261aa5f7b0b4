//! What the host must have, checked before anything is changed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::programs::{SchedClassifier, TcAttachType};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::Options;
use crate::{config::AttachMode, failure::Failure};

/// Bits of the effective set, include/uapi/linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// bpf_ktime_get_coarse_ns; also the first kernel that charges maps to the cgroup rather than to RLIMIT_MEMLOCK.
const OLDEST_KERNEL: (u32, u32) = (5, 11);

/// Checks whether the agent can run here. Changes nothing.
///
/// # Errors
///
/// [`Failure::Kernel`], [`Failure::Privilege`] or [`Failure::NoBpfFs`].
pub fn check_requirements(options: &Options) -> Result<()> {
    let release = kernel_release()?;
    if version(&release) < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        return Err(Failure::Kernel {
            release,
            feature: "coarse clock for eBPF (bpf_ktime_get_coarse_ns)".into(),
            cure: format!("Linux {major}.{minor} or newer has it"),
        }
        .into());
    }
    let missing = missing_capabilities()?;
    if !missing.is_empty() {
        return Err(Failure::Privilege {
            missing: missing.join(" "),
        }
        .into());
    }
    check_file_system(&options.bpf_dir)?;
    if options.attach == AttachMode::Tcx && !has_tcx() {
        return Err(Failure::Kernel {
            release,
            feature: "TCX".into(),
            cure: "Linux 6.6 or newer has it; or set datapath.attach = \"auto\"".into(),
        }
        .into());
    }
    Ok(())
}

/// Whether programs can be attached as TCX links. Asks the kernel, because distributions backport.
pub(super) fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Egress).is_ok()
}

pub(super) fn kernel_release() -> Result<String> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(release.trim().to_owned())
}

/// Major and minor number; zero for a part that is not a number.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or_default());
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    )
}

/// The names of the capabilities that programs, routes and probes need and that this process lacks.
fn missing_capabilities() -> Result<Vec<&'static str>> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .with_context(|| format!("no CapEff in {path}"))?;
    Ok(missing_in(effective))
}

fn missing_in(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective & (1 << capability) != 0;
    // CAP_SYS_ADMIN includes the BPF capabilities, but not the network ones (kernel/bpf/syscall.c, net/sched). Without CAP_PERFMON the
    // verifier refuses the programs' log messages.
    [
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_NET_RAW", has(CAP_NET_RAW)),
        ("CAP_PERFMON", has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, held)| (!held).then_some(name))
    .collect()
}

/// The directory may not exist yet: then its nearest existing parent counts.
fn check_file_system(bpf_dir: &Path) -> Result<()> {
    let nearest = bpf_dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let kind = statfs(nearest)
        .with_context(|| format!("finding the file system of {}", nearest.display()))?
        .filesystem_type();
    if kind == BPF_FS_MAGIC {
        return Ok(());
    }
    Err(Failure::NoBpfFs {
        path: mount_point(bpf_dir),
    }
    .into())
}

/// Where a BPF file system should be mounted for `bpf_dir`: its parent, so that `/sys/fs/bpf/failover-agent` leads to the usual mount
/// point.
fn mount_point(bpf_dir: &Path) -> PathBuf {
    bpf_dir.parent().unwrap_or(bpf_dir).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(version("6.1.0-18-cloud-amd64"), (6, 1));
        assert_eq!(version("5.10.0"), (5, 10));
        assert_eq!(version("6.18+deb13"), (6, 18));
        assert_eq!(version("custom"), (0, 0));
        assert!(version("5.10.209") < OLDEST_KERNEL);
        assert!(version("5.15.0-91-generic") >= OLDEST_KERNEL);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let network = 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW;
        assert_eq!(
            missing_in(0),
            ["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON"]
        );
        assert_eq!(
            missing_in(1 << CAP_SYS_ADMIN),
            ["CAP_NET_ADMIN", "CAP_NET_RAW"]
        );
        assert_eq!(missing_in(1 << CAP_SYS_ADMIN | network), [""; 0]);
        assert_eq!(
            missing_in(1 << CAP_BPF | 1 << CAP_PERFMON | network),
            [""; 0]
        );
    }

    #[test]
    fn a_directory_elsewhere_is_no_bpf_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let error = check_file_system(&dir.path().join("bpf/failover-agent")).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Failure::NoBpfFs { path }) if *path == dir.path().join("bpf"))
        );
    }
}
