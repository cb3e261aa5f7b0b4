//! The new routes: put into the main table, and read back.

use failover_policy::Family;
use rtnetlink::packet_route::route::RouteMessage;

use super::{Carriers, Transaction, outline::Outline};
use crate::netlink::Refused;
use crate::route::{
    error::Error,
    install::place::{in_order, in_place},
    wire::done::Done,
    wire::message::{self, metric, same},
};

/// What became of the new routes.
pub(super) struct Installed {
    /// Something was asked for at all.
    asked: bool,
    /// The kernel's answer if it has not taken the active one.
    refused: Option<Refused>,
}

impl Transaction<'_> {
    /// Adds what is wanted and does not stand. What the kernel refuses beside the active route is a problem.
    pub(super) fn install(
        &mut self,
        wanted: &[RouteMessage],
        ours: &[RouteMessage],
        outline: &Outline,
    ) -> Result<Installed, Error> {
        let active = &wanted[0];
        let front = self.is_overtaken(active).then_some(active);
        let installs = in_order(wanted, ours, front);
        let occupied = [&self.rivals[..], ours].concat();
        let mut requests = Vec::new();
        // Which install each request belongs to, and whether it decides about it.
        let mut meanings = Vec::new();
        for (position, route) in installs.iter().enumerate() {
            let steps = in_place(
                self.family,
                route,
                ours,
                &occupied,
                &outline.taken,
                front.is_some(),
            );
            for (request, decides) in steps {
                meanings.push((position, decides));
                requests.push(request);
            }
        }
        let mut installed = Installed {
            asked: !installs.is_empty(),
            refused: None,
        };
        let answers = self.router.netlink.commit(requests)?;
        for ((position, decides), answer) in meanings.into_iter().zip(answers) {
            let route = installs[position];
            match answer {
                _ if !decides => {}
                Ok(()) => {
                    let added = Done::added(message::object(route));
                    self.confirmed.changes.push(added);
                }
                Err(refused) if refused.exists() => {
                    let metric = metric(route);
                    return Err(Error::MetricTaken { metric });
                }
                Err(refused) if std::ptr::eq(route, active) => installed.refused = Some(refused),
                Err(refused) => {
                    let line = message::describe(route);
                    let problem = format!("not added {line}: {refused}");
                    self.confirmed.problems.push(problem);
                }
            }
        }
        self.confirmed.routed = self.started.elapsed();
        Ok(installed)
    }

    /// Reads our routes back, and returns them if the active one is among them.
    pub(super) fn confirm(
        &mut self,
        active: &RouteMessage,
        ours: &[RouteMessage],
        installed: Installed,
        carriers: &Carriers,
    ) -> Result<Vec<RouteMessage>, Error> {
        let standing = match installed.asked {
            true => self.router.ours(self.family)?,
            false => ours.to_vec(),
        };
        let stands = standing.iter().any(|route| same(route, active));
        let stands = match &carriers.group {
            Some(group) => stands && self.group_stands(group)?,
            None => stands,
        };
        let line = || message::describe(active);
        if let Some(refused) = installed.refused {
            let what = format!("the kernel refused {}", line());
            return Err(Error::Refused { what, refused });
        }
        if !stands {
            return Err(Error::NotShown { route: line() });
        }
        self.confirmed.confirmed = self.started.elapsed();
        if self.is_overtaken(active) {
            self.router.overtaken.clear();
        }
        Ok(standing)
    }

    /// Whether a foreign route that stays stands in front of the active one at the same metric.
    fn is_overtaken(&self, active: &RouteMessage) -> bool {
        self.family == Family::V4 && self.router.overtaken.contains(&metric(active))
    }
}
