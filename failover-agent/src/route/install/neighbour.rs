//! The gateways' link-layer addresses, before they are needed: a gateway that is not in the neighbour table costs the
//! first packets after a switch an ARP or neighbour discovery round.
//!
//! Nothing here waits: the kernel asks the gateway by itself, and the answer comes when it comes. The probes of an uplink
//! keep its gateway's entry in use. For the rest (a family without targets of its own) [`Router::resolve`] is to be called now and
//! then for the standby uplinks; the kernel's own way to keep entries fresh (`NTF_EXT_MANAGED`, Linux 5.16) would
//! outlive the agent.

use std::net::IpAddr;

use anyhow::{Context, Result};
use failover_policy::{Family, UplinkId};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, Parseable},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags,
            NeighbourMessage, NeighbourState,
        },
    },
};

use crate::netlink::Refused;
use crate::route::{router::Router, wire::list::address_family};

/// What is known of a gateway's link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// There is no gateway: a point-to-point link.
    NotNeeded,
    /// Confirmed a short time ago, or set by an administrator.
    Known,
    /// Known from earlier: packets leave at once, while the kernel asks the gateway whether it is still so.
    Verifying,
    /// Not known: the kernel is asking.
    Resolving,
}

impl Router {
    /// Makes the kernel find out the link-layer address of an uplink's gateway, without waiting for it. To be
    /// called when an uplink may soon become active, and at intervals for the standby ones.
    ///
    /// # Errors
    /// The kernel refuses (the interface is gone), or netlink itself fails.
    pub fn resolve(&mut self, family: Family, uplink: UplinkId) -> Result<Neighbour> {
        let link = self.links.get(uplink).context("no such uplink")?;
        let path = link.families[family].as_ref();
        let Some(gateway) = path.and_then(|path| path.gateway) else {
            return Ok(Neighbour::NotNeeded);
        };
        let (ifindex, interface) = (link.ifindex, link.interface.clone());
        self.resolve_address(ifindex, gateway)
            .with_context(|| format!("cannot resolve gateway {gateway} on {interface}"))
    }

    fn resolve_address(&mut self, ifindex: u32, gateway: IpAddr) -> Result<Neighbour> {
        let found = match self.netlink.get(
            &RouteNetlinkMessage::GetNeighbour(message(ifindex, gateway)),
            |payload| Ok(Some(NeighbourMessage::parse(payload)?)),
        ) {
            Err(error) if error.refused().is_some_and(Refused::missing) => None,
            found => found?,
        };
        let mut request = message(ifindex, gateway);
        let (flags, result) = match found.as_ref().map(|entry| entry.header.state) {
            _ if found.as_ref().is_some_and(tended) => return Ok(Neighbour::Known),
            Some(NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp) => {
                return Ok(Neighbour::Known);
            }
            Some(NeighbourState::Delay | NeighbourState::Probe) => return Ok(Neighbour::Verifying),
            // `__neigh_update` in `net/core/neighbour.c`: keeps the address, asks the gateway at once.
            Some(NeighbourState::Stale) => {
                request.header.state = NeighbourState::Probe;
                (0, Neighbour::Verifying)
            }
            // `neigh_event_send`: what a packet would set off. Also where an attempt is on its way or has failed.
            _ => {
                request.header.flags = NeighbourFlags::Use;
                (NLM_F_CREATE, Neighbour::Resolving)
            }
        };
        let request = (RouteNetlinkMessage::NewNeighbour(request), flags);
        for answer in self.netlink.commit(vec![request])? {
            answer?;
        }
        Ok(result)
    }
}

/// Whether a routing daemon or the kernel itself looks after an entry. An update from us would end that.
fn tended(entry: &NeighbourMessage) -> bool {
    entry.header.flags.contains(NeighbourFlags::ExtLearned)
        || entry.attributes.iter().any(|attribute| {
            matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
        })
}

/// The key of an entry.
fn message(ifindex: u32, gateway: IpAddr) -> NeighbourMessage {
    let (family, address) = match gateway {
        IpAddr::V4(address) => (Family::V4, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (Family::V6, NeighbourAddress::Inet6(address)),
    };
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(family);
    message.header.ifindex = ifindex;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address));
    message
}
