//! Cuts off an uplink: nothing that was begun on it goes on.
//!
//! The gate is set at once. What lies beside the datapath (conntrack entries, idle sockets) can be many thousands, so it is ended on a
//! thread of its own while the loop goes on probing and keeping the lease.

use std::net::IpAddr;

use failover_ebpf::{CutMode, Gate};
use failover_policy::{Cause, Family, PerUplink, Time, UplinkId};
use ipnet::IpNet;
use tokio::{sync::oneshot::error::RecvError, task::JoinSet};
use tracing::{info, warn};

use super::{Agent, setup::stale_mode};
use crate::{
    aside,
    config::{CutoffMode, Inbound},
    cutoff::{Cutoff, Ended, Scope},
    route::Link,
};

/// What a thread has ended.
#[derive(Debug)]
pub(super) struct Cut {
    family: Family,
    /// The uplink's name: a reload may have given its position to another.
    name: String,
    /// When the switch that this belongs to was decided: its record may have been followed by another.
    decided: Option<Time>,
    flows: Ended,
    sockets: Ended,
}

/// The threads that are ending something.
pub(super) struct CutTasks {
    cutoff: Cutoff,
    running: JoinSet<Result<Cut, RecvError>>,
}

impl CutTasks {
    pub(super) fn open() -> Self {
        let cutoff = Cutoff::open();
        for missing in cutoff.missing() {
            warn!("{missing}");
        }
        CutTasks {
            cutoff,
            running: JoinSet::new(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The next cut that is complete; none while nothing is being cut.
    pub(super) async fn done(&mut self) -> Option<anyhow::Result<Cut>> {
        let done = self.running.join_next().await?;
        Some(done.map_err(Into::into).and_then(|cut| Ok(cut?)))
    }
}

impl Agent<'_> {
    /// Carries out the policy's order to cut `uplink`, which was left because of `cause`. Order: gate, then conntrack entries, then sockets, so
    /// that a socket's farewell finds the gate closed and leaves no new entry.
    pub(super) fn cut(&mut self, family: Family, uplink: UplinkId, cause: Cause) {
        let gated = self.gate_off(uplink, family, cause);
        if self.config.cutoff.mode_for(cause) == CutoffMode::Off {
            return;
        }
        let now = self.clock.now();
        let record = self.history.latest(family);
        let decided = record.map(|record| {
            record.gated(gated, now);
            record.decision.decided
        });
        let mut addresses = own_addresses(self.router.links(), uplink);
        addresses.retain(|address| address.is_ipv4() == (family == Family::V4));
        addresses.extend(self.lost_addresses.take(uplink, family));
        let mut spared = self.config.cutoff.allow.clone();
        match self.router.networks() {
            Ok(networks) => spared.extend(networks),
            Err(error) => warn!("connections on the links themselves are cut, too: {error:#}"),
        }
        // This host itself: a point-to-point link has no network that its own address lies in.
        spared.extend(addresses.iter().copied().map(IpNet::from));
        let scope = Scope {
            addresses,
            spared,
            spare_accepted: self.uplinks[uplink].inbound == Inbound::Keep,
        };
        let name = self.name(uplink).to_owned();
        let cutoff = self.cut_tasks.cutoff.clone();
        let cut = aside::start_or_do(move || Cut {
            family,
            name,
            decided,
            flows: cutoff.delete_flows(&scope),
            sockets: cutoff.destroy_sockets(&scope),
        });
        self.cut_tasks.running.spawn(cut);
    }

    /// Completes the record of the switch and logs what was ended.
    pub(super) fn finish_cut(&mut self, cut: anyhow::Result<Cut>) {
        let Cut {
            family,
            name,
            decided,
            flows,
            sockets,
        } = match cut {
            Ok(cut) => cut,
            Err(error) => {
                warn!("connections were not ended: {error:#}");
                return;
            }
        };
        let now = self.clock.now();
        let record = decided.and_then(|decided| self.history.decided_at(family, decided));
        if let Some(record) = record {
            record.cut = Some(now);
            let add = |sum: &mut Option<u64>, ended: &Ended| {
                *sum = Some(sum.unwrap_or_default() + total(ended));
            };
            add(&mut record.flows_deleted, &flows);
            add(&mut record.sockets_ended, &sockets);
        }
        for problem in flows.problems.iter().chain(&sockets.problems) {
            warn!(uplink = name, "{name}: {problem}");
        }
        let (ended, deleted) = (total(&sockets), total(&flows));
        let micros = |ended: &Ended| u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX);
        info!(
            uplink = name,
            %family,
            sockets_ended = ended,
            sockets_us = micros(&sockets),
            flows_deleted = deleted,
            flows_us = micros(&flows),
            "{name} ({family}): cut off, {ended} sockets ended, {deleted} tracked flows deleted",
        );
    }

    /// Sets the gate of an uplink that was cut because of `cause`: closed, unless nothing is to be cut then, or there is no active uplink in
    /// whose favour it could be. Returns whether it stands as it should.
    pub(super) fn gate_off(&mut self, uplink: UplinkId, family: Family, cause: Cause) -> bool {
        let cuts = self.config.cutoff.mode_for(cause) != CutoffMode::Off;
        let gate = match cuts && !self.machine.active(family).is_empty() {
            true => Gate::Closed,
            false => Gate::Open,
        };
        // An interface that is gone has no gate.
        self.router.links()[uplink].ifindex == 0 || self.set_gate(uplink, family, gate)
    }

    /// Sets a family's gates as they should stand, whatever has become of them: open at the active uplinks, and at
    /// all if none is active; closed where one was cut.
    pub(super) fn align_gates(&mut self, family: Family) {
        let undecided = self.machine.active(family).is_empty();
        for uplink in self.router.links().ids().collect::<Vec<_>>() {
            if self.router.links()[uplink].ifindex == 0 {
                continue;
            }
            if undecided || self.machine.active(family).contains(uplink) {
                self.set_gate(uplink, family, Gate::Open);
            } else if let Some(cause) = self.machine.cut(uplink, family) {
                self.gate_off(uplink, family, cause);
            }
        }
    }

    /// Gives the programs what becomes of packets that must not leave by an uplink with this gate: what the cause of its cut says, and of
    /// stale ones on an uplink that is not cut what `cutoff.mode` says.
    pub(super) fn set_cut_mode(&mut self, uplink: UplinkId, family: Family, gate: Gate) {
        let cutoff = &self.config.cutoff;
        let cause = self.machine.cut(uplink, family);
        let mode = match cause.filter(|_| gate == Gate::Closed) {
            Some(cause) => match cutoff.mode_for(cause) {
                CutoffMode::Reset => CutMode::Reset,
                CutoffMode::Drop | CutoffMode::Off => CutMode::Drop,
            },
            None => stale_mode(cutoff),
        };
        let ifindex = self.router.links()[uplink].ifindex;
        if let Err(error) = self.datapath.set_cut_mode(ifindex, family, mode) {
            let name = self.name(uplink);
            warn!(
                uplink = name,
                "{name}: cut mode could not be set: {error:#}"
            );
        }
    }
}

fn total(ended: &Ended) -> u64 {
    (ended.tcp + ended.udp + ended.other) as u64
}

/// The addresses that only `uplink` has: one that another uplink has too (two modems of the same make) says nothing.
pub(super) fn own_addresses(links: &PerUplink<Link>, uplink: UplinkId) -> Vec<IpAddr> {
    let others: Vec<IpAddr> = (links.iter())
        .filter(|(other, _)| *other != uplink)
        .flat_map(|(_, link)| link.addresses.iter().copied())
        .collect();
    let mut own = links[uplink].addresses.clone();
    own.retain(|address| !others.contains(address));
    own
}
