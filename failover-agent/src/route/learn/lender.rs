//! Which interfaces are uplinks' although they have another name by now.
//!
//! An uplink without an address of its own borrows another interface's, but never an uplink's: that provider's packets would leave by this
//! one. Interfaces are uplinks by their names, and a user may rename one: its addresses are the same provider's as before, and stale on
//! every uplink. By its index the interface is known, over a restart too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::survey::{self, Survey};
use crate::{
    config::Config,
    store::{Life, Store, StoredFile},
};

const FILE: &str = "interfaces.json";

/// The indexes of uplinks' interfaces, each with the name that it had as one.
#[derive(Debug)]
pub(crate) struct Uplinks {
    file: StoredFile,
    known: BTreeMap<u32, String>,
    unsaved: bool,
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    interfaces: Vec<Interface>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Interface {
    index: u32,
    name: String,
}

impl Uplinks {
    /// Reads what an earlier run has left.
    pub(crate) fn load(store: &Store) -> Uplinks {
        let file = store.file(FILE, Life::Boot);
        let content: Content = file.load().unwrap_or_default();
        let known = content.interfaces.into_iter();
        Uplinks {
            known: known.map(|known| (known.index, known.name)).collect(),
            file,
            unsaved: false,
        }
    }

    /// Takes in what is there. An index that is free may be another interface's the next time.
    pub(crate) fn note(&mut self, survey: &Survey, config: &Config) {
        let uplinks: Vec<&str> = config
            .uplinks
            .iter()
            .map(|u| u.interface.as_str())
            .collect();
        let there = survey.interfaces.iter();
        self.update(
            there.map(|there| (there.index, there.name.as_str())),
            &uplinks,
        );
    }

    fn update<'a>(&mut self, there: impl Iterator<Item = (u32, &'a str)>, uplinks: &[&str]) {
        let mut now = BTreeMap::new();
        for (index, name) in there {
            let former = self.known.get(&index).map(String::as_str);
            let names = [Some(name), former].into_iter().flatten();
            if let Some(name) = names.into_iter().find(|name| uplinks.contains(name)) {
                now.insert(index, name.to_owned());
            }
        }
        self.unsaved |= now != self.known;
        self.known = now;
    }

    /// Whether the interface is an uplink's, or was.
    pub(crate) fn have(&self, ifindex: u32) -> bool {
        self.known.contains_key(&ifindex)
    }

    /// Whether the interface was an uplink's, under another name.
    pub(crate) fn lost(&self, interface: &survey::Interface) -> bool {
        let name = self.known.get(&interface.index);
        name.is_some_and(|name| *name != interface.name)
    }

    /// Brings the file in line.
    pub(crate) fn save(&mut self) {
        if std::mem::take(&mut self.unsaved) {
            let known = self.known.iter().map(|(index, name)| Interface {
                index: *index,
                name: name.clone(),
            });
            let interfaces = known.collect();
            self.file.replace(&Content { interfaces });
        }
    }

    /// The agent stops: the next one goes by the names again.
    pub(crate) fn leave(&mut self) {
        self.file.remove();
    }
}

/// Forgets what an earlier run has left; whether there was anything.
pub(crate) fn remove(store: &Store) -> bool {
    store.file(FILE, Life::Boot).erase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_interface_is_its_uplinks_until_it_is_gone_or_the_uplink_is() {
        let dir = tempfile::tempdir().unwrap();
        let load = || Uplinks::load(&Store::from(dir.path()));
        let (mut uplinks, configured) = (load(), ["cable", "lte"]);
        let have = |uplinks: &Uplinks| [1, 2, 3, 4].map(|index| uplinks.have(index));
        uplinks.update(
            [(1, "lo"), (2, "cable"), (3, "lte")].into_iter(),
            &configured,
        );
        assert_eq!(have(&uplinks), [false, true, true, false]);
        uplinks.update(
            [(1, "lo"), (2, "other"), (3, "lte")].into_iter(),
            &configured,
        );
        assert_eq!(have(&uplinks), [false, true, true, false]);
        uplinks.save();
        // Another start; another interface has the name now, and both are that uplink's.
        let mut uplinks = load();
        uplinks.update(
            [(1, "lo"), (2, "other"), (4, "cable")].into_iter(),
            &configured,
        );
        assert_eq!(have(&uplinks), [false, true, false, true]);
        // The index was free for a while.
        uplinks.update([(1, "lo"), (4, "cable")].into_iter(), &configured);
        uplinks.update(
            [(1, "lo"), (2, "lan"), (4, "cable")].into_iter(),
            &configured,
        );
        assert_eq!(have(&uplinks), [false, false, false, true]);
        // No uplink any more.
        uplinks.update([(1, "lo"), (4, "other")].into_iter(), &["lte"]);
        assert_eq!(have(&uplinks), [false; 4]);
        uplinks.leave();
        assert_eq!(have(&load()), [false; 4]);
    }
}
