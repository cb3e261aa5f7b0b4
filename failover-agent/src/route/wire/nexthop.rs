//! Nexthop objects: what a route can leave by without naming it (Linux 5.3; resilient groups 5.13).
//!
//! `netlink-packet-route` has no messages for them. Source of numbers and layouts: `include/uapi/linux/nexthop.h` (`struct nhmsg`,
//! `struct nexthop_grp`, `NHA_*`), `include/uapi/linux/rtnetlink.h` (`RTM_*NEXTHOP`, `RTNH_F_ONLINK`), `net/ipv4/nexthop.c`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use failover_policy::Family;
use nix::libc::EOPNOTSUPP;
use rtnetlink::packet_core::{DecodeError, NLA_F_NESTED, NlasIterator};

use super::{
    list::address_family,
    message::{Hop, USER_HZ, interface_name},
};
use crate::netlink::{Error, Message, Netlink};

const RTM_NEWNEXTHOP: u16 = 104;
pub(crate) const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const RTM_GETNEXTHOPBUCKET: u16 = 118;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GROUP_TYPE: u16 = 3;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_RES_GROUP: u16 = 12;
const NHA_RES_GROUP_BUCKETS: u16 = 1;
const NHA_RES_GROUP_IDLE_TIMER: u16 = 2;
const NEXTHOP_GRP_TYPE_RES: u16 = 1;
const RTNH_F_ONLINK: u32 = 4;

/// `struct nhmsg`: family, scope, protocol, reserved (a byte each), flags.
const HEADER_LEN: usize = 8;
/// `struct nexthop_grp`: id, weight - 1, its high byte, reserved.
const ENTRY_LEN: usize = 8;

/// Hash buckets of a group. Many, because one in which something goes on cannot go to a member that joins; not more, because the
/// kernel goes through all of them when a member leaves (4096: 0.1 ms). The number of a standing group cannot be changed.
const BUCKETS: u16 = 4096;
/// After this time without a packet a bucket may go to a member that has too few. As long as RFC 4787 (REQ-5) recommends for
/// UDP mappings: a flow that was silent for longer cannot count on its NAT anyway.
const IDLE_SECONDS: u32 = 300;

/// Greatest weight of a member that every kernel takes (those before 6.12 refuse 256).
pub(crate) const MAX_WEIGHT: u32 = 255;

/// A nexthop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nexthop {
    /// Its number.
    pub(crate) id: u32,
    /// Who made it.
    pub(crate) protocol: u8,
    pub(crate) kind: Kind,
}

/// What it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One next hop, for IPv4 routes.
    Hop(Hop),
    /// Several, with their weights from 1 to [`MAX_WEIGHT`]; resilient.
    Group(Vec<(u32, u32)>),
    /// Something that is never ours: a blackhole, an encapsulation, a group of another type.
    Other,
}

impl Nexthop {
    /// The message that adds or replaces it.
    pub(crate) fn message(&self) -> Message {
        let (family, flags) = match &self.kind {
            Kind::Hop(hop) => (
                // An IPv4 route may have an IPv6 gateway (RFC 5549), which then is the object's family.
                u8::from(address_family(match hop.gateway {
                    Some(IpAddr::V6(_)) => Family::V6,
                    Some(IpAddr::V4(_)) | None => Family::V4,
                })),
                if hop.onlink { RTNH_F_ONLINK } else { 0 },
            ),
            Kind::Group(_) | Kind::Other => (0, 0),
        };
        let mut message = message(RTM_NEWNEXTHOP, family, self.protocol, flags, Some(self.id));
        match &self.kind {
            Kind::Hop(hop) => {
                message.attribute(NHA_OIF, &hop.ifindex.to_ne_bytes());
                match hop.gateway {
                    Some(IpAddr::V4(gateway)) => message.attribute(NHA_GATEWAY, &gateway.octets()),
                    Some(IpAddr::V6(gateway)) => message.attribute(NHA_GATEWAY, &gateway.octets()),
                    None => {}
                }
            }
            Kind::Group(members) => {
                let entries: Vec<u8> = members.iter().flat_map(entry).collect();
                message.attribute(NHA_GROUP, &entries);
                message.attribute(NHA_GROUP_TYPE, &NEXTHOP_GRP_TYPE_RES.to_ne_bytes());
                let mut nested = Message {
                    kind: 0,
                    payload: Vec::new(),
                };
                nested.attribute(NHA_RES_GROUP_BUCKETS, &BUCKETS.to_ne_bytes());
                nested.attribute(
                    NHA_RES_GROUP_IDLE_TIMER,
                    &(IDLE_SECONDS * USER_HZ).to_ne_bytes(),
                );
                message.attribute(NHA_RES_GROUP | NLA_F_NESTED, &nested.payload);
            }
            Kind::Other => {}
        }
        message
    }

    /// From the payload of a message about it.
    pub(crate) fn read(payload: &[u8]) -> Result<Nexthop, DecodeError> {
        let (header, attributes) = payload
            .split_first_chunk::<HEADER_LEN>()
            .ok_or("netlink: nexthop too short")?;
        let [_, _, protocol, _, flags @ ..] = *header;
        let onlink = u32::from_ne_bytes(flags) & RTNH_F_ONLINK != 0;
        let (mut id, mut ifindex, mut gateway) = (0, None, None);
        let (mut group, mut resilient) = (None, false);
        let mut other = false;
        for attribute in NlasIterator::new(attributes) {
            let attribute =
                attribute.map_err(|error| format!("netlink: malformed nexthop: {error}"))?;
            let value = attribute.value();
            match attribute.kind() {
                NHA_ID => id = number(value)?,
                NHA_OIF => ifindex = Some(number(value)?),
                NHA_GATEWAY => gateway = Some(address(value)?),
                NHA_GROUP => group = Some(members(value)?),
                NHA_GROUP_TYPE => resilient = *value == NEXTHOP_GRP_TYPE_RES.to_ne_bytes(),
                NHA_RES_GROUP => {}
                // NHA_BLACKHOLE, NHA_ENCAP, NHA_FDB, and whatever comes after.
                _ => other = true,
            }
        }
        let kind = match (group, ifindex) {
            (Some(members), _) if resilient => Kind::Group(members),
            (None, Some(ifindex)) if !other => Kind::Hop(Hop {
                ifindex,
                gateway,
                onlink,
            }),
            _ => Kind::Other,
        };
        Ok(Nexthop { id, protocol, kind })
    }
}

impl std::fmt::Display for Nexthop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nexthop {}", self.id)?;
        match &self.kind {
            Kind::Hop(hop) => {
                if let Some(gateway) = hop.gateway {
                    write!(f, " via {gateway}")?;
                }
                write!(f, " dev {}", interface_name(hop.ifindex))?;
            }
            Kind::Group(members) => {
                write!(f, " group")?;
                for (id, weight) in members {
                    write!(f, " {id} weight {weight}")?;
                }
            }
            Kind::Other => {}
        }
        write!(f, " proto {}", self.protocol)
    }
}

/// The message that deletes an object. A group loses it as a member; the routes through it go with it.
pub(crate) fn deletion(id: u32) -> Message {
    message(RTM_DELNEXTHOP, 0, 0, 0, Some(id))
}

impl Netlink {
    /// One nexthop object; None if there is none.
    ///
    /// # Errors
    /// [`Error::Refused`] in the chain if the kernel has no nexthop objects; netlink itself fails.
    pub(crate) fn nexthop(&mut self, id: u32) -> Result<Option<Nexthop>> {
        let request = message(RTM_GETNEXTHOP, 0, 0, 0, Some(id));
        let found = self.get(&request, |payload| Nexthop::read(payload).map(Some));
        match found {
            Err(Error::Refused(refused)) if refused.missing() => Ok(None),
            found => found.with_context(|| format!("cannot read nexthop {id}")),
        }
    }

    /// Whether the kernel has resilient groups: then it can list their buckets.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(crate) fn has_resilient_groups(&mut self) -> Result<bool> {
        let request = message(RTM_GETNEXTHOPBUCKET, 0, 0, 0, None);
        match self.dump(&request, |_| Ok(None::<()>)) {
            Ok(_) => Ok(true),
            Err(Error::Refused(refused)) if refused.errno == EOPNOTSUPP => Ok(false),
            Err(error) => Err(error).context("cannot list nexthop buckets"),
        }
    }

    /// All of them; none where the kernel has no nexthop objects.
    pub(crate) fn nexthops(&mut self) -> Result<Vec<Nexthop>> {
        let request = message(RTM_GETNEXTHOP, 0, 0, 0, None);
        self.list(&request, |payload| Nexthop::read(payload).map(Some))
            .context("cannot list nexthops")
    }
}

fn message(kind: u16, family: u8, protocol: u8, flags: u32, id: Option<u32>) -> Message {
    let mut payload = vec![family, 0, protocol, 0];
    payload.extend(flags.to_ne_bytes());
    let mut message = Message { kind, payload };
    if let Some(id) = id {
        message.attribute(NHA_ID, &id.to_ne_bytes());
    }
    message
}

fn entry((id, weight): &(u32, u32)) -> [u8; ENTRY_LEN] {
    let [a, b, c, d] = id.to_ne_bytes();
    let weight = u8::try_from(weight.saturating_sub(1)).unwrap_or(u8::MAX);
    [a, b, c, d, weight, 0, 0, 0]
}

fn members(value: &[u8]) -> Result<Vec<(u32, u32)>, DecodeError> {
    let entries = value.chunks_exact(ENTRY_LEN).map(|entry| {
        let weight = u32::from(entry[4]) + (u32::from(entry[5]) << 8) + 1;
        Ok((number(&entry[..4])?, weight))
    });
    entries.collect()
}

fn number(value: &[u8]) -> Result<u32, DecodeError> {
    let bytes = value
        .try_into()
        .map_err(|_| "netlink: not a 32-bit number")?;
    Ok(u32::from_ne_bytes(bytes))
}

fn address(value: &[u8]) -> Result<IpAddr, DecodeError> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Ok(Ipv4Addr::from(octets).into());
    }
    let octets: [u8; 16] = value.try_into().map_err(|_| "netlink: not an address")?;
    Ok(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_reads_as_the_same() {
        let hop = |gateway: Option<&str>, onlink| Hop {
            ifindex: 7,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            onlink,
        };
        for kind in [
            Kind::Hop(hop(Some("192.0.2.1"), false)),
            Kind::Hop(hop(Some("fe80::1"), true)),
            Kind::Hop(hop(None, false)),
            Kind::Group(vec![(13600, 3), (13601, 1), (13663, 255)]),
        ] {
            let nexthop = Nexthop {
                id: 13664,
                protocol: 136,
                kind,
            };
            assert_eq!(Nexthop::read(&nexthop.message().payload).unwrap(), nexthop);
        }
    }

    #[test]
    fn weights_are_one_more_than_their_number() {
        assert_eq!(entry(&(1, 1))[4..], [0, 0, 0, 0]);
        assert_eq!(entry(&(1, MAX_WEIGHT))[4..], [254, 0, 0, 0]);
        assert_eq!(members(&[1, 0, 0, 0, 0, 1, 0, 0]).unwrap()[0].1, 257);
    }

    #[test]
    fn what_is_never_ours_is_told_apart() {
        const NHA_BLACKHOLE: u16 = 4;
        let mut blackhole = message(RTM_NEWNEXTHOP, 2, 3, 0, Some(9));
        blackhole.attribute(NHA_BLACKHOLE, &[]);
        assert_eq!(
            Nexthop::read(&blackhole.payload).unwrap(),
            Nexthop {
                id: 9,
                protocol: 3,
                kind: Kind::Other
            }
        );
        assert!(Nexthop::read(&[2, 0, 0]).is_err());
    }
}
