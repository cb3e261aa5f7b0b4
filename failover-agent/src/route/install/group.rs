//! Balance groups: one default route for several uplinks.
//!
//! A plain multipath route redistributes flows whenever its members change: a forwarded flow may then leave by another uplink,
//! with another address, and is dead. A resilient group of nexthop objects (Linux 5.13,
//! `Documentation/networking/nexthop-group-resilient.rst`) keeps a table of hash buckets instead. A member that leaves gives its
//! buckets to the others, whose own stay; one that joins gets only buckets in which nothing has gone on for a while.
//!
//! | number of the object | what it is |
//! |---|---|
//! | `route.table` + slot, and + 64 + slot | the egress path of the uplink in this slot, twice |
//! | `route.table` + 128 | the group |
//!
//! Twice, because the kernel does not look into the buckets of a group with one path (`fib_select_path` in
//! `net/ipv4/fib_semantics.c`), and all of them would count as unused when a second member joins.
//!
//! The kernel removes the objects of an interface that goes down or loses its carrier, and with the last one the group and
//! the route. So everything is read before it is changed, and nothing is taken for standing.
//!
//! IPv6 has plain multipath routes all the same. The kernel takes the source address of a connection that begins on this host
//! from the *first* member of a nexthop group (`ip6_route_get_saddr` with `nexthop_fib6_nh` in `include/net/nexthop.h`), but sends
//! it by any of them: by most members it would leave with an address of another uplink.

use std::collections::BTreeSet;

use anyhow::Result;
use failover_policy::{Family, PerFamily, UplinkSet};

use super::{hash::HashPolicy, report::Report};
use crate::route::{
    numbers::{group_id, member_ids},
    router::Router,
    wire::done::Done,
    wire::done::Object,
    wire::message,
    wire::nexthop::{self, Kind, Nexthop},
};
use crate::{config::RouteConfig, netlink::Netlink, store::Store};

/// What the router knows of its groups.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(crate) hash: HashPolicy,
    /// Objects of ours that may stand. None: an earlier run's were not looked for yet.
    pub(super) objects: Option<BTreeSet<u32>>,
    /// There can be no resilient group.
    pub(super) plain: bool,
    /// Members that take no part in a plain route: reported once.
    pub(super) left_out: PerFamily<UplinkSet>,
}

impl Groups {
    /// Changes nothing.
    pub(crate) fn new(store: &Store) -> Self {
        Groups {
            hash: HashPolicy::load(store),
            objects: None,
            plain: false,
            left_out: PerFamily::both(UplinkSet::NONE),
        }
    }
}

impl Router {
    /// The group as it stands.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(crate) fn standing_group(&mut self) -> Result<Option<Nexthop>> {
        let id = group_id(&self.config);
        match &self.groups.objects {
            Some(objects) if objects.contains(&id) => self.netlink.nexthop(id),
            _ => Ok(None),
        }
    }

    /// Removes our objects that are not needed for `group`.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(crate) fn tidy_objects(
        &mut self,
        group: Option<&Nexthop>,
        report: &mut Report,
    ) -> Result<()> {
        let Some(objects) = &mut self.groups.objects else {
            return Ok(());
        };
        let mut stale: Vec<u32> = objects
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
    pub(crate) fn adopt_objects(&mut self, report: &mut Report) -> Result<()> {
        if self.groups.objects.is_some() {
            return Ok(());
        }
        let standing = objects_of(&mut self.netlink, &self.config)?;
        self.groups.objects = Some(standing.iter().map(|nexthop| nexthop.id).collect());
        let routes = self.ours(Family::V4)?;
        let used: Vec<u32> = routes.iter().filter_map(message::nexthop_id).collect();
        let group = standing.iter().find(|nexthop| used.contains(&nexthop.id));
        self.tidy_objects(group, report)
    }

    /// The uplinks in a group that stands.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(crate) fn group_members(&mut self, id: u32) -> Result<UplinkSet> {
        let Some(Nexthop {
            kind: Kind::Group(members),
            ..
        }) = self.netlink.nexthop(id)?
        else {
            return Ok(UplinkSet::NONE);
        };
        let uplinks = self.links.ids().filter(|uplink| {
            let ids = member_ids(&self.config, *uplink);
            members.iter().any(|(member, _)| ids.contains(member))
        });
        Ok(uplinks.collect())
    }
}

/// Whether a group is, or consists of, an object.
fn needs(group: &Nexthop, id: u32) -> bool {
    let member = match &group.kind {
        Kind::Group(members) => members.iter().any(|(member, _)| *member == id),
        Kind::Hop(_) | Kind::Other => false,
    };
    member || group.id == id
}

/// Every nexthop object of ours, the group first: it goes before its members.
pub(crate) fn objects_of(netlink: &mut Netlink, config: &RouteConfig) -> Result<Vec<Nexthop>> {
    let numbers = config.table..=group_id(config);
    let mut objects = netlink.nexthops()?;
    objects.retain(|nexthop| nexthop.protocol == config.protocol && numbers.contains(&nexthop.id));
    objects.sort_by_key(|nexthop| std::cmp::Reverse(nexthop.id));
    Ok(objects)
}

/// Deletes objects.
pub(crate) fn delete(netlink: &mut Netlink, ids: &[u32], report: &mut Report) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let requests = ids.iter().map(|id| (nexthop::deletion(*id), 0)).collect();
    for (id, answer) in ids.iter().zip(netlink.commit(requests)?) {
        match answer {
            Ok(()) => {
                let object = Object::Nexthop(format!("nexthop {id}"));
                report.changes.push(Done::removed(object));
            }
            // The kernel has removed it together with its interface or its last member.
            Err(refused) if refused.missing() => {}
            Err(refused) => report
                .problems
                .push(format!("not removed nexthop {id}: {refused}")),
        }
    }
    Ok(())
}
