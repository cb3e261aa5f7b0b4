//! Answers to control requests.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::SystemTime,
};

use anyhow::Result;
use failover_ebpf::{Gate, Hook};
use failover_policy::{Family, Time, UplinkId};
use nix::time::{ClockId, clock_gettime};

use super::{Agent, switch::SwitchRecord, targets};
use crate::{
    control::{
        Request, Response, Status,
        status::{
            self, Counters, Families, FamilyState, Timeline, UplinkParts, milliseconds, seconds,
        },
    },
    logging,
};

impl Agent<'_> {
    pub(super) fn respond(&mut self, request: &Request) -> Response {
        match request {
            Request::Status => {
                // What it says of the kernel is what the kernel has now.
                self.verify_programs();
                match self.status() {
                    Ok(status) => Response::Status(Box::new(status)),
                    Err(error) => Response::Error(format!("{error:#}")),
                }
            }
            Request::Switch { uplink } => self.command_switch(uplink),
            Request::Drill { uplink, for_ms } => self.command_drill(uplink, *for_ms),
            Request::Reload => self.reload(),
            Request::Restart => self.order_restart(),
            Request::Events { .. } => {
                Response::Error("the control socket itself reports the events".to_owned())
            }
        }
    }

    fn status(&self) -> Result<Status> {
        let now = self.clock.now();
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let monotonic_ns = u64::try_from(std::time::Duration::from(monotonic).as_nanos())?;
        let primary = self.primary();
        let log = logging::counts();
        let started = self.clock.wall(Time::default());
        let uplinks = (self.router.links().ids())
            .map(|uplink| self.uplink_status(uplink, primary, started, monotonic_ns));
        Ok(Status {
            version: status::VERSION,
            at: self.clock.wall(now),
            primary,
            active: self.names(self.machine.active(primary)),
            uplinks: uplinks.collect::<Result<_>>()?,
            switches: self
                .history
                .newest_first()
                .map(|record| self.switch_status(record))
                .collect(),
            conflicts: self.conflicts_status(),
            foreign_defaults: self.foreign_status(),
            lease: status::Lease {
                duration_ms: millis(self.config.cutoff.lease),
                remaining_ms: self.datapath.lease_remaining(monotonic_ns).map(millis),
            },
            log: status::Log {
                lost: log.lost,
                left_out: log.left_out,
            },
            agent: status::Agent {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                instance: self.instance.clone(),
                started,
                uptime_s: now.0.as_secs(),
                config: self.origin.as_ref().map(|origin| origin.file.clone()),
            },
        })
    }

    /// IPv4 if it is probed, else IPv6.
    fn primary(&self) -> Family {
        let probed = |family| {
            self.config
                .uplinks
                .iter()
                .any(|uplink| targets(uplink, family).next().is_some())
        };
        if probed(Family::V4) {
            Family::V4
        } else {
            Family::V6
        }
    }

    fn uplink_status(
        &self,
        uplink: UplinkId,
        primary: Family,
        started: SystemTime,
        monotonic_ns: u64,
    ) -> Result<status::Uplink> {
        let config = &self.uplinks[uplink];
        let link = &self.router.links()[uplink];
        let gates = self.datapath.gates(link.ifindex)?;
        let family = |family: Family| self.family_status(uplink, family, gates[family]);
        let parts = UplinkParts {
            name: config.name.clone(),
            interface: config.interface.clone(),
            rank: config.rank,
            metered: config.metered,
            drill_s: self.machine.drill().and_then(|(drilled, until)| {
                (drilled == uplink).then(|| seconds(until.since(self.clock.now())))
            }),
            programs: self.programs_status(link.ifindex)?,
            counters: Counters::new(&self.datapath.counters(link.ifindex)?, monotonic_ns),
            families: Families {
                ipv4: family(Family::V4),
                ipv6: family(Family::V6),
            },
        };
        Ok(status::Uplink::new(parts, primary, started))
    }

    fn programs_status(&self, ifindex: u32) -> Result<status::Programs> {
        Ok(status::Programs {
            hook: self.datapath.hook(ifindex)?.map(|hook| match hook {
                Hook::Tcx => status::Hook::Tcx,
                Hook::Clsact | Hook::ClsactOwned => status::Hook::Clsact,
            }),
            reason: self.datapath.obstacle(ifindex).map(str::to_owned),
        })
    }

    /// None where the family is not in use: it is not probed, and there is no egress path.
    fn family_status(&self, uplink: UplinkId, family: Family, gate: Gate) -> Option<FamilyState> {
        let path = self.router.links()[uplink].families[family].as_ref();
        let probed = targets(&self.uplinks[uplink], family).next().is_some();
        (path.is_some() || probed).then(|| FamilyState {
            gateway: path.and_then(|path| path.gateway),
            source: path.map(|path| path.source),
            health: self.machine.health(uplink, family),
            reason: self.blind_reason(uplink, family),
            since: self.clock.wall(self.machine.since(uplink, family)),
            rtt_ms: self.machine.last_rtt(uplink, family).map(milliseconds),
            loss_pct: self
                .machine
                .loss(uplink, family)
                .map(|loss| (loss * 1000.0).round() / 10.0),
            gate,
            active: self.machine.active(family).contains(uplink),
            manual_override: self.machine.manual_override(family) == Some(uplink),
            draining_s: self
                .machine
                .draining(uplink, family)
                .map(|until| seconds(until.since(self.clock.now()))),
        })
    }

    fn switch_status(&self, record: &SwitchRecord) -> status::Switch {
        let micros = |time: Time| {
            u64::try_from(time.since(record.decision.detected).as_micros()).unwrap_or(u64::MAX)
        };
        status::Switch {
            at: self.clock.wall(record.decision.detected),
            family: record.decision.family,
            from: record.from.clone(),
            to: record.to.clone(),
            cause: record.decision.cause,
            confirmed: record.routed.is_some(),
            sockets_ended: record.sockets_ended,
            flows_deleted: record.flows_deleted,
            timeline: Timeline {
                detected_us: 0,
                decided_us: micros(record.decision.decided),
                routed_us: record.routed.map(micros),
                gated_us: record.gated.map(micros),
                cut_us: record.cut.map(micros),
            },
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Unlike every other start's: the standard library seeds each process's hashes at random.
pub(super) fn instance() -> String {
    let drawn = RandomState::new().build_hasher().finish();
    format!("{drawn:016x}")
}
