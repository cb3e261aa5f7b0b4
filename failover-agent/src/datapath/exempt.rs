//! Prefixes that pass closed gates.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result};
use aya::maps::{
    Map, MapData,
    lpm_trie::{Key, LpmTrie},
};
use failover_ebpf::{EXACT_BITS, Peer};
use ipnet::IpNet;

/// The trie of prefixes.
pub(super) struct Trie(LpmTrie<MapData, Peer, u32>);

impl Trie {
    pub(super) fn new(map: Map) -> Result<Trie> {
        Ok(Trie(map.try_into()?))
    }

    pub(super) fn set(&mut self, ifindex: u32, prefixes: &[IpNet]) -> Result<()> {
        let wanted = prefixes
            .iter()
            .map(|prefix| entry(ifindex, *prefix))
            .collect::<BTreeSet<_>>();
        let present = self.entries(ifindex)?;
        for &(bits, peer) in wanted.difference(&present) {
            self.0
                .insert(&Key::new(bits, peer), 1, 0)
                .with_context(|| format!("exempting another prefix on interface {ifindex}"))?;
        }
        for &(bits, peer) in present.difference(&wanted) {
            self.0
                .remove(&Key::new(bits, peer))
                .with_context(|| format!("removing an exempt prefix of interface {ifindex}"))?;
        }
        Ok(())
    }

    fn entries(&self, ifindex: u32) -> Result<BTreeSet<(u32, Peer)>> {
        let keys = self
            .0
            .keys()
            .collect::<Result<Vec<_>, _>>()
            .context("listing the exempt prefixes")?;
        let entries = keys.iter().map(|key| (key.prefix_len(), key.data()));
        Ok(entries
            .filter(|(_, peer)| peer.ifindex == ifindex)
            .collect())
    }
}

/// The bits that must match, and the value to match; host bits are cleared, so that equal prefixes are equal entries.
fn entry(ifindex: u32, prefix: IpNet) -> (u32, Peer) {
    let prefix = prefix.trunc();
    let (address, family_bits) = match prefix.addr() {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), 96),
        IpAddr::V6(address) => (address, 0),
    };
    let address = address.octets();
    let bits = EXACT_BITS + family_bits + u32::from(prefix.prefix_len());
    (bits, Peer { ifindex, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(prefix: &str) -> (u32, [u8; 16]) {
        let (bits, peer) = entry(7, prefix.parse().unwrap());
        assert_eq!(peer.ifindex, 7);
        (bits, peer.address)
    }

    #[test]
    fn host_bits_do_not_matter() {
        assert_eq!(peer("192.0.2.77/24"), peer("192.0.2.0/24"));
        assert_eq!(peer("2001:db8::77/64"), peer("2001:db8::/64"));
        assert_ne!(peer("192.0.2.77/32"), peer("192.0.2.0/32"));
        assert_eq!(peer("2001:db8::1/0"), (EXACT_BITS, [0; 16]));
    }

    #[test]
    fn lengths_count_in_the_mapped_address() {
        assert_eq!(peer("192.0.2.1/24").0, 32 + 96 + 24);
        assert_eq!(peer("2001:db8::1/64").0, 32 + 64);
    }
}
