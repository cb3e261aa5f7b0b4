//! The drill that is going on, kept on disk so that it also ends when it should if the agent is started anew meanwhile.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::control::MAX_DRILL;

const FILE: &str = "drill.json";

/// A drill as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Drill {
    /// Name of the uplink.
    pub(super) uplink: String,
    /// The end: the wall clock goes on between two runs, whatever happens to the host.
    #[serde(with = "humantime_text")]
    pub(super) until: SystemTime,
}

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
}

impl Store {
    pub(super) fn new(state_dir: &Path) -> Self {
        Store {
            path: state_dir.join(FILE),
        }
    }

    /// The drill that an earlier run has begun, if it is not over at `now`. A clock that was set back does not make it longer
    /// than any drill may be.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is damaged.
    pub(super) fn load(&self, now: SystemTime) -> Result<Option<Drill>> {
        let drill: Drill = match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged", self.path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.path.display()));
            }
        };
        let until = drill.until.min(now + MAX_DRILL);
        Ok((until > now).then_some(Drill { until, ..drill }))
    }

    /// Replaces what the file says; no drill, no file.
    ///
    /// # Errors
    ///
    /// It cannot be written or removed. What was there stays.
    pub(super) fn save(&self, drill: Option<&Drill>) -> Result<()> {
        let written = match drill {
            Some(drill) => self.write(drill),
            None => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn write(&self, drill: &Drill) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(drill)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Removes what a run has left; whether there was something.
///
/// # Errors
///
/// It cannot be removed.
pub(crate) fn remove(state_dir: &Path) -> Result<bool> {
    let store = Store::new(state_dir);
    let there = store.path.exists();
    store.save(None)?;
    Ok(there)
}

/// RFC 3339 in UTC.
mod humantime_text {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn drill(until: SystemTime) -> Drill {
        Drill {
            uplink: "cable".to_owned(),
            until,
        }
    }

    #[test]
    fn drill_is_found_again_until_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("new"));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        assert_eq!(store.load(now).unwrap(), None);
        let end = now + Duration::from_secs(30);
        store.save(Some(&drill(end))).unwrap();
        assert_eq!(store.load(now).unwrap(), Some(drill(end)));
        assert_eq!(store.load(end).unwrap(), None);
        // The clock was a year ahead when it began.
        let year = Duration::from_secs(31_536_000);
        assert_eq!(
            store.load(now - year).unwrap(),
            Some(drill(now - year + MAX_DRILL))
        );
        store.save(None).unwrap();
        assert_eq!(store.load(now).unwrap(), None);
        store.save(None).unwrap();
    }

    #[test]
    fn damaged_file_is_an_error_and_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"uplink\":3}").unwrap();
        let store = Store::new(dir.path());
        assert!(store.load(SystemTime::now()).is_err());
        assert!(remove(dir.path()).unwrap());
        assert!(!remove(dir.path()).unwrap());
    }
}
