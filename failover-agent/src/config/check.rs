//! Comparison of values with each other; `kind` has checked each of them alone.

use std::collections::{HashMap, HashSet};

use failover_ebpf::MAX_UPLINKS;

use super::{
    draft::{Draft, UplinkDraft, uplink_count, written},
    kind::AUTO,
    raw::invalid,
};
use crate::failure::Failure;

/// Routing tables that belong to the kernel: default, main, local (`include/uapi/linux/rtnetlink.h`, `RT_TABLE_*`).
const RESERVED_TABLES: std::ops::RangeInclusive<u32> = 253..=255;

impl Draft {
    /// Compares the values of different keys and uplinks.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.check_uplinks()?;
        self.check_route()?;
        self.check_groups()?;
        self.check_metrics()
    }

    fn check_uplinks(&self) -> Result<(), Failure> {
        let mut interfaces = HashSet::new();
        let mut names = HashSet::new();
        for uplink in &self.uplinks {
            if !interfaces.insert(&uplink.interface) {
                return Err(Failure::InterfaceTwice {
                    place: uplink.place.clone(),
                    interface: uplink.interface.clone(),
                });
            }
            if uplink.name() == AUTO {
                return Err(invalid(
                    &uplink.place,
                    format!("`{AUTO}` cannot be the name of an uplink as well"),
                    "give this one a name of its own, such as name = \"cable\"",
                ));
            }
            if !names.insert(uplink.name()) {
                return Err(invalid(
                    uplink.name.place.as_ref().unwrap_or(&uplink.place),
                    format!("another uplink is already called `{}`", uplink.name()),
                    "give each uplink a name of its own",
                ));
            }
        }
        let last_place = || {
            let place = self.uplinks.last().map(|uplink| &uplink.place);
            place.unwrap_or(&self.place).clone()
        };
        if self.uplinks.len() < 2 {
            return Err(Failure::TooFewUplinks {
                place: last_place(),
                count: self.uplinks.len(),
            });
        }
        if self.uplinks.len() > MAX_UPLINKS {
            return Err(invalid(
                last_place(),
                format!("there are {} uplinks", self.uplinks.len()),
                format!("configure up to {MAX_UPLINKS}"),
            ));
        }
        Ok(())
    }

    fn check_route(&self) -> Result<(), Failure> {
        let (active, standby) = (&self.active_metric, &self.standby_metric);
        if active.value >= standby.value {
            return Err(invalid(
                written(&[&active.place, &standby.place], &self.place),
                format!(
                    "active_metric ({}) is not less than standby_metric ({})",
                    active.value, standby.value
                ),
                "the route with the lowest metric wins: choose a lower active_metric or a higher standby_metric",
            ));
        }
        let last = self.table.value + uplink_count(self.uplinks.len()) - 1;
        if self.table.value <= *RESERVED_TABLES.end() && last >= *RESERVED_TABLES.start() {
            return Err(invalid(
                written(&[&self.table.place], &self.place),
                format!(
                    "the tables {} to {last} include some of the kernel's own (253 to 255)",
                    self.table.value
                ),
                "choose a table outside of them, such as 13600",
            ));
        }
        Ok(())
    }

    /// By position: its rank.
    fn ranks(&self) -> impl Iterator<Item = (u32, &UplinkDraft)> {
        let uplinks = self.uplinks.iter().enumerate();
        uplinks.map(|(position, uplink)| (uplink.rank(position), uplink))
    }

    /// The members of a group share a route and therefore its metric; outside of a group there is nothing to share.
    fn check_groups(&self) -> Result<(), Failure> {
        let mut groups: HashMap<u32, Vec<&UplinkDraft>> = HashMap::new();
        for (rank, uplink) in self.ranks() {
            groups.entry(rank).or_default().push(uplink);
        }
        for (rank, uplink) in self.ranks() {
            let group = &groups[&rank];
            let alone = group.len() < 2;
            if let (true, Some(place)) = (alone, uplink.weight.place.as_ref()) {
                return Err(invalid(
                    place,
                    format!(
                        "uplink `{}` has a weight, but no other uplink has its rank {rank}",
                        uplink.name()
                    ),
                    "give those that shall share connections the same rank, or leave the weight out",
                ));
            }
            let first = group[0];
            if uplink.metric.value != first.metric.value {
                return Err(invalid(
                    written(&[&uplink.metric.place, &first.metric.place], &uplink.place),
                    format!(
                        "uplinks `{}` and `{}` are in one balance group (rank {rank}) but have different metrics",
                        first.name(),
                        uplink.name()
                    ),
                    "they share one route: give them the same metric, or none",
                ));
            }
        }
        Ok(())
    }

    fn check_metrics(&self) -> Result<(), Failure> {
        let mut taken: HashMap<u32, (u32, &UplinkDraft)> = HashMap::new();
        for (rank, uplink) in self.ranks() {
            let Some(metric) = uplink.metric.value else {
                continue;
            };
            let place = written(&[&uplink.metric.place], &uplink.place);
            if metric >= self.standby_metric.value {
                return Err(invalid(
                    place,
                    format!(
                        "metric {metric} of uplink `{}` is not less than standby_metric ({})",
                        uplink.name(),
                        self.standby_metric.value
                    ),
                    "choose a lower metric or a higher standby_metric: standbys stand behind",
                ));
            }
            let (other_rank, other) = *taken.entry(metric).or_insert((rank, uplink));
            if other_rank != rank {
                return Err(invalid(
                    place,
                    format!(
                        "uplinks `{}` and `{}` have the same metric {metric} but not the same rank",
                        other.name(),
                        uplink.name()
                    ),
                    "choose different metrics, or the same rank for a balance group",
                ));
            }
        }
        Ok(())
    }
}
