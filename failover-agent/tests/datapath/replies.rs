//! An independent reader of answers: whatever it does not accept is malformed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packets::{ICMPV6, TCP};

/// An answer, all of whose lengths and checksums hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Reset {
        ports: (u16, u16),
        sequence: u32,
        /// None without ACK.
        acknowledgement: Option<u32>,
    },
    Prohibited {
        quote: Vec<u8>,
    },
}

/// RFC 1071.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Reads an answer from its IP header on.
pub(crate) fn read(packet: &[u8]) -> Result<Reply, String> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => read_ipv4(packet),
        Some(6) => read_ipv6(packet),
        _ => Err("not IP".into()),
    }
}

fn ensure(condition: bool, what: &str) -> Result<(), String> {
    condition.then_some(()).ok_or_else(|| what.to_owned())
}

fn read_ipv4(packet: &[u8]) -> Result<Reply, String> {
    ensure(packet.len() >= 28 && packet[0] == 0x45, "IPv4 header")?;
    ensure(
        usize::from(u16_at(packet, 2)) == packet.len(),
        "IPv4 length",
    )?;
    ensure(u16_at(packet, 6) == 0x4000, "fragment")?;
    ensure(packet[8] == 64, "TTL")?;
    ensure(checksum(&[&packet[..20]]) == 0, "IPv4 checksum")?;
    let (header, body) = packet.split_at(20);
    let kind = match packet[9] {
        TCP => {
            let length = u16_at(packet, 2) - 20;
            let pseudo = [&header[12..], &[0, TCP], &length.to_be_bytes()].concat();
            read_reset(&pseudo, body)?
        }
        1 => {
            ensure(packet[1] == 0xc0 && packet.len() <= 576, "ICMP's IP header")?;
            ensure(body[..2] == [3, 13] && body[4..8] == [0; 4], "ICMP header")?;
            ensure(checksum(&[body]) == 0, "ICMP checksum")?;
            Kind::Prohibited {
                quote: body[8..].to_vec(),
            }
        }
        other => return Err(format!("protocol {other}")),
    };
    let address = |at: usize| IpAddr::from(Ipv4Addr::from(u32_at(header, at)));
    Ok(Reply {
        source: address(12),
        destination: address(16),
        kind,
    })
}

fn read_ipv6(packet: &[u8]) -> Result<Reply, String> {
    ensure(packet.len() >= 48, "IPv6 header")?;
    ensure(u32_at(packet, 0) == 6 << 28, "IPv6 class and flow")?;
    ensure(
        usize::from(u16_at(packet, 4)) == packet.len() - 40,
        "IPv6 length",
    )?;
    ensure(packet[7] == 64, "hop limit")?;
    let (header, body) = packet.split_at(40);
    let pseudo = [&header[8..], &[0, 0], &header[4..6], &[0, 0, 0, header[6]]].concat();
    let kind = match packet[6] {
        TCP => read_reset(&pseudo, body)?,
        ICMPV6 => {
            ensure(packet.len() <= 1280, "ICMPv6 length")?;
            ensure(body[..2] == [1, 1] && body[4..8] == [0; 4], "ICMPv6 header")?;
            ensure(checksum(&[&pseudo, body]) == 0, "ICMPv6 checksum")?;
            Kind::Prohibited {
                quote: body[8..].to_vec(),
            }
        }
        other => return Err(format!("next header {other}")),
    };
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().unwrap();
        IpAddr::from(Ipv6Addr::from(octets))
    };
    Ok(Reply {
        source: address(8),
        destination: address(24),
        kind,
    })
}

fn read_reset(pseudo: &[u8], segment: &[u8]) -> Result<Kind, String> {
    ensure(segment.len() == 20 && segment[12] == 5 << 4, "TCP header")?;
    ensure(
        segment[14..16] == [0; 2] && segment[18..] == [0; 2],
        "window, urgent",
    )?;
    ensure(checksum(&[pseudo, segment]) == 0, "TCP checksum")?;
    let acknowledgement = match segment[13] {
        4 => None,
        0x14 => Some(u32_at(segment, 8)),
        other => return Err(format!("flags {other:x}")),
    };
    ensure(
        acknowledgement.is_some() || u32_at(segment, 8) == 0,
        "ack without ACK",
    )?;
    Ok(Kind::Reset {
        ports: (u16_at(segment, 0), u16_at(segment, 2)),
        sequence: u32_at(segment, 4),
        acknowledgement,
    })
}
