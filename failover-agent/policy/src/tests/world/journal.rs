//! The switches of a world, and what was true at that moment.

use super::*;

/// An uplink to which a switch leads, and what the reference knew of it at that moment.
#[derive(Clone, Debug)]
pub(in super::super) struct Arrival {
    pub(in super::super) id: UplinkId,
    /// It was active before.
    pub(in super::super) stays: bool,
    pub(in super::super) present: bool,
    pub(in super::super) health: Health,
    pub(in super::super) newest: Option<(Verdict, u64)>,
    pub(in super::super) good_run: Vec<Counted>,
}

/// A switch, and what the reference knew at that moment.
#[derive(Clone, Debug)]
pub(in super::super) struct Switch {
    pub(in super::super) at: u64,
    pub(in super::super) family: Family,
    pub(in super::super) from: UplinkSet,
    pub(in super::super) to: UplinkSet,
    pub(in super::super) cause: Cause,
    pub(in super::super) confirmed: Option<bool>,
    /// Those of the old uplinks that were Down, and when their first failure was.
    pub(in super::super) down: UplinkSet,
    pub(in super::super) first_failure: Option<u64>,
    /// By uplink of `to`.
    pub(in super::super) arrivals: Vec<Arrival>,
    /// Members of the same group that were proven, too, and were not refused recently.
    pub(in super::super) left_out: UplinkSet,
    /// The other family's active uplinks, as far as they can carry this one.
    pub(in super::super) leader: UplinkSet,
    /// Those of them that could not be confirmed recently.
    pub(in super::super) unconfirmed: bool,
    /// The uplink of a manual override.
    pub(in super::super) manual_override: Option<UplinkId>,
}

impl World {
    /// Notes a switch that the machine has just decided.
    pub(super) fn remember(
        &mut self,
        family: Family,
        from: UplinkSet,
        to: UplinkSet,
        cause: Cause,
    ) {
        let references = &self.references[family];
        let arrival = |id: UplinkId| {
            let reference = &references[id.0];
            Arrival {
                id,
                stays: from.contains(id),
                present: reference.present(),
                health: self.health(family, id),
                newest: reference.newest(),
                good_run: reference.run(Verdict::Good),
            }
        };
        let is_down = |id: &UplinkId| self.health(family, *id) == Health::Down;
        let down: UplinkSet = from.iter().filter(is_down).collect();
        let left = down.minus(to).iter();
        let first_failures = left.filter_map(|id| references[id.0].first_failure());
        let first_failure = first_failures.max();
        let lately = |id: UplinkId| {
            self.refused[family][id.0].is_some_and(|at| self.now <= at + LONGEST_BACKOFF)
        };
        let group = to.first().map(|id| self.rules.uplinks[id].rank);
        let ready = |id: &UplinkId| {
            let rules = &self.rules.uplinks[*id];
            let proven = references[id.0].newest().is_some_and(|(verdict, sent)| {
                let recent = self.now - sent <= ms(rules.interval + rules.timeout);
                verdict == Verdict::Good && recent && first_failure.is_none_or(|at| sent >= at)
            });
            Some(rules.rank) == group
                && self.health(family, *id) == Health::Up
                && references[id.0].present()
                && proven
                && !lately(*id)
        };
        let uplinks = (0..references.len()).map(UplinkId);
        let ready: UplinkSet = uplinks.filter(ready).collect();
        let other = family.other();
        let carried = |id: &UplinkId| references[id.0].present();
        let leader: UplinkSet = self.machine.active(other).iter().filter(carried).collect();
        let unconfirmed = leader.iter().any(lately);
        let arrivals = to.iter().map(arrival).collect();
        self.switches.push(Switch {
            at: self.now,
            family,
            from,
            to,
            cause,
            confirmed: None,
            down,
            first_failure,
            arrivals,
            left_out: ready.minus(to),
            leader,
            unconfirmed,
            manual_override: self.overrides[family],
        });
    }
}
