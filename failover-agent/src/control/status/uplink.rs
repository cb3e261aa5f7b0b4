//! One uplink in the status: its health in each family, its programs, and what they have counted.

use std::{net::IpAddr, time::SystemTime};

use failover_ebpf::Gate;
use failover_policy::{Family, Health};
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::LOSS_ROUNDS;
use crate::control::words::{GateWord, HealthWord, rfc3339};

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
    /// Seconds until the end of the drill in which it counts as Down; null if there is none.
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
    /// `tcx` or `clsact`; null if the programs are not attached: then the gates are open and nothing is cut.
    pub hook: Option<Hook>,
    /// Why the programs are not attached; null if they are, or if the interface does not exist.
    pub reason: Option<String>,
}

/// How the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// As TCX links.
    Tcx,
    /// As filters of a clsact qdisc.
    Clsact,
}

/// Both families of an uplink; null where the uplink is not in use for lack of an address or egress path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Families {
    /// IPv4.
    pub ipv4: Option<FamilyState>,
    /// IPv6.
    pub ipv6: Option<FamilyState>,
}

impl Families {
    /// The given family.
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
    /// The source address of its probes; null if it has none.
    pub source: Option<IpAddr>,
    /// `Unknown`, `Up`, `Down` or `Blind`.
    #[serde(with = "HealthWord")]
    pub health: Health,
    /// Why it is `Blind`, and the cure; null if it is not Blind, or the reason is unknown.
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
    /// Seconds for which old connections may still use it before it is cut; null if it is not draining.
    pub draining_s: Option<f64>,
}

/// What the programs have counted on one interface since they were first attached.
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
    /// Probes of the agent that a closed gate cut, because it could not identify them.
    pub probes_cut: u64,
    /// Cut packets that were answered with a TCP RST.
    pub resets_sent: u64,
    /// Cut packets that were answered with ICMP or ICMPv6.
    pub icmp_sent: u64,
    /// Cut packets that were not answered.
    pub dropped: u64,
    /// Cut packets with another uplink's address, whatever the gate.
    pub stale_cut: u64,
    /// Milliseconds since the last packet from beyond the on-link prefixes arrived; null: never.
    pub last_rx_ms_ago: Option<u64>,
}

impl Counters {
    /// From the map's totals, at `now_ns` nanoseconds of `CLOCK_MONOTONIC`.
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

/// The parts of an [`Uplink`] that are not repeated from its primary family.
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
    /// Seconds until the end of its drill; null if it is in none.
    pub drill_s: Option<f64>,
    /// The programs on its interface.
    pub programs: Programs,
    /// What the programs have counted.
    pub counters: Counters,
    /// Each family in which it is in use.
    pub families: Families,
}

impl Uplink {
    /// Completes an uplink by repeating its state in the `primary` family. If it is not in use in that family: no gateway, health Unknown
    /// since `started`, gate open.
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
