//! Flows: which side opened them, and events about those that have ended.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::TcContext};
use failover_ebpf::{Answer, Event, Flow, Inbound, Origin, Reason, Uplink};

use crate::{
    ENDED, EVENTS, FLOWS, limit, now_ns,
    packet::{self, Packet, protocol},
};

/// Shortest time between two events of one flow, in nanoseconds.
const PAUSE: u64 = 10_000_000_000;

/// The flow of a packet that leaves.
#[inline(always)]
pub(crate) fn leaving(ctx: &TcContext, ifindex: u32, packet: &Packet) -> Flow {
    let (local_port, remote_port) = packet::ports(ctx, packet);
    Flow {
        ifindex,
        protocol: u32::from(packet.protocol),
        local: packet.source,
        remote: packet.destination,
        local_port,
        remote_port,
    }
}

/// Remembers which side opened a flow of which a packet arrives. A TCP connection shows that by its SYN. A UDP flow does not: a packet that
/// arrives while the gate is `open` may answer one that has left, since outgoing packets are not tracked then, so that they cost nothing; a
/// flow whose first packet arrives while the gate is closed has come in, because no packet can have left.
#[inline(never)]
pub(crate) fn note_arrival(ctx: &TcContext, ifindex: u32, packet: &Packet, open: bool) {
    let Some(upper) = packet.upper else {
        return;
    };
    // A SYN opens a new connection, whatever was known; of UDP the first packet counts.
    let (origin, flags) = match packet.protocol {
        protocol::TCP if packet::tcp_flags(ctx, upper) & SYN_ACK == SYN => (Origin::Remote, 0),
        protocol::UDP if open => (Origin::Local, u64::from(BPF_NOEXIST)),
        protocol::UDP => (Origin::Remote, u64::from(BPF_NOEXIST)),
        _ => return,
    };
    let (remote_port, local_port) = packet::ports(ctx, packet);
    let flow = Flow {
        ifindex,
        protocol: u32::from(packet.protocol),
        local: packet.destination,
        remote: packet.source,
        local_port,
        remote_port,
    };
    remember(flow, origin, flags);
}

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// Remembers that this side opened a UDP flow whose packet a closed gate cuts: a late answer must not look as if the far end had opened it.
#[inline(never)]
pub(crate) fn note_departure(uplink: &Uplink, flow: Flow) {
    if uplink.inbound == Inbound::Keep {
        remember(flow, Origin::Local, u64::from(BPF_NOEXIST));
    }
}

#[inline(always)]
fn remember(flow: Flow, origin: Origin, flags: u64) {
    // A look-up first is cheaper than an attempt to insert, and marks the flow as recently used for the LRU.
    // SAFETY: the value is only compared.
    let known = unsafe { FLOWS.get(flow) };
    if known.is_some_and(|&known| known == origin || flags != 0) {
        return;
    }
    // Fails only if another CPU was faster, or if the map has no room at this moment: then the flow is not kept.
    FLOWS.insert(flow, origin, flags).ok();
}

/// Whether a flow came in by this uplink and is to be answered by it.
#[inline(never)]
pub(crate) fn is_kept(uplink: &Uplink, flow: &Flow) -> bool {
    if uplink.inbound == Inbound::Cut {
        return false;
    }
    // SAFETY: the value is only compared.
    unsafe { FLOWS.get(flow) }.is_some_and(|&origin| origin == Origin::Remote)
}

/// Sends the agent an event that a flow has ended, once.
#[inline(never)]
pub(crate) fn report(flow: Flow, reason: Reason, answer: Answer) {
    let now = now_ns();
    // SAFETY: the value is only read.
    if let Some(&reported) = unsafe { ENDED.get(flow) }
        && now.saturating_sub(reported) < PAUSE
    {
        return;
    }
    // If there is no room to remember the flow, no token or no room in the ring, there is no event: events are a sample.
    let ifindex = flow.ifindex;
    if ENDED.insert(flow, now, 0).is_ok() && limit::may_tell(ifindex) {
        let event = Event {
            flow,
            reason,
            answer,
        };
        EVENTS.output(event, 0).ok();
    }
}
