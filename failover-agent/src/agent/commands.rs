//! Commands that come by the control socket: manual overrides and drills.

use std::time::{Duration, SystemTime};

use failover_policy::{Command, Family, Health, PerUplink, Refusal, Time, UplinkId, UplinkSet};
use tracing::{debug, info, warn};

use super::{
    Agent, Unsaved,
    drill::{Drill, Drills},
};
use crate::{
    clock::{self, Clock},
    config::UplinkConfig,
    control::{MAX_DRILL, Response},
};

/// The drill that an earlier run has begun, in the terms of this one. What cannot be understood is no reason not to start.
pub(super) fn earlier_drill(
    drills: &Drills,
    uplinks: &PerUplink<UplinkConfig>,
    clock: Clock,
) -> Option<(UplinkId, Time)> {
    let wall = SystemTime::now();
    let drill = drills.load(wall)?;
    let Some(uplink) = find(uplinks, &drill.uplink) else {
        warn!("a drill of `{}` is forgotten: no such uplink", drill.uplink);
        return None;
    };
    let left = drill.until.duration_since(wall).unwrap_or_default();
    let name = &drill.uplink;
    info!(
        uplink = name,
        left_s = left.as_secs_f64(),
        "{name}: the drill goes on"
    );
    Some((uplink, clock.now() + left))
}

fn find(uplinks: &PerUplink<UplinkConfig>, name: &str) -> Option<UplinkId> {
    let mut uplinks = uplinks.iter();
    let (uplink, _) = uplinks.find(|(_, uplink)| uplink.name == name)?;
    Some(uplink)
}

impl Agent<'_> {
    pub(super) fn command_switch(&mut self, name: &str) -> Response {
        if name == "auto" {
            return self.command(Command::Auto, |_| {
                "no manual override, no drill: the ranks decide".to_owned()
            });
        }
        let Some(uplink) = find(&self.uplinks, name) else {
            return self.unknown();
        };
        self.command(Command::Switch(uplink), |agent| agent.chosen(uplink))
    }

    pub(super) fn command_drill(&mut self, name: &str, for_ms: u64) -> Response {
        let Some(uplink) = find(&self.uplinks, name) else {
            return self.unknown();
        };
        let duration = Duration::from_millis(for_ms);
        if duration > MAX_DRILL {
            return Response::Refused("a drill lasts up to 24h: choose a shorter time".to_owned());
        }
        let until = self.clock.now() + duration;
        self.command(Command::Drill { uplink, until }, |agent| {
            if duration.is_zero() {
                return "no drill is going on any more".to_owned();
            }
            let (name, span) = (agent.name(uplink), humantime::format_duration(duration));
            format!("{name} counts as Down for {span}")
        })
    }

    /// Gives the order to the policy and carries out what follows from it, so that it is done when it is answered.
    fn command(&mut self, command: Command, done: impl FnOnce(&Self) -> String) -> Response {
        if let Err(refusal) = self.machine.command(command, self.clock.now()) {
            return self.refused(command, refusal);
        }
        info!("command: {}", self.words(command));
        self.unsaved = Unsaved::BOTH;
        self.act();
        // What was answered outlives a crash, if the disk allows.
        if let Err(error) = self.drills.settle() {
            debug!("the drill is known to this process alone: {error:#}");
        }
        Response::Done(done(self))
    }

    /// Brings the file in line with the policy.
    pub(super) fn keep_drill(&mut self) {
        let drill = self.drill_by_day();
        self.drills.save(drill);
    }

    /// Brings the file in line with the time of day, which may have been set: the file holds that of the drill's end.
    pub(super) fn follow_time_of_day(&mut self) {
        clock::look();
        let drill = self.drill_by_day();
        if drill.is_some() && !self.drills.says(drill.as_ref()) {
            self.drills.save(drill);
        }
    }

    fn drill_by_day(&self) -> Option<Drill> {
        self.machine.drill().map(|(uplink, until)| Drill {
            uplink: self.name(uplink).to_owned(),
            until: self.clock.wall(until),
        })
    }

    fn words(&self, command: Command) -> String {
        match command {
            Command::Switch(uplink) => format!("switch to {}", self.name(uplink)),
            Command::Auto => "switch auto".to_owned(),
            Command::Drill { uplink, .. } => format!("drill of {}", self.name(uplink)),
        }
    }

    /// What became of a manual override.
    fn chosen(&self, uplink: UplinkId) -> String {
        let chosen = |family: &Family| self.machine.manual_override(*family) == Some(uplink);
        let chosen = Family::ALL.into_iter().filter(chosen).map(|family| {
            match self.machine.active(family) == UplinkSet::only(uplink) {
                true => format!("is active for {family}"),
                false => format!("becomes active for {family} as soon as it can be confirmed"),
            }
        });
        let chosen: Vec<String> = chosen.collect();
        let name = self.name(uplink);
        format!("{name} {}, as long as it is Up", chosen.join(" and "))
    }

    fn unknown(&self) -> Response {
        let names = self.config.uplinks.iter().map(|uplink| uplink.name.clone());
        Response::UnknownUplink(names.collect())
    }

    fn refused(&self, command: Command, refusal: Refusal) -> Response {
        let what = self.words(command);
        let reason = match refusal {
            Refusal::Unknown => return self.unknown(),
            Refusal::NotUp { drill: true, .. } => {
                "it is in a drill: end that with `switch auto`".to_owned()
            }
            Refusal::NotUp {
                health: Health::Unknown,
                ..
            } => {
                "it has not been found Up: choose one that is Up (failover-agent status)".to_owned()
            }
            Refusal::NotUp { health, .. } => {
                format!("it is {health}: choose one that is Up (failover-agent status)")
            }
            Refusal::NoOther { family } => {
                format!("no other uplink is proven Up for {family}: wait until one is")
            }
        };
        Response::Refused(format!("{what}: {reason}"))
    }
}
