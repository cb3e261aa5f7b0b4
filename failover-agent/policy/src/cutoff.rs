//! Which uplinks are cut off, which are draining, and until when.

use core::time::Duration;
use std::collections::VecDeque;

use super::health::Tracker;
use super::{Action, Cause, Family, Health, PerUplink, Time, UplinkId, UplinkSet, UplinkSettings};

/// The state of one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutState {
    /// Active, or not left yet.
    Passing,
    /// No longer active; cut as soon as `due` has passed and the active uplink is proven.
    Leaving { due: Time, cause: Cause },
    /// Cut, once; it stays so until it is active again.
    Cut { cause: Cause },
}

/// The cutoff of one family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cutoff {
    family: Family,
    states: PerUplink<CutState>,
    /// The end of the next drain.
    deadline: Option<Time>,
}

impl Cutoff {
    pub(super) fn new(family: Family, uplinks: &PerUplink<UplinkSettings>) -> Self {
        Cutoff {
            family,
            states: uplinks.map(|_, _| CutState::Passing),
            deadline: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// When the drain of an uplink ends, if it is draining.
    pub(super) fn draining(&self, uplink: UplinkId) -> Option<Time> {
        match self.states.get(uplink)? {
            CutState::Leaving { due, .. } => Some(*due),
            CutState::Passing | CutState::Cut { .. } => None,
        }
    }

    /// Why an uplink was cut, if it was.
    pub(super) fn cut(&self, uplink: UplinkId) -> Option<Cause> {
        match self.states.get(uplink)? {
            CutState::Cut { cause } => Some(*cause),
            CutState::Passing | CutState::Leaving { .. } => None,
        }
    }

    /// A switch to `to` was confirmed: all other uplinks are to be cut, after their drain if they were left for a better one. A drain that
    /// is already running goes on, since the second switch did not leave that uplink.
    pub(super) fn switched(
        &mut self,
        to: UplinkSet,
        cause: Cause,
        trackers: &PerUplink<Tracker>,
        now: Time,
    ) {
        for (id, state) in self.states.iter_mut() {
            if to.contains(id) {
                *state = CutState::Passing;
            } else if *state == CutState::Passing {
                let drain = match cause {
                    Cause::Failback => trackers[id].drain(),
                    _ => Duration::ZERO,
                };
                let due = now + drain;
                *state = CutState::Leaving { due, cause };
            }
        }
    }

    /// Takes over a changed set of uplinks. A new one is cut like any other standby, if there are `standbys`.
    pub(super) fn reconfigure(
        &mut self,
        uplinks: &PerUplink<UplinkSettings>,
        kept: UplinkSet,
        standbys: bool,
        now: Time,
    ) {
        let new = match standbys {
            true => CutState::Leaving {
                due: now,
                cause: Cause::Startup,
            },
            false => CutState::Passing,
        };
        self.states = uplinks.carry(&self.states, kept, |_, _| new);
    }

    /// Issues the cuts that are due, but only while the active uplink is `proven`: nothing is ever cut in favour of another. `judges` holds
    /// the health that decides for this family.
    pub(super) fn decide(
        &mut self,
        proven: bool,
        judges: &PerUplink<Tracker>,
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        self.deadline = None;
        if !proven {
            return;
        }
        for (uplink, state) in self.states.iter_mut() {
            let CutState::Leaving { due, cause } = *state else {
                continue;
            };
            // Nothing can finish on a Down uplink: its connections had better end now.
            if due <= now || judges[uplink].health() == Health::Down {
                *state = CutState::Cut { cause };
                out.push_back(Action::Cut {
                    family: self.family,
                    uplink,
                    cause,
                });
            } else {
                self.deadline = Some(self.deadline.map_or(due, |deadline| deadline.min(due)));
            }
        }
    }
}
