//! Answering a packet with "communication administratively prohibited": RFC 1812 (5.2.7.1) and RFC 4443 (3.1).

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths within packets and sums that were folded; try_from's other branch would only burden the verifier"
)]

use aya_ebpf::{helpers::bpf_skb_load_bytes, programs::TcContext};
use failover_ebpf::LinkLayer;

use crate::{
    SCRATCH,
    answer::{Draft, checksum, ipv4_header, ipv6_header, store, store_bytes, sum, words},
    packet::{Family, IPV4_HEADER, IPV6_HEADER, Packet, protocol},
};

const ICMP_HEADER: usize = 8;
/// RFC 1812, 4.3.2.3: as much as fits 576 bytes.
const MAX_QUOTE_V4: usize = 576 - IPV4_HEADER - ICMP_HEADER;
/// RFC 4443, 2.4 (c): as much as fits the minimum MTU.
const MAX_QUOTE_V6: usize = 1280 - IPV6_HEADER - ICMP_HEADER;
/// RFC 1812, 4.3.2.5: internetwork control.
const TOS: u8 = 0xc0;

/// Holds any quote, in words; a power of two, so that the verifier sees the bounds.
pub(crate) type Scratch = [u32; 512];
const LENGTH_MASK: usize = size_of::<Scratch>() - 1;

/// Whether a packet is itself an ICMP error, or of an unknown type.
#[inline(always)]
pub(crate) fn is_error(ctx: &TcContext, packet: &Packet, upper: usize) -> bool {
    let kind = ctx.load::<u8>(upper);
    match packet.protocol {
        // Echo, timestamp, information and address mask: RFC 792 and RFC 950. The rest are errors and discovery.
        protocol::ICMP => !matches!(kind, Ok(0 | 8 | 13..=18)),
        protocol::ICMPV6 => !matches!(kind, Ok(128..)),
        _ => false,
    }
}

/// Turns a packet into an error. None: its IP header contradicts itself.
#[inline(never)]
pub(crate) fn make(
    ctx: &TcContext,
    link_layer: LinkLayer,
    packet: &Packet,
    upper: usize,
) -> Option<()> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    let available = packet
        .length
        .min((ctx.len() as usize).checked_sub(packet.at)?);
    if packet.length < upper - packet.at {
        return None;
    }
    let (longest, header) = match packet.family {
        Family::V4 => (MAX_QUOTE_V4, IPV4_HEADER + ICMP_HEADER),
        Family::V6 => (MAX_QUOTE_V6, IPV6_HEADER + ICMP_HEADER),
    };
    let quote = available.min(longest);
    let quoted = load_quote(ctx, packet.at, scratch, quote)?;
    let draft = Draft::begin(ctx, link_layer, upper, header + quote)?;
    match packet.family {
        Family::V4 => {
            let [a, b, c, d, e] = ipv4_header(packet, protocol::ICMP, TOS, header + quote);
            const ADMINISTRATIVELY_PROHIBITED: u32 = 3 << 24 | 13 << 16;
            let start = ADMINISTRATIVELY_PROHIBITED;
            let start = start | u32::from(checksum(quoted + u64::from(start)));
            store(ctx, draft.at, &[a, b, c, d, e, start, 0].map(u32::to_be))?;
        }
        Family::V6 => {
            const ADMINISTRATIVELY_PROHIBITED: u32 = 1 << 24 | 1 << 16;
            let length = ICMP_HEADER + quote;
            let pseudo = sum(&words(&packet.source))
                + sum(&words(&packet.destination))
                + u64::from(protocol::ICMPV6)
                + length as u64;
            let start = ADMINISTRATIVELY_PROHIBITED;
            let start = start | u32::from(checksum(pseudo + quoted + u64::from(start)));
            let ip = ipv6_header(packet, protocol::ICMPV6, length);
            store(ctx, draft.at, &ip.map(u32::to_be))?;
            store(ctx, draft.at + IPV6_HEADER, &[start, 0].map(u32::to_be))?;
        }
    }
    store_quote(ctx, draft.at + header, scratch, quote)?;
    draft.finish(ctx)
}

/// The length of a quote in bytes, which is never 0, in bounds that every kernel's verifier sees: at least 1, at most what `Scratch` holds.
///
/// The helpers refuse a length that may be 0, and a verifier before Linux 6.8 learns nothing from a comparison with `!= 0`. A length of 0
/// would wrap to the greatest value, which the helpers refuse at run time because no quote is that long.
#[inline(always)]
fn bounded(length: usize) -> usize {
    (core::hint::black_box(length.wrapping_sub(1)) & LENGTH_MASK) + 1
}

/// Reads the quote into `scratch` and adds up its words.
#[inline(never)]
fn load_quote(ctx: &TcContext, at: usize, scratch: *mut Scratch, length: usize) -> Option<u64> {
    let length = bounded(length);
    // SAFETY: the slot belongs to this CPU, and no other reference to it exists.
    let words = unsafe { &mut *scratch };
    let last = length / 4;
    // The quote may end within a word.
    words[last & (words.len() - 1)] = 0;
    // SAFETY: `length` bytes fit.
    let result = unsafe {
        bpf_skb_load_bytes(
            ctx.skb.skb.cast(),
            at as u32,
            words.as_mut_ptr().cast(),
            length as u32,
        )
    };
    if result != 0 {
        return None;
    }
    let mut sum = 0;
    for (index, &word) in words.iter().enumerate().take(MAX_QUOTE_V6 / 4 + 1) {
        if index > last || (index == last && length & 3 == 0) {
            break;
        }
        sum += u64::from(u32::from_be(word));
    }
    Some(sum)
}

#[inline(always)]
fn store_quote(ctx: &TcContext, at: usize, scratch: *const Scratch, length: usize) -> Option<()> {
    let length = bounded(length);
    store_bytes(ctx, at, scratch.cast(), length)
}
