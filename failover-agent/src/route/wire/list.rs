//! Lists of routes, rules and others from the kernel's routing.

use anyhow::{Context, Result};
use failover_policy::Family;
use nix::libc::{EAFNOSUPPORT, ENOENT, EOPNOTSUPP};
use rtnetlink::{
    packet_core::{DecodeError, NetlinkSerializable, Parseable},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteHeader, RouteMessage},
        rule::{RuleHeader, RuleMessage},
    },
    sys::protocols::NETLINK_ROUTE,
};

use crate::netlink::{Error, Netlink};

/// A change to routes, rules or neighbours.
pub(crate) type Request = crate::netlink::Request<RouteNetlinkMessage>;

impl Netlink {
    /// Opens a socket for the kernel's routing.
    pub(crate) fn open_route() -> Result<Netlink> {
        Netlink::open(NETLINK_ROUTE).context("cannot open a NETLINK_ROUTE socket")
    }

    /// Asks for a list. A routing table that nobody has put anything into yet, and a family that the kernel does not have,
    /// are empty.
    pub(crate) fn list<T, M: NetlinkSerializable + Clone>(
        &mut self,
        request: &M,
        decode: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, Error> {
        match self.dump(request, decode) {
            Err(Error::Refused(refused))
                if matches!(refused.errno, ENOENT | EOPNOTSUPP | EAFNOSUPPORT) =>
            {
                Ok(Vec::new())
            }
            entries => entries,
        }
    }

    /// Routes of one family. `filter`'s table, protocol and type are matched by the kernel (0: any); `keep` looks at
    /// the header only, so that skipping an entry of a full routing table costs next to nothing.
    pub(crate) fn routes(
        &mut self,
        family: Family,
        filter: &RouteHeader,
        keep: impl Fn(&RouteHeader) -> bool,
    ) -> Result<Vec<RouteMessage>> {
        let mut request = RouteMessage::default();
        request.header = RouteHeader {
            address_family: address_family(family),
            ..filter.clone()
        };
        self.list(&RouteNetlinkMessage::GetRoute(request), |payload| {
            let header = RouteHeader::parse(payload)?;
            if header.address_family != address_family(family) || !keep(&header) {
                return Ok(None);
            }
            Ok(Some(RouteMessage::parse(payload)?))
        })
        .with_context(|| format!("cannot list {family} routes"))
    }

    /// Rules of one family.
    pub(crate) fn rules(&mut self, family: Family) -> Result<Vec<RuleMessage>> {
        let mut request = RuleMessage::default();
        request.header.family = address_family(family);
        self.list(&RouteNetlinkMessage::GetRule(request), |payload| {
            let header = RuleHeader::parse(payload)?;
            if header.family != address_family(family) {
                return Ok(None);
            }
            Ok(Some(RuleMessage::parse(payload)?))
        })
        .with_context(|| format!("cannot list {family} rules"))
    }
}

/// The kernel's number for a family.
pub(crate) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
