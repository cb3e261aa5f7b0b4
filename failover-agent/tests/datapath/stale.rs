//! Packets whose source is another uplink's address.

use failover_policy::Family;
use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use failover_agent::{
    config::AttachMode,
    datapath::{Answer, CutMode, Datapath, EndedFlow, Gate, LinkLayer, Reason, Verdict},
};
use socket2::{Domain, Socket, Type};

use crate::{
    lab::{Lab, Peer, Wire, lab, sh, until, uplink},
    packets::*,
    replies::{Kind, read},
    verdicts::{closed, packet, udp4, udp6, verdict},
};

const LEASE: Duration = Duration::from_secs(3600);

fn addresses(texts: &[&str]) -> Vec<std::net::IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
#[ignore = "needs root"]
fn a_foreign_source_is_cut_whatever_the_gate() {
    lab(|lab| {
        let ifindex = crate::lab::quiet_uplink();
        let mut datapath = lab.open(AttachMode::Auto);
        datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        datapath.renew_lease(LEASE).unwrap();
        let is_cut = |datapath: &Datapath, packet: &[u8]| {
            verdict(datapath, ifindex, &ethernet(packet)) == Verdict::Drop
        };
        let other = ifindex + 1;
        assert!(!is_cut(&datapath, &udp4()) && !is_cut(&datapath, &udp6()));

        datapath
            .set_addresses(other, &addresses(&[HOST4, HOST6]))
            .unwrap();
        let tagged = frame(&[0x88a8, 0x8100], 0x0800, &udp4());
        assert!(is_cut(&datapath, &udp4()) && is_cut(&datapath, &udp6()));
        assert_eq!(verdict(&datapath, ifindex, &tagged), Verdict::Drop);
        assert!(
            is_cut(&datapath, &ip(HOST4, FAR4, TCP, &tcp(4))),
            "a RST too"
        );
        assert!(!is_cut(&datapath, &ip(FAR4, HOST4, UDP, &udp(53))));
        for exempt in [
            ip(HOST4, FAR4, UDP, &udp(67)),
            ip(HOST6, FAR6, ICMPV6, &icmpv6(135)),
            ip(HOST4, "169.254.1.1", UDP, &udp(53)),
        ] {
            assert!(!is_cut(&datapath, &exempt));
        }
        assert_eq!(
            verdict(&datapath, ifindex, &frame(&[], 0x0806, &[0; 28])),
            Verdict::Pass
        );
        let counters = datapath.counters(ifindex).unwrap();
        assert_eq!((counters.stale_cut, counters.cut_packets), (4, 4));

        // An exempt destination does not make the source right.
        datapath
            .set_exempt(0, &["198.51.100.0/24".parse().unwrap()])
            .unwrap();
        assert!(is_cut(&datapath, &udp4()));

        // Two modems of a kind give out the same address.
        datapath
            .set_addresses(ifindex, &addresses(&[HOST4]))
            .unwrap();
        assert!(!is_cut(&datapath, &udp4()) && is_cut(&datapath, &udp6()));
        // The address moves.
        datapath.set_addresses(other, &addresses(&[HOST6])).unwrap();
        assert!(!is_cut(&datapath, &udp4()) && is_cut(&datapath, &udp6()));
        drop(datapath);

        // A restarted agent knows what it knew.
        let mut datapath = lab.open(AttachMode::Auto);
        assert!(is_cut(&datapath, &udp6()) && !is_cut(&datapath, &udp4()));
        // What an uplink has lost is nobody's, after a restart, too, until an uplink has it again.
        datapath.set_addresses(other, &[]).unwrap();
        datapath.set_addresses(ifindex, &[]).unwrap();
        drop(datapath);
        let mut datapath = lab.open(AttachMode::Auto);
        assert!(is_cut(&datapath, &udp6()) && is_cut(&datapath, &udp4()));
        datapath
            .set_addresses(ifindex, &addresses(&[HOST4]))
            .unwrap();
        assert!(is_cut(&datapath, &udp6()) && !is_cut(&datapath, &udp4()));
        // An interface that is no uplink has it now.
        datapath
            .release_addresses(&addresses(&[FAR4, HOST6]))
            .unwrap();
        assert!(!is_cut(&datapath, &udp6()));
        datapath.set_addresses(other, &addresses(&[HOST6])).unwrap();
        assert!(is_cut(&datapath, &udp6()));
        datapath.forget_addresses(other).unwrap();
        assert!(!is_cut(&datapath, &udp6()));

        datapath.set_addresses(other, &addresses(&[HOST6])).unwrap();
        datapath.renew_lease(Duration::ZERO).unwrap();
        until("the lease is past", || !is_cut(&datapath, &udp6()));
    });
}

#[test]
#[ignore = "needs root"]
fn an_uplinks_own_source_is_not_looked_up() {
    lab(|lab| {
        let ifindex = crate::lab::quiet_uplink();
        let mut datapath = lab.open(AttachMode::Auto);
        datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        datapath.renew_lease(LEASE).unwrap();
        let is_cut = |datapath: &Datapath, packet: &[u8]| {
            verdict(datapath, ifindex, &ethernet(packet)) == Verdict::Drop
        };
        let own = addresses(&["fe80::2", HOST4, "192.0.2.2", HOST6]);
        datapath.set_addresses(ifindex, &own).unwrap();

        // What the map would say of them if it were asked: they are another uplink's.
        let other = u8::try_from(ifindex + 1).unwrap();
        for key in [
            "00 00 00 00 00 00 00 00 00 00 ff ff c0 00 02 01",
            "00 00 00 00 00 00 00 00 00 00 ff ff c0 00 02 02",
            "20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01",
        ] {
            let map = lab.bpf.join("addresses");
            sh(&format!(
                "bpftool map update pinned {} key hex {key} value {other} 0 0 0 0 0 0 0",
                map.display()
            ));
        }
        let second = ip("192.0.2.2", FAR4, UDP, &udp(53));
        assert!(!is_cut(&datapath, &udp4()) && !is_cut(&datapath, &udp6()));
        assert!(is_cut(&datapath, &second), "one of a family is noted");
        drop(datapath);
        let mut datapath = lab.open(AttachMode::Auto);
        datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        assert!(!is_cut(&datapath, &udp4()) && !is_cut(&datapath, &udp6()));

        // A closed gate cuts them like any other.
        for (family, packet) in [(Family::V4, udp4()), (Family::V6, udp6())] {
            datapath.set_gate(ifindex, family, Gate::Closed).unwrap();
            assert!(is_cut(&datapath, &packet));
            datapath.set_gate(ifindex, family, Gate::Open).unwrap();
            assert!(!is_cut(&datapath, &packet));
        }

        // It is asked of those that the uplink has lost, or that nobody is to mind.
        datapath.set_addresses(ifindex, &own[3..]).unwrap();
        assert!(is_cut(&datapath, &udp4()) && !is_cut(&datapath, &udp6()));
        datapath.forget_addresses(ifindex).unwrap();
        assert!(is_cut(&datapath, &udp6()));
        // Nothing of an uplink outlives its attachment.
        datapath.set_addresses(ifindex, &own).unwrap();
        datapath.retain(&[]).unwrap();
        datapath.attach(ifindex, LinkLayer::Ethernet).unwrap();
        assert!(is_cut(&datapath, &udp4()) && is_cut(&datapath, &udp6()));
    });
}

#[test]
#[ignore = "needs root"]
fn allowed_marks_pass_a_closed_gate() {
    closed(|datapath, ifindex| {
        let data = ethernet(&udp4());
        let is_cut = |datapath: &Datapath, mark| {
            let packet = failover_agent::datapath::TestPacket {
                mark,
                ..packet(&data, ifindex)
            };
            let egress = failover_agent::datapath::Direction::Egress;
            datapath.test_run(egress, &packet, 1).unwrap().verdict == Verdict::Drop
        };
        datapath.set_allow_marks(&[7, 0x100]).unwrap();
        assert!(!is_cut(datapath, 7) && !is_cut(datapath, 0x100));
        assert!(is_cut(datapath, 8) && is_cut(datapath, 0));
        datapath.set_allow_marks(&[8]).unwrap();
        assert!(is_cut(datapath, 7) && !is_cut(datapath, 8));
        assert!(datapath.set_allow_marks(&[1; 9]).is_err());
        // They say nothing about the source.
        datapath
            .set_addresses(ifindex + 1, &addresses(&[HOST4]))
            .unwrap();
        assert!(is_cut(datapath, 8));
    });
}

/// A host with the address of an uplink that it no longer has an egress path by.
fn moved(lab: &Lab) -> Datapath {
    sh("ip addr add 192.0.2.9/32 dev lo && sysctl -qw net.ipv4.conf.all.rp_filter=1");
    let mut datapath = lab.open(AttachMode::Auto);
    datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
    datapath.renew_lease(LEASE).unwrap();
    for family in Family::ALL {
        datapath
            .set_cut_mode(uplink(), family, CutMode::Reset)
            .unwrap();
    }
    datapath
        .set_addresses(uplink() + 1000, &addresses(&["192.0.2.9"]))
        .unwrap();
    datapath
}

#[test]
#[ignore = "needs root"]
fn no_provider_sees_a_foreign_source_and_its_sender_is_told() {
    lab(|lab| {
        let peer = Peer::connect();
        let mut datapath = moved(lab);
        let provider = peer.run(|| Wire::open("far"));
        let wire = Wire::open("uplink");

        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let local: SocketAddr = "192.0.2.9:0".parse().unwrap();
        socket.bind(&local.into()).unwrap();
        let local = socket.local_addr().unwrap().as_socket().unwrap();
        let remote: SocketAddr = "10.0.0.2:7777".parse().unwrap();
        let error = socket.connect(&remote.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

        let datagram = UdpSocket::bind("192.0.2.9:0").unwrap();
        datagram.connect(remote).unwrap();
        until("an error comes back", || {
            datagram.send(b"datagram").is_err()
        });

        let foreign = [192, 0, 2, 9];
        assert!(
            provider
                .frames()
                .iter()
                .all(|(_, frame)| frame.get(26..30) != Some(&foreign[..])),
            "seen at the provider"
        );
        // What came out behind the redirect.
        let answers: Vec<_> = wire
            .frames()
            .into_iter()
            .filter(|(leaving, frame)| !leaving && frame.get(30..34) == Some(&foreign[..]))
            .map(|(_, frame)| read(&frame[14..]).unwrap())
            .collect();
        assert!(matches!(
            answers[0].kind,
            Kind::Reset {
                sequence: 0,
                acknowledgement: Some(_),
                ..
            }
        ));
        assert!(matches!(answers[1].kind, Kind::Prohibited { .. }));

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let event = runtime.block_on(async {
            let mut events = datapath.take_events().unwrap();
            tokio::time::timeout(Duration::from_secs(20), events.next()).await
        });
        assert_eq!(
            event.unwrap().unwrap(),
            EndedFlow {
                ifindex: uplink(),
                protocol: TCP,
                source: local,
                destination: remote,
                reason: Reason::Stale,
                answer: Answer::Reset,
            }
        );
        assert!(datapath.take_events().is_err(), "once only");
    });
}
