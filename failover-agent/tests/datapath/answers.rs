//! What senders are told of packets that are cut: real sockets, with the cut mode `Reset`.

use failover_policy::Family;
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use failover_agent::{
    config::AttachMode,
    datapath::{CutMode, Datapath, Gate, LinkLayer},
};

use crate::lab::{Lab, Peer, lab, modes, sh, until, uplink};

const PEERS: [&str; 2] = ["10.0.0.2:7777", "[2001:db8::2]:7777"];

/// The host's uplink with cut mode `Reset` and both gates open, behind a strict reverse path filter.
fn attached(lab: &Lab, mode: AttachMode) -> Datapath {
    sh("sysctl -qw net.ipv4.conf.all.rp_filter=1");
    let mut datapath = lab.open(mode);
    datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
    datapath.renew_lease(Duration::from_secs(3600)).unwrap();
    for family in Family::ALL {
        datapath
            .set_cut_mode(uplink(), family, CutMode::Reset)
            .unwrap();
    }
    datapath
}

fn close(datapath: &mut Datapath) {
    for family in Family::ALL {
        datapath.set_gate(uplink(), family, Gate::Closed).unwrap();
    }
}

fn connected(peer: &Peer, address: &str) -> (TcpStream, TcpStream) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = peer.run(move || TcpListener::bind(address).unwrap());
    let near = TcpStream::connect(address).unwrap();
    near.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, far)
}

#[test]
#[ignore = "needs root"]
fn a_connection_that_sends_is_reset_at_once() {
    for (mode, _) in modes() {
        lab(|lab| {
            let peer = Peer::connect();
            let mut datapath = attached(lab, mode);
            let mut connections = PEERS.map(|address| connected(&peer, address));
            close(&mut datapath);
            let received = datapath.counters(uplink()).unwrap().rx_packets;
            for (near, _) in &mut connections {
                near.write_all(b"farewell").unwrap();
                let error = near.read(&mut [0; 1]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            }
            let counters = datapath.counters(uplink()).unwrap();
            assert_eq!((counters.resets_sent, counters.cut_packets), (2, 2));
            assert_eq!(counters.rx_packets, received, "answers came from nowhere");
        });
    }
}

#[test]
#[ignore = "needs root"]
fn a_new_connection_is_refused_at_once() {
    for (mode, _) in modes() {
        lab(|lab| {
            let peer = Peer::connect();
            let mut datapath = attached(lab, mode);
            let _listeners = PEERS.map(|address| peer.run(move || TcpListener::bind(address)));
            close(&mut datapath);
            for address in PEERS {
                let error = TcpStream::connect(address).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
            }
            assert_eq!(datapath.counters(uplink()).unwrap().resets_sent, 2);
        });
    }
}

#[test]
#[ignore = "needs root"]
fn a_bulk_sender_is_reset_in_full_flight() {
    for (mode, _) in modes() {
        for address in PEERS {
            lab(|lab| {
                let peer = Peer::connect();
                let mut datapath = attached(lab, mode);
                let (mut near, mut far) = connected(&peer, address);
                let reader = std::thread::spawn(move || {
                    let mut total = 0;
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(length @ 1..) = far.read(&mut buffer) {
                        total += length;
                    }
                    total
                });
                let writer = std::thread::spawn(move || {
                    let data = vec![7; 1 << 20];
                    loop {
                        if let Err(error) = near.write_all(&data) {
                            return error.kind();
                        }
                    }
                });
                until("GSO packets flow", || {
                    let counters = datapath.counters(uplink()).unwrap();
                    counters.tx_bytes > 50_000_000
                });
                close(&mut datapath);
                assert_eq!(writer.join().unwrap(), ErrorKind::ConnectionReset);
                assert!(datapath.counters(uplink()).unwrap().resets_sent >= 1);
                // Its end reaches the far end too, once nothing is cut.
                for family in Family::ALL {
                    datapath.set_gate(uplink(), family, Gate::Open).unwrap();
                }
                drop(reader);
            });
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_connected_udp_socket_gets_an_error() {
    for (mode, _) in modes() {
        lab(|lab| {
            let _peer = Peer::connect();
            let mut datapath = attached(lab, mode);
            close(&mut datapath);
            for (address, errno) in PEERS.into_iter().zip([113, 13]) {
                let local = if address.starts_with('[') {
                    "[::]:0"
                } else {
                    "0.0.0.0:0"
                };
                let socket = UdpSocket::bind(local).unwrap();
                socket.connect(address).unwrap();
                until("the bucket has a token", || {
                    socket.send(b"datagram").map_or_else(
                        |error| {
                            // EHOSTUNREACH and EACCES: net/ipv4/icmp.c and net/ipv6/icmp.c, icmp_err_convert.
                            assert_eq!(error.raw_os_error(), Some(errno), "{error}");
                            true
                        },
                        |_| false,
                    )
                });
            }
            assert!(datapath.counters(uplink()).unwrap().icmp_sent >= 2);
        });
    }
}
