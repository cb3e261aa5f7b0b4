//! The keys of `[probe]`.

use super::{
    address::Targets,
    key::{Key, Section, millis, seconds},
    kind::{Number, Span},
};

pub(super) static TARGETS: Key<Targets> = Key {
    name: "targets",
    kind: Targets,
    default: "`[\"1.1.1.1\", \"8.8.8.8\", \"9.9.9.9\"]`",
    about: "the hosts to probe, all beyond the gateways: an address on an uplink's own network is refused; each family has its own health, and a family without targets follows the other",
};
pub(super) static INTERVAL: Key<Span> = Key {
    name: "interval",
    kind: Span {
        min: millis(10),
        max: seconds(3600),
    },
    default: "`\"1s\"`",
    about: "time from one round to the next",
};
pub(super) static TIMEOUT: Key<Span> = Key {
    name: "timeout",
    kind: Span {
        min: millis(10),
        max: seconds(60),
    },
    default: "`\"1s\"`",
    about: "how long a probe waits for its answer; may be up to 100 intervals. Once a later round is good, earlier ones that time out make nothing Down",
};
pub(super) static FALL: Key<Number> = Key {
    name: "fall",
    kind: Number {
        unit: "rounds",
        min: 1,
        max: 1000,
    },
    default: "`3`",
    about: "consecutive bad rounds to become Down",
};
pub(super) static RISE: Key<Number> = Key {
    name: "rise",
    kind: Number {
        unit: "rounds",
        min: 1,
        max: 1000,
    },
    default: "`4`",
    about: "consecutive good rounds to become Up",
};
pub(super) static QUORUM: Key<Number> = Key {
    name: "quorum",
    kind: Number {
        unit: "targets",
        min: 1,
        max: 32,
    },
    default: "`1`",
    about: "targets that must answer for a round to be good; at most the number of targets of each family that has any",
};
pub(super) static HOLD: Key<Span> = Key {
    name: "hold",
    kind: Span {
        min: seconds(0),
        max: seconds(86_400),
    },
    default: "`\"0s\"`",
    about: "how long an uplink must have been good without interruption before a failback to it",
};

/// How uplinks are probed.
pub(super) static PROBE: Section = Section {
    name: "probe",
    header: "[probe]",
    keys: &[&TARGETS, &INTERVAL, &TIMEOUT, &FALL, &RISE, &QUORUM, &HOLD],
    inherits: None,
};
