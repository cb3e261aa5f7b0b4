//! Facts, as they go in.

use core::time::Duration;

#[cfg(doc)]
use super::Action;
use super::{Family, TargetId, Time, UplinkId, UplinkSet};

/// How one probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered in time.
    Reply {
        /// Round-trip time, if it could be measured: nobody knows for how long an answer has waited to be read.
        rtt: Option<Duration>,
    },
    /// It did not, or the network said that it cannot.
    Lost,
    /// It says nothing of the link, for a reason that lies in this host: it could not be sent, or nobody could look for an answer.
    Blind,
}

/// A fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A probe ended.
    Probe {
        /// The uplink it left by.
        uplink: UplinkId,
        /// Its family.
        family: Family,
        /// Its round; grows by one from round to round of one uplink and family, until [`Input::Moved`].
        round: u64,
        /// When the round was sent.
        sent: Time,
        /// Whom it asked.
        target: TargetId,
        /// How it ended.
        outcome: Outcome,
    },
    /// The carrier of an uplink came or went (an interface that is set down or removed has none).
    Carrier {
        /// Which uplink.
        uplink: UplinkId,
        /// Whether it has carrier now.
        up: bool,
    },
    /// An uplink got or lost the means (address, egress path) to carry a family's traffic.
    Usable {
        /// Which uplink.
        uplink: UplinkId,
        /// Which family.
        family: Family,
        /// Whether it can carry it now.
        usable: bool,
    },
    /// The answer to an [`Action::Switch`].
    Switched {
        /// The family of the switch.
        family: Family,
        /// Its destination.
        to: UplinkSet,
        /// Whether the new route stands and was confirmed. If not, the machine tries again after a while, as long as its reason lasts.
        confirmed: bool,
    },
    /// The answer to an [`Action::Examine`]; may also be given unasked, while rounds are bad.
    Examined {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// Whether a reason that lies in this host explains why the probes fail.
        blind: bool,
    },
    /// A hint that an uplink may be dead: its gateway does not answer, or much is sent and nothing comes back.
    Suspect {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// Probes leave by another address or gateway from now on, or go to other targets. What was sent before and has no answer
    /// yet says nothing any more, and the numbers of the rounds may begin anew.
    ///
    /// Must be sent, after the prober was told, whenever the source address or the gateway changes while the uplink stays
    /// usable, and when the prober is replaced by another one for a reason that [`UplinkSettings`](super::UplinkSettings) do not show.
    Moved {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
}
