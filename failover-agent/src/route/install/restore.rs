//! Giving everything back: on stop, and after a kill -9.

use anyhow::Result;
use failover_policy::{Family, PerFamily, UplinkSet};
use nix::libc::{EACCES, ENOBUFS, ENOMEM, EPERM};
use rtnetlink::{
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{RouteNetlinkMessage, route::RouteMessage},
};

use super::{
    displaced::{Displaced, Restorable},
    group,
    hash::HashPolicy,
    place::removal,
    plan,
    report::Report,
    table,
};
use crate::route::{
    learn::learned,
    learn::lender,
    router::Router,
    router::foreign_of,
    wire::done::Done,
    wire::done::Object,
    wire::done::Verb,
    wire::list::{Request, address_family},
    wire::message::{self, MAIN_TABLE, metric},
    wire::rule::{Rule, rules_of},
};
use crate::{
    config::RouteConfig,
    netlink::Netlink,
    store::{Patience, Store},
};

/// Refusals that say nothing about the route: it stays on record for another attempt. All others mean that its interface
/// is down, or its network no longer there: whoever sets that up again also brings the route.
const TRY_AGAIN: [i32; 4] = [EPERM, ENOMEM, EACCES, ENOBUFS];

impl Router {
    /// Puts the displaced routes back, then removes our routes, rules, tables and nexthop objects, and sets the multipath hash
    /// policy back. Goes on after each failure; all that could not be done is among the report's problems.
    pub fn restore(&mut self) -> Report {
        self.active = PerFamily::both(UplinkSet::NONE);
        let report = withdraw(
            &mut self.netlink,
            &self.config,
            &mut self.displaced,
            &mut self.groups.hash,
        );
        self.learned.leave();
        self.uplinks.leave();
        report
    }

    /// Puts the displaced routes of interfaces back that are no uplinks, after a reload for example. One that would take traffic from an
    /// active uplink, or has a metric of ours, stays on record until [`Router::restore`].
    ///
    /// # Errors
    /// Netlink itself fails, or the record of displaced routes. What the kernel refuses is in the report.
    pub(crate) fn release(&mut self) -> Result<Report> {
        let routes = self.displaced.routes();
        let back: Vec<bool> = (self.displaced.interfaces().zip(&routes))
            .map(|(mut interfaces, route)| {
                let of_uplink = |name| self.links.values().any(|link| link.interface == name);
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
            let active = self.active[family];
            route.header.address_family == address_family(family)
                && !active.is_empty()
                && metric < plan::active_metric(&self.links, &self.config, active)
        }) || plan::is_ours(&self.links, &self.config, metric)
    }
}

/// The same as [`Router::restore`] without knowing the uplinks: from the records in `store`, the protocol number and
/// the ranges of priorities and ids alone. For what a killed agent has left behind.
///
/// # Errors
/// There is no netlink here.
pub fn reset(config: &RouteConfig, store: impl Into<Store>) -> Result<Report> {
    let store = store.into();
    let mut report = withdraw(
        &mut Netlink::open_route()?,
        config,
        &mut Displaced::load(&store),
        &mut HashPolicy::load(&store),
    );
    if learned::remove(&store) {
        report.changes.push(Done::removed(Object::Record(
            "the gateways that were learned",
        )));
    }
    if lender::remove(&store) {
        report.changes.push(Done::removed(Object::Record(
            "the record of the uplinks' interfaces",
        )));
    }
    Ok(report)
}

/// Attempts of a clean-up. Each begins with what stands then, so a step that is done already is not done twice.
const ATTEMPTS: usize = 3;

fn withdraw(
    netlink: &mut Netlink,
    config: &RouteConfig,
    displaced: &mut Displaced,
    hash: &mut HashPolicy,
) -> Report {
    let mut report = Report::default();
    if let Err(error) = displaced.catch_up(Patience::Last) {
        report.problems.push(format!("displaced routes: {error:#}"));
    }
    // What an owner says now needs nobody to put it back.
    attempt(&mut report, "others' default routes", |_| {
        let mut standing = Vec::new();
        for family in Family::ALL {
            standing.extend(foreign_of(netlink, family, config.protocol)?);
        }
        displaced.observe(standing.iter());
        Ok(())
    });
    attempt(&mut report, "displaced routes", |report| {
        let all = vec![true; displaced.interfaces().count()];
        put_back(netlink, config, displaced, &all, report)
    });
    for family in Family::ALL {
        attempt(&mut report, &format!("our {family} routes"), |report| {
            remove_main(netlink, config, family, report)
        });
        // Rules before tables: a rule must not lead into an empty table.
        attempt(&mut report, &format!("our {family} rules"), |report| {
            remove_rules(netlink, config, family, report)
        });
        attempt(&mut report, &format!("our {family} tables"), |report| {
            remove_tables(netlink, config, family, report)
        });
    }
    attempt(&mut report, "our nexthop objects", |report| {
        let objects = group::objects_of(netlink, config)?;
        let ids: Vec<u32> = objects.iter().map(|object| object.id).collect();
        group::delete(netlink, &ids, report)
    });
    hash.restore(&mut report);
    report
}

/// Does one step of a clean-up, again if it fails as a whole: netlink loses an answer now and then (`ENOBUFS`). What remains undone is a problem.
fn attempt(report: &mut Report, what: &str, mut step: impl FnMut(&mut Report) -> Result<()>) {
    for attempt in 1..=ATTEMPTS {
        let mut done = Report::default();
        let result = step(&mut done);
        report.changes.append(&mut done.changes);
        report.obsolete.append(&mut done.obsolete);
        match result {
            Ok(()) => {
                report.problems.append(&mut done.problems);
                return;
            }
            Err(error) if attempt == ATTEMPTS => {
                report.problems.append(&mut done.problems);
                report.problems.push(format!("{what}: {error:#}"));
            }
            Err(_) => {}
        }
    }
}

/// Removes our routes in the main table, the worst first: while one of them stands, it is the best.
fn remove_main(
    netlink: &mut Netlink,
    config: &RouteConfig,
    family: Family,
    report: &mut Report,
) -> Result<()> {
    let mut main = table::routes_of(netlink, family, config.protocol)?;
    main.retain(|route| message::table(route) == MAIN_TABLE);
    remove_routes(netlink, &main, report)
}

fn remove_tables(
    netlink: &mut Netlink,
    config: &RouteConfig,
    family: Family,
    report: &mut Report,
) -> Result<()> {
    let mut tables = table::routes_of(netlink, family, config.protocol)?;
    tables.retain(|route| message::table(route) != MAIN_TABLE);
    remove_routes(netlink, &tables, report)
}

fn remove_routes(
    netlink: &mut Netlink,
    routes: &[RouteMessage],
    report: &mut Report,
) -> Result<()> {
    let requests = routes.iter().map(removal).collect();
    let removed = |route| Done::removed(message::object(route));
    let changes = routes.iter().map(removed).collect();
    table::commit(netlink, requests, changes, report)
}

fn remove_rules(
    netlink: &mut Netlink,
    config: &RouteConfig,
    family: Family,
    report: &mut Report,
) -> Result<()> {
    let rules = rules_of(netlink, family, config)?;
    let removal = |rule: &Rule| -> Request {
        (
            RouteNetlinkMessage::DelRule(rule.message(family, config.protocol)),
            0,
        )
    };
    let requests = rules.iter().map(removal).collect();
    let removed = |rule: &Rule| Done::removed(Object::Rule(rule.to_string()));
    let changes = rules.iter().map(removed).collect();
    table::commit(netlink, requests, changes, report)
}

/// Puts the displaced routes back, or those of them, by position, that `back` says yes to, while ours still stand.
fn put_back(
    netlink: &mut Netlink,
    config: &RouteConfig,
    displaced: &mut Displaced,
    back: &[bool],
    report: &mut Report,
) -> Result<()> {
    let entries = displaced.restorable();
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
                report.obsolete.push(format!(
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
    let mut answers = netlink.commit(requests.clone())?;
    for _ in 1..ATTEMPTS {
        let refused = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| matches!(answer, Err(refused) if !refused.exists()));
        let refused: Vec<usize> = refused.map(|(at, _)| at).collect();
        if refused.is_empty() {
            break;
        }
        let again = refused.iter().map(|at| requests[*at].clone()).collect();
        for (at, answer) in refused.into_iter().zip(netlink.commit(again)?) {
            answers[at] = answer;
        }
    }
    for ((position, line), answer) in positions.into_iter().zip(lines).zip(answers) {
        match answer {
            Ok(()) => report.changes.push(Done {
                verb: Verb::Restored,
                object: Object::Route(line),
            }),
            // Its owner has put it back already.
            Err(refused) if refused.exists() => {}
            Err(refused) => {
                keep[position] = TRY_AGAIN.contains(&refused.errno);
                let lines = match keep[position] {
                    true => &mut report.problems,
                    false => &mut report.obsolete,
                };
                lines.push(format!("not restored {line}: {refused}"));
            }
        }
    }
    displaced.retain(&keep);
    Ok(())
}
