//! What the programs count, and what that costs.

use failover_agent::{
    config::AttachMode,
    datapath::{Counters, Direction, Inbound, LinkLayer, TestPacket, Verdict},
};

use crate::{
    lab::{lab, quiet_uplink},
    packets::*,
    verdicts::{closed, packet, udp4, udp6},
};

#[test]
#[ignore = "needs root"]
fn what_is_counted_is_what_is_on_the_wire() {
    closed(|datapath, ifindex| {
        let before = datapath.counters(ifindex).unwrap();
        let data = ethernet(&udp4());
        let size = u64::try_from(data.len()).unwrap();
        let run = |direction, gso_segments| {
            let packet = TestPacket {
                gso_segments,
                ..packet(&data, ifindex)
            };
            datapath.test_run(direction, &packet, 1).unwrap();
        };
        run(Direction::Egress, 0);
        run(Direction::Egress, 3);
        run(Direction::Ingress, 0);
        let after = datapath.counters(ifindex).unwrap();
        assert_eq!(after.tx_packets - before.tx_packets, 4);
        assert_eq!(after.tx_bytes - before.tx_bytes, 2 * size);
        assert_eq!(after.cut_packets - before.cut_packets, 4);
        assert_eq!(after.cut_bytes - before.cut_bytes, 2 * size);
        assert_eq!(after.rx_packets - before.rx_packets, 1);
        assert_eq!(after.rx_bytes - before.rx_bytes, size);
        assert_eq!(
            datapath.counters(ifindex + 1).unwrap(),
            Counters::default(),
            "no uplink"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn only_packets_from_beyond_are_a_sign_of_life() {
    closed(|datapath, ifindex| {
        datapath
            .set_exempt(ifindex, &["198.51.100.0/24".parse().unwrap()])
            .unwrap();
        let last_rx = |data: &[u8]| {
            let before = datapath.counters(ifindex).unwrap().last_rx_ns;
            datapath
                .test_run(Direction::Ingress, &packet(data, ifindex), 1)
                .unwrap();
            datapath.counters(ifindex).unwrap().last_rx_ns != before
        };
        for near in [
            ip(FAR4, HOST4, UDP, &udp(53)),
            ip("169.254.1.1", HOST4, UDP, &udp(53)),
            ip("fe80::1", HOST6, ICMPV6, &icmpv6(134)),
        ] {
            assert!(!last_rx(&ethernet(&near)));
        }
        assert!(!last_rx(&frame(&[], 0x0806, &[0; 28])));
        assert!(last_rx(&ethernet(&ip("203.0.113.9", HOST4, UDP, &udp(53)))));
    });
}

/// Prints the figure; the benchmark judges it.
#[test]
#[ignore = "needs root"]
fn cost_of_an_open_gate() {
    lab(|lab| {
        let ifindex = quiet_uplink();
        let mut datapath = lab.open(AttachMode::Auto);
        datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        for (owner, addresses) in [(ifindex, [HOST4, HOST6]), (ifindex + 1, [FAR4, FAR6])] {
            let addresses = addresses.map(|text| text.parse().unwrap());
            datapath.set_addresses(owner, &addresses).unwrap();
        }
        for inbound in [Inbound::Cut, Inbound::Keep] {
            datapath.set_inbound(ifindex, inbound).unwrap();
            for (what, data) in [
                ("TCP", ip(HOST4, FAR4, TCP, &tcp(0x10))),
                ("UDP", udp4()),
                ("UDP over IPv6", udp6()),
            ] {
                let run = datapath
                    .test_run(
                        Direction::Egress,
                        &packet(&ethernet(&data), ifindex),
                        1_000_000,
                    )
                    .unwrap();
                assert_eq!(run.verdict, Verdict::Pass);
                println!(
                    "egress program, open gate with stale check, inbound {inbound:?}, {what}: {} ns per packet",
                    run.duration.as_nanos()
                );
            }
            let arriving = ethernet(&ip(FAR4, HOST4, UDP, &udp(53)));
            let run = datapath
                .test_run(Direction::Ingress, &packet(&arriving, ifindex), 1_000_000)
                .unwrap();
            println!(
                "ingress program, inbound {inbound:?}, UDP: {} ns per packet",
                run.duration.as_nanos()
            );
        }
        assert!(datapath.counters(ifindex).unwrap().tx_packets >= 6_000_000);
    });
}
