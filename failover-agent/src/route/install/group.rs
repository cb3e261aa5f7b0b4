//! Balance groups: one default route for several uplinks.
//!
//! A plain multipath route shares flows out anew whenever its members change: a forwarded flow may then leave by another uplink,
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
use failover_ebpf::MAX_UPLINKS;
use failover_policy::{Family, PerFamily, PerUplink, UplinkId, UplinkSet};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::{hash::HashPolicy, own, report::Confirmed, report::Report, table::number};
use crate::route::{
    link::Link,
    router::Router,
    wire::done::Done,
    wire::done::Object,
    wire::message,
    wire::nexthop::{self, Kind, MAX_WEIGHT, Nexthop},
};
use crate::{
    config::RouteConfig,
    netlink::{self, Message, Netlink, Refused, Request},
    store::Store,
};

/// From an uplink's first object to its second.
const TWIN: u32 = number(MAX_UPLINKS);
/// From `route.table` to the group.
const GROUP: u32 = 2 * TWIN;

/// What the router knows of its groups.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(crate) hash: HashPolicy,
    /// Objects of ours that may stand. None: an earlier run's were not looked for yet.
    objects: Option<BTreeSet<u32>>,
    /// There can be no resilient group.
    plain: bool,
    /// Members that take no part in a plain route: told once.
    left_out: PerFamily<UplinkSet>,
}

/// A group as it was put together.
pub(crate) struct Laid {
    pub(crate) group: Nexthop,
    /// Those that the kernel has taken.
    pub(crate) members: UplinkSet,
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
    /// Makes the IPv4 group consist of `members`, as far as the kernel takes them; what it refuses is a problem. A route through it
    /// follows at once. None: there can be no group, and a plain route has to do.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(crate) fn lay_group(
        &mut self,
        members: UplinkSet,
        confirmed: &mut Confirmed,
    ) -> Result<Option<Laid>> {
        if self.groups.plain {
            return Ok(None);
        }
        let mut taken = UplinkSet::NONE;
        let mut weights = Vec::new();
        for uplink in self.links.in_order(members).collect::<Vec<_>>() {
            let link = &self.links[uplink];
            let Some(path) = &link.families.v4 else {
                continue;
            };
            let (hop, weight) = (own::hop(link, path), link.weight.clamp(1, MAX_WEIGHT));
            let ids = member_ids(&self.config, uplink);
            let mut refusal = None;
            for id in ids {
                refusal = refusal.or(self.lay_object(id, Kind::Hop(hop), confirmed)?.err());
            }
            match refusal {
                Some(refusal) => confirmed.problems.push(refusal),
                None => {
                    taken = taken.with(uplink);
                    weights.extend(ids.map(|id| (id, weight)));
                }
            }
        }
        if taken.is_empty() {
            return Ok(None);
        }
        // Whatever the uplinks' order: the kernel compares nothing, and would take another order for a change.
        weights.sort_unstable();
        match self.lay_object(self.config.table + GROUP, Kind::Group(weights), confirmed)? {
            Ok(group) => Ok(Some(Laid {
                group,
                members: taken,
            })),
            Err(refusal) => {
                self.groups.plain = true;
                confirmed.problems.push(format!(
                    "when a member of a balance group leaves or joins, forwarded connections of the others may move and end, \
                     because there can be no resilient nexthop group (Linux 5.13): {refusal}"
                ));
                Ok(None)
            }
        }
    }

    /// Puts one object in its place, and returns it, or why that cannot be.
    fn lay_object(
        &mut self,
        id: u32,
        kind: Kind,
        confirmed: &mut Confirmed,
    ) -> Result<Result<Nexthop, String>> {
        let object = Nexthop {
            id,
            protocol: self.config.protocol,
            kind,
        };
        let before = match self.netlink.nexthop(id) {
            Ok(before) => before,
            // A kernel without nexthop objects.
            Err(error)
                if error
                    .downcast_ref()
                    .and_then(netlink::Error::refused)
                    .is_some() =>
            {
                return Ok(Err(format!("{error:#}")));
            }
            Err(error) => return Err(error),
        };
        let flags = match &before {
            Some(before) if *before == object => return Ok(Ok(object)),
            Some(before) if before.protocol != object.protocol => {
                return Ok(Err(format!("{before} has the number of {object}")));
            }
            Some(_) => NLM_F_CREATE | NLM_F_REPLACE,
            None => NLM_F_CREATE | NLM_F_EXCL,
        };
        match commit_one(&mut self.netlink, (object.message(), flags))? {
            Ok(()) => {
                let added = Object::Nexthop(object.to_string());
                confirmed.changes.push(Done::added(added));
                self.groups.objects.get_or_insert_default().insert(id);
                Ok(Ok(object))
            }
            Err(refused) => Ok(Err(format!("the kernel refused {object}: {refused}"))),
        }
    }

    /// Those of `members` that a plain multipath route can have; the first one if there is none. The kernel refuses the whole route
    /// for a member that is down, and in IPv6 for one without a gateway (`ip6_route_multipath_add` in `net/ipv6/route.c`).
    pub(crate) fn sharers(
        &mut self,
        family: Family,
        members: UplinkSet,
        confirmed: &mut Confirmed,
    ) -> UplinkSet {
        let mut sharers = UplinkSet::NONE;
        let mut reasons = Vec::new();
        for uplink in self.links.in_order(members) {
            let link = &self.links[uplink];
            let path = link.families[family].as_ref();
            let gateway = path.and_then(|path| path.gateway);
            if !link.carrier {
                reasons.push((uplink, "is down"));
            } else if family == Family::V6 && gateway.is_none() {
                reasons.push((uplink, "has no gateway, which the kernel demands"));
            } else {
                sharers = sharers.with(uplink);
            }
        }
        if sharers.is_empty() {
            let first = self.links.in_order(members).next();
            return first.map_or(UplinkSet::NONE, UplinkSet::only);
        }
        let told = &mut self.groups.left_out[family];
        for (uplink, reason) in &reasons {
            if !told.contains(*uplink) {
                let interface = &self.links[*uplink].interface;
                confirmed.problems.push(format!(
                    "no share of {family} for dev {interface}: it {reason}"
                ));
            }
        }
        *told = reasons.iter().map(|(uplink, _)| *uplink).collect();
        sharers
    }

    /// Whether the group stands as it was laid. The kernel may have taken members out since, but not all.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(crate) fn group_stands(&mut self, laid: &Laid) -> Result<bool> {
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

    /// The group as it stands.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(crate) fn standing_group(&mut self) -> Result<Option<Nexthop>> {
        let id = self.config.table + GROUP;
        match &self.groups.objects {
            Some(objects) if objects.contains(&id) => self.netlink.nexthop(id),
            _ => Ok(None),
        }
    }

    /// Makes the group what it was `before` it was laid. One that was not there goes when nothing needs it any more.
    ///
    /// # Errors
    /// Netlink itself fails, or the kernel refuses.
    pub(crate) fn undo_group(&mut self, before: Option<&Nexthop>) -> Result<()> {
        if let Some(before) = before
            && self.netlink.nexthop(before.id)?.as_ref() != Some(before)
        {
            let request = (before.message(), NLM_F_CREATE | NLM_F_REPLACE);
            commit_one(&mut self.netlink, request)??;
        }
        Ok(())
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

/// Numbers of an uplink's objects.
fn member_ids(config: &RouteConfig, uplink: UplinkId) -> [u32; 2] {
    let slot = number(uplink.0);
    [config.table + slot, config.table + TWIN + slot]
}

/// Nexthop objects of others with numbers that the IPv4 groups of these uplinks need, as `ip` prints them.
///
/// # Errors
/// Netlink itself fails.
pub(crate) fn taken_numbers(
    netlink: &mut Netlink,
    config: &RouteConfig,
    links: &PerUplink<Link>,
) -> Result<Vec<String>> {
    let alike = |(_, link): &(UplinkId, &Link)| {
        links
            .values()
            .filter(|other| other.rank == link.rank)
            .count()
            > 1
    };
    let members = links.iter().filter(alike);
    let mut needed: Vec<u32> = members
        .flat_map(|(uplink, _)| member_ids(config, uplink))
        .collect();
    if !needed.is_empty() {
        needed.push(config.table + GROUP);
    }
    let others = netlink.nexthops()?.into_iter();
    Ok(others
        .filter(|nexthop| nexthop.protocol != config.protocol && needed.contains(&nexthop.id))
        .map(|nexthop| nexthop.to_string())
        .collect())
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
    let numbers = config.table..=config.table + GROUP;
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

fn commit_one(netlink: &mut Netlink, request: Request<Message>) -> Result<Result<(), Refused>> {
    Ok(netlink.commit(vec![request])?.remove(0))
}
