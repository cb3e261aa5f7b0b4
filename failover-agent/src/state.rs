//! Files in the state directory: what must outlive the process.
//!
//! Each is one JSON object, replaced as a whole: a crash, or a power cut, leaves the old one or the new one. The agent holds the
//! lock of its run directory, so there is one writer.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::warn;

/// Changes at every boot, and only then (`random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How long a file means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Until the next boot: it speaks of what the kernel has in memory.
    Boot,
    /// For ever.
    Ever,
}

/// One file in the state directory.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    life: Life,
    /// Whether to wait until it is on disk.
    synced: bool,
}

/// What is on disk: the caller's fields, and with [`Life::Boot`] the boot that they belong to.
#[derive(Serialize, Deserialize)]
struct Content<T> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot_id: Option<String>,
    #[serde(flatten)]
    content: T,
}

impl StateFile {
    /// The file `name` in `state_dir`. Touches nothing.
    pub(crate) fn new(state_dir: &Path, name: &str, life: Life) -> Self {
        StateFile {
            path: state_dir.join(name),
            life,
            synced: true,
        }
    }

    /// The same for what may be lost by a power cut, and is written where there is no time to wait for the disk: it outlives the
    /// process, and no more. To be read by [`StateFile::load_or_forget`].
    pub(crate) fn unsynced(self) -> Self {
        StateFile {
            synced: false,
            ..self
        }
    }

    /// What was stored; None if nothing was, or before the boot with [`Life::Boot`]. `cure` says what to do about a damaged file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or it is damaged. Where losing it is harmless, take [`StateFile::load_or_forget`].
    pub(crate) fn load<T: DeserializeOwned>(&self, cure: &str) -> Result<Option<T>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.path.display()));
            }
        };
        let stored: Content<T> = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged: {cure}", self.path.display()))?;
        let valid = stored.boot_id == self.boot_id()?;
        Ok(valid.then_some(stored.content))
    }

    /// The same for what can be done without: a file that cannot be read is a warning, and counts as none.
    pub(crate) fn load_or_forget<T: DeserializeOwned>(&self) -> Option<T> {
        self.load("what it said is forgotten")
            .unwrap_or_else(|error| {
                warn!("{error:#}");
                None
            })
    }

    /// Replaces what is stored, and returns when it is on disk. `content` must be a struct or a map. Creates the directory.
    ///
    /// # Errors
    ///
    /// It cannot be written. What was there stays.
    pub(crate) fn store<T: Serialize>(&self, content: &T) -> Result<()> {
        let content = Content {
            boot_id: self.boot_id()?,
            content,
        };
        let bytes = serde_json::to_vec_pretty(&content)
            .with_context(|| format!("cannot write {} as JSON", self.path.display()))?;
        self.write(&bytes).with_context(|| {
            format!(
                "cannot write {}: make room or make it writable, or choose another directory with --state-dir",
                self.path.display()
            )
        })
    }

    /// Removes it; whether there was one.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub(crate) fn remove(&self) -> Result<bool> {
        let remove = || {
            // Left by a crash in the middle of `store`.
            remove_if_there(&self.unfinished())?;
            let removed = remove_if_there(&self.path)?;
            if removed {
                File::open(self.directory())?.sync_all()?;
            }
            Ok::<_, io::Error>(removed)
        };
        remove().with_context(|| format!("cannot remove {}", self.path.display()))
    }

    /// The new content is on disk before it takes the old one's place, and its place is on disk before this returns.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(self.directory())?;
        let unfinished = self.unfinished();
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        if self.synced {
            file.sync_all()?;
        }
        fs::rename(&unfinished, &self.path)?;
        if self.synced {
            File::open(self.directory())?.sync_all()?;
        }
        Ok(())
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn unfinished(&self) -> PathBuf {
        self.path.with_added_extension("new")
    }

    fn boot_id(&self) -> Result<Option<String>> {
        match self.life {
            Life::Ever => Ok(None),
            Life::Boot => {
                let id = fs::read_to_string(BOOT_ID)
                    .with_context(|| format!("cannot read {BOOT_ID}"))?;
                Ok(Some(id.trim().to_owned()))
            }
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Lines {
        lines: Vec<String>,
    }

    fn lines(text: &str) -> Lines {
        Lines {
            lines: vec![text.to_owned()],
        }
    }

    #[test]
    fn what_was_stored_is_loaded_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for life in [Life::Boot, Life::Ever] {
            let file = StateFile::new(&dir.path().join("new"), "lines.json", life);
            assert_eq!(file.load::<Lines>("").unwrap(), None);
            assert!(!file.remove().unwrap());
            for text in ["a", "b"] {
                file.store(&lines(text)).unwrap();
                assert_eq!(file.load("").unwrap(), Some(lines(text)));
            }
            assert!(file.remove().unwrap());
            assert_eq!(file.load_or_forget::<Lines>(), None);
            assert_eq!(fs::read_dir(file.directory()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_belongs_to_another_boot_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines.json");
        fs::write(&path, r#"{"boot_id": "another", "lines": ["a"]}"#).unwrap();
        let file = StateFile::new(dir.path(), "lines.json", Life::Boot);
        assert_eq!(file.load::<Lines>("").unwrap(), None);
        fs::write(&path, r#"{"lines": ["a"]}"#).unwrap();
        assert_eq!(file.load::<Lines>("").unwrap(), None);
    }

    #[test]
    fn damaged_file_is_named_with_its_cure_or_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "lines.json", Life::Ever);
        for damaged in ["", "{", "[]", r#"{"lines": 3}"#] {
            fs::write(dir.path().join("lines.json"), damaged).unwrap();
            let error = file.load::<Lines>("remove it").unwrap_err();
            assert!(
                format!("{error:#}").contains("lines.json is damaged: remove it"),
                "{error:#}"
            );
            assert_eq!(file.load_or_forget::<Lines>(), None);
        }
        // A crash before the new one took its place.
        file.store(&lines("a")).unwrap();
        fs::write(file.unfinished(), "{").unwrap();
        assert_eq!(file.load("").unwrap(), Some(lines("a")));
        assert!(file.remove().unwrap());
        assert!(!file.unfinished().exists());
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_and_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "lines.json", Life::Ever);
        file.store(&lines("a")).unwrap();
        fs::create_dir(file.unfinished()).unwrap();
        let error = format!("{:#}", file.store(&lines("b")).unwrap_err());
        assert!(
            error.contains("lines.json") && error.contains("--state-dir"),
            "{error}"
        );
        assert_eq!(file.load("").unwrap(), Some(lines("a")));
    }
}
