//! What was configured, before the values are compared with each other. From here on, files and flags are treated alike.

use std::{collections::HashSet, net::IpAddr, path::PathBuf, time::Duration};

use failover_policy::Family;
use ipnet::IpNet;

use super::{
    AttachMode, Config, CutoffConfig, CutoffMode, DatapathConfig, Dirs, Gateway, HooksConfig,
    Inbound, OnDown, ProbeConfig, RouteConfig, UplinkConfig,
    raw::{Placed, invalid},
};
use crate::failure::Failure;

/// Greatest number of targets of an uplink.
const MAX_TARGETS: usize = 32;

/// Greatest number of rounds of one uplink that can be in flight at once.
const MAX_ROUNDS_IN_FLIGHT: u32 = 100;

/// Least time between two runs of an uplink's `recover`, unless configured.
const RECOVER_INTERVAL: Duration = Duration::from_secs(300);

/// The whole configuration, each value in its range.
pub(super) struct Draft {
    /// The start of the file, or "command line".
    pub(super) place: String,
    pub(super) probe: ProbeDraft,
    pub(super) uplinks: Vec<UplinkDraft>,
    pub(super) active_metric: Placed<u32>,
    pub(super) standby_metric: Placed<u32>,
    pub(super) protocol: Placed<u8>,
    pub(super) table: Placed<u32>,
    pub(super) rule_priority: Placed<u32>,
    pub(super) mark: Placed<u32>,
    pub(super) on_down: Placed<OnDown>,
    pub(super) mode: Placed<CutoffMode>,
    pub(super) failover: Placed<Option<CutoffMode>>,
    pub(super) failback: Placed<Option<CutoffMode>>,
    /// For uplinks that have none of their own.
    pub(super) drain: Placed<Duration>,
    pub(super) lease: Placed<Duration>,
    pub(super) allow: Placed<Vec<IpNet>>,
    pub(super) allow_marks: Placed<Vec<u32>>,
    pub(super) attach: Placed<AttachMode>,
    pub(super) on_switch: Placed<Vec<String>>,
    pub(super) hook_timeout: Placed<Duration>,
    pub(super) run_dir: Placed<PathBuf>,
    pub(super) bpf_dir: Placed<PathBuf>,
    pub(super) state_dir: Placed<PathBuf>,
}

/// One uplink.
pub(super) struct UplinkDraft {
    pub(super) interface: String,
    pub(super) place: String,
    pub(super) name: Placed<Option<String>>,
    pub(super) gateway: Placed<Gateway>,
    pub(super) gateway6: Placed<Gateway>,
    pub(super) source: Placed<Option<IpAddr>>,
    pub(super) source6: Placed<Option<IpAddr>>,
    pub(super) metered: Placed<bool>,
    pub(super) drain: Placed<Duration>,
    pub(super) inbound: Placed<Inbound>,
    pub(super) rank: Placed<Option<u32>>,
    pub(super) weight: Placed<Option<u32>>,
    pub(super) metric: Placed<Option<u32>>,
    pub(super) recover: Placed<Vec<String>>,
    pub(super) recover_interval: Placed<Duration>,
    pub(super) probe: ProbeDraft,
}

/// How to probe.
#[derive(Clone)]
pub(super) struct ProbeDraft {
    pub(super) targets: Placed<Vec<Placed<IpAddr>>>,
    pub(super) interval: Placed<Duration>,
    pub(super) timeout: Placed<Duration>,
    pub(super) fall: Placed<u32>,
    pub(super) rise: Placed<u32>,
    pub(super) quorum: Placed<u32>,
    pub(super) hold: Placed<Duration>,
}

impl Draft {
    /// The defaults, without uplinks.
    pub(super) fn new(place: String) -> Self {
        let route = RouteConfig::default();
        let cutoff = CutoffConfig::default();
        let hooks = HooksConfig::default();
        let dirs = Dirs::default();
        Draft {
            place,
            probe: ProbeDraft::new(ProbeConfig::default()),
            uplinks: Vec::new(),
            active_metric: Placed::default_value(route.active_metric),
            standby_metric: Placed::default_value(route.standby_metric),
            protocol: Placed::default_value(route.protocol),
            table: Placed::default_value(route.table),
            rule_priority: Placed::default_value(route.rule_priority),
            mark: Placed::default_value(route.mark),
            on_down: Placed::default_value(route.on_down),
            mode: Placed::default_value(cutoff.mode),
            failover: Placed::default_value(cutoff.failover),
            failback: Placed::default_value(cutoff.failback),
            drain: Placed::default_value(Duration::ZERO),
            lease: Placed::default_value(cutoff.lease),
            allow: Placed::default_value(cutoff.allow),
            allow_marks: Placed::default_value(cutoff.allow_marks),
            attach: Placed::default_value(DatapathConfig::default().attach),
            on_switch: Placed::default_value(hooks.on_switch),
            hook_timeout: Placed::default_value(hooks.timeout),
            run_dir: Placed::default_value(dirs.run),
            bpf_dir: Placed::default_value(dirs.bpf),
            state_dir: Placed::default_value(dirs.state),
        }
    }

    /// Compares the values with each other.
    pub(super) fn finish(self) -> Result<Config, Failure> {
        self.check()?;
        for uplink in &self.uplinks {
            uplink.probe.check(uplink.name())?;
        }
        let uplinks = self.uplinks.into_iter().enumerate();
        let mut uplinks: Vec<UplinkConfig> = uplinks
            .map(|(position, uplink)| uplink.finish(position))
            .collect();
        uplinks.sort_by_key(|uplink| uplink.rank);
        Ok(Config {
            uplinks,
            route: RouteConfig {
                active_metric: self.active_metric.value,
                standby_metric: self.standby_metric.value,
                protocol: self.protocol.value,
                table: self.table.value,
                rule_priority: self.rule_priority.value,
                mark: self.mark.value,
                on_down: self.on_down.value,
            },
            cutoff: CutoffConfig {
                mode: self.mode.value,
                failover: self.failover.value,
                failback: self.failback.value,
                lease: self.lease.value,
                allow: self.allow.value,
                allow_marks: self.allow_marks.value,
            },
            datapath: DatapathConfig {
                attach: self.attach.value,
            },
            hooks: HooksConfig {
                on_switch: self.on_switch.value,
                timeout: self.hook_timeout.value,
            },
            dirs: Dirs {
                run: self.run_dir.value,
                bpf: self.bpf_dir.value,
                state: self.state_dir.value,
            },
        })
    }
}

impl UplinkDraft {
    pub(super) fn new(interface: String, place: String, defaults: &Draft) -> Self {
        UplinkDraft {
            interface,
            place,
            name: Placed::default_value(None),
            gateway: Placed::default_value(Gateway::Auto),
            gateway6: Placed::default_value(Gateway::Auto),
            source: Placed::default_value(None),
            source6: Placed::default_value(None),
            metered: Placed::default_value(false),
            drain: defaults.drain.clone(),
            inbound: Placed::default_value(Inbound::Keep),
            rank: Placed::default_value(None),
            weight: Placed::default_value(None),
            metric: Placed::default_value(None),
            recover: Placed::default_value(Vec::new()),
            recover_interval: Placed::default_value(RECOVER_INTERVAL),
            probe: defaults.probe.clone(),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.name.value.as_ref().unwrap_or(&self.interface)
    }

    /// Its own rank, or else the position at which the uplink was written.
    pub(super) fn rank(&self, position: usize) -> u32 {
        self.rank.value.unwrap_or(uplink_count(position))
    }

    fn finish(self, position: usize) -> UplinkConfig {
        let (name, rank) = (self.name().to_owned(), self.rank(position));
        UplinkConfig {
            rank,
            weight: self.weight.value.unwrap_or(1),
            metric: self.metric.value,
            recover_interval: self.recover_interval.value,
            recover: self.recover.value,
            name,
            interface: self.interface,
            gateway: self.gateway.value,
            gateway6: self.gateway6.value,
            source: self.source.value,
            source6: self.source6.value,
            metered: self.metered.value,
            drain: self.drain.value,
            inbound: self.inbound.value,
            probe: self.probe.finish(),
            place: self.place,
        }
    }
}

impl ProbeDraft {
    fn new(probe: ProbeConfig) -> Self {
        let targets = probe.targets.into_iter();
        ProbeDraft {
            targets: Placed::default_value(targets.map(Placed::default_value).collect()),
            interval: Placed::default_value(probe.interval),
            timeout: Placed::default_value(probe.timeout),
            fall: Placed::default_value(probe.fall),
            rise: Placed::default_value(probe.rise),
            quorum: Placed::default_value(probe.quorum),
            hold: Placed::default_value(probe.hold),
        }
    }

    fn check(&self, uplink: &str) -> Result<(), Failure> {
        self.check_targets(uplink)?;
        if self.timeout.value > self.interval.value * MAX_ROUNDS_IN_FLIGHT {
            return Err(invalid(
                written(&[&self.timeout.place, &self.interval.place], uplink),
                format!(
                    "timeout ({}) is more than {MAX_ROUNDS_IN_FLIGHT} times the interval ({})",
                    humantime::format_duration(self.timeout.value),
                    humantime::format_duration(self.interval.value)
                ),
                "choose a shorter timeout or a longer interval",
            ));
        }
        for family in Family::ALL {
            let targets = self.targets.value.iter();
            let count = targets
                .filter(|target| target.value.is_ipv4() == (family == Family::V4))
                .count();
            if count > 0 && self.quorum.value as usize > count {
                return Err(invalid(
                    written(&[&self.quorum.place, &self.targets.place], uplink),
                    format!(
                        "quorum is {} but uplink `{uplink}` has only {count} {family} target(s)",
                        self.quorum.value
                    ),
                    format!("choose a quorum of up to {count}, or add {family} targets"),
                ));
            }
        }
        Ok(())
    }

    fn check_targets(&self, uplink: &str) -> Result<(), Failure> {
        let targets = &self.targets.value;
        if targets.is_empty() || targets.len() > MAX_TARGETS {
            return Err(invalid(
                written(&[&self.targets.place], uplink),
                format!("uplink `{uplink}` has {} targets", targets.len()),
                format!("name 1 to {MAX_TARGETS} addresses to probe"),
            ));
        }
        let mut seen = HashSet::new();
        for target in targets {
            if !seen.insert(target.value) {
                return Err(invalid(
                    written(&[&target.place], uplink),
                    format!("target {} stands there twice", target.value),
                    "name each target once",
                ));
            }
        }
        Ok(())
    }

    fn finish(self) -> ProbeConfig {
        let targets = self.targets.value.into_iter();
        ProbeConfig {
            targets: targets.map(|target| target.value).collect(),
            interval: self.interval.value,
            timeout: self.timeout.value,
            fall: self.fall.value,
            rise: self.rise.value,
            quorum: self.quorum.value,
            hold: self.hold.value,
        }
    }
}

/// The first of `places` that was written: an error never blames a default.
pub(super) fn written(places: &[&Option<String>], fallback: &str) -> String {
    let written = places.iter().find_map(|place| place.as_deref());
    written.unwrap_or(fallback).to_owned()
}

/// The number of uplinks, at most [`failover_ebpf::MAX_UPLINKS`].
pub(super) fn uplink_count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
