//! The drill that is going on, kept on disk so that it also ends when it should if the agent is restarted meanwhile.

use std::time::SystemTime;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    control::MAX_DRILL,
    store::{Life, Store, StoredFile},
};

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

/// The file. A boot does not end a drill.
#[derive(Debug)]
pub(super) struct Drills {
    file: StoredFile,
    /// What it was given last.
    saved: Option<Drill>,
}

impl Drills {
    pub(super) fn new(store: &Store) -> Self {
        Drills {
            file: store.file(FILE, Life::Ever),
            saved: None,
        }
    }

    /// The drill that an earlier run has begun, if it is not over at `now`. A clock that was set back does not make it longer
    /// than any drill may be. A damaged file is no drill.
    pub(super) fn load(&self, now: SystemTime) -> Option<Drill> {
        let drill: Drill = self.file.load()?;
        let until = drill.until.min(now + MAX_DRILL);
        (until > now).then_some(Drill { until, ..drill })
    }

    /// Replaces what the file says; no drill, no file.
    pub(super) fn save(&mut self, drill: Option<Drill>) {
        match &drill {
            Some(drill) => self.file.replace(drill),
            None => self.file.remove(),
        }
        self.saved = drill;
    }

    /// Whether this is what it was given last.
    pub(super) fn says(&self, drill: Option<&Drill>) -> bool {
        self.saved.as_ref() == drill
    }

    /// Waits a moment until that is on disk.
    ///
    /// # Errors
    ///
    /// It is not: a crash would end the drill.
    pub(super) fn settle(&self) -> Result<()> {
        self.file.settle()
    }
}

/// Removes what a run has left; whether there was something.
pub(crate) fn remove(store: &Store) -> bool {
    Drills::new(store).file.erase()
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
        let directory = dir.path().join("new");
        let mut store = Drills::new(&Store::from(directory.as_path()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        assert_eq!(store.load(now), None);
        let end = now + Duration::from_secs(30);
        store.save(Some(drill(end)));
        assert_eq!(store.load(now), Some(drill(end)));
        assert_eq!(store.load(end), None);
        // The clock was a year ahead when it began.
        let year = Duration::from_secs(31_536_000);
        assert_eq!(store.load(now - year), Some(drill(now - year + MAX_DRILL)));
        let mut later = Drills::new(&Store::from(directory.as_path()));
        assert_eq!(later.load(now), Some(drill(end)));
        later.save(None);
        assert_eq!(later.load(now), None);
        assert!(!directory.join(FILE).exists());
        later.save(None);
    }

    #[test]
    fn damaged_file_is_no_drill_and_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"uplink\":3}").unwrap();
        let store = Store::from(dir.path());
        assert_eq!(Drills::new(&store).load(SystemTime::now()), None);
        assert!(!remove(&store));
        assert!(dir.path().join("drill.json.damaged").exists());
    }
}
