//! When to run the program that may bring a dead uplink back.

use std::collections::VecDeque;

use super::{Action, Health, PerUplink, Time, UplinkId, UplinkSet, UplinkSettings};

/// The recoveries of all uplinks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recoveries {
    /// When each uplink's recovery last ran.
    last: PerUplink<Option<Time>>,
    /// When the next recovery is due.
    deadline: Option<Time>,
}

impl Recoveries {
    pub(super) fn new(uplinks: &PerUplink<UplinkSettings>) -> Self {
        let last = uplinks.map(|_, settings| tried_before(settings, Time::default()));
        // No recovery of this uplink may run before then.
        let first = |(uplink, settings): (UplinkId, &UplinkSettings)| {
            Some(last[uplink]? + settings.recover_interval?)
        };
        let deadline = uplinks.iter().filter_map(first).min();
        Recoveries { last, deadline }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Issues the recoveries that are due. `dead` are the uplinks that are given up, each with its grace period.
    pub(super) fn decide(
        &mut self,
        dead: impl Iterator<Item = (UplinkId, core::time::Duration)>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        self.deadline = None;
        for (uplink, grace) in dead {
            let last = &mut self.last[uplink];
            if last.is_none_or(|last| last + grace <= now) {
                *last = Some(now);
                out.push_back(Action::Recover { uplink });
            }
            let next = last.map(|last| last + grace);
            self.deadline = self.deadline.into_iter().chain(next).min();
        }
    }

    /// Takes over a changed set of uplinks.
    pub(super) fn reconfigure(
        &mut self,
        uplinks: &PerUplink<UplinkSettings>,
        kept: UplinkSet,
        now: Time,
    ) {
        self.last = uplinks.carry(&self.last, kept, |_, settings| tried_before(settings, now));
    }
}

/// For an uplink that starts as Down. An earlier run may have recovered it a moment ago, or it may still be coming up: its grace period
/// runs from the start.
fn tried_before(rules: &UplinkSettings, start: Time) -> Option<Time> {
    let down = !rules.carrier
        || rules
            .earlier
            .values()
            .any(|earlier| *earlier == Health::Down);
    down.then_some(start)
}
