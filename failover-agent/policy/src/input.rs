//! The facts that the machine is fed with.

use core::time::Duration;

#[cfg(doc)]
use super::Action;
use super::{Family, TargetId, Time, UplinkId, UplinkSet};

/// How one probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered in time.
    Reply {
        /// Round-trip time; `None` if it is unknown, because the answer waited in the socket for an unknown time before it was read.
        rtt: Option<Duration>,
    },
    /// No answer came in time, or the network reported that the target cannot be reached.
    Lost,
    /// Says nothing about the link, for a reason on this host: the probe could not be sent, or its socket could not be read.
    Blind,
}

/// A fact about the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A probe ended.
    Probe {
        /// The uplink by which it left.
        uplink: UplinkId,
        /// Its family.
        family: Family,
        /// Number of its round. Numbers grow by one from round to round of one uplink and family, until [`Input::Moved`].
        round: u64,
        /// When the round was sent.
        sent: Time,
        /// The target that it asked.
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
    /// An uplink gained or lost what it needs (address, egress path) to carry a family's traffic.
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
        /// Whether the new route stands and was confirmed. If not, the machine tries again after a back-off, as long as the cause of the
        /// switch lasts.
        confirmed: bool,
    },
    /// The answer to an [`Action::Examine`]. The caller may also send it unasked while rounds are bad.
    Examined {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
        /// Whether a reason that lies in this host explains why the probes fail.
        blind: bool,
    },
    /// A hint that an uplink may be dead: its gateway does not answer, or much is sent and nothing is received.
    Suspect {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
    /// From now on, probes leave with another source address or by another gateway, or go to other targets. Probes that are still
    /// unanswered count for nothing, and the numbers of rounds may start again.
    ///
    /// The caller must send this, after it has informed the prober, whenever the source address or the gateway changes while the uplink
    /// stays usable, and when it replaces the prober for a reason that [`UplinkSettings`](super::UplinkSettings) do not show.
    Moved {
        /// Which uplink.
        uplink: UplinkId,
        /// In which family.
        family: Family,
    },
}
