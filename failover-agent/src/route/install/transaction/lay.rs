//! The group of nexthop objects that a balance group's route leaves by, or what has to do without one.

use failover_policy::{Family, UplinkSet};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::Transaction;
use crate::netlink::{self, Message, Netlink, Refused, Request};
use crate::route::{
    error::Error,
    install::{own, plan::Egress},
    numbers,
    wire::done::{Done, Object},
    wire::nexthop::{Kind, MAX_WEIGHT, Nexthop},
};

/// By whom the active route leaves.
pub(crate) struct Carriers {
    /// The uplinks that share it.
    pub(crate) members: UplinkSet,
    /// The group of nexthop objects that it names. Without one it names the uplinks themselves.
    pub(crate) group: Option<Nexthop>,
}

impl Transaction<'_> {
    /// Prepares the kernel for the active route. Where several uplinks share it they become a group if that is possible.
    ///
    /// # Errors
    /// Netlink itself fails. What the kernel refuses is a problem.
    pub(super) fn lay_group(&mut self, egress: Egress) -> Result<Carriers, Error> {
        let members = match egress {
            Egress::One(uplink) => {
                return Ok(Carriers {
                    members: UplinkSet::only(uplink),
                    group: None,
                });
            }
            Egress::Group(members) => members,
        };
        match self.router.groups.hash.set(self.family) {
            Ok(change) => self.confirmed.changes.extend(change),
            Err(error) => self.confirmed.problems.push(format!("{error:#}")),
        }
        let laid = match self.family {
            Family::V4 => self.lay_objects(members)?,
            Family::V6 => None,
        };
        Ok(match laid {
            Some(carriers) => carriers,
            None => Carriers {
                members: self.sharers(members),
                group: None,
            },
        })
    }

    /// Makes the IPv4 group consist of `members`, as far as the kernel takes them; what it refuses is a problem. A route through it
    /// follows at once. None: there can be no group, and a plain route has to do.
    ///
    /// # Errors
    /// Netlink itself fails.
    fn lay_objects(&mut self, members: UplinkSet) -> Result<Option<Carriers>, Error> {
        if self.router.groups.plain {
            return Ok(None);
        }
        let mut taken = UplinkSet::NONE;
        let mut weights = Vec::new();
        for uplink in self.router.links.in_order(members).collect::<Vec<_>>() {
            let link = &self.router.links[uplink];
            let Some(path) = &link.families.v4 else {
                continue;
            };
            let (hop, weight) = (own::hop(link, path), link.weight.clamp(1, MAX_WEIGHT));
            let ids = numbers::member_ids(&self.router.config, uplink);
            let mut refusal = None;
            for id in ids {
                match self.lay_object(id, Kind::Hop(hop)) {
                    Ok(_) => {}
                    Err(error @ Error::Netlink(_)) => return Err(error),
                    Err(refused) => refusal = refusal.or(Some(refused)),
                }
            }
            match refusal {
                Some(refusal) => self.confirmed.problems.push(refusal.to_string()),
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
        let id = numbers::group_id(&self.router.config);
        match self.lay_object(id, Kind::Group(weights)) {
            Ok(group) => Ok(Some(Carriers {
                members: taken,
                group: Some(group),
            })),
            Err(error @ Error::Netlink(_)) => Err(error),
            Err(refusal) => {
                self.router.groups.plain = true;
                self.confirmed.problems.push(format!(
                    "when a member of a balance group leaves or joins, forwarded connections of the others may move and end, \
                     because there can be no resilient nexthop group (Linux 5.13): {refusal}"
                ));
                Ok(None)
            }
        }
    }

    /// Puts one object in its place, and returns it.
    ///
    /// # Errors
    /// The kernel refuses it, or has no nexthop objects; another program's has its number; netlink itself fails.
    fn lay_object(&mut self, id: u32, kind: Kind) -> Result<Nexthop, Error> {
        let router = &mut *self.router;
        let object = Nexthop {
            id,
            protocol: router.config.protocol,
            kind,
        };
        let flags = match router.netlink.nexthop(id).map_err(refused_to_read(id))? {
            Some(standing) if standing == object => return Ok(object),
            Some(standing) if standing.protocol != object.protocol => {
                return Err(Error::NumberTaken {
                    standing,
                    wanted: object,
                });
            }
            Some(_) => NLM_F_CREATE | NLM_F_REPLACE,
            None => NLM_F_CREATE | NLM_F_EXCL,
        };
        commit_one(&mut router.netlink, (object.message(), flags), || {
            format!("the kernel refused {object}")
        })?;
        let added = Object::Nexthop(object.to_string());
        self.confirmed.changes.push(Done::added(added));
        router.groups.objects.get_or_insert_default().insert(id);
        Ok(object)
    }

    /// Those of `members` that a plain multipath route can have; the first one if there is none. The kernel refuses the whole route
    /// for a member that is down, and in IPv6 for one without a gateway (`ip6_route_multipath_add` in `net/ipv6/route.c`).
    fn sharers(&mut self, members: UplinkSet) -> UplinkSet {
        let (router, family) = (&mut *self.router, self.family);
        let mut sharers = UplinkSet::NONE;
        let mut reasons = Vec::new();
        for uplink in router.links.in_order(members) {
            let link = &router.links[uplink];
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
            let first = router.links.in_order(members).next();
            return first.map_or(UplinkSet::NONE, UplinkSet::only);
        }
        let reported = &mut router.groups.left_out[family];
        for (uplink, reason) in &reasons {
            if !reported.contains(*uplink) {
                let interface = &router.links[*uplink].interface;
                self.confirmed.problems.push(format!(
                    "no share of {family} for dev {interface}: it {reason}"
                ));
            }
        }
        *reported = reasons.iter().map(|(uplink, _)| *uplink).collect();
        sharers
    }

    /// Whether the group stands as it was laid. The kernel may have taken members out since, but not all.
    ///
    /// # Errors
    /// Netlink itself fails.
    pub(super) fn group_stands(&mut self, laid: &Nexthop) -> Result<bool, Error> {
        let Some(standing) = self.router.netlink.nexthop(laid.id)? else {
            return Ok(false);
        };
        Ok(match (&standing.kind, &laid.kind) {
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
    pub(super) fn undo_group(&mut self) -> Result<(), Error> {
        let netlink = &mut self.router.netlink;
        if let Some(before) = &self.former.group
            && netlink.nexthop(before.id)?.as_ref() != Some(before)
        {
            let request = (before.message(), NLM_F_CREATE | NLM_F_REPLACE);
            commit_one(netlink, request, || format!("not set back {before}"))?;
        }
        Ok(())
    }
}

/// A kernel without nexthop objects refuses the question.
fn refused_to_read(id: u32) -> impl FnOnce(anyhow::Error) -> Error {
    move |error| match error.downcast() {
        Ok(netlink::Error::Refused(refused)) => Error::Refused {
            what: format!("cannot read nexthop {id}"),
            refused,
        },
        Ok(error) => error.into(),
        Err(error) => Error::Netlink(error),
    }
}

/// # Errors
/// The kernel refuses, which is worded by `what`; netlink itself fails.
fn commit_one(
    netlink: &mut Netlink,
    request: Request<Message>,
    what: impl FnOnce() -> String,
) -> Result<(), Error> {
    let answer: Result<(), Refused> = netlink.commit(vec![request])?.remove(0);
    answer.map_err(|refused| Error::Refused {
        what: what(),
        refused,
    })
}
