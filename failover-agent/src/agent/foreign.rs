//! Reports default routes of others that stand beside ours.

use tracing::{info, warn};

use super::Agent;
use crate::{
    control::status::{self, ForeignEffect},
    route::Effect,
};

impl Agent<'_> {
    /// Those that concern ours, for the status.
    pub(super) fn foreign_status(&self) -> Vec<status::ForeignDefault> {
        let routes = self.router.foreign_defaults();
        routes
            .map(|foreign| {
                let (effect, uplinks, wanted, metric) = match foreign.effect {
                    Effect::InFront { uplinks, metric } => {
                        (ForeignEffect::InFront, uplinks, None, metric)
                    }
                    Effect::HasMetric {
                        uplinks,
                        wanted,
                        metric,
                    } => (ForeignEffect::SameMetric, uplinks, Some(wanted), metric),
                };
                status::ForeignDefault {
                    family: foreign.family,
                    route: foreign.route.clone(),
                    rejects: foreign.rejects,
                    effect,
                    uplink: self.names(uplinks).unwrap_or_default(),
                    wanted_metric: wanted,
                    metric,
                }
            })
            .collect()
    }

    /// Logs those that have come since the last time.
    pub(super) fn report_foreign(&mut self) {
        let mut reported = std::mem::take(&mut self.foreign);
        reported.retain(|(family, route)| self.router.foreign_stands(*family, route));
        for foreign in self.foreign_status() {
            let (family, route) = (foreign.family, &foreign.route);
            if reported
                .iter()
                .any(|known| *known == (family, route.clone()))
            {
                continue;
            }
            let words = foreign.words();
            // A VPN is meant to be in front.
            if foreign.effect == ForeignEffect::InFront && !foreign.rejects {
                info!(%family, route, "{words}");
            } else {
                warn!(%family, route, "{words}");
            }
            reported.push((family, foreign.route));
        }
        self.foreign = reported;
    }
}
