//! The lock that allows one agent per run directory.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
};

use tracing::warn;

use super::flock::{self, Attempt};
use crate::failure::Failure;

/// Held for as long as the agent lives.
#[derive(Debug)]
pub struct Lock {
    run_dir: PathBuf,
    path: PathBuf,
    /// Whether this lock created the directory, and removes it at the end.
    made: bool,
    /// Whether it was handed over by the previous program in this process.
    handed_over: bool,
    /// Dropping it releases the lock. `None` after it was handed over to the next program.
    file: Option<File>,
}

impl Lock {
    /// Creates `run_dir` if it is missing and takes the lock in it. The file `agent.lock` holds the process id.
    ///
    /// # Errors
    ///
    /// [`Failure::AlreadyRunning`] if another process holds it, [`Failure::RunDir`] if the directory cannot be used.
    pub fn acquire(run_dir: &Path) -> Result<Lock, Failure> {
        let path = run_dir.join("agent.lock");
        let failed = |source| Failure::RunDir {
            path: path.clone(),
            source,
        };
        let mut made = false;
        loop {
            made |= make(run_dir).map_err(failed)?;
            let (mut file, handed_over) = match flock::take(&path) {
                // The agent that created the directory has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                attempt => match attempt.map_err(failed)? {
                    Attempt::Locked { file, handed_over } => (file, handed_over),
                    Attempt::Held(text) => {
                        return Err(Failure::AlreadyRunning {
                            pid: pid(&text),
                            run_dir: run_dir.to_owned(),
                            cure: "stop it, or give this one its own --run-dir, --bpf-dir and --state-dir, in another network namespace",
                        });
                    }
                },
            };
            flock::write(&mut file, &format!("{}\n", process::id())).map_err(failed)?;
            return Ok(Lock {
                run_dir: run_dir.to_owned(),
                path,
                made,
                handed_over,
                file: Some(file),
            });
        }
    }

    /// Whether the previous program in this process handed the lock over.
    pub(crate) fn was_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Releases the lock. Returns what could not be removed.
    pub(crate) fn release(mut self) -> Vec<String> {
        self.remove()
    }

    /// Removes the file while the lock is still held, and the directory if it was created for the lock.
    fn remove(&mut self) -> Vec<String> {
        let Some(_held) = self.file.take() else {
            return Vec::new();
        };
        let mut problems = Vec::new();
        if let Err(error) = flock::remove(&self.path) {
            let path = self.path.display();
            problems.push(format!("cannot remove the lock file {path}: {error}"));
        }
        if self.made
            && let Err(error) = fs::remove_dir(&self.run_dir)
            && error.kind() != io::ErrorKind::DirectoryNotEmpty
        {
            let path = self.run_dir.display();
            problems.push(format!("cannot remove the run directory {path}: {error}"));
        }
        problems
    }

    /// Hands the lock over to the program that this process executes next.
    pub(crate) fn hand_over(mut self) {
        if let Some(file) = self.file.take()
            && let Err(error) = flock::hand_over(file)
        {
            warn!(path = %self.path.display(), "the lock is released for a moment: {error}");
        }
    }

    /// The directory that the lock guards.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        for problem in self.remove() {
            warn!("{problem}");
        }
    }
}

/// Creates a directory, with its parents if they are missing. True if it did not exist.
fn make(dir: &Path) -> io::Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).map(|()| true)
        }
        // The parents are missing, or the directory cannot be created; then this call returns the error.
        Err(_) => fs::create_dir_all(dir).map(|()| false),
    }
}

/// The process id in a lock file. The holder may not have written it yet.
fn pid(text: &str) -> String {
    match text.trim() {
        "" => "unknown".to_owned(),
        pid => pid.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::fs::MetadataExt as _,
        process::{Command, Stdio},
    };

    use super::*;

    const DIR_VARIABLE: &str = "FAILOVER_TEST_LOCK_DIR";

    /// Not a test of its own: the child process of the next test.
    #[test]
    fn hold_lock_in_child_process() {
        let Ok(dir) = std::env::var(DIR_VARIABLE) else {
            return;
        };
        let _lock = Lock::acquire(Path::new(&dir)).unwrap();
        println!("\nlocked");
        io::stdin().read_line(&mut String::new()).unwrap();
    }

    #[test]
    fn another_process_is_refused_and_a_killed_one_locks_out_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "control::lock::tests::hold_lock_in_child_process",
                "--nocapture",
            ])
            .env(DIR_VARIABLE, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "locked"));

        let failure = Lock::acquire(dir.path()).unwrap_err();
        let Failure::AlreadyRunning { pid, .. } = &failure else {
            panic!("{failure}")
        };
        assert_eq!(*pid, child.id().to_string());

        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            dir.path().join("agent.lock").exists(),
            "a killed process removes nothing"
        );
        Lock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn contention_in_one_process_and_release() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("made/on/the/way");
        let lock = Lock::acquire(&run_dir).unwrap();
        assert_eq!(lock.run_dir(), run_dir);
        let mode = fs::metadata(run_dir.join("agent.lock")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(run_dir.join("agent.lock")).unwrap();
        assert_eq!(text, format!("{}\n", process::id()));
        let failure = Lock::acquire(&run_dir).unwrap_err();
        assert_eq!(failure.exit_code(), 21, "{failure}");
        drop(lock);
        assert!(!run_dir.exists(), "it was made for the lock");
        fs::create_dir(&run_dir).unwrap();
        drop(Lock::acquire(&run_dir).unwrap());
        assert!(run_dir.exists(), "it was there before");
        assert!(!run_dir.join("agent.lock").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let failure = Lock::acquire(&file.join("run")).unwrap_err();
        assert_eq!(failure.exit_code(), 25, "{failure}");
    }
}
