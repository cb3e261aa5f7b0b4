//! Counting. Plain additions: every CPU has its own counters.

use aya_ebpf::programs::TcContext;
use failover_ebpf::{Answer, Counters, Gate, Inbound, Reason, Uplink};

use crate::{
    flow, gate, is_exempt, now_ns,
    packet::{self, Family, Packet},
};

/// The size on the wire of one socket buffer.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

#[inline(always)]
pub(crate) fn egress(ctx: &TcContext, counters: &mut Counters) -> Size {
    let size = Size {
        packets: segments(ctx),
        // SAFETY: the kernel hands every program a valid context.
        bytes: u64::from(unsafe { (*ctx.skb.skb).wire_len }),
    };
    counters.tx_packets += size.packets;
    counters.tx_bytes += size.bytes;
    size
}

#[inline(always)]
pub(crate) fn cut(counters: &mut Counters, size: Size, reason: Reason, answer: Answer) {
    counters.cut_packets += size.packets;
    counters.cut_bytes += size.bytes;
    if reason == Reason::Stale {
        counters.stale_cut += size.packets;
    }
    match answer {
        Answer::Dropped => counters.dropped += 1,
        Answer::Reset => counters.resets_sent += 1,
        Answer::Icmp => counters.icmp_sent += 1,
    }
}

#[inline(always)]
pub(crate) fn ingress(ctx: &TcContext, ifindex: u32, uplink: &Uplink, counters: &mut Counters) {
    counters.rx_packets += segments(ctx);
    counters.rx_bytes += u64::from(ctx.len());
    // Once per tick is enough: the sender is looked up only when the result could change the time.
    let now = now_ns();
    let keep = uplink.inbound == Inbound::Keep;
    if now == counters.last_rx_ns && !keep {
        return;
    }
    let Some(packet) = packet::network_header(ctx, uplink.link_layer)
        .and_then(|(family, at)| packet::parse(ctx, family, at))
    else {
        return;
    };
    if keep {
        let gate = match packet.family {
            Family::V4 => uplink.gate_ipv4,
            Family::V6 => uplink.gate_ipv6,
        };
        flow::note_arrival(ctx, ifindex, packet, gate == Gate::Open);
    }
    if is_from_beyond(ifindex, packet) {
        counters.last_rx_ns = now;
    }
}

/// Whether the sender is beyond the uplink's own network: only such packets prove that the egress path works.
#[inline(always)]
fn is_from_beyond(ifindex: u32, packet: &Packet) -> bool {
    !gate::is_link_scoped(packet.family, &packet.source) && !is_exempt(ifindex, packet.source)
}

#[inline(always)]
fn segments(ctx: &TcContext) -> u64 {
    // SAFETY: the kernel hands every program a valid context.
    u64::from(unsafe { (*ctx.skb.skb).gso_segs }).max(1)
}
