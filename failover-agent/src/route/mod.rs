//! Edge: the kernel's routing. Learns what is there, prepares a routing table and rules for each uplink, switches the
//! default route, and gives everything back.
//!
//! Ownership: every route of ours bears `route.protocol`, every rule that number and a priority from
//! `route.rule_priority` on (192 of them), every nexthop object that number and an id from `route.table` on.
//! Nothing else is ever changed or removed, with two exceptions. Default routes of the uplinks whose metric beats or ties with
//! ours, and those of withdrawn uplinks, are *displaced*: recorded first, removed only when ours stand confirmed, and put
//! back by [`Router::restore`] or [`reset`]. So is the kernel's multipath hash policy, as soon as there is a balance group.
//!
//! | file | concern |
//! |---|---|
//! | `list.rs` | lists of routes, rules and others |
//! | `link.rs` | altnames and VRFs of interfaces |
//! | `message.rs` | reading and building route messages |
//! | `survey.rs` | the kernel's interfaces, addresses and routes at one time |
//! | `discover.rs` | the uplinks and their egress paths, learned from a survey |
//! | `source.rs` | which address of an interface suits a target |
//! | `egress_path.rs` | how one family leaves by one uplink |
//! | `lender.rs` | which interfaces are uplinks' under another name, and lend no address |
//! | `learned.rs` | what was learned, remembered over restarts |
//! | `table.rs` | routing tables and rules of the uplinks |
//! | `slots.rs` | the number of each uplink's table, rules and nexthop objects |
//! | `plan.rs` | which default routes are wanted: pure |
//! | `own.rs` | our default routes as messages |
//! | `foreign.rs` | default routes of others that stay, and what they mean for ours |
//! | `apply.rs`, `place.rs`, `undo.rs` | the switch: make before break in the main table |
//! | `group.rs`, `nexthop.rs` | balance groups, and the nexthop objects that they are made of |
//! | `hash.rs` | what a group's connections are told apart by |
//! | `neighbour.rs` | the gateways' link-layer addresses, before they are needed |
//! | `done.rs` | what was done, as a value |
//! | `displaced.rs`, `entry.rs` | the record of foreign routes that made way, and when it is outdated |
//! | `restore.rs` | giving everything back |
//! | `observe.rs`, `change.rs` | the kernel's notifications |
//! | `lookup.rs` | questions about one packet |
//! | `inspect.rs`, `others.rs` | what the diagnosis wants to know |
//! | `filter.rs` | which of them wake the agent |
//! | `actor.rs` | who made a change |

mod actor;
mod apply;
mod change;
mod discover;
mod displaced;
mod done;
mod egress_path;
mod entry;
mod filter;
mod foreign;
mod group;
mod hash;
pub(crate) mod inspect;
mod learned;
mod lender;
mod link;
mod list;
pub(crate) mod lookup;
mod message;
mod neighbour;
mod nexthop;
mod observe;
pub(crate) mod others;
mod own;
mod place;
mod plan;
mod restore;
mod slots;
mod source;
mod survey;
mod table;
mod undo;

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, bail};
use failover_ebpf::LinkLayer;
use failover_policy::{Family, PerFamily, PerUplink, UplinkId, UplinkSet};
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage, RouteMetric, RouteProtocol};

use self::{
    discover::Missing, displaced::Displaced, group::Groups, learned::Learned, lender::Uplinks,
};
use crate::{config::RouteConfig, netlink::Netlink, store::Store};

pub use actor::{Actor, Origin, protocol_name};
pub use change::Change;
pub use done::{Done, Object, Verb};
pub use foreign::{Effect, ForeignDefault};
pub use neighbour::Neighbour;
pub use observe::Observer;
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
    /// Order of preference; uplinks of one rank are a balance group.
    pub rank: u32,
    /// Share of its balance group's new connections, 1 to 256 (which counts as 255 in IPv4).
    pub weight: u32,
    /// Metric of its default route, if it has one of its own.
    pub metric: Option<u32>,
    /// Every address of the interface that a connection to the internet may have, of both families, the best first, deprecated ones too,
    /// whether or not there is an egress path. None on an unnumbered link, whose source belongs to another interface.
    pub addresses: Vec<IpAddr>,
    /// IPv6 addresses of the interface that somebody else on the link has, too (RFC 4862, 5.4.5): the kernel uses none of them.
    pub duplicates: Vec<IpAddr>,
    /// How each family leaves by it; None: not at all.
    pub families: PerFamily<Option<EgressPath>>,
}

/// How one family leaves by an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPath {
    /// Address to probe from.
    pub source: IpAddr,
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
    /// From here on new connections leave by the new uplink: the kernel has accepted its route, and one with a better metric,
    /// if the old uplink had one, is gone. The latter is after [`Confirmed::confirmed`].
    pub routed: Duration,
    /// The new routes have been read back.
    pub confirmed: Duration,
    /// Superfluous and displaced routes are gone.
    pub settled: Duration,
    /// Others' routes had to make way: scan again. Between the legs of an IPv6 multipath route may be one without a gateway, which the
    /// kernel does not list as long as they stand (`fib6_dump_node` in `net/ipv6/ip6_fib.c` goes on behind the last leg).
    pub displaced: bool,
    /// What was changed.
    pub changes: Vec<Done>,
    /// What could not be done without endangering the switch itself, one line each: a standby whose interface is down, a group
    /// that the kernel does not take (told once).
    pub problems: Vec<String>,
}

/// What was done, and what could not be done, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Done.
    pub changes: Vec<Done>,
    /// Not done, and why.
    pub problems: Vec<String>,
    /// Displaced routes that cannot come back, because what they led to is gone: nothing that could be done.
    pub obsolete: Vec<String>,
    /// As [`Confirmed::displaced`].
    pub displaced: bool,
}

/// The kernel's routing, as far as it is ours.
pub struct Router {
    netlink: Netlink,
    config: RouteConfig,
    displaced: Displaced,
    links: PerUplink<Link>,
    groups: Groups,
    learned: Learned,
    /// The uplinks' interfaces.
    uplinks: Uplinks,
    missing: Missing,
    /// Whom [`Router::activate`] has made active.
    active: PerFamily<UplinkSet>,
    /// Whose default routes do not stand.
    withdrawn: PerFamily<UplinkSet>,
    /// Every address of this host at the last scan.
    addresses: Vec<IpAddr>,
    /// Default routes in the main table that are not ours. Kept, because finding them
    /// means walking the whole table, which must not happen in the middle of a switch.
    foreign: PerFamily<Vec<RouteMessage>>,
    /// Metrics at which a foreign IPv4 one that stays was in front of ours.
    overtaken: Vec<u32>,
    /// Those that stay and concern ours.
    concerning: PerFamily<Vec<ForeignDefault>>,
}

impl Router {
    /// Opens a netlink socket in the network namespace of the calling thread, and reads what an earlier
    /// run has put down in `store`. Changes nothing in the kernel.
    ///
    /// # Errors
    /// No netlink.
    pub fn connect(config: &RouteConfig, store: impl Into<Store>) -> Result<Router> {
        let store = store.into();
        Ok(Router {
            netlink: Netlink::open_route()?,
            config: config.clone(),
            displaced: Displaced::load(&store),
            links: PerUplink::default(),
            groups: Groups::new(&store),
            learned: Learned::load(&store),
            uplinks: Uplinks::load(&store),
            missing: Missing::default(),
            active: PerFamily::both(UplinkSet::NONE),
            withdrawn: PerFamily::both(UplinkSet::NONE),
            addresses: Vec::new(),
            foreign: PerFamily::default(),
            overtaken: Vec::new(),
            concerning: PerFamily::default(),
        })
    }

    /// The uplinks whose route is the active one of ours in the kernel now, as an earlier run or a switch left it. Those of an
    /// earlier run are kept active by [`Router::settle`] from now on. [`Router::prepare`] must have been called.
    ///
    /// # Errors
    /// The kernel's routes cannot be read.
    pub fn current(&mut self, family: Family) -> Result<UplinkSet> {
        let routes = self.ours(family)?;
        let Some(best) = routes.iter().min_by_key(|route| message::metric(route)) else {
            return Ok(UplinkSet::NONE);
        };
        let members = match message::nexthop_id(best) {
            Some(group) => self.group_members(group)?,
            None => message::hops(best)
                .iter()
                .filter_map(|hop| self.uplink(hop.ifindex))
                .collect(),
        };
        // Otherwise it is a standby's. The active one may have given way to a foreign route, or the configuration may be another now.
        let metric = message::metric(best);
        if metric != plan::active_metric(&self.links, &self.config, members)
            && metric >= self.config.standby_metric
        {
            return Ok(UplinkSet::NONE);
        }
        let active = &mut self.active[family];
        if active.is_empty() {
            *active = members;
        }
        Ok(members)
    }

    /// Does again in the main table what is missing or was undone, as [`Router::scan`] has just found it: routes that the kernel
    /// removed with the interface, a better default route that a DHCP client has put back. To be called after [`Router::prepare`], which
    /// does the same for tables and rules. How often is the caller's decision.
    pub fn settle(&mut self) -> Report {
        let mut report = Report::default();
        for family in Family::ALL {
            self.hold(family, &mut report);
        }
        report
    }

    /// Takes the default routes of these uplinks out of the main table, and those of all others in again, until told otherwise.
    /// Active ones keep theirs until they are left.
    ///
    /// # Errors
    /// Netlink itself fails. What the kernel refuses is in the report.
    pub fn set_withdrawn(&mut self, family: Family, uplinks: UplinkSet) -> Result<Report> {
        let mut report = Report::default();
        let before = std::mem::replace(&mut self.withdrawn[family], uplinks);
        if before != uplinks {
            self.hold(family, &mut report);
        }
        Ok(report)
    }

    /// Takes over other metrics; routes follow at the next [`Router::activate`] or [`Router::settle`]. Protocol, tables, rule
    /// priorities and mark are what we know our own by, and stay as long as the router lives.
    ///
    /// # Errors
    /// One of these is another. Nothing was taken over then; the caller tells the user to restart instead.
    pub fn reconfigure(&mut self, config: &RouteConfig) -> Result<()> {
        let fixed = RouteConfig {
            active_metric: config.active_metric,
            standby_metric: config.standby_metric,
            on_down: config.on_down,
            ..self.config.clone()
        };
        if fixed != *config {
            bail!(
                "route.protocol, table, rule_priority and mark cannot change while the agent runs"
            );
        }
        self.config = fixed;
        Ok(())
    }

    /// Makes the active uplinks' routes, and what follows from them, be there.
    fn hold(&mut self, family: Family, report: &mut Report) {
        let active = self.active[family];
        if active.is_empty() {
            self.concerning[family].clear();
            return;
        }
        match self.activate(family, active) {
            Ok(confirmed) => {
                report.changes.extend(confirmed.changes);
                report.problems.extend(confirmed.problems);
                report.displaced |= confirmed.displaced;
            }
            Err(error) => report.problems.push(format!("{error:#}")),
        }
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
        for family in Family::ALL {
            let defaults = self
                .netlink
                .routes(family, &main_table(), message::decides_all)?;
            self.keep_foreign(family, defaults);
        }
        self.displaced.observe(self.foreign.values().flatten());
        Ok(())
    }

    fn uplink(&self, ifindex: u32) -> Option<UplinkId> {
        let mut links = self.links.iter();
        links
            .find(|(_, link)| link.ifindex == ifindex)
            .map(|(uplink, _)| uplink)
    }
}

/// Default routes in the main table that are not ours.
fn foreign_of(netlink: &mut Netlink, family: Family, protocol: u8) -> Result<Vec<RouteMessage>> {
    let ours = RouteProtocol::from(protocol);
    netlink.routes(family, &main_table(), |header| {
        message::is_default(header) && header.protocol != ours
    })
}

/// Filter of a dump.
fn main_table() -> RouteHeader {
    RouteHeader {
        table: RouteHeader::RT_TABLE_MAIN,
        ..RouteHeader::default()
    }
}
