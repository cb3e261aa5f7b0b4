//! Traffic: clients that note what happens to them and when, and the servers in the internet that note who came.
//!
//! All are threads of this process, so that every time is an [`Instant`](std::time::Instant) and can be compared.

mod report;
mod server;
mod tcp;
mod udp;

pub use report::{Echo, Gap, UdpRecord, UdpReport};
pub use server::{Arrival, Connection, Servers};
pub use tcp::{Ended, TcpClient, TcpState};
pub use udp::{SocketError, UdpStream, UdpStreamBuilder};

pub(super) use tcp::TcpMode;

/// Bytes at the head of a datagram to the echo server: stream (u32) and sequence number (u64), big-endian.
const REQUEST: usize = 12;

/// Bytes of its answer: the request's head, then the source address that the server saw (IPv6 or IPv4-mapped) and port.
const REPLY: usize = REQUEST + 16 + 2;

/// Datagrams that a client or server remembers at most; a steady stream every 5 ms fills that in 80 minutes.
const MEMORY: usize = 1_000_000;
