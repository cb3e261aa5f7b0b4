//! Which uplink has which address: a source address that belongs to another uplink is stale.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use failover_ebpf::{LOST, Owner, SEVERAL};
use nix::time::{ClockId, clock_gettime};

/// Greatest number of lost addresses that are remembered.
const MAX_LOST: usize = 64;

/// How long after the last packet with it a lost address is forgotten. Its users have given up by then: the kernel's own TCP gives up after
/// a quarter of an hour.
const LOST_FOR: Duration = Duration::from_secs(3600);

/// The map of addresses, and what it is computed from.
pub(super) struct Map {
    map: HashMap<MapData, [u8; 16], Owner>,
    uplinks: BTreeMap<u32, BTreeSet<[u8; 16]>>,
    /// Addresses that uplinks have lost, oldest first: sockets and tracked flows may still use them. The kernel refuses an IPv4 source that
    /// the host does not have, but not an IPv6 one.
    lost: VecDeque<[u8; 16]>,
}

impl Map {
    /// An adopted map keeps its entries; those of an uplink until its addresses are set again.
    pub(super) fn new(map: aya::maps::Map) -> Result<Map> {
        let map: HashMap<_, _, Owner> = map.try_into()?;
        let mut uplinks = BTreeMap::<_, BTreeSet<_>>::new();
        let mut lost = Vec::new();
        for entry in map.iter() {
            let (address, owner) = entry.context("listing the addresses")?;
            match owner.ifindex {
                SEVERAL => {}
                LOST => lost.push((owner.last_used_s, address)),
                ifindex => {
                    uplinks.entry(ifindex).or_default().insert(address);
                }
            }
        }
        lost.sort_unstable();
        let lost = lost.into_iter().map(|(_, address)| address).collect();
        Ok(Map { map, uplinks, lost })
    }

    pub(super) fn set(&mut self, ifindex: u32, addresses: &[IpAddr]) -> Result<()> {
        let addresses = addresses.iter().filter_map(|&address| key(address));
        let lost = self.uplinks.insert(ifindex, addresses.collect());
        self.lose(lost);
        self.write()
    }

    /// The interface is gone: its addresses belong to no uplink until another one has them.
    pub(super) fn retire(&mut self, ifindex: u32) -> Result<()> {
        let lost = self.uplinks.remove(&ifindex);
        self.lose(lost);
        self.write()
    }

    /// The interface is no uplink any more: any traffic may use its addresses, and those that uplinks have lost.
    pub(super) fn forget(&mut self, ifindex: u32) -> Result<()> {
        self.uplinks.remove(&ifindex);
        self.lost.clear();
        self.write()
    }

    /// Forgets lost addresses that this host has again, on whatever interface: a bridge may have them now, and send by the uplink below it.
    pub(super) fn release(&mut self, present: &[IpAddr]) -> Result<()> {
        let present: BTreeSet<_> = present.iter().filter_map(|&address| key(address)).collect();
        let known = self.lost.len();
        self.lost.retain(|address| !present.contains(address));
        match self.lost.len() == known {
            true => Ok(()),
            false => self.write(),
        }
    }

    /// The lost addresses.
    pub(super) fn lost(&self) -> Vec<IpAddr> {
        let addresses = self.lost.iter().copied().map(Ipv6Addr::from);
        addresses.map(|address| address.to_canonical()).collect()
    }

    /// Forgets the lost addresses with which no packet has left for long by `now`, the time of `CLOCK_MONOTONIC`; returns them.
    pub(super) fn expire(&mut self, now: Duration) -> Result<Vec<IpAddr>> {
        let mut expired = Vec::new();
        for &address in &self.lost {
            let owner = match self.map.get(&address, 0) {
                Ok(owner) => owner,
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(error).context("reading an address"),
            };
            let used = Duration::from_secs(owner.last_used_s.into());
            if now.saturating_sub(used) >= LOST_FOR {
                expired.push(Ipv6Addr::from(address).to_canonical());
            }
        }
        if !expired.is_empty() {
            self.release(&expired)?;
        }
        Ok(expired)
    }

    /// Remembers these addresses, or the newest of them, while no uplink has them.
    fn lose(&mut self, addresses: Option<BTreeSet<[u8; 16]>>) {
        let had = self.uplinks.values().flatten();
        let there: BTreeSet<_> = had.chain(&self.lost).copied().collect();
        let lost = addresses.into_iter().flatten();
        self.lost
            .extend(lost.filter(|address| !there.contains(address)));
        let surplus = self.lost.len().saturating_sub(MAX_LOST);
        self.lost.drain(..surplus);
    }

    /// Updates the map.
    fn write(&mut self) -> Result<()> {
        let mut wanted = owners(&self.uplinks);
        self.lost.retain(|address| !wanted.contains_key(address));
        wanted.extend(self.lost.iter().map(|&address| (address, LOST)));
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let now_s = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        let present = self
            .map
            .iter()
            .collect::<Result<BTreeMap<_, _>, _>>()
            .context("listing the addresses")?;
        for address in present.keys().filter(|key| !wanted.contains_key(*key)) {
            self.map.remove(address).context("forgetting an address")?;
        }
        for (address, ifindex) in wanted {
            if present.get(&address).map(|owner| owner.ifindex) == Some(ifindex) {
                continue;
            }
            let owner = Owner {
                ifindex,
                last_used_s: now_s,
            };
            self.map
                .insert(address, owner, 0)
                .context("noting an address")?;
        }
        Ok(())
    }
}

/// The owner of every address that uplinks have: the index of its interface, or [`SEVERAL`].
fn owners(uplinks: &BTreeMap<u32, BTreeSet<[u8; 16]>>) -> BTreeMap<[u8; 16], u32> {
    let mut owners = BTreeMap::new();
    for (&ifindex, addresses) in uplinks {
        for &address in addresses {
            owners
                .entry(address)
                .and_modify(|owner| *owner = SEVERAL)
                .or_insert(ifindex);
        }
    }
    owners
}

/// The key of an address; `None` for those that belong to every link and are never stale.
fn key(address: IpAddr) -> Option<[u8; 16]> {
    let everywhere = address.is_loopback()
        || address.is_unspecified()
        || match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
    let mapped = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    (!everywhere).then(|| Ipv6Addr::octets(&mapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(addresses: &[&str]) -> BTreeSet<[u8; 16]> {
        addresses
            .iter()
            .filter_map(|text| key(text.parse().unwrap()))
            .collect()
    }

    #[test]
    fn an_address_of_two_uplinks_belongs_to_neither() {
        let uplinks = BTreeMap::from([
            (3, keys(&["192.0.2.1", "192.168.8.100"])),
            (4, keys(&["198.51.100.1", "192.168.8.100"])),
            (5, keys(&["192.168.8.100"])),
        ]);
        let owners = owners(&uplinks);
        let owner = |text: &str| owners[&key(text.parse().unwrap()).unwrap()];
        assert_eq!(owner("192.0.2.1"), 3);
        assert_eq!(owner("198.51.100.1"), 4);
        assert_eq!(owner("192.168.8.100"), SEVERAL);
        assert_eq!(owners.len(), 3);
    }

    #[test]
    fn addresses_of_every_link_are_left_out() {
        assert_eq!(
            keys(&["169.254.7.7", "fe80::1", "::1", "127.0.0.1", "0.0.0.0"]).len(),
            0
        );
        assert_eq!(
            keys(&["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"]).len(),
            2
        );
    }
}
