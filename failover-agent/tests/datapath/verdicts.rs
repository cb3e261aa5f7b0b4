//! What the programs decide about crafted packets.

use failover_policy::{Family, PerFamily};
use std::time::Duration;

use failover_agent::{
    config::AttachMode,
    datapath::{Datapath, Direction, Gate, LinkLayer, TestPacket, Verdict},
};

use crate::{
    lab::{MARK, lab, quiet_uplink, until},
    packets::*,
};

/// Longer than any test.
const LEASE: Duration = Duration::from_secs(3600);

/// A datapath with one uplink, both gates closed.
pub(crate) fn closed(test: impl FnOnce(&mut Datapath, u32) + Send) {
    lab(|lab| {
        let ifindex = quiet_uplink();
        let mut datapath = lab.open(AttachMode::Auto);
        datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        datapath.renew_lease(LEASE).unwrap();
        close(&mut datapath, ifindex);
        test(&mut datapath, ifindex);
    });
}

fn close(datapath: &mut Datapath, ifindex: u32) {
    for family in Family::ALL {
        datapath.set_gate(ifindex, family, Gate::Closed).unwrap();
    }
}

pub(crate) fn packet(data: &[u8], ifindex: u32) -> TestPacket<'_> {
    TestPacket {
        data,
        ifindex,
        mark: 0,
        gso_segments: 0,
        is_answer: false,
    }
}

pub(crate) fn verdict(datapath: &Datapath, ifindex: u32, data: &[u8]) -> Verdict {
    datapath
        .test_run(Direction::Egress, &packet(data, ifindex), 1)
        .unwrap()
        .verdict
}

pub(crate) fn udp4() -> Vec<u8> {
    ip(HOST4, FAR4, UDP, &udp(53))
}

pub(crate) fn udp6() -> Vec<u8> {
    ip(HOST6, FAR6, UDP, &udp(53))
}

#[test]
#[ignore = "needs root"]
fn an_open_gate_passes_everything() {
    lab(|lab| {
        let ifindex = quiet_uplink();
        let mut datapath = lab.open(AttachMode::Auto);
        datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        datapath.renew_lease(LEASE).unwrap();
        for data in [
            ethernet(&udp4()),
            ethernet(&udp6()),
            frame(&[], 0x0806, &[0; 28]),
        ] {
            assert_eq!(verdict(&datapath, ifindex, &data), Verdict::Pass);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_closed_gate_cuts_what_is_not_exempt() {
    closed(|datapath, ifindex| {
        for (what, data) in [
            ("UDP", ip(HOST4, FAR4, UDP, &udp(53))),
            ("UDP6", ip(HOST6, FAR6, UDP, &udp(53))),
            ("TCP SYN", ip(HOST4, FAR4, TCP, &tcp(0x02))),
            ("TCP6 ACK", ip(HOST6, FAR6, TCP, &tcp(0x10))),
            ("ICMP echo", ip(HOST4, FAR4, 1, &[8, 0, 0, 0, 0, 0, 0, 0])),
            ("ICMPv6 echo", ip(HOST6, FAR6, ICMPV6, &icmpv6(128))),
            ("an unknown protocol", ip(HOST4, FAR4, 253, &[0; 8])),
            (
                "multicast beyond the link",
                ip(HOST4, "239.1.2.3", UDP, &udp(5004)),
            ),
            (
                "multicast beyond the link, IPv6",
                ip(HOST6, "ff0e::1", UDP, &udp(5004)),
            ),
            (
                "DHCP's port in TCP",
                ip(
                    HOST4,
                    FAR4,
                    TCP,
                    &[0, 68, 0, 67, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2],
                ),
            ),
            ("DHCPv6's port in IPv4", ip(HOST4, FAR4, UDP, &udp(547))),
            ("DHCP's port in IPv6", ip(HOST6, FAR6, UDP, &udp(67))),
            (
                "a neighbour discovery's number in IPv4",
                ip(HOST4, FAR4, ICMPV6, &icmpv6(135)),
            ),
        ] {
            assert_eq!(
                verdict(datapath, ifindex, &ethernet(&data)),
                Verdict::Drop,
                "{what}"
            );
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_closed_gate_passes_what_keeps_the_link() {
    closed(|datapath, ifindex| {
        for (what, data) in [
            ("DHCP renewal", ip(HOST4, FAR4, UDP, &udp(67))),
            ("DHCP answer", ip(HOST4, FAR4, UDP, &udp(68))),
            ("DHCPv6", ip(HOST6, FAR6, UDP, &udp(547))),
            ("DHCPv6 answer", ip(HOST6, FAR6, UDP, &udp(546))),
            (
                "neighbour solicitation",
                ip(HOST6, FAR6, ICMPV6, &icmpv6(135)),
            ),
            (
                "router solicitation",
                ip(HOST6, "ff02::2", ICMPV6, &icmpv6(133)),
            ),
            ("redirect", ip(HOST6, FAR6, ICMPV6, &icmpv6(137))),
            (
                "listener report",
                ip(HOST6, "ff05::1:3", ICMPV6, &icmpv6(131)),
            ),
            ("listener report behind a hop-by-hop header", {
                let payload = [&[ICMPV6, 0, 5, 2, 0, 0, 1, 0], icmpv6(143).as_slice()].concat();
                ip(HOST6, "ff05::16", 0, &payload)
            }),
            ("IGMP", ip(HOST4, "239.1.2.3", 2, &[0x16; 8])),
            (
                "link-local destination",
                ip(HOST4, "169.254.1.1", UDP, &udp(53)),
            ),
            ("link-local source", ip("169.254.1.1", FAR4, UDP, &udp(53))),
            (
                "link-local destination, IPv6",
                ip(HOST6, "fe80::1", TCP, &tcp(2)),
            ),
            ("link-local source, IPv6", ip("febf::1", FAR6, TCP, &tcp(2))),
            ("mDNS", ip(HOST4, "224.0.0.251", UDP, &udp(5353))),
            ("mDNS, IPv6", ip(HOST6, "ff02::fb", UDP, &udp(5353))),
            (
                "limited broadcast",
                ip(HOST4, "255.255.255.255", UDP, &udp(9)),
            ),
            ("TCP RST", ip(HOST4, FAR4, TCP, &tcp(0x14))),
            ("TCP RST, IPv6", ip(HOST6, FAR6, TCP, &tcp(0x04))),
        ] {
            assert_eq!(
                verdict(datapath, ifindex, &ethernet(&data)),
                Verdict::Pass,
                "{what}"
            );
        }
        for (what, ethertype) in [
            ("ARP", 0x0806),
            ("EAPOL", 0x888e),
            ("LLDP", 0x88cc),
            ("LLC", 0x0026),
        ] {
            let data = frame(&[], ethertype, &[0; 46]);
            assert_eq!(verdict(datapath, ifindex, &data), Verdict::Pass, "{what}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn headers_are_found_behind_tags_and_extensions() {
    closed(|datapath, ifindex| {
        let (dhcp, dns) = (ip(HOST4, FAR4, UDP, &udp(67)), udp4());
        for tags in [&[0x8100][..], &[0x88a8], &[0x88a8, 0x8100]] {
            let tagged = |packet: &[u8]| frame(tags, ethertype(packet), packet);
            assert_eq!(
                verdict(datapath, ifindex, &tagged(&dns)),
                Verdict::Drop,
                "{tags:x?}"
            );
            assert_eq!(
                verdict(datapath, ifindex, &tagged(&dhcp)),
                Verdict::Pass,
                "{tags:x?}"
            );
            assert_eq!(
                verdict(datapath, ifindex, &tagged(&udp6())),
                Verdict::Drop,
                "{tags:x?}"
            );
            assert_eq!(
                verdict(datapath, ifindex, &frame(tags, 0x0806, &[0; 28])),
                Verdict::Pass,
                "{tags:x?}"
            );
        }
        // IPv4 options: 4 more bytes of header.
        let mut options = dhcp;
        options[0] = 0x46;
        options.splice(20..20, [1, 1, 1, 0]);
        assert_eq!(
            verdict(datapath, ifindex, &ethernet(&options)),
            Verdict::Pass
        );

        // Destination options (16 bytes), authentication (12 bytes), then UDP.
        let chain = |port| {
            let mut payload = vec![51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            payload.extend([UDP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            payload.extend(udp(port));
            ethernet(&ip(HOST6, FAR6, 60, &payload))
        };
        assert_eq!(verdict(datapath, ifindex, &chain(547)), Verdict::Pass);
        assert_eq!(verdict(datapath, ifindex, &chain(53)), Verdict::Drop);
        // A chain without end is cut, whatever it pretends to carry.
        let endless = ip(HOST6, FAR6, 60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(20));
        assert_eq!(
            verdict(datapath, ifindex, &ethernet(&endless)),
            Verdict::Drop
        );
    });
}

#[test]
#[ignore = "needs root"]
fn later_fragments_go_by_their_addresses_alone() {
    closed(|datapath, ifindex| {
        // What would be a DHCP port in a first fragment is only data in a later one.
        let later4 = |destination: &str| {
            let destination = destination.parse().unwrap();
            ethernet(&ipv4(
                HOST4.parse().unwrap(),
                destination,
                UDP,
                100,
                &udp(67),
            ))
        };
        assert_eq!(verdict(datapath, ifindex, &later4(FAR4)), Verdict::Drop);
        assert_eq!(
            verdict(datapath, ifindex, &later4("169.254.1.1")),
            Verdict::Pass
        );
        let fragment6 = |offset: u8| {
            let payload = [&[UDP, 0, 0, offset, 0, 0, 0, 1], udp(547).as_slice()].concat();
            ethernet(&ip(HOST6, FAR6, 44, &payload))
        };
        assert_eq!(verdict(datapath, ifindex, &fragment6(8)), Verdict::Drop);
        assert_eq!(
            verdict(datapath, ifindex, &fragment6(1)),
            Verdict::Pass,
            "the first one has the ports"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn exempt_prefixes_pass_where_they_are_exempt() {
    closed(|datapath, ifindex| {
        let cut = |datapath: &Datapath, packet: &[u8]| {
            verdict(datapath, ifindex, &ethernet(packet)) == Verdict::Drop
        };
        let prefix = |text: &str| text.parse().unwrap();
        datapath
            .set_exempt(
                ifindex,
                &[prefix("198.51.100.99/24"), prefix("2001:db8:ffff::/48")],
            )
            .unwrap();
        assert!(!cut(datapath, &udp4()) && !cut(datapath, &udp6()));
        assert!(cut(datapath, &ip(HOST4, "198.51.101.7", UDP, &udp(53))));
        assert!(cut(datapath, &ip(HOST6, "2001:db8:fffe::7", UDP, &udp(53))));

        datapath
            .set_exempt(ifindex, &[prefix("198.51.100.7/32")])
            .unwrap();
        assert!(!cut(datapath, &udp4()) && cut(datapath, &udp6()));

        datapath
            .set_exempt(ifindex + 1, &[prefix("198.51.100.7/32")])
            .unwrap();
        datapath.set_exempt(ifindex, &[]).unwrap();
        assert!(cut(datapath, &udp4()), "exempt on another uplink only");

        datapath
            .set_exempt(0, &[prefix("198.51.100.0/24")])
            .unwrap();
        assert!(!cut(datapath, &udp4()), "exempt everywhere");
    });
}

#[test]
#[ignore = "needs root"]
fn each_family_has_a_gate_of_its_own() {
    closed(|datapath, ifindex| {
        datapath.set_gate(ifindex, Family::V4, Gate::Open).unwrap();
        assert_eq!(
            datapath.gates(ifindex).unwrap(),
            PerFamily::new(Gate::Open, Gate::Closed)
        );
        assert_eq!(
            verdict(datapath, ifindex, &ethernet(&udp4())),
            Verdict::Pass
        );
        assert_eq!(
            verdict(datapath, ifindex, &ethernet(&udp6())),
            Verdict::Drop
        );
        assert_eq!(
            datapath.gates(ifindex + 1).unwrap(),
            PerFamily::both(Gate::Open),
            "no uplink"
        );
        assert!(
            datapath
                .set_gate(ifindex + 1, Family::V4, Gate::Closed)
                .is_err()
        );
    });
}

#[test]
#[ignore = "needs root"]
fn gates_count_as_open_once_the_lease_is_past() {
    closed(|datapath, ifindex| {
        assert_eq!(
            verdict(datapath, ifindex, &ethernet(&udp4())),
            Verdict::Drop
        );
        datapath.renew_lease(Duration::ZERO).unwrap();
        // The programs' clock is as coarse as the kernel's tick.
        until("the gate opens", || {
            verdict(datapath, ifindex, &ethernet(&udp4())) == Verdict::Pass
        });
        assert_eq!(
            datapath.gates(ifindex).unwrap(),
            PerFamily::both(Gate::Closed),
            "still set, but without effect"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_mark_alone_makes_no_probe() {
    closed(|datapath, ifindex| {
        let data = ethernet(&udp4());
        let run = |datapath: &Datapath, mark| {
            let packet = TestPacket {
                mark,
                ..packet(&data, ifindex)
            };
            datapath
                .test_run(Direction::Egress, &packet, 1)
                .unwrap()
                .verdict
        };
        assert_eq!(run(datapath, MARK), Verdict::Drop);
        assert_eq!(run(datapath, MARK + 1), Verdict::Drop);
        datapath.set_gate(ifindex, Family::V4, Gate::Open).unwrap();
        assert_eq!(run(datapath, MARK), Verdict::Pass);
        assert_eq!(datapath.counters(ifindex).unwrap().probes_passed, 0);
    });
}

#[test]
#[ignore = "needs root"]
fn packets_without_a_link_layer_header_are_judged_alike() {
    closed(|datapath, ifindex| {
        datapath.attach(ifindex, LinkLayer::None).unwrap();
        // These sources put the Ethernet type where test_run looks for it (see TestPacket), and wants an IP header after it.
        let padded = |header: Vec<u8>| [header, vec![0; 40]].concat();
        for (what, data, expected) in [
            (
                "IPv4",
                ip("8.0.0.1", FAR4, UDP, &padded(udp(53))),
                Verdict::Drop,
            ),
            (
                "IPv4 DHCP",
                ip("8.0.0.1", FAR4, UDP, &padded(udp(67))),
                Verdict::Pass,
            ),
            (
                "IPv6",
                ip("2001:db8:86dd::1", FAR6, TCP, &padded(tcp(2))),
                Verdict::Drop,
            ),
            (
                "IPv6 RST",
                ip("2001:db8:86dd::1", FAR6, TCP, &padded(tcp(4))),
                Verdict::Pass,
            ),
        ] {
            assert_eq!(verdict(datapath, ifindex, &data), expected, "{what}");
        }
    });
}
