//! Flows, by `NETLINK_NETFILTER` (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`,
//! `net/netfilter/nf_conntrack_netlink.c`).
//!
//! The kernel could filter by address itself (`CTA_FILTER`, Linux 5.8), but its comparison of IPv6 addresses is inverted
//! (`ctnetlink_filter_match_tuple`), and the first versions read the reply's address by the flags of the original direction. So the kernel
//! filters by family only, and this module compares the rest: about 1 µs per entry.
//!
//! Each entry is deleted by its tuple, zone and id, so that a later flow with the same ports is not affected.

use std::{fs, io, net::IpAddr};

use anyhow::{Context, Result};
use nix::libc;
use rtnetlink::{
    packet_core::{DecodeError, NLA_F_NESTED, NLA_HEADER_SIZE, NlasIterator},
    sys::protocols::NETLINK_NETFILTER,
};

use super::{AF_INET, AF_INET6, Ended, Refusals, Scope, byte};
use crate::netlink::{Message, Netlink};

/// Number of entries in the network namespace of the thread that reads it. The file exists only if connection tracking is loaded.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

const SUBSYSTEM: u16 = (byte(libc::NFNL_SUBSYS_CTNETLINK) as u16) << 8;
const IPCTNL_MSG_CT_GET: u16 = SUBSYSTEM | 1;
const IPCTNL_MSG_CT_DELETE: u16 = SUBSYSTEM | 2;
const IPCTNL_MSG_CT_GET_STATS: u16 = SUBSYSTEM | 5;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const AF_UNSPEC: u8 = byte(libc::AF_UNSPEC);
/// `struct nfgenmsg`.
const HEADER: usize = 4;

/// What identifies an entry. Attributes are kept as the kernel wrote them.
struct Flow {
    family: u8,
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
    id: Vec<u8>,
    protocol: u8,
}

/// Why flows cannot be deleted although there may be some; `None` if they can.
pub(super) fn missing() -> Option<String> {
    let try_out = || -> Result<()> {
        if count()?.is_some() {
            // Loads nf_conntrack_netlink.
            let request = message(IPCTNL_MSG_CT_GET_STATS, AF_UNSPEC);
            open()?.get(&request, |_| Ok(Some(())))?;
        }
        Ok(())
    };
    try_out().err().map(|error| {
        format!("flows cannot be deleted, this kernel has no CONFIG_NF_CT_NETLINK or its module is missing: {error:#}")
    })
}

/// Deletes the flows in `scope` and counts them.
pub(super) fn delete(scope: &Scope, ended: &mut Ended) -> Result<()> {
    let addresses = &scope.addresses;
    // A netlink request would load modules that the host does not use.
    if count()?.is_none_or(|count| count == 0) {
        return Ok(());
    }
    let mut netlink = open()?;
    let mut refusals = Refusals::default();
    for (family, wanted) in [
        (AF_INET, addresses.iter().any(IpAddr::is_ipv4)),
        (AF_INET6, addresses.iter().any(IpAddr::is_ipv6)),
    ] {
        if !wanted {
            continue;
        }
        let flows = netlink
            .dump(&message(IPCTNL_MSG_CT_GET, family), |payload| {
                flow(payload, scope)
            })
            .context("cannot list flows")?;
        let requests = flows.iter().map(|flow| (flow.deletion(), 0)).collect();
        for (flow, answer) in flows.iter().zip(netlink.commit(requests)?) {
            match answer {
                Ok(()) => ended.count(flow.protocol),
                // The flow has ended by itself.
                Err(refused) if refused.missing() => {}
                Err(refused) => refusals.add(&refused),
            }
        }
    }
    ended.problems.extend(refusals.lines("conntrack"));
    Ok(())
}

/// Entries in this network namespace; `None` without connection tracking.
fn count() -> Result<Option<u64>> {
    match fs::read_to_string(COUNT) {
        Ok(text) => Ok(Some(
            text.trim()
                .parse()
                .with_context(|| format!("{COUNT}: not a number"))?,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(COUNT),
    }
}

fn open() -> Result<Netlink> {
    Netlink::open(NETLINK_NETFILTER).context("cannot open a NETLINK_NETFILTER socket")
}

/// A message with only a `struct nfgenmsg`: family, version, resource.
fn message(kind: u16, family: u8) -> Message {
    Message {
        kind,
        payload: vec![family, 0, 0, 0],
    }
}

impl Flow {
    /// The kernel takes a request without a tuple as "delete all".
    fn deletion(&self) -> Message {
        let mut message = message(IPCTNL_MSG_CT_DELETE, self.family);
        message.attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, &self.original);
        if let Some(zone) = &self.zone {
            message.attribute(CTA_ZONE, zone);
        }
        message.attribute(CTA_ID, &self.id);
        message
    }
}

/// Reads an entry; `None` if it is not in `scope`.
fn flow(payload: &[u8], scope: &Scope) -> Result<Option<Flow>, DecodeError> {
    let (header, attributes) = payload
        .split_first_chunk::<HEADER>()
        .ok_or("conntrack: entry too short")?;
    let (mut original, mut reply, mut zone, mut id) = (None, None, None, None);
    for (kind, value) in values(attributes) {
        match kind {
            CTA_TUPLE_ORIG => original = Some(value),
            CTA_TUPLE_REPLY => reply = Some(value),
            CTA_ZONE => zone = Some(value),
            CTA_ID => id = Some(value),
            _ => {}
        }
    }
    let (Some(original), Some(reply)) = (original, reply) else {
        return Ok(None); // not an entry
    };
    let uses =
        |tuple, v4, v6| address(tuple, v4, v6).is_some_and(|ip| scope.addresses.contains(&ip));
    if !uses(original, CTA_IP_V4_SRC, CTA_IP_V6_SRC) && !uses(reply, CTA_IP_V4_DST, CTA_IP_V6_DST) {
        return Ok(None);
    }
    if address(original, CTA_IP_V4_DST, CTA_IP_V6_DST).is_some_and(|remote| scope.spares(remote)) {
        return Ok(None);
    }
    let protocol = value(original, CTA_TUPLE_PROTO).and_then(|proto| value(proto, CTA_PROTO_NUM));
    Ok(Some(Flow {
        family: header[0],
        original: original.to_vec(),
        zone: zone.map(<[u8]>::to_vec),
        id: id.ok_or("conntrack: entry without id")?.to_vec(),
        protocol: protocol.and_then(<[u8]>::first).copied().unwrap_or(0),
    }))
}

/// The address in a tuple, from whichever of the two attributes is present.
fn address(tuple: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    values(value(tuple, CTA_TUPLE_IP)?).find_map(|(kind, value)| {
        if kind == v4 {
            <[u8; 4]>::try_from(value).ok().map(IpAddr::from)
        } else if kind == v6 {
            <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
        } else {
            None
        }
    })
}

fn value(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    values(attributes)
        .find(|(other, _)| *other == kind)
        .map(|(_, value)| value)
}

/// Attributes as kind and value.
fn values(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).flatten().map(|attribute| {
        let end = usize::from(attribute.length());
        (
            attribute.kind(),
            &attribute.into_inner()[NLA_HEADER_SIZE..end],
        )
    })
}
