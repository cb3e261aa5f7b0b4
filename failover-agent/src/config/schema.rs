//! Every key (those of an uplink are in `uplink_keys`): name, values, default, meaning. The reader, the errors and `docs/configuration.md`
//! all follow this list (a test compares the document with it).

use super::{
    AttachMode, CutoffMode, OnDown,
    allow::{Marks, Prefixes},
    key::{DRAIN_SPAN, Key, METRIC, Section, millis, seconds},
    kind::{Command, Directory, Number, Protocol, Span, Word},
    probe_keys::PROBE,
    uplink_keys::UPLINK,
};

pub(super) static ACTIVE_METRIC: Key<Number> = Key {
    name: "active_metric",
    kind: METRIC,
    default: "`80`",
    about: "metric of the active uplink's default route; less than `standby_metric`",
};
pub(super) static STANDBY_METRIC: Key<Number> = Key {
    name: "standby_metric",
    kind: METRIC,
    default: "`5000`",
    about: "metric of the standbys' default routes, plus the uplink's position, from 0",
};
pub(super) static PROTOCOL: Key<Protocol> = Key {
    name: "protocol",
    kind: Protocol,
    default: "`136`",
    about: "marks the agent's routes; `reset` removes routes by it",
};
pub(super) static TABLE: Key<Number> = Key {
    name: "table",
    kind: Number {
        unit: "routing table",
        min: 1,
        max: 4_000_000_000,
    },
    default: "`13600`",
    about: "the first uplink's own routing table; one for each uplink follows, none of them 253 to 255",
};
pub(super) static RULE_PRIORITY: Key<Number> = Key {
    name: "rule_priority",
    kind: Number {
        unit: "rule priority",
        min: 1,
        max: 32_000,
    },
    default: "`13600`",
    about: "priority of the agent's first rule; the others follow, all before the main table's 32766",
};
pub(super) static MARK: Key<Number> = Key {
    name: "mark",
    kind: Number {
        unit: "`SO_MARK`",
        min: 1,
        max: u32::MAX,
    },
    default: "`0xfa11`",
    about: "mark of the agent's own probes, for the rule that routes them. A closed gate identifies them by their sockets, even if the mark is rewritten",
};

pub(super) static ON_DOWN: Key<Word<OnDown>> = Key {
    name: "on_down",
    kind: Word {
        words: &[("demote", OnDown::Demote), ("withdraw", OnDown::Withdraw)],
    },
    default: "`\"demote\"`",
    about: "what happens to the default route of an uplink that is Down while another one is active: it stands behind the others, or it is removed until the uplink is Up again",
};

/// Metrics, protocol, tables, rules.
pub(super) static ROUTE: Section = Section {
    name: "route",
    header: "[route]",
    keys: &[
        &ACTIVE_METRIC,
        &STANDBY_METRIC,
        &PROTOCOL,
        &TABLE,
        &RULE_PRIORITY,
        &MARK,
        &ON_DOWN,
    ],
    inherits: None,
};

pub(super) static MODE: Key<Word<CutoffMode>> = Key {
    name: "mode",
    kind: Word {
        words: &[
            ("reset", CutoffMode::Reset),
            ("drop", CutoffMode::Drop),
            ("off", CutoffMode::Off),
        ],
    },
    default: "`\"reset\"`",
    about: "what a closed gate does: `reset` answers the sender (TCP with a RST, the rest with ICMP), `drop` cuts packets silently, `off` never closes a gate",
};
/// A separate mode for one kind of switch.
const OWN_MODE: Word<Option<CutoffMode>> = Word {
    words: &[
        ("reset", Some(CutoffMode::Reset)),
        ("drop", Some(CutoffMode::Drop)),
        ("off", Some(CutoffMode::Off)),
    ],
};
pub(super) static FAILOVER: Key<Word<Option<CutoffMode>>> = Key {
    name: "failover",
    kind: OWN_MODE,
    default: "as `mode`",
    about: "the mode for uplinks that are left because they are Down, at the start, and by a manual override with a less preferred one",
};
pub(super) static FAILBACK: Key<Word<Option<CutoffMode>>> = Key {
    name: "failback",
    kind: OWN_MODE,
    default: "as `mode`",
    about: "the mode for uplinks that are left for a more preferred one while they work",
};
pub(super) static DRAIN: Key<Span> = Key {
    name: "drain",
    kind: DRAIN_SPAN,
    default: "`\"0s\"`",
    about: "how long old connections may finish on an uplink that is left for a more preferred one while it works; new ones use the preferred one at once",
};
pub(super) static ALLOW: Key<Prefixes> = Key {
    name: "allow",
    kind: Prefixes,
    default: "`[]`",
    about: "networks that stay reachable by every uplink, whatever its gate",
};
pub(super) static ALLOW_MARKS: Key<Marks> = Key {
    name: "allow_marks",
    kind: Marks,
    default: "`[]`",
    about: "packets with one of these marks pass every gate",
};
pub(super) static LEASE: Key<Span> = Key {
    name: "lease",
    kind: Span {
        min: seconds(1),
        max: seconds(3600),
    },
    default: "`\"3s\"`",
    about: "how long gates stay closed unless the agent renews the lease: after that, a dead agent's gates are open",
};

/// What a closed gate does.
pub(super) static CUTOFF: Section = Section {
    name: "cutoff",
    header: "[cutoff]",
    keys: &[
        &MODE,
        &FAILOVER,
        &FAILBACK,
        &DRAIN,
        &LEASE,
        &ALLOW,
        &ALLOW_MARKS,
    ],
    inherits: None,
};

pub(super) static ATTACH: Key<Word<AttachMode>> = Key {
    name: "attach",
    kind: Word {
        words: &[
            ("auto", AttachMode::Auto),
            ("tcx", AttachMode::Tcx),
            ("clsact", AttachMode::Clsact),
        ],
    },
    default: "`\"auto\"`",
    about: "how the programs are attached: `auto` takes TCX (Linux 6.6 and newer), else clsact",
};

/// How the programs are attached.
pub(super) static DATAPATH: Section = Section {
    name: "datapath",
    header: "[datapath]",
    keys: &[&ATTACH],
    inherits: None,
};

pub(super) static ON_SWITCH: Key<Command> = Key {
    name: "on_switch",
    kind: Command,
    default: "`[]`",
    about: "program and arguments to run after each switch, without a shell; its environment holds `UPLINK`, `INTERFACE`, `GATEWAY`, `PREVIOUS`, `REASON` and `FAMILY`",
};
pub(super) static HOOK_TIMEOUT: Key<Span> = Key {
    name: "timeout",
    kind: Span {
        min: millis(100),
        max: seconds(3600),
    },
    default: "`\"30s\"`",
    about: "how long such a program, or an uplink's `recover`, may run before it and its children are ended",
};

/// Other programs that are run.
pub(super) static HOOKS: Section = Section {
    name: "hooks",
    header: "[hooks]",
    keys: &[&ON_SWITCH, &HOOK_TIMEOUT],
    inherits: None,
};

pub(super) static RUN_DIR: Key<Directory> = Key {
    name: "run",
    kind: Directory,
    default: "`\"/run/failover-agent\"`",
    about: "lock, control socket, and what is valid until the next boot: displaced routes, health (`--run-dir`)",
};
pub(super) static BPF_DIR: Key<Directory> = Key {
    name: "bpf",
    kind: Directory,
    default: "`\"/sys/fs/bpf/failover-agent\"`",
    about: "pinned maps and links, on a BPF file system (`--bpf-dir`)",
};
pub(super) static STATE_DIR: Key<Directory> = Key {
    name: "state",
    kind: Directory,
    default: "`\"/var/lib/failover-agent\"`",
    about: "what outlives a boot: learned gateways, a drill (`--state-dir`)",
};

/// Where the agent keeps its files.
pub(super) static DIRS: Section = Section {
    name: "dirs",
    header: "[dirs]",
    keys: &[&RUN_DIR, &BPF_DIR, &STATE_DIR],
    inherits: None,
};

/// All tables of a file.
pub(super) static SECTIONS: [&Section; 7] =
    [&PROBE, &ROUTE, &CUTOFF, &DATAPATH, &HOOKS, &DIRS, &UPLINK];
