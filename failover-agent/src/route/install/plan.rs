//! Which default routes of ours are wanted in the main table. Pure.

use failover_policy::{Family, PerUplink, UplinkId, UplinkSet};

use crate::config::RouteConfig;
use crate::route::{link::Link, numbers::number};

/// A default route of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) metric: u32,
    /// The metric that it has unless a foreign route has it.
    pub(crate) intended: u32,
    pub(crate) egress: Egress,
}

/// How it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Egress {
    /// By one uplink.
    One(UplinkId),
    /// By the members of a balance group, also while there is only one left: the flows of this one must stay where they
    /// are when another joins.
    Group(UplinkSet),
}

/// The default routes that are wanted while `active` carries the traffic and `withdrawn` have none. The active one comes first,
/// and has the lowest metric; no two have the same. Empty if no active uplink has an egress path.
///
/// The active one stands at its own metric if it has one, else at `active_metric`. A standby stands at its own metric if that
/// does not beat or tie with another, else at `standby_metric` + its position.
///
/// `taken` are the metrics of foreign default routes that are not ours to displace. A standby gives way to them. So does the active one
/// in IPv6, where routes of one metric share the traffic; in IPv4 it stands in front of them.
pub(crate) fn plan(
    links: &PerUplink<Link>,
    family: Family,
    config: &RouteConfig,
    active: UplinkSet,
    withdrawn: UplinkSet,
    taken: &[u32],
) -> Vec<Wanted> {
    let usable: UplinkSet = (links.iter())
        .filter(|(_, link)| link.families[family].is_some())
        .map(|(uplink, _)| uplink)
        .collect();
    let carriers: UplinkSet = active
        .iter()
        .filter(|uplink| usable.contains(*uplink))
        .collect();
    let Some(first) = links.in_order(carriers).next() else {
        return Vec::new();
    };
    let egress = match carriers.len() > 1 || in_group(links, first) {
        true => Egress::Group(carriers),
        false => Egress::One(first),
    };
    let intended = active_metric(links, config, carriers);
    let metric = match family {
        Family::V4 => intended,
        Family::V6 => beside(intended, taken),
    };
    let mut wanted = vec![Wanted {
        metric,
        intended,
        egress,
    }];
    for standby in links.in_order(usable) {
        if active.contains(standby) || withdrawn.contains(standby) {
            continue;
        }
        let free = |candidate: u32| {
            // Members of one group have the same: it can be only one's.
            candidate > metric && !wanted.iter().any(|other| other.metric == candidate)
        };
        let common = standby_metric(config, links.position(standby).unwrap_or(0));
        let own = links[standby].metric.filter(|own| free(*own));
        let intended = own.unwrap_or(common);
        let untaken = |candidate: &u32| free(*candidate) && !taken.contains(candidate);
        // Not at another uplink's, which would have to give way in its turn.
        let behind_all = standby_metric(config, links.len())..;
        let metric = [intended, common]
            .into_iter()
            .chain(behind_all)
            .find(untaken)
            .unwrap_or(intended);
        wanted.push(Wanted {
            metric,
            intended,
            egress: Egress::One(standby),
        });
    }
    wanted
}

/// The metric for the active route beside a foreign one that has the metric which is `intended`: the next lower one, which wins. Where
/// that one is foreign, too, the foreign routes carry the traffic whatever we do, short of getting in front of a route that is
/// meant to be in front of ours: then the next higher one.
fn beside(intended: u32, taken: &[u32]) -> u32 {
    let free = |metric: &u32| !taken.contains(metric);
    // The kernel takes an IPv6 metric of 0 for 1024.
    let lower = intended.checked_sub(1).filter(|lower| *lower > 0);
    [Some(intended), lower]
        .into_iter()
        .flatten()
        .find(free)
        .or_else(|| (intended..).find(free))
        .unwrap_or(intended)
}

/// The metric at which these are active.
pub(crate) fn active_metric(
    links: &PerUplink<Link>,
    config: &RouteConfig,
    members: UplinkSet,
) -> u32 {
    (links.in_order(members))
        .find_map(|uplink| links[uplink].metric)
        .unwrap_or(config.active_metric)
}

/// Whether it is one of our metrics, in use just now or not.
pub(crate) fn is_ours(links: &PerUplink<Link>, config: &RouteConfig, metric: u32) -> bool {
    metric == config.active_metric
        || (0..links.len()).any(|position| metric == standby_metric(config, position))
        || links.values().any(|link| link.metric == Some(metric))
}

fn standby_metric(config: &RouteConfig, position: usize) -> u32 {
    config.standby_metric + number(position)
}

/// Whether another uplink has the same rank.
fn in_group(links: &PerUplink<Link>, uplink: UplinkId) -> bool {
    let same = |link: &&Link| link.rank == links[uplink].rank;
    links.values().filter(same).count() > 1
}

#[cfg(test)]
mod tests {
    use failover_ebpf::LinkLayer;
    use failover_policy::PerFamily;

    use super::*;
    use crate::route::{EgressPath, Template};

    /// Uplinks with an egress path, of these ranks and own metrics.
    fn links(uplinks: &[(u32, Option<u32>)]) -> PerUplink<Link> {
        let path = EgressPath {
            source: [192, 0, 2, 1].into(),
            prefixes: Vec::new(),
            gateway: None,
            template: Template::default(),
        };
        let uplink = |(slot, (rank, metric)): (u32, &(u32, Option<u32>))| Link {
            ifindex: 10 + slot,
            interface: format!("up{slot}"),
            link_layer: LinkLayer::Ethernet,
            carrier: true,
            rank: *rank,
            weight: 1,
            metric: *metric,
            addresses: Vec::new(),
            duplicates: Vec::new(),
            families: PerFamily::new(Some(path.clone()), None),
        };
        let ids = (0..).map(UplinkId);
        ids.zip((0..).zip(uplinks).map(uplink)).collect()
    }

    fn set(uplinks: &[usize]) -> UplinkSet {
        uplinks.iter().copied().map(UplinkId).collect()
    }

    fn planned(
        links: &PerUplink<Link>,
        active: &[usize],
        withdrawn: &[usize],
    ) -> Vec<(u32, Egress)> {
        let config = RouteConfig::default();
        let plan = plan(links, Family::V4, &config, set(active), set(withdrawn), &[]);
        plan.iter()
            .map(|wanted| (wanted.metric, wanted.egress))
            .collect()
    }

    /// Metrics of uplinks of which the first is active, beside foreign routes that have these.
    fn beside_foreign(family: Family, own: &[Option<u32>], taken: &[u32]) -> Vec<u32> {
        let uplinks: Vec<_> = (1..).zip(own.iter().copied()).collect();
        let mut links = links(&uplinks);
        for link in links.values_mut() {
            link.families.v6 = link.families.v4.clone();
        }
        let config = RouteConfig::default();
        let (active, none) = (set(&[0]), UplinkSet::NONE);
        let plan = plan(&links, family, &config, active, none, taken);
        plan.iter().map(|wanted| wanted.metric).collect()
    }

    #[test]
    fn standbys_give_way_to_foreign_routes() {
        for family in Family::ALL {
            let metrics = |own: &[Option<u32>], taken: &[u32]| beside_foreign(family, own, taken);
            let none = [None; 3];
            assert_eq!(metrics(&none, &[50, 100, 1024]), [80, 5001, 5002]);
            assert_eq!(metrics(&none, &[5001]), [80, 5003, 5002]);
            assert_eq!(metrics(&none, &[5001, 5002, 5003]), [80, 5004, 5005]);
            let own = [Some(10), Some(20), None];
            assert_eq!(metrics(&own, &[20]), [10, 5001, 5002]);
            assert_eq!(metrics(&own, &[20, 5001]), [10, 5003, 5002]);
        }
    }

    #[test]
    fn the_active_one_stands_in_front_of_its_equal_and_behind_its_better() {
        let metrics = |family, taken: &[u32]| beside_foreign(family, &[None; 2], taken);
        assert_eq!(metrics(Family::V4, &[80]), [80, 5001]);
        assert_eq!(metrics(Family::V4, &[79, 80]), [80, 5001]);
        assert_eq!(metrics(Family::V6, &[80]), [79, 5001]);
        assert_eq!(metrics(Family::V6, &[79]), [80, 5001]);
        assert_eq!(metrics(Family::V6, &[79, 80]), [81, 5001]);
        assert_eq!(metrics(Family::V6, &[79, 80, 81]), [82, 5001]);
        let lowest = |family| beside_foreign(family, &[Some(1), None], &[1]);
        assert_eq!(lowest(Family::V4), [1, 5001]);
        assert_eq!(lowest(Family::V6), [2, 5001]);
    }

    fn one(metric: u32, uplink: usize) -> (u32, Egress) {
        (metric, Egress::One(UplinkId(uplink)))
    }

    fn group(metric: u32, uplinks: &[usize]) -> (u32, Egress) {
        (metric, Egress::Group(set(uplinks)))
    }

    #[test]
    fn without_own_metrics_the_active_one_changes_places() {
        let links = links(&[(1, None), (2, None), (3, None)]);
        assert_eq!(
            planned(&links, &[0], &[]),
            [one(80, 0), one(5001, 1), one(5002, 2)]
        );
        assert_eq!(
            planned(&links, &[2], &[]),
            [one(80, 2), one(5000, 0), one(5001, 1)]
        );
    }

    #[test]
    fn own_metrics_stand_unless_they_would_beat_the_active_one() {
        let links = links(&[(1, Some(10)), (2, Some(20)), (3, None), (4, Some(90))]);
        assert_eq!(
            planned(&links, &[0], &[]),
            [one(10, 0), one(20, 1), one(5002, 2), one(90, 3)]
        );
        assert_eq!(
            planned(&links, &[1], &[]),
            [one(20, 1), one(5000, 0), one(5002, 2), one(90, 3)]
        );
        assert_eq!(
            planned(&links, &[2], &[]),
            [one(80, 2), one(5000, 0), one(5001, 1), one(90, 3)]
        );
        assert_eq!(
            planned(&links, &[3], &[]),
            [one(90, 3), one(5000, 0), one(5001, 1), one(5002, 2)]
        );
    }

    #[test]
    fn withdrawn_standbys_have_no_route() {
        let links = links(&[(1, None), (2, None), (3, Some(90))]);
        assert_eq!(
            planned(&links, &[0], &[1, 2]),
            [one(80, 0)],
            "standbys have none"
        );
        assert_eq!(
            planned(&links, &[1], &[0, 1]),
            [one(80, 1), one(90, 2)],
            "the active one keeps its own"
        );
    }

    #[test]
    fn groups_share_one_route_also_when_one_member_is_left() {
        let links = links(&[(1, Some(10)), (1, Some(10)), (2, Some(30)), (2, Some(30))]);
        assert_eq!(
            planned(&links, &[0, 1], &[]),
            [group(10, &[0, 1]), one(30, 2), one(5003, 3)],
            "one metric for the two standbys is one route's"
        );
        assert_eq!(
            planned(&links, &[1], &[]),
            [group(10, &[1]), one(5000, 0), one(30, 2), one(5003, 3)]
        );
        assert_eq!(
            planned(&links, &[2, 3], &[0]),
            [group(30, &[2, 3]), one(5001, 1)]
        );
    }

    #[test]
    fn uplinks_without_a_next_hop_of_are_left_out() {
        let mut links = links(&[(1, None), (1, None), (2, None)]);
        links[UplinkId(0)].families.v4 = None;
        assert_eq!(
            planned(&links, &[0, 1], &[]),
            [group(80, &[1]), one(5002, 2)]
        );
        assert_eq!(planned(&links, &[0], &[]), []);
        assert_eq!(planned(&links, &[], &[]), []);
    }
}
