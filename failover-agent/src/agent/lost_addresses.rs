//! Addresses that uplinks have lost since they were last cut. Sockets and tracked flows hold them all the same, for example those of a
//! modem that was pulled out while there was nothing better.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use failover_policy::{Family, PerUplink, UplinkId, UplinkSet};

use super::cut::own_addresses;
use crate::route::Link;

/// The addresses that were lost.
#[derive(Debug, Default)]
pub(super) struct LostAddresses {
    by_uplink: HashMap<(UplinkId, Family), BTreeSet<IpAddr>>,
    /// A packet had one of those that the programs know, which may have moved.
    pub(super) used: bool,
}

impl LostAddresses {
    /// Notes what is no longer there, and forgets what is there again.
    pub(super) fn note(&mut self, known: &PerUplink<Link>, now: &PerUplink<Link>) {
        for uplink in known.ids() {
            for address in own_addresses(known, uplink) {
                let key = (uplink, family(address));
                self.by_uplink.entry(key).or_default().insert(address);
            }
        }
        let there: BTreeSet<IpAddr> = now
            .values()
            .flat_map(|link| &link.addresses)
            .copied()
            .collect();
        for lost in self.by_uplink.values_mut() {
            lost.retain(|address| !there.contains(address));
        }
    }

    /// Those of other uplinks than these are forgotten.
    pub(super) fn retain(&mut self, kept: UplinkSet) {
        self.by_uplink
            .retain(|(uplink, _), _| kept.contains(*uplink));
    }

    /// Hands over those of an uplink, which is to be cut.
    pub(super) fn take(&mut self, uplink: UplinkId, family: Family) -> BTreeSet<IpAddr> {
        let lost = self.by_uplink.remove(&(uplink, family));
        lost.unwrap_or_default()
    }
}

fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}
