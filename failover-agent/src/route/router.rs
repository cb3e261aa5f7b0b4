//! What the router knows, and its questions to the kernel.

use anyhow::Result;
use failover_policy::{Family, PerFamily, PerUplink, UplinkId, UplinkSet};
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage, RouteProtocol};
use std::net::IpAddr;

use super::{
    ForeignDefault, Link, Report,
    install::{displaced::Displaced, group::Groups, plan},
    learn::{discover::Missing, learned::Learned, lender::Uplinks},
    wire::message,
};
use crate::{config::RouteConfig, netlink::Netlink, store::Store};

/// The kernel's routing, as far as it is ours.
pub struct Router {
    pub(crate) netlink: Netlink,
    pub(crate) config: RouteConfig,
    pub(crate) displaced: Displaced,
    pub(crate) links: PerUplink<Link>,
    pub(crate) groups: Groups,
    pub(crate) learned: Learned,
    /// The uplinks' interfaces.
    pub(crate) uplinks: Uplinks,
    pub(crate) missing: Missing,
    /// Whom [`Router::activate`] has made active.
    pub(crate) active: PerFamily<UplinkSet>,
    /// Whose default routes do not stand.
    pub(crate) withdrawn: PerFamily<UplinkSet>,
    /// Every address of this host at the last scan.
    pub(crate) addresses: Vec<IpAddr>,
    /// Default routes in the main table that are not ours. Kept, because finding them
    /// means walking the whole table, which must not happen in the middle of a switch.
    pub(crate) foreign: PerFamily<Vec<RouteMessage>>,
    /// Metrics at which a foreign IPv4 one that stays was in front of ours.
    pub(crate) overtaken: Vec<u32>,
    /// Those that stay and concern ours.
    pub(crate) concerning: PerFamily<Vec<ForeignDefault>>,
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
    /// earlier run are kept active from now on. Before [`Router::start`] no uplink is known, and so none is active.
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

    /// Takes the default routes of these uplinks out of the main table, and those of all others in again, until another call.
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

    /// Makes the active uplinks' routes, and what follows from them, be there.
    pub(crate) fn hold(&mut self, family: Family, report: &mut Report) {
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
    pub(crate) fn ours(&mut self, family: Family) -> Result<Vec<RouteMessage>> {
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
    pub(crate) fn refresh_foreign(&mut self) -> Result<()> {
        for family in Family::ALL {
            let defaults = self
                .netlink
                .routes(family, &main_table(), message::decides_all)?;
            self.keep_foreign(family, defaults);
        }
        self.displaced.observe(self.foreign.values().flatten());
        Ok(())
    }

    /// The uplink whose interface has this name.
    pub(crate) fn uplink_called(&self, interface: &str) -> Option<UplinkId> {
        let mut links = self.links.iter();
        links
            .find(|(_, link)| link.interface == interface)
            .map(|(uplink, _)| uplink)
    }

    /// The uplink whose interface has this index.
    pub(crate) fn uplink(&self, ifindex: u32) -> Option<UplinkId> {
        let mut links = self.links.iter();
        links
            .find(|(_, link)| link.ifindex == ifindex)
            .map(|(uplink, _)| uplink)
    }
}

/// Default routes in the main table that are not ours.
pub(crate) fn foreign_of(
    netlink: &mut Netlink,
    family: Family,
    protocol: u8,
) -> Result<Vec<RouteMessage>> {
    let ours = RouteProtocol::from(protocol);
    netlink.routes(family, &main_table(), |header| {
        message::is_default(header) && header.protocol != ours
    })
}

/// Filter of a dump.
pub(crate) fn main_table() -> RouteHeader {
    RouteHeader {
        table: RouteHeader::RT_TABLE_MAIN,
        ..RouteHeader::default()
    }
}
