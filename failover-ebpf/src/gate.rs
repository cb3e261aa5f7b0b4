//! The gate: what may leave by an uplink, and how the rest is cut.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_REDIRECT},
    helpers::bpf_redirect,
    programs::TcContext,
};
use failover_ebpf::{Gate, Inbound, LOST, Reason, SEVERAL, Uplink};

use crate::{
    ADDRESSES, SETTINGS, flow, is_exempt, now_ns, now_s,
    packet::{self, Family, Packet, protocol},
    probe,
};

/// The decision about a packet.
pub(crate) enum Verdict {
    Pass,
    /// One of the agent's own probes: passes every gate.
    Probe,
    /// The packet is None if it is IP, but too short or too malformed to read more of it.
    Cut(Reason, Option<&'static Packet>),
}

/// Decides about one packet. While the gates are open, only its mark and its source are read.
#[inline(always)]
pub(crate) fn decide(ctx: &TcContext, ifindex: u32, uplink: &Uplink) -> Verdict {
    // SAFETY: the kernel hands every program a valid context.
    let mark = unsafe { (*ctx.skb.skb).mark };
    let Some(settings) = SETTINGS.get(0) else {
        return Verdict::Pass;
    };
    // While the gate is open, the mark only selects the packets whose socket is looked up.
    if mark != 0 && mark == settings.probe_mark && probe::is_known(ctx) {
        return Verdict::Probe;
    }
    // Gates exist per IP family: ARP, EAPOL, LLDP and the like have none.
    let Some((family, at)) = packet::network_header(ctx, uplink.link_layer) else {
        return Verdict::Pass;
    };
    let gate = match family {
        Family::V4 => uplink.gate_ipv4,
        Family::V6 => uplink.gate_ipv6,
    };
    let stale = is_foreign(ctx, ifindex, uplink, family, at);
    if !stale && gate == Gate::Open {
        return Verdict::Pass;
    }
    if now_ns() >= settings.lease_until_ns {
        return Verdict::Pass;
    }
    // Whatever the mark.
    if probe::is_known(ctx) {
        return Verdict::Probe;
    }
    let packet = packet::parse(ctx, family, at);
    match (packet, stale) {
        (None, true) if gate == Gate::Open => Verdict::Pass,
        (None, _) => Verdict::Cut(Reason::Gate, None),
        (Some(packet), _) if keeps_the_link(ctx, packet) => Verdict::Pass,
        (Some(packet), true) => Verdict::Cut(Reason::Stale, Some(packet)),
        (Some(packet), false) => {
            if is_reset(ctx, packet)
                || is_exempt(ifindex, packet.destination)
                || is_exempt(0, packet.destination)
                || (mark != 0 && settings.allow_marks.contains(&mark))
                || is_answer_from_here(ctx, ifindex, uplink, packet)
            {
                Verdict::Pass
            } else {
                Verdict::Cut(Reason::Gate, Some(packet))
            }
        }
    }
}

/// Whether a packet's source is another uplink's address. Looked up only if it is not the uplink's own address.
#[inline(always)]
fn is_foreign(ctx: &TcContext, ifindex: u32, uplink: &Uplink, family: Family, at: usize) -> bool {
    let source = match family {
        Family::V4 => packet::source_ipv4(ctx, at)
            .filter(|source| *source != uplink.source_ipv4)
            .map(packet::mapped),
        Family::V6 => packet::source_ipv6(ctx, at).filter(|source| *source != uplink.source_ipv6),
    };
    source.is_some_and(|source| belongs_to_another(ifindex, source))
}

#[inline(always)]
fn belongs_to_another(ifindex: u32, address: [u8; 16]) -> bool {
    let Some(owner) = ADDRESSES.get_ptr_mut(address) else {
        return false;
    };
    // SAFETY: user space replaces whole values, and programs on all CPUs write the same time: at worst a reader gets the previous value.
    unsafe {
        if (*owner).ifindex == LOST {
            (*owner).last_used_s = now_s();
        }
        (*owner).ifindex != ifindex && (*owner).ifindex != SEVERAL
    }
}

/// Whether a packet belongs to a flow that came in by this uplink, if the uplink is to answer such flows.
#[inline(always)]
fn is_answer_from_here(ctx: &TcContext, ifindex: u32, uplink: &Uplink, packet: &Packet) -> bool {
    match (packet.protocol, packet.upper) {
        (protocol::TCP | protocol::UDP, Some(_)) => {
            let flow = flow::leaving(ctx, ifindex, packet);
            let kept = flow::is_kept(uplink, &flow);
            if !kept && packet.protocol == protocol::UDP {
                flow::note_departure(uplink, flow);
            }
            kept
        }
        (protocol::ICMP | protocol::ICMPV6, Some(icmp)) => {
            // Echo replies: a host sends them only because it was asked.
            let reply = match packet.family {
                Family::V4 => 0,
                Family::V6 => 129,
            };
            uplink.inbound == Inbound::Keep && ctx.load::<u8>(icmp) == Ok(reply)
        }
        _ => false,
    }
}

/// Drops a packet so that its sender sees success.
///
/// TC_ACT_SHOT makes the sender see NET_XMIT_DROP, which local TCP takes for congestion of its own queue: keepalive and user timeouts then
/// never fire, because such a probe does not count as sent. TCX has no TC_ACT_STOLEN. With TC_ACT_REDIRECT, the egress hook reports success
/// to the sender, whatever becomes of the redirect (net/core/dev.c, sch_handle_egress), and a redirect to an interface that does not exist
/// frees the packet (net/core/filter.c, skb_do_redirect). Interface indexes begin at 1.
#[inline(always)]
pub(crate) fn drop_silently() -> i32 {
    const NO_INTERFACE: u32 = 0;
    // SAFETY: plain numbers. The result is TC_ACT_REDIRECT for all valid flags.
    unsafe { bpf_redirect(NO_INTERFACE, 0) };
    TC_ACT_REDIRECT
}

/// Hands a packet to the ingress of an interface.
#[inline(always)]
pub(crate) fn send_back(ifindex: u32) -> i32 {
    // SAFETY: plain numbers. The result is TC_ACT_REDIRECT for all valid flags.
    unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) };
    TC_ACT_REDIRECT
}

/// Whether a packet keeps the link itself alive, or stays on it.
#[inline(always)]
fn keeps_the_link(ctx: &TcContext, packet: &Packet) -> bool {
    if is_link_scoped(packet.family, &packet.source)
        || is_link_scoped(packet.family, &packet.destination)
    {
        return true;
    }
    let Some(upper) = packet.upper else {
        return false;
    };
    match (packet.family, packet.protocol) {
        (family, protocol::UDP) => is_dhcp(ctx, family, upper),
        (Family::V4, protocol::IGMP) => true,
        (Family::V6, protocol::ICMPV6) => is_neighbour_or_listener_discovery(ctx, upper),
        _ => false,
    }
}

/// Link-local and link-scoped multicast addresses, and the limited broadcast address, which no router forwards.
#[inline(always)]
pub(crate) fn is_link_scoped(family: Family, address: &[u8; 16]) -> bool {
    match family {
        // RFC 3927, RFC 5771 (4), RFC 919.
        Family::V4 => {
            let [.., a, b, c, d] = *address;
            (a == 169 && b == 254) || (a == 224 && b == 0 && c == 0) || (a & b & c & d == 255)
        }
        // RFC 4291, 2.5.6 and 2.7 (scopes 1 and 2).
        Family::V6 => {
            let [a, b, ..] = *address;
            (a == 0xfe && b & 0xc0 == 0x80) || (a == 0xff && b & 0x0f <= 2)
        }
    }
}

/// Whether a packet frees the far end of a connection.
#[inline(always)]
pub(crate) fn is_reset(ctx: &TcContext, packet: &Packet) -> bool {
    const RST: u8 = 0x04;
    packet.protocol == protocol::TCP
        && packet
            .upper
            .is_some_and(|tcp| packet::tcp_flags(ctx, tcp) & RST != 0)
}

/// Recognized by the destination port: RFC 2131 (4.1) and RFC 8415 (7.2) leave the source port of some messages open.
#[inline(always)]
fn is_dhcp(ctx: &TcContext, family: Family, udp: usize) -> bool {
    const DESTINATION_PORT_AT: usize = 2;
    let Ok(port) = ctx.load::<[u8; 2]>(udp + DESTINATION_PORT_AT) else {
        return false;
    };
    let port = u16::from_be_bytes(port);
    match family {
        Family::V4 => port == 67 || port == 68,
        Family::V6 => port == 546 || port == 547,
    }
}

/// RFC 4861, RFC 2710 and RFC 3810.
#[inline(always)]
fn is_neighbour_or_listener_discovery(ctx: &TcContext, icmpv6: usize) -> bool {
    matches!(ctx.load::<u8>(icmpv6), Ok(130..=137 | 143))
}
