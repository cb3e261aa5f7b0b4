//! What a run has found out and the next one should know: an uplink that was Down when the agent ended is not preferred again
//! merely because the agent was restarted, and a manual override stays.

use std::collections::BTreeMap;

use failover_policy::{Family, Health, PerFamily};
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::store::{Life, Store, StoredFile, per_family};

const FILE: &str = "health.json";

/// What was known: which uplinks were Down, by interface, and the manual overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    down: BTreeMap<String, Families>,
    /// Interfaces of the uplinks of manual overrides.
    #[serde(default, with = "per_family")]
    manual_override: PerFamily<Option<String>>,
}

/// In which families an uplink is Down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Known {
    /// Takes in one uplink's health.
    pub(super) fn note(&mut self, interface: &str, health: PerFamily<Health>) {
        let PerFamily { v4: ipv4, v6: ipv6 } = health.map(|health| health == Health::Down);
        if ipv4 || ipv6 {
            self.down
                .insert(interface.to_owned(), Families { ipv4, ipv6 });
        }
    }

    /// Takes in a family's manual override.
    pub(super) fn note_override(&mut self, family: Family, interface: &str) {
        self.manual_override[family] = Some(interface.to_owned());
    }

    /// The interface of the uplink of a manual override.
    pub(super) fn manual_override(&self, family: Family) -> Option<&str> {
        self.manual_override[family].as_deref()
    }

    /// What an earlier run has noted of an uplink.
    pub(super) fn health(&self, interface: &str) -> PerFamily<Health> {
        let down = self.down.get(interface);
        let down = down.map_or(PerFamily::both(false), |down| {
            PerFamily::new(down.ipv4, down.ipv6)
        });
        down.map(|down| if down { Health::Down } else { Health::Unknown })
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Memory {
    file: StoredFile,
    stored: Known,
}

impl Memory {
    /// Reads what an earlier run of this boot has left.
    pub(super) fn load(store: &Store) -> Self {
        let file = store.file(FILE, Life::Boot);
        let stored = file.load().unwrap_or_default();
        Memory { file, stored }
    }

    /// What is in the file.
    pub(super) fn known(&self) -> &Known {
        &self.stored
    }

    /// Brings the file in line; writes only what has changed.
    pub(super) fn keep(&mut self, known: Known) {
        if known != self.stored {
            self.file.replace(&known);
            self.stored = known;
        }
    }
}

impl Agent<'_> {
    /// Puts down what is known now.
    pub(super) fn keep_health(&mut self) {
        let mut known = Known::default();
        for (id, uplink) in self.uplinks.iter() {
            let health = |family| self.machine.measured(id, family);
            known.note(&uplink.interface, PerFamily::from_fn(health));
        }
        for family in Family::ALL {
            if let Some(uplink) = self.machine.manual_override(family) {
                known.note_override(family, &self.uplinks[uplink].interface);
            }
        }
        self.memory.keep(known);
    }
}

/// Removes what a run has left; whether there was something.
pub(crate) fn forget(store: &Store) -> bool {
    store.file(FILE, Life::Boot).erase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_down_is_known_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let store = || Store::from(dir.path());
        let mut memory = Memory::load(&store());
        let mut known = Known::default();
        known.note("eth0", PerFamily::new(Health::Down, Health::Up));
        known.note("eth1", PerFamily::new(Health::Up, Health::Blind));
        known.note_override(Family::V6, "eth1");
        memory.keep(known);
        let memory = Memory::load(&store());
        let health = |interface| memory.known().health(interface);
        assert_eq!(
            health("eth0"),
            PerFamily::new(Health::Down, Health::Unknown)
        );
        assert_eq!(health("eth1"), PerFamily::both(Health::Unknown));
        assert_eq!(health("eth2"), PerFamily::both(Health::Unknown));
        let manual_override = PerFamily::from_fn(|family| memory.known().manual_override(family));
        assert_eq!(manual_override, PerFamily::new(None, Some("eth1")));
        assert!(forget(&store()));
        assert!(!forget(&store()));
        assert_eq!(Memory::load(&store()).known(), &Known::default());
    }
}
