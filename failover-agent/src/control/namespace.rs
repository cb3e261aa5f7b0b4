//! The lock that allows one agent per network namespace: routes, rules and programs belong to the namespace, whatever directories an agent
//! uses.
//!
//! The lock is a file in a directory that root owns. An abstract socket would belong to the namespace, but any user in the namespace could
//! take it. The file is named by the namespace's inode. Agents that share a namespace but not `/run`, such as one in a container with the
//! host's network and one on the host, do not see each other's file.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
};

use nix::unistd::geteuid;
use tracing::{debug, warn};

use super::flock::{self, Attempt};
use crate::failure::Failure;

/// Not configurable, since all agents must look in the same place.
const DIRECTORY: &str = "/run/failover-agent.netns";

/// The calling thread's network namespace.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Held for as long as the agent lives.
#[derive(Debug)]
pub struct NamespaceLock {
    /// `None` where the lock is not available.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    /// Dropping it releases the lock.
    file: File,
}

impl NamespaceLock {
    /// Takes the lock of the calling thread's network namespace for the agent of `run_dir`. If the directory cannot be used, on a read-only
    /// system for example, the agent runs without this protection and logs a warning.
    ///
    /// # Errors
    ///
    /// [`Failure::AlreadyRunning`] if another process holds it.
    pub fn acquire(run_dir: &Path) -> Result<NamespaceLock, Failure> {
        match take(Path::new(DIRECTORY), run_dir) {
            Ok(Taken::Held(held)) => Ok(NamespaceLock { held: Some(held) }),
            Ok(Taken::By(text)) => {
                let (pid, run_dir) = text
                    .trim_end()
                    .split_once(' ')
                    .unwrap_or(("unknown", "unknown directory"));
                Err(Failure::AlreadyRunning {
                    pid: pid.to_owned(),
                    run_dir: run_dir.into(),
                    cure: "it runs in this network namespace: stop it, or start this one in another",
                })
            }
            Err(error) => {
                warn!(
                    "a second agent in this network namespace would not be noticed: {DIRECTORY}: {error}"
                );
                Ok(NamespaceLock { held: None })
            }
        }
    }

    /// Hands the lock over to the program that this process executes next.
    pub(crate) fn hand_over(mut self) {
        if let Some(Held { file, .. }) = self.held.take()
            && let Err(error) = flock::hand_over(file)
        {
            warn!("the lock of this network namespace is released for a moment: {error}");
        }
    }
}

impl Drop for NamespaceLock {
    /// Removes the file while the lock is still held, and the directory if this was the last file in it.
    fn drop(&mut self) {
        let Some(Held { path, .. }) = &self.held else {
            return;
        };
        if let Err(error) = flock::remove(path) {
            warn!(path = %path.display(), %error, "cannot remove the lock file");
        }
        // Usually another agent's file is in the directory, or another agent has already removed it.
        fs::remove_dir(DIRECTORY).ok();
    }
}

enum Taken {
    Held(Held),
    By(String),
}

fn take(directory: &Path, run_dir: &Path) -> io::Result<Taken> {
    let path = directory.join(namespace()?);
    loop {
        prepare(directory)?;
        let mut file = match flock::take(&path) {
            // The agent that held the last lock in the directory has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            attempt => match attempt? {
                Attempt::Locked { file, .. } => file,
                Attempt::Held(text) => return Ok(Taken::By(text)),
            },
        };
        flock::write(
            &mut file,
            &format!("{} {}\n", process::id(), run_dir.display()),
        )?;
        sweep(directory, &path);
        return Ok(Taken::Held(Held { path, file }));
    }
}

/// The name of the namespace's file: its device and inode, which no other namespace has as long as this one exists.
fn namespace() -> io::Result<String> {
    let metadata = fs::metadata(NAMESPACE)?;
    Ok(format!("{}-{}", metadata.dev(), metadata.ino()))
}

/// Creates the directory if it is missing, and makes sure that only its owner (this user or root) can use it.
fn prepare(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() {
        return Err(io::Error::other("it is not a directory"));
    }
    if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!(
            "it belongs to user {}",
            metadata.uid()
        )));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Removes the files of namespaces whose agents were killed.
fn sweep(directory: &Path, ours: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries
        .map(|entry| entry.path())
        .filter(|path| path != ours)
    {
        if let Err(error) = flock::remove_if_stale(&path) {
            debug!(path = %path.display(), %error, "cannot remove a lock file that was left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("made");
        let Taken::Held(first) = take(&directory, Path::new("/run/first")).unwrap() else {
            panic!("the lock is free");
        };
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        let Taken::By(text) = take(&directory, Path::new("/run/second")).unwrap() else {
            panic!("taken twice");
        };
        assert_eq!(text, format!("{} /run/first\n", process::id()));
        drop(first);
        // What a killed agent leaves locks out no other, and is removed with the next lock, as are files of other namespaces.
        fs::write(directory.join("4-1"), "1 /run/gone\n").unwrap();
        let Taken::Held(third) = take(&directory, Path::new("/run/third")).unwrap() else {
            panic!("a file alone is no lock");
        };
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert_eq!(third.path, directory.join(namespace().unwrap()));
    }

    #[test]
    fn a_directory_that_is_none_or_open_to_others_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(take(&link, Path::new("/run/x")).is_err());
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            take(&open, Path::new("/run/x")).unwrap(),
            Taken::Held(_)
        ));
        assert_eq!(fs::metadata(&open).unwrap().mode() & 0o777, 0o700);
    }
}
