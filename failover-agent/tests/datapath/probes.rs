//! Sockets that probe: their packets pass closed gates, whatever becomes of their marks.

use failover_policy::Family;
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use failover_agent::{
    config::AttachMode,
    datapath::{Datapath, Gate, LinkLayer, ProbeSockets},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::lab::{Lab, MARK, Peer, lab, sh, uplink};

/// Both gates closed. Nothing of the peer's network is exempt.
fn closed(lab: &Lab) -> Datapath {
    let mut datapath = lab.open(AttachMode::Auto);
    datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
    datapath.renew_lease(Duration::from_secs(3600)).unwrap();
    for family in Family::ALL {
        datapath.set_gate(uplink(), family, Gate::Closed).unwrap();
    }
    datapath
}

/// Probes that passed, and packets that were cut, because of one datagram.
fn after(datapath: &Datapath, socket: &UdpSocket, to: SocketAddr) -> (u64, u64) {
    let before = datapath.counters(uplink()).unwrap();
    socket.send_to(b"probe", to).unwrap();
    let now = datapath.counters(uplink()).unwrap();
    (
        now.probes_passed - before.probes_passed,
        now.cut_packets - before.cut_packets,
    )
}

#[test]
#[ignore = "needs root"]
fn a_registered_socket_passes_a_closed_gate_whatever_its_mark() {
    lab(|lab| {
        let _peer = Peer::connect();
        let datapath = closed(lab);
        for (from, to) in [
            ("10.0.0.1:0", "10.0.0.2:9"),
            ("[2001:db8::1]:0", "[2001:db8::2]:9"),
        ] {
            let to: SocketAddr = to.parse().unwrap();
            let [probe, other] = [(); 2].map(|()| UdpSocket::bind(from).unwrap());
            let sockets = datapath.probe_sockets();
            let registration = sockets
                .register(&SockRef::from(&probe), "uplink", None)
                .unwrap();
            for mark in [MARK, 0, 0x77] {
                SockRef::from(&probe).set_mark(mark).unwrap();
                SockRef::from(&other).set_mark(mark).unwrap();
                assert_eq!(after(&datapath, &probe, to), (1, 0), "{to}, mark {mark:#x}");
                assert_eq!(after(&datapath, &other, to), (0, 1), "{to}, mark {mark:#x}");
            }
            // As nft's `meta mark set` and iptables' CONNMARK do in an output chain.
            SockRef::from(&probe).set_mark(MARK).unwrap();
            sh(
                "nft 'table inet m { chain o { type route hook output priority mangle; meta mark set ct mark; }; }'",
            );
            assert_eq!(after(&datapath, &probe, to), (1, 0), "{to}, rewritten");
            sh("nft delete table inet m");
            drop(registration);
            assert_eq!(after(&datapath, &probe, to), (0, 1), "{to}, forgotten");
        }
        assert!(
            datapath
                .probe_sockets()
                .register(
                    &SockRef::from(&UdpSocket::bind("10.0.0.1:0").unwrap()),
                    "nothing",
                    None
                )
                .is_err()
        );
    });
}

#[test]
#[ignore = "needs root"]
fn an_open_gate_counts_probes_by_mark_and_socket() {
    lab(|lab| {
        let _peer = Peer::connect();
        let mut datapath = closed(lab);
        datapath.set_gate(uplink(), Family::V4, Gate::Open).unwrap();
        let to: SocketAddr = "10.0.0.2:9".parse().unwrap();
        let [probe, other] = [(); 2].map(|()| UdpSocket::bind("10.0.0.1:0").unwrap());
        let sockets = datapath.probe_sockets();
        let _registration = sockets.register(&SockRef::from(&probe), "uplink", None);
        for socket in [&probe, &other] {
            SockRef::from(socket).set_mark(MARK).unwrap();
        }
        assert_eq!(after(&datapath, &probe, to), (1, 0));
        assert_eq!(after(&datapath, &other, to), (0, 0));
    });
}

#[test]
#[ignore = "needs root"]
fn a_restart_forgets_sockets_and_others_may_register_theirs() {
    lab(|lab| {
        let _peer = Peer::connect();
        let to: SocketAddr = "10.0.0.2:9".parse().unwrap();
        assert!(ProbeSockets::pinned(&lab.bpf).is_none());
        let datapath = closed(lab);
        let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
        let sockets = datapath.probe_sockets();
        let registration = sockets.register(&SockRef::from(&socket), "uplink", Some(7));
        // A crash: nobody takes it back.
        std::mem::forget(registration);
        drop(datapath);
        let datapath = closed(lab);
        assert_eq!(after(&datapath, &socket, to), (0, 1));
        let sockets = ProbeSockets::pinned(&lab.bpf).unwrap();
        let _registration = sockets
            .register(&SockRef::from(&socket), "uplink", None)
            .unwrap();
        assert_eq!(after(&datapath, &socket, to), (1, 0));
    });
}

/// Sends an echo request with this identifier.
fn ping(to: IpAddr, identifier: u16) {
    let (domain, protocol, kind) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
    let [high, low] = identifier.to_be_bytes();
    // The kernel completes ICMPv6's checksum; nobody looks at ICMP's.
    let request = [kind, 0, 0, 0, high, low, 0, 1];
    socket
        .send_to(&request, &SocketAddr::new(to, 0).into())
        .unwrap();
}

#[test]
#[ignore = "needs root"]
fn echo_requests_that_lost_their_socket_are_counted() {
    lab(|lab| {
        let _peer = Peer::connect();
        let datapath = closed(lab);
        let sockets = datapath.probe_sockets();
        let [one, other] = [(); 2].map(|()| UdpSocket::bind("10.0.0.1:0").unwrap());
        let register = |socket: &UdpSocket, identifier| {
            let socket = SockRef::from(socket);
            sockets
                .register(&socket, "uplink", Some(identifier))
                .unwrap()
        };
        let cut = || {
            let counters = datapath.counters(uplink()).unwrap();
            (counters.probes_cut, counters.cut_packets)
        };
        let first = register(&one, 0xfa11);
        let second = register(&other, 0xfa11);
        for to in ["10.0.0.2", "2001:db8::2"] {
            let to = to.parse().unwrap();
            let (probes, packets) = cut();
            ping(to, 0xfa11);
            ping(to, 0xfa12);
            assert_eq!(cut(), (probes + 1, packets + 2), "{to}");
        }
        // One of the sockets that send the same is closed, then the other.
        let (probes, _) = cut();
        drop(first);
        ping("10.0.0.2".parse().unwrap(), 0xfa11);
        assert_eq!(cut().0, probes + 1);
        drop(second);
        ping("10.0.0.2".parse().unwrap(), 0xfa11);
        assert_eq!(cut().0, probes + 1);
    });
}
