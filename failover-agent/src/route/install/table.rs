//! A routing table and rules for each uplink, so that probes, and connections that hold its address, leave by it
//! whatever the main table says.
//!
//! Rules of the uplink in slot *i*, *P* being `rule_priority`:
//!
//! | priority | rule | for |
//! |---|---|---|
//! | *P* + *i* | `fwmark MARK oif INTERFACE lookup TABLE` | probes |
//! | *P* + 64 + 2 *i* | `from ADDRESS lookup main suppress_prefixlength 0` | local networks and VPNs in the main table still apply, its default route does not |
//! | *P* + 65 + 2 *i* | `from ADDRESS lookup TABLE` | |
//!
//! All rules for probes come first, so that nothing in the main table can affect a probe: a VPN's 0.0.0.0/1 and 128.0.0.0/1, or an
//! `unreachable` default route, which the kernel does not suppress (`fib_rules_lookup` in `net/core/fib_rules.c` asks for suppression
//! only after a lookup that has found a way).

use std::net::IpAddr;

use anyhow::Result;
use failover_ebpf::MAX_UPLINKS;
use failover_policy::{Family, UplinkId};
use ipnet::IpNet;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        route::{RouteHeader, RouteMessage, RouteProtocol},
    },
};

use super::report::Report;
use crate::netlink::Netlink;
use crate::route::{
    numbers::{number, uplink_table},
    router::Router,
    wire::done::Done,
    wire::done::Object,
    wire::list::Request,
    wire::message::{self, Hop, MAIN_TABLE},
    wire::rule::{Rule, rules_of},
};

/// How often tables and rules are made to agree when netlink itself fails.
const ATTEMPTS: usize = 3;

impl Router {
    /// Makes tables and rules agree with the links: adds what is missing, replaces what differs, removes what is stale. What an earlier
    /// run left is adopted.
    ///
    /// # Errors
    /// Netlink itself fails. What the kernel refuses (a route over an interface that is down) is in the report.
    pub(crate) fn lay_tables(&mut self) -> Result<Report> {
        let mut attempts = 1;
        let mut report = loop {
            match self.try_lay_tables() {
                // What stands already is not done twice.
                Err(_) if attempts < ATTEMPTS => {
                    attempts += 1;
                    self.netlink.renew();
                }
                result => break result?,
            }
        };
        self.adopt_objects(&mut report)?;
        self.learned.save();
        self.uplinks.save();
        Ok(report)
    }

    fn try_lay_tables(&mut self) -> Result<Report> {
        let mut report = Report::default();
        for family in Family::ALL {
            // First the routes: a rule must not lead into an empty table.
            self.lay_routes(family, &mut report)?;
            self.lay_rules(family, &mut report)?;
        }
        Ok(report)
    }

    fn lay_routes(&mut self, family: Family, report: &mut Report) -> Result<()> {
        let wanted: Vec<RouteMessage> = (self.links.ids())
            .flat_map(|uplink| self.table_routes(uplink, family))
            .collect();
        let standing: Vec<RouteMessage> =
            routes_of(&mut self.netlink, family, self.config.protocol)?
                .into_iter()
                .filter(|route| message::table(route) != MAIN_TABLE)
                .collect();

        let mut changes = Vec::new();
        let mut requests: Vec<Request> = Vec::new();
        for route in &wanted {
            if !standing.iter().any(|other| message::same(route, other)) {
                changes.push(Done::added(message::object(route)));
                requests.push((
                    RouteNetlinkMessage::NewRoute(route.clone()),
                    NLM_F_CREATE | NLM_F_REPLACE,
                ));
            }
        }
        for route in &standing {
            let replaced = || wanted.iter().any(|other| place(other) == place(route));
            if !wanted.iter().any(|other| message::same(route, other)) && !replaced() {
                changes.push(Done::removed(message::object(route)));
                requests.push((RouteNetlinkMessage::DelRoute(message::deletion(route)), 0));
            }
        }
        commit(&mut self.netlink, requests, changes, report)
    }

    /// What belongs into the table of one uplink.
    fn table_routes(&self, uplink: UplinkId, family: Family) -> Vec<RouteMessage> {
        let link = &self.links[uplink];
        let Some(path) = &link.families[family] else {
            return Vec::new();
        };
        let table = uplink_table(&self.config, uplink);
        let on_link = Hop {
            ifindex: link.ifindex,
            gateway: None,
            onlink: false,
        };
        let mut routes: Vec<RouteMessage> = path
            .prefixes
            .iter()
            .map(|prefix| {
                message::unicast(
                    family,
                    table,
                    self.config.protocol,
                    *prefix,
                    on_link,
                    TABLE_METRIC,
                )
            })
            .collect();
        routes.push(self.default_route(link, family, path, table, TABLE_METRIC));
        routes
    }

    fn lay_rules(&mut self, family: Family, report: &mut Report) -> Result<()> {
        let wanted: Vec<Rule> = (self.links.ids())
            .flat_map(|uplink| self.uplink_rules(uplink, family))
            .collect();
        let standing = rules_of(&mut self.netlink, family, &self.config)?;
        let mut changes = Vec::new();
        let mut requests: Vec<Request> = Vec::new();
        for rule in wanted.iter().filter(|rule| !standing.contains(rule)) {
            changes.push(Done::added(Object::Rule(rule.to_string())));
            let message = rule.message(family, self.config.protocol);
            requests.push((
                RouteNetlinkMessage::NewRule(message),
                NLM_F_CREATE | NLM_F_EXCL,
            ));
        }
        for rule in standing.iter().filter(|rule| !wanted.contains(rule)) {
            changes.push(Done::removed(Object::Rule(rule.to_string())));
            let message = rule.message(family, self.config.protocol);
            requests.push((RouteNetlinkMessage::DelRule(message), 0));
        }
        commit(&mut self.netlink, requests, changes, report)
    }

    fn uplink_rules(&self, uplink: UplinkId, family: Family) -> Vec<Rule> {
        let link = &self.links[uplink];
        if link.families[family].is_none() {
            return Vec::new();
        }
        let table = uplink_table(&self.config, uplink);
        let probes = self.config.rule_priority + number(uplink.0);
        let others = self.config.rule_priority + number(MAX_UPLINKS) + 2 * number(uplink.0);
        let mut rules = vec![Rule {
            priority: probes,
            source: None,
            mark: Some(self.config.mark),
            interface: Some(link.interface.clone()),
            table,
            suppress_prefix_length: None,
        }];
        let mut addresses = link.addresses.clone();
        addresses.retain(|address| address.is_ipv4() == (family == Family::V4));
        for address in &addresses {
            // Two modems of a kind that give out the same address: it says nothing, and the main table decides.
            if self.is_shared(uplink, *address) {
                continue;
            }
            let from = |offset: u32, table: u32, suppress_prefix_length: Option<u32>| Rule {
                priority: others + offset,
                source: Some(*address),
                mark: None,
                interface: None,
                table,
                suppress_prefix_length,
            };
            rules.push(from(0, MAIN_TABLE, Some(0)));
            rules.push(from(1, table, None));
        }
        rules
    }

    /// Whether another uplink has the address, too.
    fn is_shared(&self, uplink: UplinkId, address: IpAddr) -> bool {
        let mut others = self.links.iter().filter(|(other, _)| *other != uplink);
        others.any(|(_, link)| link.addresses.contains(&address))
    }
}

/// The kernel turns an IPv6 metric of 0 into `IP6_RT_PRIO_USER` (1024): say it, so that what was wanted equals what stands.
const TABLE_METRIC: u32 = 1024;

/// Routes in the same place replace each other.
fn place(route: &RouteMessage) -> (u32, Option<IpNet>, u32) {
    (
        message::table(route),
        message::destination(route),
        message::metric(route),
    )
}

/// Every route of ours, in every table.
pub(crate) fn routes_of(
    netlink: &mut Netlink,
    family: Family,
    protocol: u8,
) -> Result<Vec<RouteMessage>> {
    let protocol = RouteProtocol::from(protocol);
    let filter = RouteHeader {
        protocol,
        ..RouteHeader::default()
    };
    netlink.routes(family, &filter, |header| header.protocol == protocol)
}

/// Asks for the changes, and files each under what was done or what could not be done.
pub(crate) fn commit(
    netlink: &mut Netlink,
    requests: Vec<Request>,
    changes: Vec<Done>,
    report: &mut Report,
) -> Result<()> {
    let removals: Vec<bool> = requests
        .iter()
        .map(|(message, _)| {
            matches!(
                message,
                RouteNetlinkMessage::DelRoute(_) | RouteNetlinkMessage::DelRule(_)
            )
        })
        .collect();
    for ((result, change), removal) in netlink
        .commit(requests)?
        .into_iter()
        .zip(changes)
        .zip(removals)
    {
        match result {
            Ok(()) => report.changes.push(change),
            // Another program was faster: what we wanted is so.
            Err(refused) if removal && refused.missing() || !removal && refused.exists() => {}
            Err(refused) => report.problems.push(format!("not {change}: {refused}")),
        }
    }
    Ok(())
}
