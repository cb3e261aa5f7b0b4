//! What new connections of a balance group are told apart by.
//!
//! The kernel's default is the pair of addresses: all connections to one server would share an uplink. With policy 1 it is
//! addresses and ports (`fib_multipath_hash_policy` in the kernel's `Documentation/networking/ip-sysctl.rst`). The setting is the
//! host's, so its former value goes on record before it is changed, and comes back with the routes.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Report, index};
use crate::{
    policy::Family,
    state::{Life, StateFile},
};

const FILE: &str = "hash_policy.json";
/// Addresses, protocol and ports.
const LAYER_4: u32 = 1;

/// The setting of a family as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashSetting {
    /// 0 and 2 look at addresses only, 1 at ports, too, 3 at what an administrator has chosen.
    pub(crate) value: u32,
    /// Whether it can be set: not in most containers.
    pub(crate) settable: bool,
}

impl HashSetting {
    /// Reads it; None where there is none (a kernel without IPv6).
    pub(super) fn of(family: Family) -> Option<HashSetting> {
        let value = read(family).ok()?;
        // Opening it changes nothing.
        let settable = fs::OpenOptions::new()
            .write(true)
            .open(path(family))
            .is_ok();
        Some(HashSetting { value, settable })
    }
}

/// The former values, by [`Family::ALL`]'s order; None: not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Former {
    values: [Option<u32>; 2],
}

/// The setting of this network namespace.
#[derive(Debug)]
pub(super) struct HashPolicy {
    file: StateFile,
    /// Whether it was looked at, by [`Family::ALL`]'s order: it is set once, and what cannot be set is told once.
    looked_at: [bool; 2],
}

impl HashPolicy {
    /// Touches nothing.
    pub(super) fn new(state_dir: &Path) -> Self {
        HashPolicy {
            // A boot brings the host's own value back.
            file: StateFile::new(state_dir, FILE, Life::Boot),
            looked_at: [false; 2],
        }
    }

    /// Has connections of a family told apart by their ports, too. Returns what was changed. Only the first call does anything.
    ///
    /// # Errors
    /// The setting cannot be changed, in a container for example. The error says what to do.
    pub(super) fn set(&mut self, family: Family) -> Result<Option<String>> {
        if std::mem::replace(&mut self.looked_at[index(family)], true) {
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
        let before: Option<Former> = self.file.load_or_forget();
        let mut former = before.clone().unwrap_or_default();
        former.values[index(family)] = Some(value);
        self.file.store(&former)?;
        if let Err(error) = write(family, LAYER_4) {
            match before {
                Some(before) => self.file.store(&before)?,
                None => self.file.remove().map(drop)?,
            }
            return Err(error).with_context(|| cure(family));
        }
        Ok(Some(format!("set {} from {value} to 1", path(family))))
    }

    /// Puts the former values back where ours still stand.
    ///
    /// # Errors
    /// The record cannot be removed.
    pub(super) fn restore(&mut self, report: &mut Report) -> Result<()> {
        self.looked_at = [false; 2];
        let Some(mut former) = self.file.load_or_forget::<Former>() else {
            return self.file.remove().map(drop);
        };
        for family in Family::ALL {
            let Some(value) = former.values[index(family)] else {
                continue;
            };
            let restored = match read(family) {
                Ok(LAYER_4) => write(family, value).map(|()| {
                    report
                        .changes
                        .push(format!("set {} back to {value}", path(family)));
                }),
                // Somebody else has set it since.
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            match restored {
                Ok(()) => former.values[index(family)] = None,
                Err(error) => report
                    .problems
                    .push(format!("not set {} back to {value}: {error}", path(family))),
            }
        }
        if former == Former::default() {
            self.file.remove().map(drop)
        } else {
            self.file.store(&former)
        }
    }
}

/// `/proc/sys/net` is that of the calling thread's network namespace.
fn path(family: Family) -> &'static str {
    match family {
        Family::V4 => "/proc/sys/net/ipv4/fib_multipath_hash_policy",
        Family::V6 => "/proc/sys/net/ipv6/fib_multipath_hash_policy",
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

fn read(family: Family) -> io::Result<u32> {
    let text = fs::read_to_string(path(family))?;
    text.trim().parse().map_err(io::Error::other)
}

fn write(family: Family, value: u32) -> io::Result<()> {
    fs::write(path(family), value.to_string())
}
