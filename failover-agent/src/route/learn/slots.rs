//! Which identity each uplink has: its table, rules and nexthop objects are numbered by it.
//!
//! Not the uplink's position: a configuration that puts an uplink in front of the others must not renumber what they have.

use std::collections::BTreeMap;

use anyhow::Result;
use failover_ebpf::MAX_UPLINKS;
use failover_policy::{Family, PerUplink, UplinkId};

use crate::config::Config;
use crate::route::{link::Link, router::Router, wire::rule::rules_of};

/// Slots by interface name.
#[derive(Debug, Default)]
pub(crate) struct Slots(BTreeMap<String, UplinkId>);

impl Slots {
    /// Those that are handed out.
    fn taken(links: &PerUplink<Link>) -> Slots {
        let slots = links.iter();
        Slots(
            slots
                .map(|(slot, link)| (link.interface.clone(), slot))
                .collect(),
        )
    }

    /// Hands out slots to exactly these interfaces: one that had a slot keeps it, the others get the lowest free ones in turn.
    fn assign<'a>(&mut self, interfaces: impl Iterator<Item = &'a str> + Clone) {
        self.0
            .retain(|known, _| interfaces.clone().any(|interface| interface == known));
        for interface in interfaces {
            if !self.0.contains_key(interface) {
                let mut slots = (0..).map(UplinkId);
                let free = slots.find(|slot| !self.0.values().any(|taken| taken == slot));
                self.0.extend(free.map(|slot| (interface.to_owned(), slot)));
            }
        }
    }

    /// The slot of an interface that has got one.
    pub(crate) fn of(&self, interface: &str) -> UplinkId {
        self.0.get(interface).copied().unwrap_or(UplinkId(0))
    }
}

impl Router {
    /// The slots of a configuration's uplinks, as they are once its links are taken over. The first
    /// time, those that an earlier run has left in the kernel's rules count.
    ///
    /// # Errors
    /// The rules cannot be read.
    pub(crate) fn slots_of(&mut self, config: &Config) -> Result<Slots> {
        let mut slots = match self.links.is_empty() {
            true => self.adopted_slots()?,
            false => Slots::taken(&self.links),
        };
        let uplinks = config.uplinks.iter();
        slots.assign(uplinks.map(|uplink| uplink.interface.as_str()));
        Ok(slots)
    }

    /// The rule for an uplink's probes names its interface and its table.
    fn adopted_slots(&mut self) -> Result<Slots> {
        let mut slots = Slots::default();
        for family in Family::ALL {
            for rule in rules_of(&mut self.netlink, family, &self.config)? {
                let slot = rule.table.checked_sub(self.config.table);
                let slot = slot.and_then(|slot| usize::try_from(slot).ok());
                if let (Some(interface), Some(slot)) = (rule.interface, slot.map(UplinkId))
                    && slot.0 < MAX_UPLINKS
                    && !slots.0.values().any(|taken| *taken == slot)
                {
                    slots.0.entry(interface).or_insert(slot);
                }
            }
        }
        Ok(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(slots: &mut Slots, interfaces: &[&str]) -> Vec<usize> {
        slots.assign(interfaces.iter().copied());
        interfaces
            .iter()
            .map(|interface| slots.of(interface).0)
            .collect()
    }

    #[test]
    fn slots_stay_whatever_comes_and_goes() {
        let mut slots = Slots::default();
        assert_eq!(numbers(&mut slots, &["a", "b", "c"]), [0, 1, 2]);
        assert_eq!(numbers(&mut slots, &["new", "c", "a", "b"]), [3, 2, 0, 1]);
        assert_eq!(numbers(&mut slots, &["c", "new"]), [2, 3]);
        assert_eq!(
            numbers(&mut slots, &["x", "y", "new", "z", "c"]),
            [0, 1, 3, 4, 2]
        );
    }
}
