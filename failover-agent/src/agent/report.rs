//! Log lines for what the policy reports.

use failover_policy::{Event, Family, Health, TargetId, UplinkId};
use tracing::{debug, info, warn};

use super::Agent;

impl Agent<'_> {
    pub(super) fn report(&mut self, event: &Event) {
        match *event {
            Event::ProbeFailed {
                uplink,
                family,
                target,
                failed,
                fall,
            } => self.report_failed_probe(uplink, family, target, failed, fall),
            Event::Health {
                uplink,
                family,
                from,
                to,
            } => {
                self.unsaved.health = true;
                let name = self.name(uplink);
                match to {
                    Health::Up => {
                        info!(uplink = name, %family, %from, %to, "{name} is {to} ({family})");
                    }
                    _ => {
                        let reason = self.blind_reason(uplink, family);
                        let because = reason.as_ref().map(|reason| format!(": {reason}"));
                        let because = because.unwrap_or_default();
                        warn!(uplink = name, %family, %from, %to, reason, "{name} is {to} ({family}){because}");
                    }
                }
            }
            Event::NowhereToGo { family, active } => {
                let active = active.first().map(|uplink| self.name(uplink));
                warn!(%family, active, "no uplink is proven Up for {family}: nothing changes");
            }
            Event::Holding {
                uplink,
                family,
                until,
            } => {
                let name = self.name(uplink);
                let seconds = until.since(self.clock.now()).as_secs_f64();
                info!(
                    uplink = name,
                    %family,
                    hold_s = seconds,
                    "{name} ({family}) must stay good for {seconds:.1} s more before the failback",
                );
            }
            Event::Released { uplink, family } => {
                self.unsaved.health = true;
                let name = self.name(uplink);
                warn!(uplink = name, %family, "{name} ({family}) is Down: its manual override ends, the ranks decide again");
            }
            Event::DrillEnded { uplink, alone } => {
                self.unsaved.drill = true;
                let name = self.name(uplink);
                match alone {
                    None => info!(uplink = name, "{name}: the drill is over"),
                    Some(family) => warn!(
                        uplink = name,
                        %family,
                        "{name}: the drill is over before its time: no other uplink is Up for {family}",
                    ),
                }
            }
        }
    }

    /// One line for each failure until `fall` of them: a target that stays dead while others answer is not worth a warning every
    /// interval.
    fn report_failed_probe(
        &self,
        uplink: UplinkId,
        family: Family,
        target: TargetId,
        failed: u32,
        fall: u32,
    ) {
        // Logged as `probed`: in JSON, `target` is the module that logs.
        let target = self.uplinks[uplink].probe.targets[target.0];
        let uplink = self.name(uplink);
        if failed <= fall {
            warn!(uplink, %family, probed = %target, failed, fall, "{uplink} ({family}): ping of {target} failed ({failed}/{fall})");
        } else {
            debug!(uplink, %family, probed = %target, failed, fall, "{uplink} ({family}): {target} still does not answer ({failed} pings)");
        }
    }
}
