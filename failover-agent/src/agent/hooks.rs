//! Has the user's programs run.

use failover_policy::{Family, Switch, UplinkId};
use tracing::warn;

use super::Agent;
use crate::{
    config::{Config, HooksConfig, UplinkConfig},
    hook::{self, Program, Uplink},
};

/// Warns of every configured program that cannot be run just now. That is no reason to refuse the configuration: it may be there
/// when it is needed.
pub(crate) fn warn_of_missing_programs(config: &Config) {
    let recoveries = config
        .uplinks
        .iter()
        .map(|uplink| recovery(&config.hooks, uplink));
    let programs = std::iter::once(on_switch(&config.hooks)).chain(recoveries);
    for problem in programs.filter_map(|program| program.problem()) {
        warn!("{problem}");
    }
}

fn on_switch(hooks: &HooksConfig) -> Program {
    Program {
        name: "hooks.on_switch".to_owned(),
        command: hooks.on_switch.clone(),
        timeout: hooks.timeout,
    }
}

fn recovery(hooks: &HooksConfig, uplink: &UplinkConfig) -> Program {
    Program {
        name: format!("recover of {}", uplink.name),
        command: uplink.recover.clone(),
        timeout: hooks.timeout,
    }
}

impl Agent<'_> {
    /// Has `hooks.on_switch` run for a switch that is carried out.
    pub(super) fn run_on_switch(&mut self, decision: &Switch) {
        if self.config.hooks.on_switch.is_empty() {
            return;
        }
        let switch = hook::Switch {
            family: match decision.family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            },
            reason: decision.cause.to_string(),
            active: (self.router.links().in_order(decision.to))
                .map(|uplink| self.describe(uplink, decision.family))
                .collect(),
            previous: (self.router.links().in_order(decision.from))
                .map(|uplink| self.name(uplink).to_owned())
                .collect(),
        };
        self.hooks.on_switch(on_switch(&self.config.hooks), switch);
    }

    /// Has an uplink's `recover` run, if it has one.
    pub(super) fn recover(&mut self, uplink: UplinkId) {
        let config = &self.uplinks[uplink];
        let program = recovery(&self.config.hooks, config);
        self.hooks.recover(program, &config.name, &config.interface);
    }

    fn describe(&self, uplink: UplinkId, family: Family) -> Uplink {
        let link = &self.router.links()[uplink];
        let path = link.families[family].as_ref();
        Uplink {
            name: self.name(uplink).to_owned(),
            interface: link.interface.clone(),
            gateway: path.and_then(|path| path.gateway),
        }
    }
}
