//! Echo and discard servers on every target address in the internet.

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use nix::poll::PollFlags;

use super::{MEMORY, REPLY, REQUEST, SocketError};
use crate::{
    namespace::Namespace,
    plan::{DISCARD_PORT, ECHO_PORT, Origins, TARGETS_V4, TARGETS_V6},
    worker::{Stop, Worker, lock},
};

/// A datagram that reached the UDP echo server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// [`UdpStream::id`](super::UdpStream::id) of its sender.
    pub stream: u32,
    /// Its place in the stream.
    pub sequence: u64,
    /// Where it came from, as the internet sees it.
    pub source: SocketAddr,
    /// The target address it came to.
    pub target: IpAddr,
    /// The uplink that the source belongs to.
    pub uplink: Option<Arc<str>>,
}

/// A TCP connection to the echo or discard server, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// When it was accepted.
    pub opened: Instant,
    /// Where it came from, as the internet sees it.
    pub source: SocketAddr,
    /// The address and port it came to.
    pub target: SocketAddr,
    /// The uplink that the source belongs to.
    pub uplink: Option<Arc<str>>,
    /// Bytes received.
    pub bytes: u64,
    /// When the client closed it, or the error that ended it; `None` while it is open.
    pub ended: Option<Result<Instant, SocketError>>,
}

#[derive(Debug, Default)]
struct Log {
    arrivals: Mutex<Vec<Arrival>>,
    connections: Mutex<Vec<Connection>>,
    /// The sockets, by the connection's index, to be shut down at the end.
    open: Mutex<Vec<(usize, TcpStream)>>,
}

/// The servers; they end when dropped.
#[derive(Debug)]
pub struct Servers {
    log: Arc<Log>,
    _udp: Worker,
    _tcp: Worker,
}

impl Servers {
    pub(crate) fn start(internet: &Namespace, origins: &Origins) -> Result<Servers> {
        let targets = || {
            let v4 = TARGETS_V4.into_iter().map(IpAddr::from);
            v4.chain(TARGETS_V6.into_iter().map(IpAddr::from))
        };
        let log = Arc::new(Log::default());
        // A socket for each address, so that answers come from where the question went.
        let (datagrams, listeners) = internet.run(|| {
            let mut datagrams = Vec::new();
            let mut listeners = Vec::new();
            for target in targets() {
                let socket = UdpSocket::bind((target, ECHO_PORT))
                    .with_context(|| format!("cannot serve on {target}"))?;
                socket.set_nonblocking(true)?;
                datagrams.push((target, socket));
                for port in [ECHO_PORT, DISCARD_PORT] {
                    let listener = TcpListener::bind((target, port))?;
                    listener.set_nonblocking(true)?;
                    listeners.push(listener);
                }
            }
            Ok((datagrams, listeners))
        })?;
        let udp = Worker::start(internet, "udp-echo", {
            let (log, origins) = (log.clone(), origins.clone());
            move |stop| serve_udp(&stop, &datagrams, &log, &origins)
        })?;
        let tcp = Worker::start(internet, "tcp-accept", {
            let (log, origins) = (log.clone(), origins.clone());
            move |stop| serve_tcp(&stop, &listeners, &log, &origins)
        })?;
        Ok(Servers {
            log,
            _udp: udp,
            _tcp: tcp,
        })
    }

    /// The datagrams of one stream that arrived, whether or not their echo found its way back.
    pub fn arrivals(&self, stream: u32) -> Vec<Arrival> {
        lock(&self.log.arrivals)
            .iter()
            .filter(|arrival| arrival.stream == stream)
            .cloned()
            .collect()
    }

    /// All TCP connections, in the order in which they were accepted.
    pub fn connections(&self) -> Vec<Connection> {
        lock(&self.log.connections).clone()
    }
}

fn serve_udp(stop: &Stop, sockets: &[(IpAddr, UdpSocket)], log: &Log, origins: &Origins) {
    let polled: Vec<_> = sockets
        .iter()
        .map(|(_, socket)| (socket.as_fd(), PollFlags::POLLIN))
        .collect();
    while let Some(ready) = stop.wait(&polled, None) {
        for ((target, socket), ready) in sockets.iter().zip(ready) {
            if !ready.is_empty() {
                echo_datagrams(*target, socket, log, origins);
            }
        }
    }
}

fn echo_datagrams(target: IpAddr, socket: &UdpSocket, log: &Log, origins: &Origins) {
    let mut packet = [0; 65536];
    while let Ok((length, source)) = socket.recv_from(&mut packet) {
        let at = Instant::now();
        let Some(head) = packet[..length].first_chunk::<REQUEST>() else {
            continue;
        };
        let [i0, i1, i2, i3, sequence @ ..] = *head;
        let mut reply = [0; REPLY];
        reply[..REQUEST].copy_from_slice(head);
        let address = match source.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        reply[REQUEST..REQUEST + 16].copy_from_slice(&address.octets());
        reply[REQUEST + 16..].copy_from_slice(&source.port().to_be_bytes());
        // The way back may be cut just now; then the echo is lost, as the client will see.
        socket.send_to(&reply, source).ok();
        let mut arrivals = lock(&log.arrivals);
        if arrivals.len() < MEMORY {
            arrivals.push(Arrival {
                at,
                stream: u32::from_be_bytes([i0, i1, i2, i3]),
                sequence: u64::from_be_bytes(sequence),
                source,
                target,
                uplink: origins.uplink(source.ip()),
            });
        }
    }
}

/// Accepts until it is to stop, then ends all connections and their threads.
fn serve_tcp(stop: &Stop, listeners: &[TcpListener], log: &Arc<Log>, origins: &Origins) {
    let polled: Vec<_> = listeners
        .iter()
        .map(|listener| (listener.as_fd(), PollFlags::POLLIN))
        .collect();
    thread::scope(|scope| {
        while let Some(ready) = stop.wait(&polled, None) {
            for (listener, ready) in listeners.iter().zip(ready) {
                if ready.is_empty() {
                    continue;
                }
                while let Ok((stream, source)) = listener.accept() {
                    let Ok((index, stream)) = register(stream, source, log, origins) else {
                        continue; // It has ended already.
                    };
                    scope.spawn(move || serve_connection(index, stream, log));
                }
            }
        }
        for (_, stream) in lock(&log.open).iter() {
            // Wakes its thread; fails when the connection has ended by itself.
            stream.shutdown(Shutdown::Both).ok();
        }
    });
}

fn register(
    stream: TcpStream,
    source: SocketAddr,
    log: &Log,
    origins: &Origins,
) -> std::io::Result<(usize, TcpStream)> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let target = stream.local_addr()?;
    let to_shut_down = stream.try_clone()?;
    let mut connections = lock(&log.connections);
    let index = connections.len();
    connections.push(Connection {
        opened: Instant::now(),
        source: SocketAddr::new(source.ip().to_canonical(), source.port()),
        target,
        uplink: origins.uplink(source.ip()),
        bytes: 0,
        ended: None,
    });
    lock(&log.open).push((index, to_shut_down));
    Ok((index, stream))
}

fn serve_connection(index: usize, mut stream: TcpStream, log: &Log) {
    let echo = lock(&log.connections)[index].target.port() == ECHO_PORT;
    let mut buffer = [0; 65536];
    let ended = loop {
        let result = stream.read(&mut buffer).and_then(|length| {
            if echo {
                stream.write_all(&buffer[..length])?;
            }
            Ok(length)
        });
        match result {
            Ok(0) => break Ok(Instant::now()),
            Ok(length) => lock(&log.connections)[index].bytes += length as u64,
            Err(error) => break Err(SocketError::now(&error)),
        }
    };
    lock(&log.connections)[index].ended = Some(ended);
    lock(&log.open).retain(|(open, _)| *open != index);
}
