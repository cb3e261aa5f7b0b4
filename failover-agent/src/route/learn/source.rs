//! Which address of an uplink's interface its probes leave from: the one that the kernel would choose for their target.
//!
//! IPv6: the rules of RFC 6724, section 5, as `ipv6_get_saddr_eval` in `net/ipv6/addrconf.c` applies them, over the addresses of the
//! interface. Rules 1, 4, 5 and 5.5 decide nothing here: the target is not this host, nobody is mobile, and all candidates are on
//! the outgoing interface; the kernel does not have rule 5.5. Rule 7 is reversed, which the RFC provides for: a public address goes
//! before a temporary one whatever `use_tempaddr` says, because a temporary one is replaced every day and its probes are lost with it.
//!
//! IPv4: `inet_select_addr` in `net/ipv4/devinet.c`: a primary address in the gateway's network, else the first primary one.

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::Ipv6Net;

use super::survey::{Address, Fitness};

/// What an address is weighed for when nothing is probed: the internet.
pub(crate) const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0);

/// The prefix policy table (RFC 6724, 2.1) as the kernel has it (`ip6addrlbl_init_table` in `net/ipv6/addrlabel.c`): prefix
/// and label. The longest match counts.
const LABELS: [(Ipv6Net, u8); 8] = [
    (prefix(Ipv6Addr::LOCALHOST, 128), 0),
    (prefix(Ipv6Addr::UNSPECIFIED, 96), 3),
    (prefix(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), 4),
    (prefix(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32), 6),
    (prefix(Ipv6Addr::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0), 28), 7),
    (prefix(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), 2),
    (prefix(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7), 5),
    (prefix(Ipv6Addr::UNSPECIFIED, 0), 1),
];

const fn prefix(address: Ipv6Addr, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(address, length)
}

/// Sorts an interface's addresses of one family, all of them fit for the internet: the best for `target` first. Of equals, the one
/// that the kernel lists first stays first.
pub(crate) fn sort(sources: &mut [&Address], target: IpAddr) {
    sources.sort_by_key(|source| {
        // Rules 2 and 3, then 6, 7 and 8. Addresses without a fitness do not come here.
        let state = source.fitness.map(Fitness::state);
        let secondary = source.fitness.is_some_and(|fitness| fitness.secondary);
        let other_label = label(source.ip) != label(target);
        let common = common_prefix(source, target);
        (state, other_label, secondary, Reverse(common))
    });
}

fn label(ip: IpAddr) -> Option<u8> {
    let IpAddr::V6(ip) = ip else { return None };
    let mut labels = LABELS.iter();
    let found = labels.find(|(prefix, _)| prefix.contains(&ip));
    found.map(|(_, label)| *label)
}

/// The bits that both have in common, no more than the prefix of the source has; 0 in IPv4, where the kernel does not compare them.
fn common_prefix(source: &Address, target: IpAddr) -> u32 {
    match (source.ip, target) {
        (IpAddr::V6(ip), IpAddr::V6(target)) => {
            let common = (ip.to_bits() ^ target.to_bits()).leading_zeros();
            common.min(u32::from(source.network.prefix_len()))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    fn address(text: &str) -> Address {
        let network: IpNet = text.parse().unwrap();
        Address {
            ifindex: 1,
            ip: network.addr(),
            network: network.trunc(),
            fitness: Some(Fitness::default()),
            duplicate: false,
        }
    }

    fn sorted(addresses: &[Address], target: &str) -> Vec<String> {
        let mut sources: Vec<&Address> = addresses.iter().collect();
        sort(&mut sources, target.parse().unwrap());
        sources.iter().map(|source| source.ip.to_string()).collect()
    }

    fn best(addresses: &[Address], target: &str) -> String {
        sorted(addresses, target).swap_remove(0)
    }

    #[test]
    fn the_labels_are_those_of_the_policy_table() {
        // RFC 6724, 2.1; where the kernel's numbers are others, the classes are the same.
        for (ip, expected) in [
            ("::1", 0),
            ("2001:db8::1", 1),
            ("fe80::1", 1),
            ("2002:c000:201::1", 2),
            ("::192.0.2.1", 3),
            ("::ffff:192.0.2.1", 4),
            ("fd00::1", 5),
            ("fc00::1", 5),
            ("2001:0:53aa::1", 6),
            ("2001:1f::1", 7),
        ] {
            assert_eq!(label(ip.parse().unwrap()), Some(expected), "{ip}");
        }
    }

    #[test]
    fn rule_3_a_preferred_address_goes_before_a_deprecated_one() {
        let mut old = address("2001:db8:1::1/64");
        old.fitness.as_mut().unwrap().deprecated = true;
        let ula = address("fd00::1/64");
        assert_eq!(best(&[old, ula], "2606:4700::1111"), "fd00::1");
    }

    #[test]
    fn rule_6_a_matching_label() {
        // RFC 6724, 10.6: a unique local address is not for the internet, and a global one not for a site's own hosts.
        let addresses = [address("fd00:1::2/64"), address("2001:db8:1::2/64")];
        assert_eq!(best(&addresses, "2606:4700::1111"), "2001:db8:1::2");
        assert_eq!(best(&addresses, "fd00:9::1"), "fd00:1::2");
        let tunnels = [
            address("2002:c000:201::1/64"),
            address("2001:0:53aa::1/64"),
            address("2001:db8:1::2/64"),
        ];
        assert_eq!(best(&tunnels, "2606:4700::1111"), "2001:db8:1::2");
        assert_eq!(best(&tunnels, "2002:c633:6401::1"), "2002:c000:201::1");
    }

    #[test]
    fn rule_7_public_before_temporary_but_not_before_a_label() {
        let mut temporary = address("2001:db8:1::aaaa/64");
        temporary.fitness.as_mut().unwrap().secondary = true;
        let public = address("2001:db8:1::1/64");
        let ula = address("fd00::1/64");
        assert_eq!(
            sorted(&[temporary, ula, public], "2606:4700::1111"),
            ["2001:db8:1::1", "2001:db8:1::aaaa", "fd00::1"]
        );
    }

    #[test]
    fn rule_8_the_longest_prefix_and_no_longer_than_the_source_s_own() {
        let near = address("2606:4700:1::1/64");
        let far = address("2a00:1::1/64");
        assert_eq!(best(&[far, near], "2606:4700:2::1"), "2606:4700:1::1");
        // Equal within their prefixes: the order of the kernel.
        let first = address("2606:4700::1:0:0:1/64");
        let second = address("2606:4700::2/64");
        assert_eq!(best(&[first, second], "2606:4700::3"), "2606:4700::1:0:0:1");
    }

    #[test]
    fn in_ipv4_a_primary_address_goes_first_and_nothing_is_compared() {
        let mut secondary = address("192.0.2.2/24");
        secondary.fitness.as_mut().unwrap().secondary = true;
        let primary = address("198.51.100.2/24");
        assert_eq!(best(&[secondary, primary], "192.0.2.9"), "198.51.100.2");
    }
}
