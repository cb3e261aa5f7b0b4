//! What clients behind the host are told of a closed gate.

use failover_policy::Family;
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use failover_agent::{
    config::AttachMode,
    datapath::{CutMode, Datapath, Gate, LinkLayer, Reason},
};

use crate::lab::{Lab, Peer, finish_checksums, lab, modes, sh, until, uplink};

const PEERS: [&str; 2] = ["10.0.0.2:7777", "[2001:db8::2]:7777"];

/// A router with strict reverse path filters and NAT of both families.
fn router(lab: &Lab, mode: AttachMode) -> (Peer, Peer, Datapath) {
    let (peer, client) = (Peer::connect(), Peer::client());
    sh("sysctl -qw net.ipv4.conf.all.rp_filter=1");
    sh(
        "nft 'add table inet nat; add chain inet nat out { type nat hook postrouting priority 100; }; \
        add rule inet nat out oifname uplink masquerade'",
    );
    let mut datapath = lab.open(mode);
    datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
    datapath.renew_lease(Duration::from_secs(3600)).unwrap();
    for family in Family::ALL {
        datapath
            .set_cut_mode(uplink(), family, CutMode::Reset)
            .unwrap();
    }
    (peer, client, datapath)
}

fn close(datapath: &mut Datapath) {
    for family in Family::ALL {
        datapath.set_gate(uplink(), family, Gate::Closed).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn a_client_behind_nat_is_reset_and_refused() {
    for (mode, _) in modes() {
        lab(|lab| {
            let (peer, client, mut datapath) = router(lab, mode);
            // An answer whose checksum still counted as unfinished, as the client's segment's did, would be spoilt there.
            finish_checksums("lan");
            let connections = PEERS.map(|address| {
                let address: SocketAddr = address.parse().unwrap();
                let listener = peer.run(move || TcpListener::bind(address).unwrap());
                let near = client.run(move || TcpStream::connect(address).unwrap());
                near.set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                (near, listener.accept().unwrap(), listener)
            });
            close(&mut datapath);
            for (mut near, (_far, source), _listener) in connections {
                assert!(["10.0.0.1", "2001:db8::1"].contains(&source.ip().to_string().as_str()));
                near.write_all(b"farewell").unwrap();
                let error = near.read(&mut [0; 1]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            }
            for address in PEERS {
                let error = client.run(move || TcpStream::connect(address).unwrap_err());
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
            }
            assert_eq!(datapath.counters(uplink()).unwrap().resets_sent, 4);
        });
    }
}

#[test]
#[ignore = "needs root"]
fn a_udp_client_behind_nat_gets_an_error() {
    lab(|lab| {
        let (_peer, client, mut datapath) = router(lab, AttachMode::Auto);
        close(&mut datapath);
        for (address, local) in PEERS.into_iter().zip(["0.0.0.0:0", "[::]:0"]) {
            let socket = client.run(move || {
                let socket = UdpSocket::bind(local).unwrap();
                socket.connect(address).unwrap();
                socket
            });
            until("an error comes back", || socket.send(b"datagram").is_err());
        }
        assert!(datapath.counters(uplink()).unwrap().icmp_sent >= 2);
    });
}

/// Static NAT goes on to write an address after it has moved to another uplink.
#[test]
#[ignore = "needs root"]
fn a_client_behind_stale_nat_is_reset_though_the_gate_is_open() {
    lab(|lab| {
        let (peer, client, mut datapath) = router(lab, AttachMode::Auto);
        let listener = peer.run(|| TcpListener::bind("10.0.0.2:7777").unwrap());
        let mut near = client.run(|| TcpStream::connect("10.0.0.2:7777").unwrap());
        near.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let _far = listener.accept().unwrap();
        datapath
            .set_addresses(uplink() + 1000, &["10.0.0.1".parse().unwrap()])
            .unwrap();
        near.write_all(b"farewell").unwrap();
        let error = near.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        let counters = datapath.counters(uplink()).unwrap();
        assert_eq!((counters.resets_sent, counters.stale_cut), (1, 1));

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let event = runtime.block_on(async {
            let mut events = datapath.take_events().unwrap();
            tokio::time::timeout(Duration::from_secs(20), events.next()).await
        });
        let event = event.unwrap().unwrap();
        assert_eq!((event.reason, event.ifindex), (Reason::Stale, uplink()));
    });
}
