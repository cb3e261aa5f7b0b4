//! What the machine wants done, and why.

#[cfg(doc)]
use super::Input;
use super::{Family, Health, TargetId, Time, UplinkId, UplinkSet};

/// Why a switch happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The start-up check chose the first active uplink.
    Startup,
    /// The active uplink, or a member of the active group, is Down.
    Failover,
    /// A more preferred uplink, or a member of the active group, is Up again.
    Failback,
    /// The family has no targets of its own and followed the other family.
    Follow,
    /// A user's command asked for it.
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

/// A decision about which uplinks carry a family's new traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Which family.
    pub family: Family,
    /// The active uplinks before the switch; empty if there were none.
    pub from: UplinkSet,
    /// The active uplinks after it; some may have been active before. Never empty.
    pub to: UplinkSet,
    /// Why.
    pub cause: Cause,
    /// When the fact arrived that made the decision possible: the end of the round that made the old uplink Down, or the new one Up.
    pub detected: Time,
    /// When the machine decided.
    pub decided: Time,
}

/// Something to do or to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make [`Switch::to`] the active uplinks of the family: routes first, then gates. The caller must answer with [`Input::Switched`].
    Switch(Switch),
    /// End the connections that still use an uplink which is no longer active: close its gate first, then end them.
    Cut {
        /// In which family.
        family: Family,
        /// Which uplink.
        uplink: UplinkId,
        /// Why the uplink was left: [`Cause::Failback`] if it worked and was left for a more preferred one or by a command (its drain is
        /// over); never [`Cause::Follow`].
        cause: Cause,
    },
    /// Send a round of probes now, out of turn.
    ProbeNow {
        /// By which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// From now on, the default routes of these uplinks must not stand in this family; those of all others may.
    Withdraw {
        /// In which family.
        family: Family,
        /// The uplinks, which are Down and not active. Replaces the previous set; the set is empty at the start.
        uplinks: UplinkSet,
    },
    /// Find out whether probes fail for a reason on this host, and answer with [`Input::Examined`].
    Examine {
        /// Of which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// Run the user's program that may bring a dead uplink back (by power-cycling a modem, for example).
    Recover {
        /// Which uplink.
        uplink: UplinkId,
    },
    /// Report this event in the log.
    Report(Event),
}

/// What happened and is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A probe of one target failed while its uplink was not Down.
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
    /// The health of an uplink changed.
    Health {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// The health before.
        from: Health,
        /// The health now.
        to: Health,
    },
    /// The active uplink is Down and no other is proven: nothing changes.
    NowhereToGo {
        /// In which family.
        family: Family,
        /// The active uplinks, if there are any.
        active: UplinkSet,
    },
    /// A more preferred uplink is Up, but must stay good until `until` before the failback.
    Holding {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// When the failback is due.
        until: Time,
    },
    /// The uplink of a manual override is Down: the override has ended, and the ranks decide again.
    Released {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// A drill has ended.
    DrillEnded {
        /// Which uplink.
        uplink: UplinkId,
        /// The family that has no other uplink left, if that ended the drill early.
        alone: Option<Family>,
    },
}
