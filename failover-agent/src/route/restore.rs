//! Giving everything back: on stop, and after a kill -9.

use std::path::Path;

use anyhow::Result;
use rtnetlink::{
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{RouteNetlinkMessage, route::RouteMessage},
};

use super::{
    Report, Router, apply,
    displaced::{Displaced, Restorable},
    group,
    hash::HashPolicy,
    index, learned,
    list::{Request, address_family},
    message::{self, MAIN_TABLE, metric},
    plan, table,
};
use crate::{
    config::RouteConfig,
    netlink::Netlink,
    policy::{Family, Members},
};

/// Refusals that say nothing about the route: it stays on record for another attempt. All others mean that its interface
/// is down, or its network no longer there: whoever sets that up again also brings the route.
const TRY_AGAIN: [i32; 4] = [EPERM, ENOMEM, EACCES, ENOBUFS];
const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const ENOBUFS: i32 = 105;

impl Router {
    /// Puts the displaced routes back, then removes our routes, rules, tables and nexthop objects, and sets the multipath hash
    /// policy back. Goes on after a failure.
    ///
    /// # Errors
    /// Netlink itself fails, or the record of displaced routes. What the kernel refuses is in the report.
    pub fn restore(&mut self) -> Result<Report> {
        self.active = [Members::NONE; 2];
        let mut report = withdraw(
            &mut self.netlink,
            &self.config,
            &mut self.displaced,
            &mut self.groups.hash,
        )?;
        if let Err(error) = self.learned.leave() {
            report.problems.push(format!("{error:#}"));
        }
        Ok(report)
    }

    /// Puts the displaced routes of interfaces back that are no uplinks, after a reload for example. One that would take traffic from an
    /// active uplink, or has a metric of ours, stays on record until [`Router::restore`].
    ///
    /// # Errors
    /// Netlink itself fails, or the record of displaced routes. What the kernel refuses is in the report.
    pub fn release(&mut self) -> Result<Report> {
        let routes = self.displaced.routes()?;
        let back: Vec<bool> = (self.displaced.interfaces().zip(&routes))
            .map(|(mut interfaces, route)| {
                let of_uplink = |name| self.links.iter().any(|link| link.interface == name);
                !interfaces.any(of_uplink) && !self.disturbs(route)
            })
            .collect();
        let mut report = Report::default();
        if back.contains(&true) {
            put_back(
                &mut self.netlink,
                &self.config,
                &mut self.displaced,
                &back,
                &mut report,
            )?;
        }
        Ok(report)
    }

    fn disturbs(&self, route: &RouteMessage) -> bool {
        let metric = metric(route);
        Family::ALL.into_iter().any(|family| {
            let active = self.active[index(family)];
            route.header.address_family == address_family(family)
                && !active.is_empty()
                && metric < plan::active_metric(&self.links, &self.config, active)
        }) || plan::key_of(&self.links, &self.config, metric).is_some()
    }
}

/// The same as [`Router::restore`] without knowing the uplinks: from the records in `state_dir`, the protocol number and
/// the ranges of priorities and ids alone. For what a killed agent has left behind.
///
/// # Errors
/// Netlink itself fails, or the record cannot be read. What the kernel refuses is in the report.
pub fn reset(config: &RouteConfig, state_dir: &Path) -> Result<Report> {
    let mut report = withdraw(
        &mut Netlink::open_route()?,
        config,
        &mut Displaced::load(state_dir)?,
        &mut HashPolicy::new(state_dir),
    )?;
    if learned::remove(state_dir)? {
        report
            .changes
            .push("removed the gateways that were learned".to_owned());
    }
    Ok(report)
}

fn withdraw(
    netlink: &mut Netlink,
    config: &RouteConfig,
    displaced: &mut Displaced,
    hash: &mut HashPolicy,
) -> Result<Report> {
    let mut report = Report::default();
    let all = vec![true; displaced.interfaces().count()];
    put_back(netlink, config, displaced, &all, &mut report)?;
    for family in Family::ALL {
        let (main, tables): (Vec<RouteMessage>, Vec<RouteMessage>) =
            table::routes_of(netlink, family, config.protocol)?
                .into_iter()
                .partition(|route| message::table(route) == MAIN_TABLE);
        let rules = table::rules_of(netlink, family, config)?;

        // Rules before tables: a rule must not lead into an empty table.
        let mut requests: Vec<Request> = main.iter().map(apply::removal).collect();
        requests.extend(rules.iter().map(|rule| {
            (
                RouteNetlinkMessage::DelRule(rule.message(family, config.protocol)),
                0,
            )
        }));
        requests.extend(tables.iter().map(apply::removal));
        let lines = main
            .iter()
            .map(message::describe)
            .chain(rules.iter().map(ToString::to_string))
            .chain(tables.iter().map(message::describe))
            .map(|line| format!("removed {line}"))
            .collect();
        table::commit(netlink, requests, lines, &mut report)?;
    }
    let objects = group::objects_of(netlink, config)?;
    let ids: Vec<u32> = objects.iter().map(|object| object.id).collect();
    group::delete(netlink, &ids, &mut report)?;
    hash.restore(&mut report)?;
    Ok(report)
}

/// Puts the displaced routes back, or those of them, by position, that `back` says yes to, while ours still stand.
fn put_back(
    netlink: &mut Netlink,
    config: &RouteConfig,
    displaced: &mut Displaced,
    back: &[bool],
    report: &mut Report,
) -> Result<()> {
    let entries = displaced.restorable()?;
    if entries.is_empty() {
        return Ok(());
    }
    let v6 = address_family(Family::V6);
    let mut ours: Vec<u32> = table::routes_of(netlink, Family::V6, config.protocol)?
        .iter()
        .filter(|route| message::table(route) == MAIN_TABLE && message::is_default(&route.header))
        .map(metric)
        .collect();

    // Whether an entry has to stay on record, by position.
    let mut keep: Vec<bool> = back.iter().map(|back| !back).collect();
    let mut positions = Vec::new();
    let mut lines = Vec::new();
    let mut requests: Vec<Request> = Vec::new();
    let chosen = entries.into_iter().enumerate();
    for (position, entry) in chosen.filter(|(position, _)| back[*position]) {
        match entry {
            Restorable::Gone { route, interface } => {
                report.problems.push(format!(
                    "not restored {route}: interface {interface} is gone"
                ));
            }
            Restorable::Ready(route) => {
                // An IPv6 route of ours with the same metric would become its sibling, or is in its place.
                let tie = ours.iter().position(|metric_of_ours| {
                    route.header.address_family == v6 && *metric_of_ours == metric(&route)
                });
                let flags = match tie {
                    Some(tie) => {
                        ours.remove(tie);
                        NLM_F_CREATE | NLM_F_REPLACE
                    }
                    None => NLM_F_CREATE | NLM_F_APPEND,
                };
                positions.push(position);
                lines.push(message::describe(&route));
                requests.push((
                    RouteNetlinkMessage::NewRoute(message::reinstall(&route)),
                    flags,
                ));
            }
        }
    }
    for ((position, line), answer) in positions
        .into_iter()
        .zip(lines)
        .zip(netlink.commit(requests)?)
    {
        match answer {
            Ok(()) => report.changes.push(format!("restored {line}")),
            // Its owner has put it back already.
            Err(refused) if refused.exists() => {}
            Err(refused) => {
                keep[position] = TRY_AGAIN.contains(&refused.errno);
                report
                    .problems
                    .push(format!("not restored {line}: {refused}"));
            }
        }
    }
    displaced.retain(&keep)
}
