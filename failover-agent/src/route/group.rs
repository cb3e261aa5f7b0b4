//! Balance groups: one route for several uplinks, by way of a resilient group of nexthop objects.
//!
//! A plain multipath route shares flows out anew whenever its members change: every forwarded flow may then leave by another
//! uplink, with another address, and is dead. A resilient group (Linux 5.13, `Documentation/networking/nexthop-resilient.rst`)
//! keeps a table of hash buckets instead. A member that leaves gives its buckets to the others, whose own stay; one that joins
//! gets only buckets in which nothing has gone on for a while.
//!
//! Objects have numbers of their own in the kernel, for both families together. Ours, all with our protocol number:
//!
//! | number | object |
//! |---|---|
//! | `route.table` + slot (up to 63) | IPv4 way out of an uplink |
//! | `route.table` + 64 | IPv4 group |
//! | `route.table` + 128 + slot | IPv6 way out of an uplink |
//! | `route.table` + 192 | IPv6 group |
//!
//! The kernel removes the object of an interface that goes down or loses its carrier, and with the last one the group and
//! the route. So everything is read before it is changed, and nothing is taken for standing.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;
use failover_ebpf::MAX_UPLINKS;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::{
    Report, Router, apply,
    hash::HashPolicy,
    index, message,
    nexthop::{self, Kind, MAX_WEIGHT, Nexthop},
    table::number,
};
use crate::{
    config::RouteConfig,
    netlink::{Message, Netlink, Refused, Request},
    policy::{Family, Members, UplinkId},
};

/// Numbers that a family has: for each slot, and for the group.
const FAMILY_NUMBERS: u32 = 128;

/// What the router knows of its groups.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) hash: HashPolicy,
    /// Objects of ours that may stand, by [`Family::ALL`]'s order. None: an earlier run's were not looked for yet.
    objects: Option<[BTreeSet<u32>; 2]>,
    /// The kernel takes no group, and that was told.
    plain: bool,
}

/// A group as it was put together.
pub(super) struct Laid {
    pub(super) group: Nexthop,
    /// Those that the kernel has taken.
    pub(super) members: Members,
    /// What stood there before.
    pub(super) before: Option<Nexthop>,
}

impl Groups {
    /// Touches nothing.
    pub(super) fn new(state_dir: &Path) -> Self {
        Groups {
            hash: HashPolicy::new(state_dir),
            objects: None,
            plain: false,
        }
    }
}

impl Router {
    /// Makes the group of `family` consist of `members`, as far as the kernel takes them; what it refuses is a problem. A route
    /// through it follows at once. None: there can be no group, and a plain route has to do.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(super) fn lay_group(
        &mut self,
        family: Family,
        members: Members,
        changes: &mut Vec<String>,
        problems: &mut Vec<String>,
    ) -> Result<Option<Laid>> {
        match self.groups.hash.set(family) {
            Ok(change) => changes.extend(change),
            Err(error) => problems.push(format!("{error:#}")),
        }
        let mut taken = Members::NONE;
        let mut weights = Vec::new();
        for uplink in members.iter() {
            let link = &self.links[uplink.0];
            let Some(path) = &link.families[index(family)] else {
                continue;
            };
            let hop = apply::hop(link, path);
            let id = member_id(self.config.table, family, link.slot);
            let weight = link.weight.clamp(1, MAX_WEIGHT);
            match self.lay_object(family, id, Kind::Hop(family, hop), changes)? {
                Ok(_) => {
                    taken = taken.with(uplink);
                    weights.push((id, weight));
                }
                Err(refusal) => problems.push(refusal),
            }
        }
        if taken.is_empty() {
            return Ok(None);
        }
        let id = group_id(self.config.table, family);
        match self.lay_object(family, id, Kind::Group(weights), changes)? {
            Ok((group, before)) => {
                self.groups.plain = false;
                Ok(Some(Laid {
                    group,
                    members: taken,
                    before,
                }))
            }
            Err(refusal) => {
                if !std::mem::replace(&mut self.groups.plain, true) {
                    problems.push(format!(
                        "when a member of a balance group leaves or joins, connections of the others may move, too, because there \
                         can be no resilient nexthop group (Linux 5.13): {refusal}"
                    ));
                }
                Ok(None)
            }
        }
    }

    /// Puts one object in its place, and returns it with what stood there before, or why the kernel refuses it.
    fn lay_object(
        &mut self,
        family: Family,
        id: u32,
        kind: Kind,
        changes: &mut Vec<String>,
    ) -> Result<Result<(Nexthop, Option<Nexthop>), String>> {
        let object = Nexthop {
            id,
            protocol: self.config.protocol,
            kind,
        };
        let before = match self.netlink.nexthop(id) {
            Ok(before) => before,
            // A kernel without nexthop objects.
            Err(error) if error.downcast_ref::<Refused>().is_some() => {
                return Ok(Err(format!("{error:#}")));
            }
            Err(error) => return Err(error),
        };
        let flags = match &before {
            Some(before) if *before == object => return Ok(Ok((object, Some(before.clone())))),
            Some(before) if before.protocol != object.protocol => {
                return Ok(Err(format!("{before} has the number of {object}")));
            }
            Some(_) => NLM_F_CREATE | NLM_F_REPLACE,
            None => NLM_F_CREATE | NLM_F_EXCL,
        };
        match commit_one(&mut self.netlink, (object.message(), flags))? {
            Ok(()) => {
                changes.push(format!("added {object}"));
                let objects = self.groups.objects.get_or_insert_default();
                objects[index(family)].insert(id);
                Ok(Ok((object, before)))
            }
            Err(refused) => Ok(Err(format!("the kernel refused {object}: {refused}"))),
        }
    }

    /// Whether the group stands as it was laid. The kernel may have taken members out since, but not all.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(super) fn group_stands(&mut self, laid: &Laid) -> Result<bool> {
        let Some(standing) = self.netlink.nexthop(laid.group.id)? else {
            return Ok(false);
        };
        Ok(match (&standing.kind, &laid.group.kind) {
            (Kind::Group(standing), Kind::Group(laid)) => {
                standing.iter().all(|member| laid.contains(member))
            }
            _ => false,
        })
    }

    /// Makes the group what it was before it was laid. One that was not there goes when nothing needs it any more.
    ///
    /// # Errors
    /// Netlink itself fails, or the kernel refuses.
    pub(super) fn undo_group(&mut self, laid: &Laid) -> Result<()> {
        if let Some(before) = &laid.before
            && *before != laid.group
        {
            let request = (before.message(), NLM_F_CREATE | NLM_F_REPLACE);
            commit_one(&mut self.netlink, request)??;
        }
        Ok(())
    }

    /// Removes the objects of `family` that are not needed for `group`.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(super) fn tidy_objects(
        &mut self,
        family: Family,
        group: Option<&Nexthop>,
        report: &mut Report,
    ) -> Result<()> {
        let Some(objects) = &mut self.groups.objects else {
            return Ok(());
        };
        let mut stale: Vec<u32> = objects[index(family)]
            .extract_if(.., |id| !group.is_some_and(|group| needs(group, *id)))
            .collect();
        // The group before its members, or it would shrink first.
        stale.reverse();
        delete(&mut self.netlink, &stale, report)
    }

    /// Removes what an earlier run has left and no route of ours uses. Once: what this run makes it removes itself.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(super) fn adopt_objects(&mut self, report: &mut Report) -> Result<()> {
        if self.groups.objects.is_some() {
            return Ok(());
        }
        let standing = objects_of(&mut self.netlink, &self.config)?;
        let mut objects = [BTreeSet::new(), BTreeSet::new()];
        for family in Family::ALL {
            let first = member_id(self.config.table, family, 0);
            objects[index(family)] = standing
                .iter()
                .map(|nexthop| nexthop.id)
                .filter(|id| (first..first + FAMILY_NUMBERS).contains(id))
                .collect();
        }
        self.groups.objects = Some(objects);
        for family in Family::ALL {
            let routes = self.ours(family)?;
            let used: Vec<u32> = routes.iter().filter_map(message::nexthop_id).collect();
            let group = standing.iter().find(|nexthop| used.contains(&nexthop.id));
            self.tidy_objects(family, group, report)?;
        }
        Ok(())
    }

    /// The uplinks in a group that stands.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(super) fn group_members(&mut self, family: Family, id: u32) -> Result<Members> {
        let Some(Nexthop {
            kind: Kind::Group(members),
            ..
        }) = self.netlink.nexthop(id)?
        else {
            return Ok(Members::NONE);
        };
        let uplinks = (0..self.links.len()).map(UplinkId).filter(|uplink| {
            let id = member_id(self.config.table, family, self.links[uplink.0].slot);
            members.iter().any(|(member, _)| *member == id)
        });
        Ok(uplinks.collect())
    }
}

/// Number of an uplink's object.
fn member_id(table: u32, family: Family, slot: u32) -> u32 {
    table + FAMILY_NUMBERS * number(index(family)) + slot
}

/// Number of a family's group.
fn group_id(table: u32, family: Family) -> u32 {
    member_id(table, family, number(MAX_UPLINKS))
}

/// Whether a group is, or consists of, an object.
fn needs(group: &Nexthop, id: u32) -> bool {
    let member = match &group.kind {
        Kind::Group(members) => members.iter().any(|(member, _)| *member == id),
        Kind::Hop(..) | Kind::Other => false,
    };
    member || group.id == id
}

/// Every nexthop object of ours, groups first: they go before their members.
pub(super) fn objects_of(netlink: &mut Netlink, config: &RouteConfig) -> Result<Vec<Nexthop>> {
    let numbers = config.table..config.table + 2 * FAMILY_NUMBERS;
    let mut objects = netlink.nexthops()?;
    objects.retain(|nexthop| nexthop.protocol == config.protocol && numbers.contains(&nexthop.id));
    objects.sort_by_key(|nexthop| matches!(nexthop.kind, Kind::Hop(..)));
    Ok(objects)
}

/// Deletes objects.
pub(super) fn delete(netlink: &mut Netlink, ids: &[u32], report: &mut Report) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let requests = ids.iter().map(|id| (nexthop::deletion(*id), 0)).collect();
    for (id, answer) in ids.iter().zip(netlink.commit(requests)?) {
        match answer {
            Ok(()) => report.changes.push(format!("removed nexthop {id}")),
            // The kernel has removed it together with its interface or its last member.
            Err(refused) if refused.missing() => {}
            Err(refused) => report
                .problems
                .push(format!("not removed nexthop {id}: {refused}")),
        }
    }
    Ok(())
}

fn commit_one(netlink: &mut Netlink, request: Request<Message>) -> Result<Result<(), Refused>> {
    Ok(netlink.commit(vec![request])?.remove(0))
}
