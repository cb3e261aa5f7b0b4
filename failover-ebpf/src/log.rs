//! Messages for the agent's log.

use aya_ebpf::programs::TcContext;
use aya_log_ebpf::info;
use failover_ebpf::Counters;

use crate::{
    now_ns,
    packet::{self, Family, Packet},
};

/// Shortest time between two messages of one uplink and CPU, in nanoseconds.
const PAUSE: u64 = 1_000_000_000;

/// Logs a packet that was cut, at most once a second on every CPU: the counters have the rest.
#[inline(never)]
pub(crate) fn cut(ctx: &TcContext, ifindex: u32, counters: &mut Counters, packet: &Packet) {
    let now = now_ns();
    if counters.cut_logged_ns != 0 && now - counters.cut_logged_ns < PAUSE {
        return;
    }
    counters.cut_logged_ns = now;
    let (from, to) = packet::ports(ctx, packet);
    match packet.family {
        Family::V4 => info!(
            ctx,
            "gate closed on interface {}: cut IPv4 protocol {}, {:i} port {} to {:i} port {}",
            ifindex,
            packet.protocol,
            ipv4(&packet.source),
            from,
            ipv4(&packet.destination),
            to
        ),
        Family::V6 => info!(
            ctx,
            "gate closed on interface {}: cut IPv6 protocol {}, {:i} port {} to {:i} port {}",
            ifindex,
            packet.protocol,
            packet.source,
            from,
            packet.destination,
            to
        ),
    }
}

/// The IPv4 address in a mapped one.
#[inline(always)]
pub(crate) fn ipv4(mapped: &[u8; 16]) -> [u8; 4] {
    let [.., a, b, c, d] = *mapped;
    [a, b, c, d]
}
