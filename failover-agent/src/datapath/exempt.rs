//! Prefixes that pass closed gates.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use aya::maps::{
    Map, MapData,
    lpm_trie::{Key, LpmTrie},
};
use failover_ebpf::{EXACT_BITS, Peer};

/// The trie of prefixes.
pub(super) struct Trie(LpmTrie<MapData, Peer, u32>);

impl Trie {
    pub(super) fn new(map: Map) -> Result<Trie> {
        Ok(Trie(map.try_into()?))
    }

    pub(super) fn set(&mut self, ifindex: u32, prefixes: &[(IpAddr, u8)]) -> Result<()> {
        let wanted = prefixes
            .iter()
            .map(|&(address, length)| entry(ifindex, address, length))
            .collect::<Result<BTreeSet<_>>>()?;
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

/// The bits that must match, and against what; host bits are cleared, so that equal prefixes are equal entries.
fn entry(ifindex: u32, address: IpAddr, length: u8) -> Result<(u32, Peer)> {
    let (address, family_bits, longest) = match address {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), 96, 32),
        IpAddr::V6(address) => (address, 0, 128),
    };
    if length > longest {
        bail!("prefix length {length} is longer than the address ({longest} bits)");
    }
    let bits = family_bits + u32::from(length);
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    let address = (u128::from(address) & mask).to_be_bytes();
    Ok((EXACT_BITS + bits, Peer { ifindex, address }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str, length: u8) -> (u32, [u8; 16]) {
        let (bits, peer) = entry(7, text.parse().unwrap(), length).unwrap();
        assert_eq!(peer.ifindex, 7);
        (bits, peer.address)
    }

    #[test]
    fn host_bits_do_not_matter() {
        assert_eq!(peer("192.0.2.77", 24), peer("192.0.2.0", 24));
        assert_eq!(peer("2001:db8::77", 64), peer("2001:db8::", 64));
        assert_ne!(peer("192.0.2.77", 32), peer("192.0.2.0", 32));
        assert_eq!(peer("2001:db8::1", 0), (EXACT_BITS, [0; 16]));
    }

    #[test]
    fn lengths_count_in_the_mapped_address() {
        assert_eq!(peer("192.0.2.1", 24).0, 32 + 96 + 24);
        assert_eq!(peer("2001:db8::1", 64).0, 32 + 64);
        assert!(entry(0, "192.0.2.1".parse().unwrap(), 33).is_err());
        assert!(entry(0, "2001:db8::1".parse().unwrap(), 129).is_err());
    }
}
