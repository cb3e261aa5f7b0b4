//! One ICMP echo request by a raw socket.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// ICMP types (RFC 792, RFC 4443): echo request, echo reply.
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);

/// Sends one echo request from the calling thread's namespace and waits for its reply.
pub(super) fn ping(
    target: IpAddr,
    interface: Option<&str>,
    timeout: Duration,
) -> Result<Option<Duration>> {
    let (domain, protocol, (request_type, reply_type)) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, ECHO_V4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, ECHO_V6),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.bind_device(interface.map(str::as_bytes))?;
    // Also keeps other hosts' answers out.
    socket
        .connect(&SocketAddr::new(target, 0).into())
        .with_context(|| format!("cannot ping {target}"))?;

    // Identifier and sequence number together tell this request from all others of this process.
    static COUNTER: AtomicU32 = AtomicU32::new(0x4c41_0000);
    let token = COUNTER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let [t0, t1, t2, t3] = token;
    let mut request = [request_type, 0, 0, 0, t0, t1, t2, t3];
    if target.is_ipv4() {
        // For ICMPv6 the kernel does it (RFC 3542, section 3.1).
        let checksum = internet_checksum(&request).to_be_bytes();
        request[2..4].copy_from_slice(&checksum);
    }
    let sent = Instant::now();
    socket
        .send(&request)
        .with_context(|| format!("cannot ping {target}"))?;
    let mut packet = [0; 2048];
    loop {
        let left = timeout.saturating_sub(sent.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        // An error is a timeout, a signal, or an ICMP error that the socket was told of: no reply yet; the time left decides.
        if let Ok(length) = socket.read(&mut packet) {
            let message = icmp_message(&packet[..length], target);
            if message.first() == Some(&reply_type) && message.get(4..8) == Some(&token) {
                return Ok(Some(sent.elapsed()));
            }
        }
    }
}

/// A raw IPv4 socket delivers the IP header too.
fn icmp_message(packet: &[u8], from: IpAddr) -> &[u8] {
    match (from, packet.first()) {
        (IpAddr::V4(_), Some(first)) => packet.get(usize::from(first & 0xf) * 4..).unwrap_or(&[]),
        _ => packet,
    }
}

/// RFC 1071, over an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}
