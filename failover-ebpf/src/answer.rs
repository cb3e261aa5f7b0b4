//! Turning a cut packet into an answer to its sender, as if it came from beyond the link.
//!
//! The packet itself becomes the answer: new headers, its addresses swapped, redirected to the ingress of the interface that it was leaving
//! by. There it passes checksum verification, conntrack (which translates it for a client behind NAT) and the reverse path filter like any
//! packet from the wire.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths within packets and sums that were folded; try_from's other branch would only burden the verifier"
)]

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INVALIDATE_HASH, BPF_F_RECOMPUTE_CSUM},
    helpers::{
        bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_store_bytes, bpf_skb_vlan_pop,
        bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use failover_ebpf::{ANSWER_TOKEN, Answer, CutMode, LinkLayer, Uplink};

use crate::{
    limit,
    packet::{ETHERNET_HEADER, Family, Packet, is_vlan, protocol},
    prohibit, reset,
};

/// TTL and hop limit of answers: they come from this host, so any value would do; this is Linux's default.
pub(crate) const TTL: u32 = 64;

/// No packet has its upper-layer header further in and deserves an answer.
const MAX_HEADERS: usize = 1024;

/// Turns the packet into an answer, if it may have one.
#[inline(always)]
pub(crate) fn make(ctx: &TcContext, ifindex: u32, uplink: &Uplink, packet: &Packet) -> Answer {
    let Some(upper) = packet.upper else {
        return Answer::Dropped;
    };
    let mode = match packet.family {
        Family::V4 => uplink.cut_mode_ipv4,
        Family::V6 => uplink.cut_mode_ipv6,
    };
    if mode == CutMode::Drop
        || upper > MAX_HEADERS
        || !is_answerable(ctx, uplink.link_layer, packet)
    {
        return Answer::Dropped;
    }
    let (made, answer) = if packet.protocol == protocol::TCP {
        (
            reset::make(ctx, uplink.link_layer, packet, upper),
            Answer::Reset,
        )
    } else {
        let made = !prohibit::is_error(ctx, packet, upper)
            && limit::may_send_icmp(ifindex)
            && prohibit::make(ctx, uplink.link_layer, packet, upper).is_some();
        (made.then_some(()), Answer::Icmp)
    };
    if made.is_none() {
        return Answer::Dropped;
    }
    let skb = ctx.skb.skb;
    // SAFETY: the kernel hands every program a valid context; these fields are writable.
    unsafe {
        (*skb).mark = 0;
        (*skb).cb[0] = ANSWER_TOKEN[0];
        (*skb).cb[1] = ANSWER_TOKEN[1];
    }
    answer
}

/// Whether an arriving packet is an answer that was made here.
#[inline(always)]
pub(crate) fn is_ours(ctx: &TcContext) -> bool {
    // SAFETY: the kernel hands every program a valid context.
    unsafe { (*ctx.skb.skb).cb[0] == ANSWER_TOKEN[0] && (*ctx.skb.skb).cb[1] == ANSWER_TOKEN[1] }
}

/// Whether sender and destination are single hosts: RFC 1122 (3.2.2), RFC 4443 (2.4 e), RFC 9293 (3.9.2.3).
#[inline(always)]
fn is_answerable(ctx: &TcContext, link_layer: LinkLayer, packet: &Packet) -> bool {
    /// The bit of group addresses, IEEE 802.
    const GROUP: u8 = 0x01;
    let single = match packet.family {
        // Multicast, reserved and broadcast addresses begin at 224; "this host" and loopback addresses belong to no other host.
        Family::V4 => packet.destination[12] < 224 && !matches!(packet.source[12], 0 | 127 | 224..),
        Family::V6 => {
            packet.destination[0] != 0xff
                && packet.source[0] != 0xff
                && packet.source.iter().any(|&byte| byte != 0)
        }
    };
    single
        && (link_layer == LinkLayer::None
            || ctx.load::<u8>(0).is_ok_and(|first| first & GROUP == 0))
}

/// An answer under construction.
pub(crate) struct Draft {
    /// The offset of its network header.
    pub(crate) at: usize,
    tag: Option<[u16; 2]>,
}

impl Draft {
    /// Makes room for an answer of `length` bytes from the network header on, and swaps the addresses of the link-layer header. Everything
    /// that the answer needs from the packet must have been read before.
    #[inline(always)]
    pub(crate) fn begin(
        ctx: &TcContext,
        link_layer: LinkLayer,
        upper: usize,
        length: usize,
    ) -> Option<Draft> {
        let skb = ctx.skb.skb;
        let (at, ethernet) = match link_layer {
            LinkLayer::Ethernet => (ETHERNET_HEADER, Some(ctx.load::<[u8; 16]>(0).ok()?)),
            LinkLayer::None => (0, None),
        };
        let tag = match ethernet {
            Some(header) => pop_tags(skb, &header)?,
            None => None,
        };
        // Bytes that the step after next removes again. They reach beyond the place where the hardware (or the stack, when the packet is
        // forwarded once more) was to fill in a checksum. Only this makes the kernel drop that request (CHECKSUM_PARTIAL;
        // include/linux/skbuff.h, __skb_postpull_rcsum). A multiple of 4 keeps the alignment.
        let excess = (upper | 3) + 1;
        // Makes the packet one linear, writable buffer, and a GSO packet one segment.
        // SAFETY: a valid context, and plain numbers.
        if unsafe { bpf_skb_change_tail(skb, (at + length + excess) as u32, 0) } != 0 {
            return None;
        }
        // SAFETY: as above.
        if unsafe { bpf_skb_adjust_room(skb, -(excess as i32), BPF_ADJ_ROOM_MAC, 0) } != 0 {
            return None;
        }
        if let Some([d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..]) = ethernet {
            store(ctx, 0, &[s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5])?;
        }
        Some(Draft { at, tag })
    }

    /// Adds the VLAN tags again.
    #[inline(always)]
    pub(crate) fn finish(self, ctx: &TcContext) -> Option<()> {
        let Some([kind, tci]) = self.tag else {
            return Some(());
        };
        // SAFETY: a valid context, and plain numbers.
        (unsafe { bpf_skb_vlan_push(ctx.skb.skb, kind, tci) } == 0).then_some(())
    }
}

/// include/uapi/linux/bpf.h, `enum bpf_adj_room_mode`.
const BPF_ADJ_ROOM_MAC: u32 = 1;

/// Removes VLAN tags from the data, because bpf_skb_adjust_room does not know them there. Returns the outermost, to be pushed in the end;
/// the kernel moves one below it to where the hardware would leave it. A packet with more than two gets no answer.
#[inline(always)]
fn pop_tags(skb: *mut __sk_buff, header: &[u8; 16]) -> Option<Option<[u16; 2]>> {
    if !is_vlan(u16::from_be_bytes([header[12], header[13]])) {
        return Some(None);
    }
    // SAFETY: a valid context.
    let outermost = unsafe {
        if (*skb).vlan_present != 0 {
            [
                ((*skb).vlan_proto & 0xffff) as u16,
                ((*skb).vlan_tci & 0xffff) as u16,
            ]
        } else {
            [
                u16::from_ne_bytes([header[12], header[13]]),
                u16::from_be_bytes([header[14], header[15]]),
            ]
        }
    };
    // SAFETY: a valid context.
    (unsafe { bpf_skb_vlan_pop(skb) } == 0).then_some(Some(outermost))
}

/// Writes into the packet.
#[inline(always)]
pub(crate) fn store<T>(ctx: &TcContext, at: usize, value: &T) -> Option<()> {
    store_bytes(ctx, at, core::ptr::from_ref(value).cast(), size_of::<T>())
}

/// Writes `length` bytes from `source` into the packet.
#[inline(always)]
pub(crate) fn store_bytes(
    ctx: &TcContext,
    at: usize,
    source: *const u8,
    length: usize,
) -> Option<()> {
    const FLAGS: u32 = BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH;
    // SAFETY: callers pass a source of that length; the verifier checks it again.
    let result = unsafe {
        bpf_skb_store_bytes(
            ctx.skb.skb.cast(),
            at as u32,
            source.cast(),
            length as u32,
            u64::from(FLAGS),
        )
    };
    (result == 0).then_some(())
}

/// The Internet checksum (RFC 1071) of 32-bit words that were added up.
#[inline(always)]
pub(crate) fn checksum(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[inline(always)]
pub(crate) fn sum(words: &[u32]) -> u64 {
    words.iter().map(|&word| u64::from(word)).sum()
}

/// The four words of an IPv6 address, in host byte order.
#[inline(always)]
pub(crate) fn words(address: &[u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
        u32::from_be_bytes([i, j, k, l]),
        u32::from_be_bytes([m, n, o, p]),
    ]
}

/// An IPv4 header (RFC 791) back to the sender of `packet`, in host byte order.
#[inline(always)]
pub(crate) fn ipv4_header(packet: &Packet, protocol: u8, tos: u8, length: usize) -> [u32; 5] {
    const DO_NOT_FRAGMENT: u32 = 0x4000;
    let [.., source] = words(&packet.destination);
    let [.., destination] = words(&packet.source);
    let mut header = [
        0x4500_0000 | u32::from(tos) << 16 | length as u32,
        DO_NOT_FRAGMENT,
        TTL << 24 | u32::from(protocol) << 16,
        source,
        destination,
    ];
    header[2] |= u32::from(checksum(sum(&header)));
    header
}

/// An IPv6 header (RFC 8200) back to the sender of `packet`, in host byte order.
#[inline(always)]
pub(crate) fn ipv6_header(packet: &Packet, next: u8, payload: usize) -> [u32; 10] {
    let [a, b, c, d] = words(&packet.destination);
    let [e, f, g, h] = words(&packet.source);
    let start = (payload as u32) << 16 | u32::from(next) << 8 | TTL;
    [0x6000_0000, start, a, b, c, d, e, f, g, h]
}
