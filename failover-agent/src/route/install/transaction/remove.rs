//! What goes once the new active route stands confirmed.

use std::cmp::Reverse;

use failover_policy::Family;
use rtnetlink::packet_route::route::RouteMessage;

use super::{Carriers, Transaction, outline::Outline};
use crate::route::{
    error::Error,
    install::{
        foreign,
        place::{removal, removal_of_foreign},
        report::Report,
    },
    wire::done::{Done, Verb},
    wire::message::{self, metric, same},
};

impl Transaction<'_> {
    /// Removes what is superfluous among our routes (`standing`), and the rivals, the worst first.
    ///
    /// # Errors
    /// A route of ours that beats the new active one cannot be removed. Or netlink itself fails.
    pub(super) fn remove_others(
        &mut self,
        wanted: &[RouteMessage],
        standing: &[RouteMessage],
    ) -> Result<(), Error> {
        let best = metric(&wanted[0]);
        let superfluous = standing
            .iter()
            .filter(|route| !wanted.iter().any(|other| same(route, other)))
            .map(|route| (Verb::Removed, route));
        let mut leaving: Vec<(Verb, &RouteMessage)> = superfluous
            .chain(self.rivals.iter().map(|route| (Verb::Displaced, route)))
            .collect();
        leaving.sort_by_key(|(_, route)| Reverse(metric(route)));
        let requests = leaving
            .iter()
            .map(|(verb, route)| match *verb {
                Verb::Displaced => removal_of_foreign(route),
                _ => removal(route),
            })
            .collect();
        for ((verb, route), answer) in leaving.iter().zip(self.router.netlink.commit(requests)?) {
            let merged = *verb == Verb::Removed && self.router.is_merged(route);
            // What was in the kernel's list as a part of ours stands for itself now.
            self.confirmed.displaced |= merged;
            let object = match merged {
                true => message::object(&self.router.own_nexthops(route)),
                false => message::object(route),
            };
            let done = Done {
                verb: *verb,
                object,
            };
            let beats = metric(route) < best;
            match answer {
                Err(refused) if !refused.missing() => {
                    let what = format!("not {done}");
                    if beats && *verb == Verb::Removed {
                        return Err(Error::Refused { what, refused });
                    }
                    self.confirmed.problems.push(format!("{what}: {refused}"));
                }
                // A rival that tied in IPv6 has been replaced already.
                answer => {
                    self.confirmed.changes.push(done);
                    if answer.is_ok() && *verb == Verb::Displaced {
                        self.gone.push((*route).clone());
                    }
                }
            }
            if beats {
                self.confirmed.routed = self.started.elapsed();
            }
        }
        Ok(())
    }

    /// Removes the nexthop objects that are not needed any more, and takes note of what the foreign routes mean for ours now.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(super) fn settle(&mut self, outline: &Outline, carriers: &Carriers) -> Result<(), Error> {
        let (router, family) = (&mut *self.router, self.family);
        router.foreign[family].retain(|route| !self.rivals.contains(route));
        if family == Family::V4 {
            let mut report = Report::default();
            router.tidy_objects(carriers.group.as_ref(), &mut report)?;
            self.confirmed.changes.extend(report.changes);
            self.confirmed.problems.extend(report.problems);
        }
        router.concerning[family] = foreign::concerning(family, &outline.plan, &outline.fixed);
        self.confirmed.settled = self.started.elapsed();
        Ok(())
    }
}
