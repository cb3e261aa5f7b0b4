//! The status model: what `status --json` prints. Its schema is documented in `docs/configuration.md`.
//!
//! Within one [`VERSION`] keys are only added: readers must ignore those that they do not know.

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use failover_ebpf::Gate;
use failover_policy::{Cause, Family, Health};
use serde::{Deserialize, Serialize};

use super::words::{CauseWord, FamilyWord, GateWord, HealthWord, rfc3339};

/// Version of the schema; grows when a key's meaning changes or a key goes away.
pub const VERSION: u32 = 1;

/// Most switches that a status tells of.
pub const MAX_SWITCHES: usize = 20;

/// Rounds over which loss is counted.
pub const LOSS_ROUNDS: usize = 60;

/// Everything that the agent knows at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// When this was true.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// The family that `active` and the uplinks' own fields describe: IPv4 if it is probed, else IPv6.
    #[serde(with = "FamilyWord")]
    pub primary: Family,
    /// Name of the uplink that carries new traffic of the primary family, of a balance group the [`joined`] names; null if there is none.
    pub active: Option<String>,
    /// In order of preference.
    pub uplinks: Vec<Uplink>,
    /// The last [`MAX_SWITCHES`] switches, newest first.
    pub switches: Vec<Switch>,
    /// Programs that undo again and again what the agent does.
    pub conflicts: Vec<Conflict>,
    /// Default routes of others, not on uplinks, that stand in front of the agent's or have a metric of them.
    #[serde(default)]
    pub foreign_defaults: Vec<ForeignDefault>,
    /// The deadline past which every gate counts as open.
    pub lease: Lease,
    /// Lines that the log does not have.
    pub log: Log,
    /// The agent itself.
    pub agent: Agent,
}

/// The names of uplinks that share new traffic, as one word; None: no uplink.
pub fn joined<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(str::to_owned)
        .reduce(|all, name| all + "," + &name)
}

/// One uplink. `gateway` to `gate` repeat the primary family's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// Its rank: the lowest is the most preferred, equal ones are a balance group.
    pub rank: u32,
    /// Its gateway; null on a point-to-point link, or if none is known.
    pub gateway: Option<IpAddr>,
    /// `Unknown`, `Up`, `Down` or `Blind`.
    #[serde(with = "HealthWord")]
    pub health: Health,
    /// Since when it has had this health.
    #[serde(with = "rfc3339")]
    pub health_since: SystemTime,
    /// Last round-trip time in milliseconds; null before the first answer.
    pub rtt_ms: Option<f64>,
    /// Percentage of lost probes over the last [`LOSS_ROUNDS`] rounds; null before the first round.
    pub loss_pct: Option<f64>,
    /// `open` or `closed`.
    #[serde(with = "GateWord")]
    pub gate: Gate,
    /// Whether traffic on it costs money.
    pub metered: bool,
    /// Seconds until the end of the drill in which it counts as Down; null if it is in none.
    pub drill_s: Option<f64>,
    /// The programs on its interface, as the kernel has them.
    pub programs: Programs,
    /// What the programs have counted on its interface.
    pub counters: Counters,
    /// Each family in which it is in use.
    pub families: Families,
}

/// The programs on an uplink's interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// `tcx` or `clsact`; null: they are not attached, so that the gates are open and nothing is cut.
    pub hook: Option<Hook>,
    /// Why they are not attached; null if they are, or the interface is not there.
    pub reason: Option<String>,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// As TCX links.
    Tcx,
    /// As filters of a clsact qdisc.
    Clsact,
}

/// Both families of an uplink; null where it is not in use, having no address or no egress path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Families {
    /// IPv4.
    pub ipv4: Option<FamilyState>,
    /// IPv6.
    pub ipv6: Option<FamilyState>,
}

impl Families {
    /// One of them.
    pub fn get(&self, family: Family) -> Option<&FamilyState> {
        match family {
            Family::V4 => self.ipv4.as_ref(),
            Family::V6 => self.ipv6.as_ref(),
        }
    }
}

/// One family of an uplink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FamilyState {
    /// Its gateway; null on a point-to-point link, or if none is known.
    pub gateway: Option<IpAddr>,
    /// The address from which it is probed; null if it has none.
    pub source: Option<IpAddr>,
    /// `Unknown`, `Up`, `Down` or `Blind`.
    #[serde(with = "HealthWord")]
    pub health: Health,
    /// Why it is `Blind`, and the cure; null if it is not, or nobody knows.
    pub reason: Option<String>,
    /// Since when it has had this health.
    #[serde(with = "rfc3339")]
    pub since: SystemTime,
    /// Last round-trip time in milliseconds; null before the first answer.
    pub rtt_ms: Option<f64>,
    /// Percentage of lost probes over the last [`LOSS_ROUNDS`] rounds; null before the first round.
    pub loss_pct: Option<f64>,
    /// `open` or `closed`.
    #[serde(with = "GateWord")]
    pub gate: Gate,
    /// Whether it carries new traffic of this family.
    pub active: bool,
    /// Whether a manual override keeps it active.
    pub manual_override: bool,
    /// Seconds for which old connections may still finish on it before it is cut; null if they need not, or may no longer.
    pub draining_s: Option<f64>,
}

/// What the programs have counted on one interface since they were attached first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets sent, cut ones included.
    pub tx_packets: u64,
    /// Their bytes, link-layer header included.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Their bytes, link-layer header included.
    pub rx_bytes: u64,
    /// Packets that a closed gate cut.
    pub cut_packets: u64,
    /// Their bytes.
    pub cut_bytes: u64,
    /// Probes of the agent that passed, whatever the gate.
    pub probes_passed: u64,
    /// Probes of the agent that a closed gate cut, because it could not know them.
    pub probes_cut: u64,
    /// Cut packets that were answered by a TCP RST.
    pub resets_sent: u64,
    /// Cut packets that were answered by ICMP or ICMPv6.
    pub icmp_sent: u64,
    /// Cut packets that were not answered.
    pub dropped: u64,
    /// Cut packets with another uplink's address, whatever the gate.
    pub stale_cut: u64,
    /// Milliseconds since the last packet from beyond the on-link prefixes arrived; null: never.
    pub last_rx_ms_ago: Option<u64>,
}

impl Counters {
    /// From the map's totals, at `now_ns` of `CLOCK_MONOTONIC`.
    pub fn new(totals: &failover_ebpf::Counters, now_ns: u64) -> Self {
        Counters {
            tx_packets: totals.tx_packets,
            tx_bytes: totals.tx_bytes,
            rx_packets: totals.rx_packets,
            rx_bytes: totals.rx_bytes,
            cut_packets: totals.cut_packets,
            cut_bytes: totals.cut_bytes,
            probes_passed: totals.probes_passed,
            probes_cut: totals.probes_cut,
            resets_sent: totals.resets_sent,
            icmp_sent: totals.icmp_sent,
            dropped: totals.dropped,
            stale_cut: totals.stale_cut,
            last_rx_ms_ago: (totals.last_rx_ns != 0)
                .then(|| now_ns.saturating_sub(totals.last_rx_ns) / 1_000_000),
        }
    }
}

/// One switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// When its reason was detected.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// Name of the active uplink until then, of a balance group the [`joined`] names; null if there was none.
    pub from: Option<String>,
    /// The new one, likewise.
    pub to: String,
    /// `start-up`, `failover`, `failback`, `follow` or `manual`.
    #[serde(with = "CauseWord")]
    pub cause: Cause,
    /// Whether the kernel confirmed the new route. If not, nothing else was changed.
    pub confirmed: bool,
    /// Sockets of this host that were ended; null: not looked at.
    pub sockets_ended: Option<u64>,
    /// Tracked flows that were deleted; null: not looked at.
    pub flows_deleted: Option<u64>,
    /// When each step was done.
    pub timeline: Timeline,
}

/// The steps of a switch in microseconds after its reason was detected; null for those that were not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The origin: always 0.
    pub detected_us: u64,
    /// The decision fell.
    pub decided_us: u64,
    /// The new route stood and was confirmed, the old one was demoted.
    pub routed_us: Option<u64>,
    /// The gates were set.
    pub gated_us: Option<u64>,
    /// Everything was cut that was left.
    pub cut_us: Option<u64>,
}

/// A program that undoes again and again what the agent does to routes or rules, which repairs it each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Its name, or its protocol number, or `an unknown program`.
    pub contender: String,
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// What it does, to follow its name.
    pub what: String,
    /// Repairs so far.
    pub repairs: u64,
    /// When the first of them was made.
    #[serde(with = "rfc3339")]
    pub since: SystemTime,
    /// What the user can do about it.
    pub remedy: String,
}

/// A default route of somebody else's that is not displaced, because its interface is no uplink or it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignDefault {
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// As `ip route` prints it.
    pub route: String,
    /// Whether it rejects or drops packets (`unreachable`, `prohibit`, `blackhole`, `throw`).
    pub rejects: bool,
    /// What it means for the agent's.
    pub effect: ForeignEffect,
    /// Whose default route it concerns; of a balance group the [`joined`] names.
    pub uplink: String,
    /// The metric that this one should have; null if it has it anyway.
    pub wanted_metric: Option<u32>,
    /// The metric that it has.
    pub metric: u32,
}

/// See [`ForeignDefault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForeignEffect {
    /// It decides about new traffic before the active uplink's does.
    InFront,
    /// It has the metric that an uplink's should have.
    SameMetric,
}

impl ForeignDefault {
    /// What it does, for the log and for whoever reads the status.
    pub fn words(&self) -> String {
        let ForeignDefault {
            family,
            route,
            uplink,
            metric,
            ..
        } = self;
        match (self.effect, self.wanted_metric) {
            (ForeignEffect::InFront, _) => {
                let effect = match self.rejects {
                    true => "which rejects or drops new traffic",
                    false => "and decides where new traffic leaves",
                };
                format!(
                    "{family}: `{route}` stands in front of {uplink}'s default route (metric {metric}), {effect}"
                )
            }
            (ForeignEffect::SameMetric, Some(wanted)) if wanted != *metric => format!(
                "{family}: `{route}` has the metric that {uplink}'s default route should have ({wanted}): this one has {metric} instead"
            ),
            (ForeignEffect::SameMetric, _) => format!(
                "{family}: `{route}` has the same metric as {uplink}'s default route, which stands in front of it"
            ),
        }
    }
}

/// The deadline past which every gate counts as open, because the agent must be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its length in milliseconds.
    pub duration_ms: u64,
    /// Milliseconds until it ends unless it is renewed; null while no gate was ever set.
    pub remaining_ms: Option<u64>,
}

/// Log lines that were not written, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Because standard error took them too slowly, or not at all.
    pub lost: u64,
    /// Because there were too many of their kind within a second.
    pub left_out: u64,
}

/// The agent itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Drawn anew at each start of the program, also at a `restart`, which keeps the process.
    pub instance: String,
    /// When it was started.
    #[serde(with = "rfc3339")]
    pub started: SystemTime,
    /// Whole seconds since then.
    pub uptime_s: u64,
    /// The file that it was configured from; null for flags.
    pub config: Option<PathBuf>,
}

/// The parts of an [`Uplink`] that are not repeated.
#[derive(Clone, Debug)]
pub struct UplinkParts {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// Its rank.
    pub rank: u32,
    /// Whether traffic on it costs money.
    pub metered: bool,
    /// Seconds until the end of its drill.
    pub drill_s: Option<f64>,
    /// The programs on its interface.
    pub programs: Programs,
    /// What the programs have counted.
    pub counters: Counters,
    /// Each family in which it is in use.
    pub families: Families,
}

impl Uplink {
    /// Completes an uplink by repeating what its `primary` family says. If it is not in use in that family: no gateway,
    /// health Unknown since `started`, gate open.
    pub fn new(parts: UplinkParts, primary: Family, started: SystemTime) -> Self {
        let state = parts.families.get(primary);
        Uplink {
            gateway: state.and_then(|state| state.gateway),
            health: state.map_or(Health::Unknown, |state| state.health),
            health_since: state.map_or(started, |state| state.since),
            rtt_ms: state.and_then(|state| state.rtt_ms),
            loss_pct: state.and_then(|state| state.loss_pct),
            gate: state.map_or(Gate::Open, |state| state.gate),
            name: parts.name,
            interface: parts.interface,
            rank: parts.rank,
            metered: parts.metered,
            drill_s: parts.drill_s,
            programs: parts.programs,
            counters: parts.counters,
            families: parts.families,
        }
    }
}

impl Status {
    /// The uplink that carries new traffic of `family`.
    pub fn active_in(&self, family: Family) -> Option<&Uplink> {
        let mut uplinks = self.uplinks.iter();
        uplinks.find(|uplink| {
            let state = uplink.families.get(family);
            state.is_some_and(|state| state.active)
        })
    }
}

/// Milliseconds as the status writes them: with three decimals.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Seconds as the status writes them: with one decimal.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::testing;

    #[test]
    fn json_is_as_documented_and_reads_back() {
        let status = testing::status();
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["at"], "2026-01-02T03:04:05.000006Z");
        assert_eq!(json["primary"], "ipv4");
        assert_eq!(json["active"], "lte");
        let cable = &json["uplinks"][0];
        assert_eq!(cable["gateway"], "192.0.2.1");
        assert_eq!(cable["health"], "Down");
        assert_eq!(cable["health_since"], "2026-01-02T03:02:35.000006Z");
        assert_eq!(cable["rtt_ms"], json!(null));
        assert_eq!(cable["loss_pct"], 100.0);
        assert_eq!(cable["gate"], "closed");
        assert_eq!(cable["counters"]["last_rx_ms_ago"], json!(null));
        assert_eq!(cable["programs"]["hook"], "tcx");
        assert_eq!(json["uplinks"][1]["programs"]["hook"], json!(null));
        assert_eq!(cable["families"]["ipv6"]["active"], true);
        assert_eq!(json["uplinks"][1]["families"]["ipv6"], json!(null));
        let causes = json["switches"].as_array().unwrap().iter();
        let causes: Vec<_> = causes.map(|switch| &switch["cause"]).collect();
        assert_eq!(causes, ["failover", "start-up"]);
        assert_eq!(json["switches"][0]["timeline"]["gated_us"], 830);
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }

    #[test]
    fn an_uplink_without_the_primary_family_says_so() {
        let status = testing::status();
        let lte = &status.uplinks[1];
        let parts = UplinkParts {
            name: lte.name.clone(),
            interface: lte.interface.clone(),
            rank: 1,
            metered: true,
            drill_s: None,
            programs: lte.programs.clone(),
            counters: lte.counters,
            families: lte.families.clone(),
        };
        let uplink = Uplink::new(parts, Family::V6, testing::now());
        assert_eq!(uplink.health, Health::Unknown);
        assert_eq!(uplink.health_since, testing::now());
        assert_eq!(
            (uplink.gateway, uplink.rtt_ms, uplink.loss_pct),
            (None, None, None)
        );
    }

    #[test]
    fn times_become_ages_and_milliseconds() {
        let totals = failover_ebpf::Counters {
            tx_packets: 1,
            last_rx_ns: 5_000_000,
            ..Default::default()
        };
        let counters = Counters::new(&totals, 7_999_999);
        assert_eq!(counters.last_rx_ms_ago, Some(2));
        assert_eq!(counters.tx_packets, 1);
        // Another CPU's clock reading may be a little ahead of ours.
        assert_eq!(Counters::new(&totals, 1).last_rx_ms_ago, Some(0));
        assert_eq!(Counters::new(&Default::default(), 1).last_rx_ms_ago, None);
        assert_eq!(milliseconds(Duration::from_nanos(1_234_567)), 1.235);
    }
}
