//! Edge: the kernel's routing. Learns what is there, prepares a routing table and rules for each uplink, switches the
//! default route, and gives everything back.
//!
//! Ownership: every route of ours bears `route.protocol`, every rule that number and a priority from
//! `route.rule_priority` on (three for each uplink). Nothing else is ever changed or removed, except default routes of the
//! uplinks whose metric beats or ties with ours: those are *displaced*, which means recorded on disk first, removed
//! only when ours stand confirmed, and put back by [`Router::restore`] or [`reset`].
//!
//! | file | concern |
//! |---|---|
//! | `list.rs` | lists of routes, rules and others |
//! | `message.rs` | reading and building route messages |
//! | `survey.rs` | the kernel's interfaces, addresses and routes at one time |
//! | `discover.rs` | the uplinks and their ways out, learned from a survey |
//! | `way.rs` | how one family leaves by one uplink |
//! | `learned.rs` | what was learned, remembered over restarts |
//! | `table.rs` | routing tables and rules of the uplinks |
//! | `apply.rs` | the switch: make before break in the main table |
//! | `neighbour.rs` | the gateways' link-layer addresses, before they are needed |
//! | `displaced.rs` | the record of foreign routes that made way |
//! | `restore.rs` | giving everything back |
//! | `observe.rs` | the kernel's notifications |

mod apply;
mod discover;
mod displaced;
mod learned;
mod list;
mod message;
mod neighbour;
mod observe;
mod restore;
mod survey;
mod table;
mod way;

use std::{net::IpAddr, path, time::Duration};

use anyhow::Result;
use failover_ebpf::LinkLayer;
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage, RouteMetric, RouteProtocol};

use self::{discover::Missing, displaced::Displaced, learned::Learned};
use crate::{
    config::RouteConfig,
    netlink::Netlink,
    policy::{Family, UplinkId},
};

pub use neighbour::Neighbour;
pub use observe::{Change, Observer};
pub use restore::reset;
pub(crate) use survey::contains;

/// An uplink as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index; 0 while there is no such interface.
    pub ifindex: u32,
    /// Interface name.
    pub interface: String,
    /// What precedes the network header.
    pub link_layer: LinkLayer,
    /// Whether it is up and has carrier (`IFF_UP` and `IFF_LOWER_UP`).
    pub carrier: bool,
    /// How each family leaves by it, by [`Family::ALL`]'s order; None: not at all.
    pub families: [Option<Path>; 2],
}

/// How one family leaves by an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Address to probe from.
    pub source: IpAddr,
    /// Every address of the interface that a connection to the internet may have, deprecated ones too. Empty on an
    /// unnumbered link, whose `source` belongs to another interface.
    pub addresses: Vec<IpAddr>,
    /// Networks on the link, as network address and prefix length.
    pub prefixes: Vec<(IpAddr, u8)>,
    /// Next router; None on a point-to-point link.
    pub gateway: Option<IpAddr>,
    /// What our default routes copy from the one that was there.
    pub template: Template,
}

/// What our default routes copy from the one that was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    prefsrc: Option<IpAddr>,
    metrics: Vec<RouteMetric>,
    onlink: bool,
}

/// A switch that has been read back from the kernel. Durations count from the call of [`Router::activate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// The kernel has accepted the new routes: from here on new connections leave by the new uplink.
    pub routed: Duration,
    /// They have been read back.
    pub confirmed: Duration,
    /// Superfluous and displaced routes are gone.
    pub settled: Duration,
    /// What was changed, one line each.
    pub changes: Vec<String>,
    /// What could not be done without endangering the switch itself, one line each: a standby whose interface is down.
    pub problems: Vec<String>,
}

/// What was done, and what could not be done. One line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Done.
    pub changes: Vec<String>,
    /// Not done, and why.
    pub problems: Vec<String>,
}

/// The kernel's routing, as far as it is ours.
pub struct Router {
    netlink: Netlink,
    config: RouteConfig,
    displaced: Displaced,
    links: Vec<Link>,
    learned: Learned,
    missing: Missing,
    /// Whom [`Router::activate`] has made active, by [`Family::ALL`]'s order.
    active: [Option<UplinkId>; 2],
    /// Default routes in the main table that are not ours, by [`Family::ALL`]'s order. Kept, because finding them
    /// means walking the whole table, which must not happen in the middle of a switch.
    foreign: [Vec<RouteMessage>; 2],
}

impl Router {
    /// Opens a netlink socket in the network namespace of the calling thread, and reads the record of displaced
    /// routes in `state_dir`. Changes nothing.
    ///
    /// # Errors
    /// No netlink, or a record that cannot be read.
    pub fn connect(config: &RouteConfig, state_dir: &path::Path) -> Result<Router> {
        Ok(Router {
            netlink: Netlink::open_route()?,
            config: config.clone(),
            displaced: Displaced::load(state_dir)?,
            links: Vec::new(),
            learned: Learned::load(state_dir),
            missing: Missing::default(),
            active: [None; 2],
            foreign: [Vec::new(), Vec::new()],
        })
    }

    /// The uplink that holds our active metric in the kernel now, as an earlier run or a switch left it; from now on
    /// [`Router::reconcile`] keeps it there. [`Router::prepare`] must have been called.
    ///
    /// # Errors
    /// The kernel's routes cannot be read.
    pub fn current(&mut self, family: Family) -> Result<Option<UplinkId>> {
        let routes = self.ours(family)?;
        let active = routes
            .iter()
            .find(|route| message::metric(route) == self.config.active_metric);
        let ifindex = active.and_then(|route| message::hops(route).first().map(|hop| hop.ifindex));
        let current = ifindex.and_then(|ifindex| self.uplink(ifindex));
        if current.is_some() {
            self.active[index(family)] = current;
        }
        Ok(current)
    }

    /// Does again what is missing or was undone: tables, rules, routes that the kernel removed with the interface, a better
    /// default route that a DHCP client has put back. To be called after a [`Change`]. How often is the caller's decision.
    ///
    /// # Errors
    /// Netlink itself fails. What the kernel refuses is in the report.
    pub fn reconcile(&mut self) -> Result<Report> {
        let mut report = self.lay_tables()?;
        self.refresh_foreign()?;
        let settled = self.settle();
        report.changes.extend(settled.changes);
        report.problems.extend(settled.problems);
        Ok(report)
    }

    /// The same for the main table alone, as [`Router::rediscover`] has just found it. To be called after [`Router::prepare`]
    /// when the links have changed.
    pub fn settle(&mut self) -> Report {
        let mut report = Report::default();
        for family in Family::ALL {
            let Some(to) = self.active[index(family)] else {
                continue;
            };
            match self.activate(family, to) {
                Ok(confirmed) => {
                    report.changes.extend(confirmed.changes);
                    report.problems.extend(confirmed.problems);
                }
                Err(error) => report.problems.push(format!("{error:#}")),
            }
        }
        report
    }

    /// Our routes in the main table.
    fn ours(&mut self, family: Family) -> Result<Vec<RouteMessage>> {
        let filter = RouteHeader {
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::from(self.config.protocol),
            ..RouteHeader::default()
        };
        let protocol = filter.protocol;
        self.netlink.routes(family, &filter, |header| {
            // Asked again, in case a kernel does not filter.
            header.protocol == protocol
                && header.table == RouteHeader::RT_TABLE_MAIN
                && message::is_default(header)
        })
    }

    /// Looks for default routes in the main table that are not ours.
    fn refresh_foreign(&mut self) -> Result<()> {
        let ours = RouteProtocol::from(self.config.protocol);
        for family in Family::ALL {
            let defaults = self.netlink.routes(family, &main_table(), |header| {
                message::is_default(header) && header.protocol != ours
            })?;
            self.foreign[index(family)] = defaults;
        }
        Ok(())
    }

    fn uplink(&self, ifindex: u32) -> Option<UplinkId> {
        self.links
            .iter()
            .position(|link| link.ifindex == ifindex)
            .map(UplinkId)
    }
}

/// Position of a family in [`Family::ALL`].
fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Filter of a dump.
fn main_table() -> RouteHeader {
    RouteHeader {
        table: RouteHeader::RT_TABLE_MAIN,
        ..RouteHeader::default()
    }
}
