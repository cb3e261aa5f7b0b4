//! What should be done, and why.

#[cfg(doc)]
use super::Input;
use super::{Family, Health, TargetId, Time, UplinkId, UplinkSet};

/// Why a switch happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The start-up check chose the first active uplink.
    Startup,
    /// The active uplink is Down, or a member of the active group.
    Failover,
    /// A more preferred uplink is Up again, or a member of the active group.
    Failback,
    /// The family has no targets of its own and does what the other one did.
    Follow,
    /// Somebody wanted it.
    Manual,
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Cause::Startup => "start-up",
            Cause::Failover => "failover",
            Cause::Failback => "failback",
            Cause::Follow => "follow",
            Cause::Manual => "manual",
        })
    }
}

/// A decision about who carries a family's new traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Which family.
    pub family: Family,
    /// The active uplinks until now; empty: none.
    pub from: UplinkSet,
    /// The new ones; some of them may be among the old. Never empty.
    pub to: UplinkSet,
    /// Why.
    pub cause: Cause,
    /// When the fact came in that made the decision possible: the end of the round that made the old uplink Down, or the new one Up.
    pub detected: Time,
    /// When the decision fell.
    pub decided: Time,
}

/// What should be done, or should be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make [`Switch::to`] the active uplinks of the family: routes first, then gates. Must be answered with [`Input::Switched`].
    Switch(Switch),
    /// End what is still going on by an uplink that is no longer active: close its gate, then see to connections.
    Cut {
        /// In which family.
        family: Family,
        /// Which uplink.
        uplink: UplinkId,
        /// Why it was left, in the end: [`Cause::Failback`] for a more preferred one while it worked (its drain is over), by
        /// hand too; never [`Cause::Follow`].
        cause: Cause,
    },
    /// Send a round now, out of turn.
    ProbeNow {
        /// By which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// From now on, these uplinks' default routes must not stand in this family, and those of all others may.
    Withdraw {
        /// In which family.
        family: Family,
        /// Which uplinks: Down, not active. Takes the place of the set before, which is empty at the start.
        uplinks: UplinkSet,
    },
    /// Find out whether probes fail for a reason that lies in this host, and answer with [`Input::Examined`].
    Examine {
        /// Of which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// Run the program that may bring a dead uplink back (a modem that must be switched off and on).
    Recover {
        /// Which uplink.
        uplink: UplinkId,
    },
    /// Report this in the log.
    Report(Event),
}

/// What happened and is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A probe of one target failed while its uplink was not Down: the `failed`-th in a row for that target; `fall` bad rounds make the uplink Down.
    ProbeFailed {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// Which target.
        target: TargetId,
        /// Consecutive failures of this target.
        failed: u32,
        /// Failed rounds in a row that make the uplink Down.
        fall: u32,
    },
    /// Health changed.
    Health {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// What it was.
        from: Health,
        /// What it is.
        to: Health,
    },
    /// The active uplink is Down and nothing better is proven: nothing changes.
    NowhereToGo {
        /// In which family.
        family: Family,
        /// The active uplinks, if there are any.
        active: UplinkSet,
    },
    /// A more preferred uplink is Up but must stay good until `until` before the failback.
    Holding {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// When the failback is due.
        until: Time,
    },
    /// The uplink of a manual override is Down: the ranks decide again.
    Released {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// A drill is over.
    DrillEnded {
        /// Which uplink.
        uplink: UplinkId,
        /// The family that has no other uplink any more, if that ended it before its time.
        alone: Option<Family>,
    },
}
