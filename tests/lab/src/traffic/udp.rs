//! A steady stream of datagrams to an echo server.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::poll::PollFlags;

use super::{
    MEMORY, REPLY, REQUEST,
    report::{Echo, UdpRecord, UdpReport, late},
};
use crate::{
    node::Node,
    plan::Origins,
    wait::{paced, wait_for, wait_until},
    worker::{Stop, Worker, lock},
};

/// Describes a stream to start.
#[derive(Clone, Debug)]
pub struct UdpStreamBuilder {
    node: Node,
    target: SocketAddr,
    interval: Duration,
    size: usize,
    connected: bool,
    source: Option<IpAddr>,
}

impl UdpStreamBuilder {
    pub(crate) fn new(node: Node, target: SocketAddr) -> UdpStreamBuilder {
        UdpStreamBuilder {
            node,
            target,
            interval: paced(5),
            size: 64,
            connected: false,
            source: None,
        }
    }

    /// Time from one datagram to the next.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> UdpStreamBuilder {
        self.interval = interval;
        self
    }

    /// Bytes of payload; at least 12, which hold the sequence number.
    #[must_use]
    pub fn size(mut self, size: usize) -> UdpStreamBuilder {
        self.size = size.max(REQUEST);
        self
    }

    /// From a connected socket: its source address is chosen once, and it hears of ICMP errors.
    #[must_use]
    pub fn connected(mut self) -> UdpStreamBuilder {
        self.connected = true;
        self
    }

    /// From a socket bound to this address.
    #[must_use]
    pub fn from(mut self, source: IpAddr) -> UdpStreamBuilder {
        self.source = Some(source);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the socket cannot be bound or connected.
    pub fn start(self) -> Result<UdpStream> {
        static STREAMS: AtomicU32 = AtomicU32::new(0);
        let id = STREAMS.fetch_add(1, Ordering::Relaxed);
        let namespace = self.node.namespace();
        let any: IpAddr = match self.target {
            SocketAddr::V4(_) => [0, 0, 0, 0].into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = namespace.run(|| {
            let socket = UdpSocket::bind((self.source.unwrap_or(any), 0))?;
            if self.connected {
                socket
                    .connect(self.target)
                    .with_context(|| format!("cannot connect to {}", self.target))?;
            }
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let local = socket.local_addr()?;
        let shared = Arc::new(Shared::default());
        let stream = Stream {
            id,
            socket,
            target: (!self.connected).then_some(self.target),
            interval: self.interval,
            payload: vec![0; self.size],
            origins: self.node.origins().clone(),
            shared: shared.clone(),
        };
        let worker = Worker::start(namespace, "udp-stream", move |stop| stream.run(&stop))?;
        Ok(UdpStream {
            id,
            local,
            shared,
            _worker: worker,
        })
    }
}

/// An error that the socket reported, other than for the sending of a particular datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketError {
    /// When.
    pub at: Instant,
    /// The kind.
    pub kind: io::ErrorKind,
    /// The operating system's error number.
    pub os_error: Option<i32>,
}

impl SocketError {
    pub(super) fn now(error: &io::Error) -> SocketError {
        SocketError {
            at: Instant::now(),
            kind: error.kind(),
            os_error: error.raw_os_error(),
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    sent: Mutex<Sent>,
    errors: Mutex<Vec<SocketError>>,
}

#[derive(Debug, Default)]
struct Sent {
    records: Vec<UdpRecord>,
    /// Nothing more is to be sent, but answers are still noted. Under the records' lock, so that none is added after it is set.
    ending: bool,
}

/// A running stream; stops when dropped.
#[derive(Debug)]
pub struct UdpStream {
    id: u32,
    local: SocketAddr,
    shared: Arc<Shared>,
    _worker: Worker,
}

impl UdpStream {
    /// The number by which the servers know it ([`Arrival::stream`](super::Arrival::stream)).
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The socket's own address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// What happened until now.
    pub fn report(&self) -> UdpReport {
        UdpReport {
            records: lock(&self.shared.sent).records.clone(),
            taken: Instant::now(),
        }
    }

    /// Errors that the socket has reported: for a connected one, the ICMP errors that reached it.
    pub fn errors(&self) -> Vec<SocketError> {
        lock(&self.shared.errors).clone()
    }

    /// Waits for an answer to a datagram that was *sent* after `after` and left by `uplink`.
    ///
    /// # Errors
    /// When none comes within `timeout`.
    pub fn wait_for_echo_by(
        &self,
        uplink: &str,
        after: Instant,
        timeout: Duration,
    ) -> Result<Echo> {
        wait_for(&format!("an echo comes by {uplink}"), timeout, || {
            let records = &lock(&self.shared.sent).records;
            let young = records
                .iter()
                .rev()
                .take_while(|record| record.sent > after);
            let echo = young
                .filter_map(|record| record.echo.as_ref())
                .filter(|echo| echo.uplink.as_deref() == Some(uplink))
                .min_by_key(|echo| echo.at);
            let last = records.iter().rev().find_map(|record| record.echo.as_ref());
            echo.cloned().ok_or_else(|| match last {
                Some(last) => format!(
                    "{} sent, the last echo came {:?} ago by {:?}",
                    records.len(),
                    last.at.elapsed(),
                    last.uplink
                ),
                None => format!("{} sent, no echo at all", records.len()),
            })
        })
    }

    /// Stops sending, waits for the answers that may still come, and reports.
    ///
    /// # Errors
    /// When the stream's thread hangs.
    pub fn stop(self) -> Result<UdpReport> {
        lock(&self.shared.sent).ending = true;
        wait_until("the last echo has come or is late", late() * 10, || {
            let records = &lock(&self.shared.sent).records;
            let mut young = records
                .iter()
                .rev()
                .take_while(|record| record.sent.elapsed() < late());
            young.all(|record| record.echo.is_some() || record.send_error.is_some())
        })?;
        Ok(self.report())
    }
}

/// The stream's thread.
struct Stream {
    id: u32,
    socket: UdpSocket,
    /// `None` when the socket is connected.
    target: Option<SocketAddr>,
    interval: Duration,
    payload: Vec<u8>,
    origins: Origins,
    shared: Arc<Shared>,
}

impl Stream {
    fn run(mut self, stop: &Stop) {
        let mut next = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next {
                self.send();
                // Late is late: no burst to catch up.
                next = (next + self.interval).max(now);
            }
            let timeout = next.saturating_duration_since(Instant::now());
            let socket = [(self.socket.as_fd(), PollFlags::POLLIN)];
            match stop.wait(&socket, Some(timeout)) {
                None => return,
                Some(ready) if ready[0].is_empty() => {}
                Some(_) => self.receive(),
            }
        }
    }

    fn send(&mut self) {
        let mut stream = lock(&self.shared.sent);
        if stream.ending || stream.records.len() >= MEMORY {
            return;
        }
        let sequence = stream.records.len() as u64;
        self.payload[..4].copy_from_slice(&self.id.to_be_bytes());
        self.payload[4..REQUEST].copy_from_slice(&sequence.to_be_bytes());
        let sent = Instant::now();
        let result = match self.target {
            Some(target) => self.socket.send_to(&self.payload, target),
            None => self.socket.send(&self.payload),
        };
        stream.records.push(UdpRecord {
            sequence,
            sent,
            send_error: result.err().and_then(|error| error.raw_os_error()),
            echo: None,
        });
    }

    fn receive(&self) {
        let mut packet = [0; REPLY + 1];
        loop {
            match self.socket.recv(&mut packet) {
                Ok(length) => self.note(&packet[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    let mut errors = lock(&self.shared.errors);
                    if errors.len() < MEMORY {
                        errors.push(SocketError::now(&error));
                    }
                }
            }
        }
    }

    fn note(&self, packet: &[u8]) {
        let at = Instant::now();
        let Some((sequence, source)) = parse_reply(packet, self.id) else {
            return;
        };
        let records = &mut lock(&self.shared.sent).records;
        let record = usize::try_from(sequence)
            .ok()
            .and_then(|i| records.get_mut(i));
        if let Some(record) = record {
            // Of duplicates the first one counts.
            record.echo.get_or_insert_with(|| Echo {
                at,
                source,
                uplink: self.origins.uplink(source.ip()),
            });
        }
    }
}

fn parse_reply(packet: &[u8], stream: u32) -> Option<(u64, SocketAddr)> {
    let packet: &[u8; REPLY] = packet.try_into().ok()?;
    let (id, rest) = packet.split_first_chunk()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (address, rest) = rest.split_first_chunk::<16>()?;
    let port = rest.first_chunk()?;
    (u32::from_be_bytes(*id) == stream).then(|| {
        let address = Ipv6Addr::from(*address).to_canonical();
        let source = SocketAddr::new(address, u16::from_be_bytes(*port));
        (u64::from_be_bytes(*sequence), source)
    })
}
