//! A file that one process holds locked (`flock(2)`) for as long as it lives, and that no other user can lock.
//!
//! The kernel releases the lock when the process ends, also by `kill -9`, so a file that is left behind locks out no other agent. A restart
//! keeps the lock: the descriptor is handed to the next program in the same process.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    unistd::geteuid,
};

use super::inherited;

/// Permissions of group and others.
const OTHERS: u32 = 0o077;

/// The locks of this host, `proc(5)`.
const LOCKS: &str = "/proc/locks";

/// How long a lock is tried that no running holder has signed. Another agent that removes what killed ones have left ([`remove_if_stale`])
/// holds it for an instant, and so does a child of a process that has just ended, until it executes its own program.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// The result of an attempt to take the lock.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The lock is held.
    Locked {
        /// Holds the lock as long as it is open.
        file: File,
        /// Whether the previous program in this process handed the lock over.
        handed_over: bool,
    },
    /// Another process holds the lock; the text that it has written into the file.
    Held(String),
}

/// Takes the lock on the file at `path`, and creates the file if it is missing. A file that other users can open is replaced, since one of
/// them may have locked it.
///
/// # Errors
///
/// The file cannot be created, or is a symbolic link.
pub(super) fn take(path: &Path) -> io::Result<Attempt> {
    // Where a file system has no permissions, replacing the file once is enough.
    let mut replaced = false;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)?;
        if let Some(file) = inherited::find(&file)? {
            return Ok(Attempt::Locked {
                file,
                handed_over: true,
            });
        }
        let open_to_others = !replaced && is_open_to_others(&file)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if open_to_others && is_held_by_another_user(&file)? => {
                remove(path)?;
                replaced = true;
                continue;
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Only for the message; the holder may not have written it yet.
                file.read_to_string(&mut text).ok();
                if Instant::now() >= deadline || is_signed_by_holder(&file, &text) {
                    return Ok(Attempt::Held(text));
                }
                thread::sleep(PAUSE);
                continue;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // The previous holder may have removed the file between our open and our lock; then this lock guards nothing.
        if !is_file_at(&file, path)? {
            continue;
        }
        if open_to_others {
            remove(path)?;
            replaced = true;
            continue;
        }
        return Ok(Attempt::Locked {
            file,
            handed_over: false,
        });
    }
}

/// Replaces the text in the file.
///
/// # Errors
///
/// Writing fails.
pub(super) fn write(file: &mut File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    io::Seek::rewind(file)?;
    file.write_all(text.as_bytes())
}

/// Hands the lock over to the program that this process executes next.
///
/// # Errors
///
/// The kernel refuses to change the descriptor's flags.
pub(super) fn hand_over(file: File) -> io::Result<()> {
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    // From now on the descriptor belongs to that program.
    std::mem::forget(file);
    Ok(())
}

/// Removes the lock file at `path` if no process holds it: one that a killed process left behind.
///
/// # Errors
///
/// The file cannot be opened or removed.
pub(super) fn remove_if_stale(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(OFlag::O_NOFOLLOW.bits());
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // A process that opens the file now and locks it after us notices that it is not at its path any more.
    if file.try_lock().is_ok() && is_file_at(&file, path)? {
        remove(path)?;
    }
    Ok(())
}

/// Removes a file, if it exists.
///
/// # Errors
///
/// The file cannot be removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_open_to_others(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.mode() & OTHERS != 0 || metadata.uid() != geteuid().as_raw())
}

fn is_file_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the process that has locked the file is the one that its text begins with, and not this one, which may be removing it.
fn is_signed_by_holder(file: &File, text: &str) -> bool {
    let signed = text
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok());
    let holder = file.metadata().and_then(|metadata| holder(metadata.ino()));
    signed.is_some() && signed != Some(process::id()) && holder.is_ok_and(|holder| holder == signed)
}

/// The process that has locked an inode, if the kernel names it.
fn holder(inode: u64) -> io::Result<Option<u32>> {
    let locks = fs::read_to_string(LOCKS)?;
    Ok(locks.lines().find_map(|line| holder_of(line, inode)))
}

/// Whether the process that holds the lock runs for another user than this one and root. False if that process cannot be found.
fn is_held_by_another_user(file: &File) -> io::Result<bool> {
    let holder = holder(file.metadata()?.ino())?;
    let Some(status) =
        holder.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
    else {
        return Ok(false);
    };
    Ok(real_user(&status).is_some_and(|user| user != 0 && user != geteuid().as_raw()))
}

/// The process that holds a lock on the inode, if this line of `/proc/locks` names it: `1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF`.
fn holder_of(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let (pid, place) = (words.nth(2)?, words.next()?);
    let (_, ino) = place.rsplit_once(':')?;
    (ino.parse() == Ok(inode)).then(|| pid.parse().ok())?
}

/// The real user of a process, from its `status`. After a setuid program was executed, the effective user is root.
fn real_user(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn locked(path: &Path) -> File {
        match take(path).unwrap() {
            Attempt::Locked { file, .. } => file,
            Attempt::Held(text) => panic!("held by {text}"),
        }
    }

    #[test]
    fn a_file_that_others_could_lock_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, "4711\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        // Kept open, so that no other file gets its inode.
        let old = File::open(&path).unwrap();
        let file = locked(&path);
        let new = fs::metadata(&path).unwrap();
        assert!(!is_file_at(&old, &path).unwrap());
        assert_eq!(new.mode() & 0o777, 0o600);
        assert!(is_file_at(&file, &path).unwrap());
        assert!(matches!(take(&path).unwrap(), Attempt::Held(_)));
    }

    #[test]
    fn what_root_holds_stays_held_though_others_could_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut file = locked(&path);
        write(&mut file, "4711 it\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        match take(&path).unwrap() {
            Attempt::Held(text) => assert_eq!(text, "4711 it\n"),
            Attempt::Locked { .. } => panic!("taken from its holder"),
        }
        remove_if_stale(&path).unwrap();
        assert!(path.exists(), "it is not stale");
        drop(file);
        remove_if_stale(&path).unwrap();
        assert!(!path.exists());
        remove_if_stale(&path).unwrap();
    }

    /// Of one that removes stale files, between its lock and its close.
    #[test]
    fn a_lock_that_is_held_for_an_instant_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        for text in ["", "4711 /run/killed\n"] {
            fs::write(&path, text).unwrap();
            let sweeper = File::open(&path).unwrap();
            sweeper.try_lock().unwrap();
            thread::scope(|scope| {
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(50));
                    drop(sweeper);
                });
                drop(locked(&path));
            });
        }
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("lock"), dir.path().join("target"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(take(&path).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn holders_are_read_from_proc() {
        let line = "12: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF";
        assert_eq!(holder_of(line, 5678), Some(1234));
        assert_eq!(holder_of(line, 678), None);
        let posix = "12: POSIX  ADVISORY  WRITE 1234 00:1a:5678 0 EOF";
        assert_eq!(holder_of(posix, 5678), None);
        assert_eq!(holder_of("", 5678), None);
        let status = "Name:\tflock\nUmask:\t0022\nUid:\t65534\t0\t0\t0\nGid:\t0\n";
        assert_eq!(real_user(status), Some(65534));
        assert_eq!(real_user("Name:\tflock\n"), None);
    }

    #[test]
    fn a_lock_that_was_handed_over_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        hand_over(locked(&path)).unwrap();
        // As in the next program: it knows nothing, and finds the descriptor open.
        let file = locked(&path);
        assert!(
            matches!(take(&path).unwrap(), Attempt::Held(_)),
            "it is handed over once"
        );
        drop(file);
    }
}
