//! Links of other kinds in the kernel: tun, and frames that hold VLAN tags.

use failover_policy::Family;
use std::{
    io::ErrorKind,
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use failover_agent::{
    config::AttachMode,
    datapath::{CutMode, Datapath, Gate, LinkLayer},
};

use crate::{
    lab::{Lab, Peer, Wire, lab, modes, sh, tun_uplink, until, uplink},
    packets::*,
    replies::{Kind, read},
};

fn closed(lab: &Lab, mode: AttachMode, link_layer: LinkLayer) -> Datapath {
    sh("sysctl -qw net.ipv4.conf.all.rp_filter=1");
    let mut datapath = lab.open(mode);
    datapath.attach(uplink(), link_layer).unwrap();
    datapath.renew_lease(Duration::from_secs(3600)).unwrap();
    for family in Family::ALL {
        datapath
            .set_cut_mode(uplink(), family, CutMode::Reset)
            .unwrap();
    }
    for family in Family::ALL {
        datapath.set_gate(uplink(), family, Gate::Closed).unwrap();
    }
    datapath
}

#[test]
#[ignore = "needs root"]
fn senders_on_a_link_without_a_header_are_told() {
    for (mode, _) in modes() {
        lab(|lab| {
            let _tun = tun_uplink();
            sh("ip addr add 2001:db8::1/64 dev uplink nodad");
            let datapath = closed(lab, mode, LinkLayer::None);
            for address in ["10.0.0.2:7777", "[2001:db8::2]:7777"] {
                let error = TcpStream::connect(address).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
            let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
            socket.connect("10.0.0.2:7777").unwrap();
            until("an error comes back", || socket.send(b"datagram").is_err());
            assert_eq!(datapath.counters(uplink()).unwrap().resets_sent, 2);
        });
    }
}

#[test]
#[ignore = "needs root"]
fn an_answer_bears_the_tags_of_its_packet() {
    lab(|lab| {
        let _peer = Peer::connect();
        let _datapath = closed(lab, AttachMode::Auto, LinkLayer::Ethernet);
        let wire = Wire::open("uplink");
        let (mac, gateway) = ([2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xa]);
        for (host, far) in [(HOST4, FAR4), (HOST6, FAR6)] {
            for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                let packet = ip(host, far, TCP, &tcp(2));
                let mut data = frame(tags, ethertype(&packet), &packet);
                data[..12].copy_from_slice(&[gateway, mac].concat());
                wire.send(&data);
                let mut answers = Vec::new();
                until("the answer arrives", || {
                    answers = wire.frames();
                    answers.retain(|(leaving, frame)| !leaving && frame.starts_with(&mac));
                    !answers.is_empty()
                });
                let (_, answer) = &answers[0];
                // A packet socket shows a tag beside the data only in its auxiliary data: one is missing here.
                let inner = tags.len().saturating_sub(1) * 4;
                assert_eq!(answer[6..12], gateway);
                assert_eq!(
                    answer[12 + inner..14 + inner],
                    ethertype(&packet).to_be_bytes()
                );
                let reply = read(&answer[14 + inner..]).unwrap();
                assert!(matches!(
                    reply.kind,
                    Kind::Reset {
                        acknowledgement: Some(1),
                        ..
                    }
                ));
            }
        }
    });
}
