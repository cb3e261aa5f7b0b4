//! Whose address is whose: a source that belongs to another uplink is stale.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData};

/// Owner of an address that several uplinks have, as two modems of a kind give out: it is stale on none.
const SEVERAL: u32 = 0;

/// Owner of an address that an uplink has lost, by itself or with its interface: it is stale on all. No interface has this index.
const GONE: u32 = u32::MAX;

/// Lost addresses that are remembered.
const MAX_GONE: usize = 64;

/// The map of addresses, and what it was made from.
pub(super) struct Map {
    map: HashMap<MapData, [u8; 16], u32>,
    uplinks: BTreeMap<u32, BTreeSet<[u8; 16]>>,
    /// Addresses that uplinks have lost, oldest first: sockets and tracked flows may go on to use them. The kernel refuses an IPv4 source
    /// that is not there, but no IPv6 one.
    gone: VecDeque<[u8; 16]>,
}

impl Map {
    /// An adopted map keeps its entries; those of an uplink until its addresses are set again.
    pub(super) fn new(map: aya::maps::Map) -> Result<Map> {
        let map: HashMap<_, _, u32> = map.try_into()?;
        let mut uplinks = BTreeMap::<_, BTreeSet<_>>::new();
        let mut gone = VecDeque::new();
        for entry in map.iter() {
            let (address, owner) = entry.context("listing the addresses")?;
            match owner {
                SEVERAL => {}
                GONE => gone.push_back(address),
                _ => {
                    uplinks.entry(owner).or_default().insert(address);
                }
            }
        }
        Ok(Map { map, uplinks, gone })
    }

    pub(super) fn set(&mut self, ifindex: u32, addresses: &[IpAddr]) -> Result<()> {
        let addresses = addresses.iter().filter_map(|&address| key(address));
        let lost = self.uplinks.insert(ifindex, addresses.collect());
        self.lose(lost);
        self.write()
    }

    /// The interface is gone, its addresses belong to no uplink until another has them.
    pub(super) fn retire(&mut self, ifindex: u32) -> Result<()> {
        let lost = self.uplinks.remove(&ifindex);
        self.lose(lost);
        self.write()
    }

    /// The interface is no uplink any more: nobody minds who uses its addresses, or those that were lost.
    pub(super) fn forget(&mut self, ifindex: u32) -> Result<()> {
        self.uplinks.remove(&ifindex);
        self.gone.clear();
        self.write()
    }

    /// Forgets lost ones that this host has again, on whatever interface: a bridge may have them now, and send by the uplink below it.
    pub(super) fn release(&mut self, present: &[IpAddr]) -> Result<()> {
        let present: BTreeSet<_> = present.iter().filter_map(|&address| key(address)).collect();
        let known = self.gone.len();
        self.gone.retain(|address| !present.contains(address));
        match self.gone.len() == known {
            true => Ok(()),
            false => self.write(),
        }
    }

    /// Remembers these, or the newest of them, while no uplink has them.
    fn lose(&mut self, addresses: Option<BTreeSet<[u8; 16]>>) {
        let had = self.uplinks.values().flatten();
        let there: BTreeSet<_> = had.chain(&self.gone).copied().collect();
        let lost = addresses.into_iter().flatten();
        self.gone
            .extend(lost.filter(|address| !there.contains(address)));
        let surplus = self.gone.len().saturating_sub(MAX_GONE);
        self.gone.drain(..surplus);
    }

    /// Brings the map in line.
    fn write(&mut self) -> Result<()> {
        let mut wanted = owners(&self.uplinks);
        self.gone.retain(|address| !wanted.contains_key(address));
        wanted.extend(self.gone.iter().map(|&address| (address, GONE)));
        let present = self
            .map
            .iter()
            .collect::<Result<BTreeMap<_, _>, _>>()
            .context("listing the addresses")?;
        for address in present.keys().filter(|key| !wanted.contains_key(*key)) {
            self.map.remove(address).context("forgetting an address")?;
        }
        for (address, owner) in wanted {
            if present.get(&address) != Some(&owner) {
                self.map
                    .insert(address, owner, 0)
                    .context("noting an address")?;
            }
        }
        Ok(())
    }
}

/// The one owner of every address.
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

/// The key of an address; None for those that belong to every link: they are never stale.
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
    fn an_address_of_two_uplinks_is_nobodys() {
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
