//! Nothing is left behind: not after a panic, not after Ctrl-C, and what a SIGKILL leaves is removed by the next laboratory.
//!
//! Each laboratory has an id, `fa-<pid>-<n>`. It owns the directory `/run/<id>`, which it keeps locked while it lives, and every
//! namespace whose name begins with `<id>-`. Removing goes by these names alone, so one function serves all three cases.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read},
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{namespace::NETNS_DIR, sys, wait::wait_until};

const RUN_DIR: &str = "/run";
const PREFIX: &str = "fa-";
/// Directory in a laboratory's own on which its BPF file system is mounted.
pub(super) const BPF_MOUNT: &str = "bpf";

/// The laboratories of this process. Whoever holds the lock may make or remove what belongs to one.
static LABS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn labs() -> MutexGuard<'static, BTreeSet<String>> {
    LABS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `f` while no clean-up runs, and keeps a clean-up from starting meanwhile.
pub(super) fn exclusively<T>(f: impl FnOnce() -> T) -> T {
    let _labs = labs();
    f()
}

/// A laboratory's id and directory; removes everything that belongs to it when it goes.
#[derive(Debug)]
pub(super) struct Claim {
    id: String,
    dir: PathBuf,
    /// Locked: tells other processes' [`sweep`] that this laboratory is alive.
    _lock: File,
}

impl Claim {
    /// Sweeps, then takes the next free id.
    pub(super) fn new() -> Result<Claim> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        sweep()?;
        clean_up_on_signals()?;
        let mut labs = labs();
        let id = format!(
            "{PREFIX}{}-{}",
            process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let dir = Path::new(RUN_DIR).join(&id);
        // Against a sweep between the making and the locking.
        let _netns = lock_netns_dir()?;
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
        let lock = File::open(&dir)?;
        lock.lock()?;
        labs.insert(id.clone());
        Ok(Claim {
            id,
            dir,
            _lock: lock,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut labs = labs();
        if let Err(error) = remove(&self.id) {
            eprintln!("laboratory {} is not removed entirely: {error:#}", self.id);
        }
        labs.remove(&self.id);
    }
}

/// Removes what laboratories of dead processes have left. Every new laboratory does it first.
///
/// # Errors
/// When something of theirs cannot be removed.
pub fn sweep() -> Result<()> {
    let _netns = lock_netns_dir()?;
    for id in names(Path::new(RUN_DIR), PREFIX)? {
        let Ok(dir) = File::open(Path::new(RUN_DIR).join(&id)) else {
            continue; // Its owner has just removed it.
        };
        match dir.try_lock() {
            Ok(()) => remove(&id).with_context(|| format!("leftovers of laboratory {id}"))?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The same lock that `ip netns` takes.
fn lock_netns_dir() -> Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(NETNS_DIR)
        .with_context(|| format!("cannot make {NETNS_DIR}"))?;
    let dir = File::open(NETNS_DIR)?;
    dir.lock()?;
    Ok(dir)
}

/// Entries of `dir` that begin with `prefix`.
fn names(dir: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string()
            && name.starts_with(prefix)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Thaws a laboratory's disks, ends the processes in its namespaces, and removes the namespaces, the file systems and, last, the directory:
/// as long as it is there, the next sweep tries again.
fn remove(id: &str) -> Result<()> {
    let namespaces: Vec<PathBuf> = names(Path::new(NETNS_DIR), &format!("{id}-"))?
        .iter()
        .map(|name| Path::new(NETNS_DIR).join(name))
        .collect();
    let dir = Path::new(RUN_DIR).join(id);
    for path in mounts_below(&dir)? {
        // Who waits for a frozen file system cannot be killed. Most are not frozen, which is an error.
        if let Ok(mounted) = File::open(path) {
            sys::thaw(mounted.as_fd()).ok();
        }
    }
    end_processes_in(&namespaces)?;
    for path in &namespaces {
        unmount(path)?;
        fs::remove_file(path)?;
    }
    for path in mounts_below(&dir)? {
        unmount(&path)?;
    }
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// The BPF file system, and the disks of a scenario that was interrupted.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let paths = paths.map(PathBuf::from);
    let mut below: Vec<PathBuf> = paths.filter(|path| path.starts_with(dir)).collect();
    // One on top of another goes first.
    below.reverse();
    Ok(below)
}

fn unmount(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: nothing is mounted there, because setting up ended early.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot unmount {}", path.display())),
    }
}

/// Kills every process but this one whose network namespace is one of these, and waits until they are gone.
fn end_processes_in(namespaces: &[PathBuf]) -> Result<()> {
    let inodes: Vec<u64> = namespaces
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|metadata| metadata.ino())
        .collect();
    wait_until(
        "the processes in the laboratory have ended",
        Duration::from_secs(5),
        || {
            let pids = processes_in(&inodes);
            for pid in &pids {
                // It may have ended by itself meanwhile; the next look tells.
                kill(*pid, Signal::SIGKILL).ok();
            }
            pids.is_empty()
        },
    )
}

fn processes_in(inodes: &[u64]) -> Vec<Pid> {
    let own = process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            // A zombie has no namespace any more, so this also waits no longer than necessary.
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|metadata| inodes.contains(&metadata.ino()))
        })
        .filter_map(|pid| Some(Pid::from_raw(i32::try_from(pid).ok()?)))
        .collect()
}

/// On SIGINT and SIGTERM: removes all laboratories of this process and exits with 128 + the signal's number (Ctrl-C: 130).
fn clean_up_on_signals() -> Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| install_signal_thread().map_err(|error| error.to_string()))
        .clone()
        .map_err(|error| anyhow::anyhow!("cannot handle signals: {error}"))
}

fn install_signal_thread() -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    thread::Builder::new()
        .name("clean-up".to_owned())
        .spawn(move || {
            let mut signal = [0];
            if reader.read_exact(&mut signal).is_err() {
                return;
            }
            // Held to the end: no thread makes anything new, and none returns from main before this is done.
            let labs = labs();
            for id in labs.iter() {
                if let Err(error) = remove(id) {
                    eprintln!("laboratory {id} is not removed entirely: {error:#}");
                }
            }
            process::exit(128 + i32::from(signal[0]));
        })?;
    sys::signals_to(writer)
}
