//! What new connections of a balance group are distinguished by.
//!
//! The kernel's default is the pair of addresses: all connections to one server would share an uplink. With policy 1 it is
//! addresses and ports (`fib_multipath_hash_policy` in the kernel's `Documentation/networking/ip-sysctl.rst`). The setting is the
//! host's, so its former value goes on record before it is changed, and comes back with the routes.

use std::{fs, io};

use anyhow::{Context, Result};
use failover_policy::{Family, PerFamily};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::report::Report;
use crate::route::{
    learn::hash_setting::{path, read},
    wire::done::Done,
};
use crate::store::{Life, Patience, Store, StoredFile, per_family};

const FILE: &str = "hash_policy.json";
/// Addresses, protocol and ports.
const LAYER_4: u32 = 1;

/// The former values; None: not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Former {
    #[serde(with = "per_family")]
    values: PerFamily<Option<u32>>,
}

/// The setting of this network namespace.
#[derive(Debug)]
pub(crate) struct HashPolicy {
    file: StoredFile,
    /// What an earlier run has left is known.
    is_read: bool,
    former: Former,
    /// Whether it was looked at: it is set once, and what cannot be set is reported once.
    looked_at: PerFamily<bool>,
}

impl HashPolicy {
    /// Reads what an earlier run has left.
    pub(crate) fn load(store: &Store) -> Self {
        // A boot brings the host's own value back.
        let mut policy = HashPolicy {
            file: store.file(FILE, Life::Boot),
            is_read: false,
            former: Former::default(),
            looked_at: PerFamily::both(false),
        };
        if let Err(error) = policy.catch_up(Patience::Start) {
            warn!("{error:#}: what an earlier run has set is not known yet");
        }
        policy
    }

    /// Reads it if that has not succeeded before. An earlier run's value is older than one of this run's, and so the host's own.
    fn catch_up(&mut self, patience: Patience) -> Result<()> {
        if !self.is_read {
            let stored: Option<Former> = self.file.try_load(patience)?;
            self.is_read = true;
            let stored = stored.unwrap_or_default().values;
            for family in Family::ALL {
                let value = &mut self.former.values[family];
                *value = stored[family].or(*value);
            }
        }
        Ok(())
    }

    /// Has connections of a family distinguished by their ports, too. Returns what was changed. Only the first call does anything.
    ///
    /// # Errors
    /// The setting cannot be changed, in a container for example. The error says what to do.
    pub(crate) fn set(&mut self, family: Family) -> Result<Option<Done>> {
        if std::mem::replace(&mut self.looked_at[family], true) {
            return Ok(None);
        }
        let value = match read(family) {
            Ok(value) => value,
            // No IPv6, no setting, no connections.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| cure(family)),
        };
        if value == LAYER_4 {
            return Ok(None);
        }
        if let Err(error) = self.catch_up(Patience::Moment) {
            warn!("{error:#}: it is replaced: what an earlier run has set is not set back");
            self.is_read = true;
        }
        let before = self.former.values[family].replace(value);
        self.keep();
        // Where the disk does not take it in time, memory has it.
        if let Err(error) = self.file.settle() {
            warn!(
                "{} is changed although its former value is not on record: {error:#}",
                path(family)
            );
        }
        if let Err(error) = write(family, LAYER_4) {
            self.former.values[family] = before;
            self.keep();
            return Err(error).with_context(|| cure(family));
        }
        let change = format!("{} from {value} to 1", path(family));
        Ok(Some(Done::set(change)))
    }

    /// Puts the former values back where ours still stand.
    pub(crate) fn restore(&mut self, report: &mut Report) {
        self.looked_at = PerFamily::both(false);
        if let Err(error) = self.catch_up(Patience::Last) {
            let what = "what it says is changed is not set back";
            report.problems.push(format!("{error:#}: {what}"));
            return;
        }
        for family in Family::ALL {
            let Some(value) = self.former.values[family] else {
                continue;
            };
            let restored = match read(family) {
                Ok(LAYER_4) => write(family, value).map(|()| {
                    report
                        .changes
                        .push(Done::set(format!("{} back to {value}", path(family))));
                }),
                // Another program has set it since.
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            match restored {
                Ok(()) => self.former.values[family] = None,
                Err(error) => report
                    .problems
                    .push(format!("not set {} back to {value}: {error}", path(family))),
            }
        }
        self.keep();
    }

    /// Brings the file in line.
    fn keep(&self) {
        match self.former == Former::default() {
            true => self.file.remove(),
            false => self.file.replace(&self.former),
        }
    }
}

fn cure(family: Family) -> String {
    let (path, key) = match family {
        Family::V4 => (path(family), "net.ipv4.fib_multipath_hash_policy"),
        Family::V6 => (path(family), "net.ipv6.fib_multipath_hash_policy"),
    };
    format!(
        "{family} connections to the same server all leave by one member of the group, because {path} cannot be set to 1: \
         `sysctl -w {key}=1` on the host, in the agent's network namespace"
    )
}

fn write(family: Family, value: u32) -> io::Result<()> {
    fs::write(path(family), value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_a_problem_of_the_clean_up_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (there, away) = (dir.path().join("run"), dir.path().join("away"));
        let load = || HashPolicy::load(&Store::from(there.as_path()));
        let former = Former {
            values: [Some(3), None].into(),
        };
        let mut first = load();
        first.former = former.clone();
        first.keep();
        fs::rename(&there, &away).unwrap();
        fs::write(&there, "").unwrap();
        let mut unread = load();
        let mut report = Report::default();
        unread.restore(&mut report);
        assert_eq!(report.problems.len(), 1, "{report:?}");

        fs::remove_file(&there).unwrap();
        fs::rename(&away, &there).unwrap();
        unread.catch_up(Patience::Last).unwrap();
        assert_eq!(unread.former, former);
        assert_eq!(load().former, former);
    }
}
