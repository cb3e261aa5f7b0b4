//! When the program runs that may bring a dead uplink back.

use std::collections::VecDeque;

use super::{Action, Health, PerUplink, Time, UplinkId, UplinkSet, UplinkSettings};

/// The recoveries of all uplinks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recoveries {
    /// When each uplink was tried last.
    last: PerUplink<Option<Time>>,
    /// When the next recovery is due.
    deadline: Option<Time>,
}

impl Recoveries {
    pub(super) fn new(uplinks: &PerUplink<UplinkSettings>) -> Self {
        let last = uplinks.map(|_, settings| tried_before(settings, Time::default()));
        // Nothing else may happen until then.
        let first = |(uplink, settings): (UplinkId, &UplinkSettings)| {
            Some(last[uplink]? + settings.recover_interval?)
        };
        let deadline = uplinks.iter().filter_map(first).min();
        Recoveries { last, deadline }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Orders what is due. `dead` are the uplinks that nothing is expected of any more, with their grace.
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

    /// The uplinks are others.
    pub(super) fn reconfigure(
        &mut self,
        uplinks: &PerUplink<UplinkSettings>,
        kept: UplinkSet,
        now: Time,
    ) {
        self.last = uplinks.carry(&self.last, kept, |_, settings| tried_before(settings, now));
    }
}

/// An uplink that starts as Down may have been recovered a moment ago by an earlier run, or may be on its way: its grace begins
/// with the start.
fn tried_before(rules: &UplinkSettings, start: Time) -> Option<Time> {
    let down = !rules.carrier
        || rules
            .earlier
            .values()
            .any(|earlier| *earlier == Health::Down);
    down.then_some(start)
}
