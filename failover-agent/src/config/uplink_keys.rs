//! The keys of an `[[uplink]]`.

use failover_policy::Family;

use super::{
    Inbound,
    address::{GatewayOf, SourceOf},
    key::{DRAIN_SPAN, Key, METRIC, Section, seconds},
    kind::{Command, Interface, Name, Number, Optional, Span, Word, YesNo},
    probe_keys::PROBE,
};

pub(super) static INTERFACE: Key<Interface> = Key {
    name: "interface",
    kind: Interface,
    default: "required",
    about: "the network interface by its name, not by an altname; each only once",
};
pub(super) static NAME: Key<Name> = Key {
    name: "name",
    kind: Name,
    default: "the interface",
    about: "name in logs, status and commands",
};
pub(super) static GATEWAY: Key<GatewayOf> = Key {
    name: "gateway",
    kind: GatewayOf(Family::V4),
    default: "`\"auto\"`",
    about: "IPv4 gateway: learned from the routing table, given, or `none` on a point-to-point link",
};
pub(super) static GATEWAY6: Key<GatewayOf> = Key {
    name: "gateway6",
    kind: GatewayOf(Family::V6),
    default: "`\"auto\"`",
    about: "the same for IPv6",
};
pub(super) static SOURCE: Key<Optional<SourceOf>> = Key {
    name: "source",
    kind: Optional(SourceOf(Family::V4)),
    default: "chosen",
    about: "the address of this interface from which probes leave and that its default route prefers, where it has several; while the interface does not have it, the uplink has no egress path",
};
pub(super) static SOURCE6: Key<Optional<SourceOf>> = Key {
    name: "source6",
    kind: Optional(SourceOf(Family::V6)),
    default: "chosen",
    about: "the same for IPv6",
};
pub(super) static METERED: Key<YesNo> = Key {
    name: "metered",
    kind: YesNo,
    default: "`false`",
    about: "whether traffic on it costs money (shown in the status)",
};

pub(super) static UPLINK_DRAIN: Key<Span> = Key {
    name: "drain",
    kind: DRAIN_SPAN,
    default: "that of `[cutoff]`",
    about: "how long old connections may finish on this uplink, if not as long as on the others (a metered one, for example)",
};
pub(super) static INBOUND: Key<Word<Inbound>> = Key {
    name: "inbound",
    kind: Word {
        words: &[("keep", Inbound::Keep), ("cut", Inbound::Cut)],
    },
    default: "`\"keep\"`",
    about: "connections that came in by this uplink while it is a standby: `keep` lets it answer them, `cut` ends them like all others",
};

pub(super) static RANK: Key<Optional<Number>> = Key {
    name: "rank",
    kind: Optional(Number {
        unit: "rank",
        min: 0,
        max: 1_000_000,
    }),
    default: "its position, from 0",
    about: "order of preference, the lowest first; uplinks of equal rank are a balance group: they share new connections",
};
pub(super) static WEIGHT: Key<Optional<Number>> = Key {
    name: "weight",
    kind: Optional(Number {
        unit: "shares",
        min: 1,
        max: 256,
    }),
    default: "one share",
    about: "its share of the new connections of a balance group",
};
pub(super) static METRIC_OF: Key<Optional<Number>> = Key {
    name: "metric",
    kind: Optional(METRIC),
    default: "that of `[route]`",
    about: "a metric of its own for its default route, as active uplink and as standby; less than `standby_metric`. While a standby's own metric would beat the active uplink's, it stands at `standby_metric`",
};
pub(super) static RECOVER: Key<Command> = Key {
    name: "recover",
    kind: Command,
    default: "`[]`",
    about: "program and arguments that bring a faulty uplink back to life (power-cycle a modem), without a shell; run when it is Down, and again each `recover_interval` while it stays Down",
};
pub(super) static RECOVER_INTERVAL: Key<Span> = Key {
    name: "recover_interval",
    kind: Span {
        min: seconds(1),
        max: seconds(86_400),
    },
    default: "`\"5m\"`",
    about: "least time between two runs of `recover`",
};

/// One uplink; the order of these tables is the order of preference.
pub(super) static UPLINK: Section = Section {
    name: "uplink",
    header: "[[uplink]]",
    keys: &[
        &INTERFACE,
        &NAME,
        &GATEWAY,
        &GATEWAY6,
        &SOURCE,
        &SOURCE6,
        &METERED,
        &UPLINK_DRAIN,
        &INBOUND,
        &RANK,
        &WEIGHT,
        &METRIC_OF,
        &RECOVER,
        &RECOVER_INTERVAL,
    ],
    inherits: Some(&PROBE),
};
