//! Answering a TCP segment with a RST (RFC 9293, 3.5.2 and 3.10.7.1).

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths within packets and sums that were folded; try_from's other branch would only burden the verifier"
)]

use aya_ebpf::programs::TcContext;
use failover_ebpf::LinkLayer;

use crate::{
    answer::{Draft, checksum, ipv4_header, ipv6_header, store, sum, words},
    packet::{Family, IPV4_HEADER, IPV6_HEADER, Packet, protocol},
};

const TCP_HEADER: usize = 20;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Turns a segment whose header begins at `upper` into a RST. None: it is a RST itself, or cut short.
#[inline(always)]
pub(crate) fn make(
    ctx: &TcContext,
    link_layer: LinkLayer,
    packet: &Packet,
    upper: usize,
) -> Option<()> {
    match packet.family {
        Family::V4 => make_ipv4(ctx, link_layer, packet, upper),
        Family::V6 => make_ipv6(ctx, link_layer, packet, upper),
    }
}

#[inline(never)]
fn make_ipv4(ctx: &TcContext, link_layer: LinkLayer, packet: &Packet, upper: usize) -> Option<()> {
    const LENGTH: usize = IPV4_HEADER + TCP_HEADER;
    let tcp = header(ctx, packet, upper)?;
    let [a, b, c, d, e] = ipv4_header(packet, protocol::TCP, 0, LENGTH);
    let [f, g, h, i, j] = with_checksum(tcp, sum(&[d, e]));
    let headers = [a, b, c, d, e, f, g, h, i, j].map(u32::to_be);
    let draft = Draft::begin(ctx, link_layer, upper, LENGTH)?;
    store(ctx, draft.at, &headers)?;
    draft.finish(ctx)
}

#[inline(never)]
fn make_ipv6(ctx: &TcContext, link_layer: LinkLayer, packet: &Packet, upper: usize) -> Option<()> {
    let tcp = header(ctx, packet, upper)?;
    let addresses = sum(&words(&packet.source)) + sum(&words(&packet.destination));
    let ip = ipv6_header(packet, protocol::TCP, TCP_HEADER).map(u32::to_be);
    let tcp = with_checksum(tcp, addresses).map(u32::to_be);
    let draft = Draft::begin(ctx, link_layer, upper, IPV6_HEADER + TCP_HEADER)?;
    store(ctx, draft.at, &ip)?;
    store(ctx, draft.at + IPV6_HEADER, &tcp)?;
    draft.finish(ctx)
}

/// The RST's TCP header without its checksum.
#[inline(always)]
fn header(ctx: &TcContext, packet: &Packet, upper: usize) -> Option<[u32; 5]> {
    let segment: [u8; TCP_HEADER] = ctx.load(upper).ok()?;
    let [
        s0,
        s1,
        d0,
        d1,
        q0,
        q1,
        q2,
        q3,
        a0,
        a1,
        a2,
        a3,
        offset,
        flags,
        ..,
    ] = segment;
    let length = packet.length.saturating_sub(upper - packet.at);
    let offset = usize::from(offset >> 4) * 4;
    if flags & RST != 0 || offset < TCP_HEADER {
        return None;
    }
    let ports = u32::from_be_bytes([d0, d1, s0, s1]);
    let (sequence, acknowledgement, flags) = if flags & ACK != 0 {
        (u32::from_be_bytes([a0, a1, a2, a3]), 0, RST)
    } else {
        // SYN and FIN take a sequence number each.
        let consumed = length.saturating_sub(offset) as u32
            + u32::from(flags & SYN != 0)
            + u32::from(flags & FIN != 0);
        let sequence = u32::from_be_bytes([q0, q1, q2, q3]);
        (0, sequence.wrapping_add(consumed), RST | ACK)
    };
    let offset_flags_window = (TCP_HEADER as u32 / 4) << 28 | u32::from(flags) << 16;
    Some([ports, sequence, acknowledgement, offset_flags_window, 0])
}

/// `addresses`: the sum of both addresses, for the pseudo header.
#[inline(always)]
fn with_checksum(mut tcp: [u32; 5], addresses: u64) -> [u32; 5] {
    let pseudo = addresses + u64::from(protocol::TCP) + TCP_HEADER as u64;
    tcp[4] = u32::from(checksum(pseudo + sum(&tcp))) << 16;
    tcp
}
