//! Log lines for what the policy tells.

use tracing::{info, warn};

use super::Agent;
use crate::policy::{Health, Note};

impl Agent<'_> {
    pub(super) fn report(&self, note: &Note) {
        match *note {
            Note::ProbeFailed {
                uplink,
                family,
                target,
                failed,
                fall,
            } => {
                let target = self.config.uplinks[uplink.0].probe.targets[target.0];
                warn!(
                    uplink = self.name(uplink),
                    %family,
                    %target,
                    failed,
                    fall,
                    "{}: ping of {target} failed ({failed}/{fall})",
                    self.name(uplink),
                );
            }
            Note::Health {
                uplink,
                family,
                from,
                to,
            } => {
                let name = self.name(uplink);
                match to {
                    Health::Up => info!(uplink = name, %family, %from, %to, "{name} is {to}"),
                    _ => warn!(uplink = name, %family, %from, %to, "{name} is {to}"),
                }
            }
            Note::NowhereToGo { family, active } => {
                let active = active.map(|uplink| self.name(uplink));
                warn!(%family, active, "no uplink is proven Up: nothing changes");
            }
            Note::Holding {
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
                    "{name} must stay good for {seconds:.1} s more before the failback",
                );
            }
        }
    }
}
