//! Connections that came in by an uplink whose gate is closed.

use failover_policy::Family;
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use failover_agent::{
    config::AttachMode,
    datapath::{CutMode, Datapath, Direction, Gate, Inbound, LinkLayer, Verdict},
};

use crate::{
    lab::{Peer, lab, until, uplink},
    packets::*,
    verdicts::{closed, packet, verdict},
};

const HOSTS: [&str; 2] = ["10.0.0.1:0", "[2001:db8::1]:0"];

fn close(datapath: &mut Datapath) {
    for family in Family::ALL {
        datapath.set_gate(uplink(), family, Gate::Closed).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn what_came_in_is_answered_if_it_is_to_be_kept() {
    for inbound in [Inbound::Keep, Inbound::Cut] {
        lab(|lab| {
            let peer = Peer::connect();
            let mut datapath = lab.open(AttachMode::Auto);
            datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
            datapath.renew_lease(Duration::from_secs(3600)).unwrap();
            for family in Family::ALL {
                datapath
                    .set_cut_mode(uplink(), family, CutMode::Reset)
                    .unwrap();
            }
            datapath.set_inbound(uplink(), inbound).unwrap();
            let outbound = {
                let listener = peer.run(|| TcpListener::bind("10.0.0.2:7777").unwrap());
                let near = TcpStream::connect("10.0.0.2:7777").unwrap();
                (near, listener.accept().unwrap())
            };
            let before = HOSTS.map(|host| served(&peer, host));
            close(&mut datapath);

            for (mut near, mut far) in before {
                far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                near.set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                near.write_all(b"x").unwrap();
                match inbound {
                    Inbound::Keep => far.read_exact(&mut [0; 1]).unwrap(),
                    Inbound::Cut => {
                        let error = near.read(&mut [0; 1]).unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    }
                }
            }
            let (mut near, _far) = outbound;
            near.write_all(b"x").unwrap();
            let error = near.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "went out");

            if inbound == Inbound::Keep {
                for host in HOSTS {
                    served(&peer, host);
                }
                for host in HOSTS {
                    echo(&peer, host);
                }
            }
        });
    }
}

/// A connection from the peer: the host's end and the peer's.
fn served(peer: &Peer, host: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(host).unwrap();
    let address = listener.local_addr().unwrap();
    let far = peer.run(move || TcpStream::connect(address).unwrap());
    (listener.accept().unwrap().0, far)
}

/// A datagram from the peer, and its answer.
fn echo(peer: &Peer, host: &str) {
    let server = UdpSocket::bind(host).unwrap();
    let address = server.local_addr().unwrap();
    let any: SocketAddr = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    }
    .parse()
    .unwrap();
    let far = peer.run(move || {
        let socket = UdpSocket::bind(any).unwrap();
        socket.send_to(b"question", address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
    server.send_to(b"answer", from).unwrap();
    until("the answer arrives", || far.recv(&mut [0; 16]).is_ok());
}

#[test]
#[ignore = "needs root"]
fn an_answer_from_beyond_is_no_beginning() {
    closed(|datapath, ifindex| {
        datapath.set_inbound(ifindex, Inbound::Keep).unwrap();
        let leave =
            |datapath: &Datapath, packet: &[u8]| verdict(datapath, ifindex, &ethernet(packet));
        let arrive = |datapath: &Datapath, data: &[u8]| {
            datapath
                .test_run(Direction::Ingress, &packet(&ethernet(data), ifindex), 1)
                .unwrap();
        };
        // udp() sends from port 12345.
        let (question, answer) = (udp(53), [0, 53, 0x30, 0x39, 0, 8, 0, 0]);
        assert_eq!(
            leave(datapath, &ip(HOST4, FAR4, UDP, &question)),
            Verdict::Drop
        );
        arrive(datapath, &ip(FAR4, HOST4, UDP, &answer));
        assert_eq!(
            leave(datapath, &ip(HOST4, FAR4, UDP, &question)),
            Verdict::Drop
        );

        let other = "198.51.100.8";
        arrive(datapath, &ip(other, HOST4, UDP, &answer));
        assert_eq!(
            leave(datapath, &ip(HOST4, other, UDP, &question)),
            Verdict::Pass
        );
        datapath.set_inbound(ifindex, Inbound::Cut).unwrap();
        assert_eq!(
            leave(datapath, &ip(HOST4, other, UDP, &question)),
            Verdict::Drop
        );
        datapath.set_inbound(ifindex, Inbound::Keep).unwrap();

        // A segment within a connection is no beginning either; a SYN is.
        arrive(datapath, &ip(FAR6, HOST6, TCP, &tcp(0x10)));
        arrive(datapath, &ip(FAR6, HOST6, TCP, &tcp(0x12)));
        assert_eq!(
            leave(datapath, &ip(HOST6, FAR6, TCP, &tcp(0x10))),
            Verdict::Drop
        );
        arrive(datapath, &ip(FAR6, HOST6, TCP, &tcp(0x02)));
        assert_eq!(
            leave(datapath, &ip(HOST6, FAR6, TCP, &tcp(0x12))),
            Verdict::Pass
        );

        // Echo replies answer by themselves.
        let ping = [0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(leave(datapath, &ip(HOST4, FAR4, 1, &ping)), Verdict::Pass);
        assert_eq!(
            leave(datapath, &ip(HOST6, FAR6, ICMPV6, &icmpv6(129))),
            Verdict::Pass
        );
        assert_eq!(
            leave(datapath, &ip(HOST6, FAR6, ICMPV6, &icmpv6(128))),
            Verdict::Drop
        );
    });
}
