//! What senders and their peers notice of a closed gate.

use failover_policy::Family;
use std::{
    io::{ErrorKind, Read as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use failover_agent::{
    config::AttachMode,
    datapath::{Datapath, Gate, LinkLayer},
};
use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};
use socket2::{SockRef, TcpKeepalive};

use crate::lab::{Lab, Peer, lab, modes, tun_uplink, until, uplink};

fn attached(lab: &Lab, mode: AttachMode) -> Datapath {
    let mut datapath = lab.open(mode);
    datapath.attach(uplink(), LinkLayer::Ethernet).unwrap();
    datapath.renew_lease(Duration::from_secs(3600)).unwrap();
    datapath
}

/// A socket on the peer that must stay empty.
fn listen(peer: &Peer) -> UdpSocket {
    peer.run(|| {
        let socket = UdpSocket::bind("10.0.0.2:7777").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    })
}

#[test]
#[ignore = "needs root"]
fn a_udp_sender_sees_success_and_nothing_leaves() {
    for (mode, _) in modes() {
        lab(|lab| {
            let peer = Peer::connect();
            let mut datapath = attached(lab, mode);
            let inbox = listen(&peer);
            let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
            // With it a drop that the stack knows of would be reported (ENOBUFS).
            setsockopt(&socket, Ipv4RecvErr, &true).unwrap();
            let send = || socket.send_to(b"datagram", "10.0.0.2:7777").unwrap();
            send();
            until("the first arrives", || inbox.recv(&mut [0; 16]).is_ok());

            datapath
                .set_gate(uplink(), Family::V4, Gate::Closed)
                .unwrap();
            for _ in 0..100 {
                assert_eq!(send(), 8);
            }
            let cut = datapath.counters(uplink()).unwrap();
            assert_eq!(cut.cut_packets, 100);
            assert_eq!(cut.cut_bytes, 100 * (14 + 20 + 8 + 8));
            assert_eq!(
                inbox.recv(&mut [0; 16]).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );

            datapath.set_gate(uplink(), Family::V4, Gate::Open).unwrap();
            send();
            until("the gate is open again", || {
                inbox.recv(&mut [0; 16]).is_ok()
            });
        });
    }
}

#[test]
#[ignore = "needs root"]
fn a_link_without_a_header_is_cut_alike() {
    for (mode, _) in modes() {
        lab(|lab| {
            let tun = tun_uplink();
            let mut datapath = lab.open(mode);
            datapath.attach(uplink(), LinkLayer::None).unwrap();
            datapath.renew_lease(Duration::from_secs(3600)).unwrap();
            datapath
                .set_gate(uplink(), Family::V4, Gate::Closed)
                .unwrap();
            let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
            setsockopt(&socket, Ipv4RecvErr, &true).unwrap();
            for _ in 0..100 {
                assert_eq!(socket.send_to(b"datagram", "10.0.0.2:7777").unwrap(), 8);
            }
            assert_eq!(datapath.counters(uplink()).unwrap().cut_packets, 100);
            // A DHCP renewal passes, and is the first IPv4 packet that does.
            socket.send_to(b"datagram", "10.0.0.2:67").unwrap();
            let mut packet = [0; 2048];
            until("it leaves", || {
                let length = (&tun).read(&mut packet).unwrap();
                length > 0 && packet[0] >> 4 == 4
            });
            assert_eq!(packet[22..24], 67_u16.to_be_bytes());
            assert!((&tun).read(&mut packet).is_err());
        });
    }
}

/// Under TC_ACT_SHOT this connection would never end: see `gate::drop_silently`.
#[test]
#[ignore = "needs root"]
fn keepalive_ends_an_idle_connection() {
    lab(|lab| {
        let peer = Peer::connect();
        let mut datapath = attached(lab, AttachMode::Auto);
        let listener = peer.run(|| TcpListener::bind("10.0.0.2:7777").unwrap());
        let mut connection = TcpStream::connect("10.0.0.2:7777").unwrap();
        let _accepted = listener.accept().unwrap();
        let second = Duration::from_secs(1);
        let keepalive = TcpKeepalive::new()
            .with_time(second)
            .with_interval(second)
            .with_retries(3);
        SockRef::from(&connection)
            .set_tcp_keepalive(&keepalive)
            .unwrap();
        connection
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();

        datapath
            .set_gate(uplink(), Family::V4, Gate::Closed)
            .unwrap();
        let error = connection.read(&mut [0; 1]).unwrap_err();
        // Not WouldBlock, which the read timeout would be.
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    });
}

#[test]
#[ignore = "needs root"]
fn the_log_tells_of_cut_packets_at_most_once_a_second() {
    /// What the programs said.
    struct Memory(Mutex<Vec<String>>);
    impl log::Log for Memory {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
        fn flush(&self) {}
    }
    static MEMORY: Memory = Memory(Mutex::new(Vec::new()));
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        log::set_logger(&MEMORY).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });

    lab(|lab| {
        let _peer = Peer::connect();
        let mut datapath = attached(lab, AttachMode::Auto);
        let log = datapath.take_log().unwrap();
        assert!(datapath.take_log().is_err(), "once only");
        datapath
            .set_gate(uplink(), Family::V4, Gate::Closed)
            .unwrap();
        datapath
            .set_gate(uplink(), Family::V6, Gate::Closed)
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let said = Arc::new(|| {
            let lines = MEMORY.0.lock().unwrap();
            lines
                .iter()
                .filter(|line| line.contains("10.0.0.2 port 7777"))
                .count()
        });
        runtime.block_on(async {
            let wait = async {
                let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
                for _ in 0..1000 {
                    socket.send_to(b"datagram", "10.0.0.2:7777").unwrap();
                }
                while said() == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                ended = log.forward() => panic!("{ended:?}"),
                done = tokio::time::timeout(Duration::from_secs(20), wait) => done.unwrap(),
            }
        });
        let cpus = std::thread::available_parallelism().unwrap().get();
        assert!(said() <= 2 * cpus, "{} lines for 1000 packets", said());
        let lines = MEMORY.0.lock().unwrap();
        let line = lines.iter().find(|line| line.contains("7777")).unwrap();
        let start = format!(
            "gate closed on interface {}: cut IPv4 protocol 17, 10.0.0.1 port ",
            uplink()
        );
        assert!(line.starts_with(&start), "{line}");
    });
}
