//! No packet, however damaged, leads the programs to anything but a defined verdict, or to a malformed answer.

use failover_policy::Family;

use failover_agent::datapath::{CutMode, Direction, Inbound, LinkLayer, Verdict};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    packets::*,
    replies::read,
    verdicts::{closed, packet, udp4, udp6},
};

/// An answer from its IP header on: at most one tag is left in the data.
fn network_layer(answer: &[u8], link_layer: LinkLayer) -> &[u8] {
    match (link_layer, &answer[12..14]) {
        (LinkLayer::None, _) => answer,
        (LinkLayer::Ethernet, [0x81, 0] | [0x88, 0xa8]) => &answer[18..],
        (LinkLayer::Ethernet, _) => &answer[14..],
    }
}

#[test]
#[ignore = "needs root"]
fn no_packet_gets_an_undefined_verdict() {
    closed(|datapath, ifindex| {
        let inner = [
            udp4(),
            udp6(),
            ip(HOST4, FAR4, TCP, &tcp(2)),
            ip(
                HOST6,
                FAR6,
                60,
                &[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0],
            ),
        ];
        // In an untagged frame the kernel wants at least an IP header after an IP type; behind a tag it does not look.
        let arbitrary = (
            prop::sample::select(vec![&[][..], &[0x8100], &[0x88a8, 0x8100]]),
            prop::sample::select(vec![0x0800_u16, 0x86dd, 0x8100, 0x88a8, 0x0806]),
            prop::collection::vec(any::<u8>(), 0..200),
        )
            .prop_filter("too short for the kernel", |(tags, _, payload)| {
                !tags.is_empty() || payload.len() >= 40
            })
            .prop_map(|(tags, ethertype, payload)| frame(tags, ethertype, &payload));
        let damaged = (
            prop::sample::select(inner.to_vec()),
            any::<prop::sample::Index>(),
            any::<u8>(),
        )
            .prop_map(|(mut packet, at, byte)| {
                let ethertype = ethertype(&packet);
                let at = at.index(packet.len());
                packet[at] = byte;
                frame(&[0x8100], ethertype, &packet)
            });
        let truncated = (
            prop::sample::select(inner.to_vec()),
            any::<prop::sample::Index>(),
        )
            .prop_map(|(packet, length)| {
                let length = length.index(packet.len());
                frame(&[0x8100], ethertype(&packet), &packet[..length])
            });
        let packets = prop_oneof![arbitrary, damaged, truncated];

        let config = Config {
            cases: 4096,
            failure_persistence: None,
            ..Config::default()
        };
        for link_layer in [LinkLayer::Ethernet, LinkLayer::None] {
            datapath.attach(ifindex, link_layer).unwrap();
            for family in Family::ALL {
                datapath
                    .set_cut_mode(ifindex, family, CutMode::Reset)
                    .unwrap();
            }
            datapath.set_inbound(ifindex, Inbound::Keep).unwrap();
            let judged = TestRunner::new(config.clone()).run(&packets, |data| {
                let run = |direction| {
                    datapath
                        .test_run(direction, &packet(&data, ifindex), 1)
                        .unwrap()
                };
                let judged = run(Direction::Egress);
                match judged.verdict {
                    Verdict::Pass => prop_assert_eq!(&judged.data, &data),
                    Verdict::Drop => {}
                    Verdict::Answer => {
                        let answer = network_layer(&judged.data, link_layer);
                        prop_assert!(read(answer).is_ok(), "{:?}: {:x?}", read(answer), answer);
                    }
                    Verdict::Unexpected(verdict) => prop_assert!(false, "verdict {}", verdict),
                }
                let arrived = run(Direction::Ingress);
                prop_assert_eq!(arrived.verdict, Verdict::Pass);
                prop_assert_eq!(arrived.data, data);
                Ok(())
            });
            judged.unwrap();
        }
    });
}
