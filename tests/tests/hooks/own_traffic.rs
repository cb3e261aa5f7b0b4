//! The router's own traffic and its DNS: what follows a switch by itself, and what the cut makes follow.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;
use failover_lab::{ECHO_PORT, LAN_HOST_V4, Lab, Namespace, Scenario, TARGET_V4, wait_until};
use failover_tests::fixtures::{SOON, json::wait_active};

use super::fixtures::{PATIENT, start};

/// Time between two queries.
const QUERIES: Duration = Duration::from_millis(50);

/// A small DNS forwarder without a cache: it passes each query on to a server beyond the uplinks, and the answer back. It keeps its
/// socket to that server, as resolvers do. The protocol is that of the echo servers, which tell by which uplink they were
/// asked.
struct Resolver {
    ended: Arc<AtomicBool>,
    /// Returns how often it had to open its socket again.
    thread: Option<JoinHandle<std::io::Result<usize>>>,
}

/// How a resolver asks the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    /// `sendto`, as dnsmasq: the kernel chooses the way for each query.
    Unconnected,
    /// `connect`, as systemd-resolved and libc: the source address is chosen once.
    Connected,
}

impl Upstream {
    fn open(self, server: SocketAddr) -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        if self == Upstream::Connected {
            socket.connect(server)?;
        }
        // Whoever asks asks again after this.
        socket.set_read_timeout(Some(2 * QUERIES))?;
        Ok(socket)
    }

    /// One query; no answer in time is no error.
    fn ask(
        self,
        socket: &UdpSocket,
        server: SocketAddr,
        query: &[u8],
        answer: &mut [u8],
    ) -> std::io::Result<Option<usize>> {
        match self {
            Upstream::Unconnected => socket.send_to(query, server)?,
            Upstream::Connected => socket.send(query)?,
        };
        match socket.recv(answer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Resolver {
    fn start(host: &Namespace, address: Ipv4Addr, upstream: Upstream) -> Result<Resolver> {
        let ended = Arc::new(AtomicBool::new(false));
        let server = SocketAddr::new(TARGET_V4, ECHO_PORT);
        let (clients, socket) = host.run(|| {
            let clients = UdpSocket::bind((address, ECHO_PORT))?;
            clients.set_read_timeout(Some(QUERIES))?;
            Ok((clients, upstream.open(server)?))
        })?;
        let over = ended.clone();
        let thread = host.spawn("resolver", move || {
            let (mut socket, mut opened) = (socket, 0);
            let (mut query, mut answer) = ([0; 512], [0; 512]);
            while !over.load(Ordering::Relaxed) {
                let (length, client) = match clients.recv_from(&mut query) {
                    Ok(query) => query,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                };
                match upstream.ask(&socket, server, &query[..length], &mut answer) {
                    Ok(Some(length)) => {
                        clients.send_to(&answer[..length], client)?;
                    }
                    Ok(None) => {}
                    Err(_) => {
                        socket = upstream.open(server)?;
                        opened += 1;
                    }
                }
            }
            Ok(opened)
        })?;
        Ok(Resolver {
            ended,
            thread: Some(thread),
        })
    }

    fn stop(mut self) -> Result<usize> {
        self.ended.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(opened)) => Ok(opened?),
            _ => panic!("the resolver has panicked"),
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// A LAN client and the router itself ask the router's resolver all the time, also while an uplink fails.
fn answers_again(upstream: Upstream) -> Result<usize> {
    let lab = Lab::builder().lan().build()?;
    let agent = start(&lab, &["/bin/true"], PATIENT)?;
    let host = lab.host().namespace();
    let for_lan = Resolver::start(host, LAN_HOST_V4, upstream)?;
    let stub = Resolver::start(host, Ipv4Addr::LOCALHOST, upstream)?;
    let client = lab.client().udp_stream(LAN_HOST_V4.into());
    let client = client.every(QUERIES).start()?;
    let own = lab.host().udp_stream(Ipv4Addr::LOCALHOST.into());
    let own = own.every(QUERIES).start()?;
    for stream in [&client, &own] {
        stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
    }

    let fault = lab.uplink("cable").blackhole()?;
    for stream in [&client, &own] {
        stream.wait_for_echo_by("lte", fault.since(), SOON)?;
    }
    wait_active(&agent, "lte")?;
    fault.repair()?;
    wait_active(&agent, "cable")?;
    let back = Instant::now();
    for stream in [&client, &own] {
        stream.wait_for_echo_by("cable", back, SOON)?;
    }
    for uplink in lab.uplinks() {
        assert_eq!(uplink.foreign_packets()?, 0, "{}", uplink.name());
    }
    Ok(for_lan.stop()? + stub.stop()?)
}

#[test]
#[ignore = "needs root"]
fn a_resolver_that_chooses_the_way_anew_goes_on() -> Scenario {
    answers_again(Upstream::Unconnected)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_resolver_whose_socket_is_bound_to_the_lost_uplink_is_told() -> Scenario {
    let opened = answers_again(Upstream::Connected)?;
    // Two resolvers, there and back. Without the cut none of them would ever learn of it.
    assert!(opened >= 4, "{opened}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn new_connections_of_the_router_take_the_new_uplink() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab, &["/bin/true"], PATIENT)?;
    let by = |uplink: &str| -> Result<()> {
        let connection = lab
            .host()
            .tcp_stream(TARGET_V4, Duration::from_millis(20))?;
        connection.wait_received_after(Instant::now(), SOON)?;
        let local = IpAddr::from(match uplink {
            "cable" => lab.uplink("cable").addresses().public_v4,
            _ => lab.uplink("lte").addresses().public_v4,
        });
        wait_until("the server knows of it", SOON, || {
            let connections = lab.servers().connections();
            let last = connections.last();
            last.is_some_and(|last| last.source.ip() == local)
        })
    };
    by("cable")?;
    let _fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    by("lte")?;
    Ok(())
}
