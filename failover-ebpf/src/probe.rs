//! The agent's own probes, which pass closed gates.
//!
//! They are recognized by their socket. A firewall may rewrite a packet's mark, and any program with CAP_NET_ADMIN may set one, but no
//! program can give a packet another socket's cookie.

use aya_ebpf::{helpers::bpf_get_socket_cookie, programs::TcContext};
use failover_ebpf::Echo;

use crate::{
    ECHOES, PROBES,
    packet::{Family, Packet, protocol},
};

/// Whether a packet was sent by one of the agent's probe sockets.
#[inline(always)]
pub(crate) fn is_known(ctx: &TcContext) -> bool {
    // SAFETY: the kernel hands every program a valid context. 0: the packet has no socket, as every forwarded one.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    cookie != 0 && PROBES.get_ptr(cookie).is_some()
}

/// Whether a packet looks like one of the agent's echo requests, whatever its socket. It may have lost the socket on this host, as a copy
/// that the packet filter makes does.
#[inline(never)]
pub(crate) fn is_echo(ctx: &TcContext, ifindex: u32, packet: &Packet) -> bool {
    const IDENTIFIER_AT: usize = 4;
    let Some(icmp) = packet.upper else {
        return false;
    };
    let (number, request) = match packet.family {
        Family::V4 => (protocol::ICMP, 8),
        Family::V6 => (protocol::ICMPV6, 128),
    };
    if packet.protocol != number || ctx.load::<u8>(icmp) != Ok(request) {
        return false;
    }
    let Ok(identifier) = ctx.load::<[u8; 2]>(icmp + IDENTIFIER_AT) else {
        return false;
    };
    let echo = Echo {
        ifindex,
        identifier: u32::from(u16::from_be_bytes(identifier)),
    };
    ECHOES.get_ptr(echo).is_some()
}
