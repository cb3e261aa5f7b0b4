//! The events of a run: which one comes next, and how it happens.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use failover_lab::{AgentProcess, Fault, LinkKind};
use failover_policy::Family;
use failover_tests::fixtures::{OURS, SOON, default_routes, stop};
use nix::sys::signal::Signal;

use super::{
    SoakRun, TABLES,
    environment::{AHEAD, BEHIND, METRICS},
};
use crate::events::{Break, Disk, Event, Loss, Pause};

impl SoakRun {
    /// Something that can happen now.
    pub(crate) fn choose(&self, random: &mut fastrand::Rng) -> Event {
        loop {
            let uplink = random.usize(..self.uplinks.len());
            let family = Family::ALL[random.usize(..2)];
            let event = match random.u8(..23) {
                0 => Event::Flap(uplink),
                1..4 => Event::Break(uplink, Break::ALL[random.usize(..Break::ALL.len())]),
                4..8 => Event::Repair(uplink),
                8 => Event::Remove(Loss::Routes(family)),
                9 => match random.bool() {
                    true => Event::Remove(Loss::Rules(family)),
                    false => Event::Remove(Loss::Table(uplink)),
                },
                10 => Event::Preempt(uplink, family),
                11 => Event::SecondAddress(uplink),
                12 => Event::Reload,
                13 => match random.u8(..3) {
                    0 => Event::Restart,
                    1 => Event::Crash,
                    _ => Event::StopAndStart,
                },
                14 => Event::Switch(uplink),
                15 => match random.bool() {
                    true => Event::Drill(uplink),
                    false => Event::Auto,
                },
                16 => Event::Pause(
                    [Pause::Stopped, Pause::Starved][random.usize(..2)],
                    random.u64(50..2500),
                ),
                17 => Event::Vpn(family, METRICS[random.usize(..METRICS.len())]),
                18 => Event::KillSwitch(family, BEHIND[random.usize(..BEHIND.len())]),
                19 => Event::Disk(Disk::ALL[random.usize(..Disk::ALL.len())]),
                20 => Event::Reader,
                21 => Event::Clock(AHEAD[random.usize(..AHEAD.len())]),
                _ => Event::Marks,
            };
            if self.is_possible(event) {
                return event;
            }
        }
    }

    fn is_possible(&self, event: Event) -> bool {
        let works = |uplink: usize| self.uplinks[uplink].broken.is_none();
        match event {
            Event::Break(uplink, way) => {
                let tunnel = self.lab.uplinks()[uplink].kind() == LinkKind::Tun;
                works(uplink) && (!tunnel || way.suits_a_tunnel())
            }
            Event::Repair(uplink) => !works(uplink),
            // A drill may be over when it is noticed.
            Event::Flap(uplink) => works(uplink) && self.drilled.is_none(),
            Event::Preempt(uplink, _) | Event::SecondAddress(uplink) => works(uplink),
            // The agent refuses one that it has not yet found Up.
            Event::Switch(uplink) => works(uplink) && self.drilled != Some(uplink),
            Event::Drill(uplink) => {
                works(uplink)
                    && (0..self.uplinks.len()).any(|other| other != uplink && works(other))
            }
            // Without its rules the agent cannot tell for a while what works: a drill may be over.
            Event::Remove(_) => self.drilled.is_none(),
            // A manual override must be on the disk to outlive the process.
            Event::Crash | Event::StopAndStart => {
                self.environment.disk_is_fine() || self.chosen.is_none() && self.drilled.is_none()
            }
            Event::Reload | Event::Restart | Event::Auto => true,
            Event::Pause(..)
            | Event::Vpn(..)
            | Event::KillSwitch(..)
            | Event::Disk(_)
            | Event::Reader
            | Event::Marks
            | Event::Clock(_) => true,
        }
    }

    pub(crate) fn apply(&mut self, event: Event) -> Result<()> {
        self.events.push(format!("{event:?}"));
        match event {
            Event::Break(uplink, way) => {
                // It would be over as soon as nothing else is known to work, and the test could not know when that was.
                if self.drilled.is_some() && self.working().len() <= 2 {
                    self.apply(Event::Auto)?;
                }
                self.uplinks[uplink].broken = Some(self.fail(uplink, way)?);
                self.uplinks[uplink].replaced |= matches!(way, Break::Unplug | Break::MoveAway);
                if self.chosen == Some(uplink) {
                    // Were it repaired at once, the test could not know whether the agent had noticed.
                    self.chosen = None;
                    return self.settle();
                }
                Ok(())
            }
            Event::Repair(uplink) => {
                let fault = self.uplinks[uplink].broken.take();
                fault.map_or(Ok(()), |fault| fault.repair().map(drop))
            }
            Event::Flap(uplink) => {
                // A choice is forgotten when its uplink goes Down, which the agent may notice or not.
                if self.chosen == Some(uplink) {
                    self.apply(Event::Auto)?;
                }
                for _ in 0..4 {
                    self.fail(uplink, Break::Carrier)?.repair()?;
                }
                Ok(())
            }
            Event::Remove(loss) => self.remove(loss),
            Event::Preempt(uplink, family) => self.preempt(uplink, family),
            Event::SecondAddress(uplink) => self.second_address(uplink),
            Event::Reload => {
                self.order.rotate_left(1);
                self.settings.tables = (self.settings.tables + 1) % TABLES.len();
                self.lab.write_config(&self.config())?;
                self.agent()?.verb(&["reload"]).map(drop)
            }
            Event::Restart => self.agent()?.verb(&["restart"]).map(drop),
            Event::Crash => {
                let mut agent = self.agent.take();
                agent.as_mut().map_or(Ok(()), AgentProcess::kill9)?;
                self.unguarded = true;
                self.start()
            }
            Event::StopAndStart => {
                self.stop()?;
                self.unguarded = true;
                self.chosen = None;
                self.start()
            }
            Event::Switch(uplink) => {
                self.rest()?;
                let name = self.name(uplink);
                self.agent()?.verb(&["switch", &name])?;
                self.chosen = Some(uplink);
                Ok(())
            }
            Event::Auto => {
                (self.chosen, self.drilled) = (None, None);
                self.agent()?.verb(&["switch", "auto"]).map(drop)
            }
            Event::Drill(uplink) => {
                self.rest()?;
                let name = self.name(uplink);
                self.agent()?.verb(&["drill", &name, "--for", "1h"])?;
                self.drilled = Some(uplink);
                if self.chosen == Some(uplink) {
                    self.chosen = None;
                }
                Ok(())
            }
            Event::Pause(pause, ms) => {
                let time = Duration::from_millis(ms);
                // The lease of 3 s is renewed every second.
                self.unguarded |= time > Duration::from_millis(1500);
                self.pause(pause, time)
            }
            Event::Vpn(family, metric) => self.environment.toggle_vpn(&self.lab, family, metric),
            Event::KillSwitch(family, metric) => self
                .environment
                .toggle_kill_switch(&self.lab, family, metric),
            Event::Disk(disk) => {
                self.environment.set_disk(disk)?;
                self.rest_if_ordered()
            }
            Event::Reader => {
                let unread = self.environment.toggle_reader();
                self.agent()?.set_unread(unread);
                Ok(())
            }
            Event::Marks => self.environment.toggle_marks(&self.lab),
            Event::Clock(ahead) => {
                self.environment.clock.set(ahead)?;
                self.rest_if_ordered()
            }
        }
    }

    /// A manual override must be on the disk, by the right time, before the process may be killed.
    fn rest_if_ordered(&mut self) -> Result<()> {
        match self.chosen.or(self.drilled) {
            Some(_) => self.rest(),
            None => Ok(()),
        }
    }

    /// What it keeps cannot be written to a disk that takes nothing, nor removed from it, which is all that it may complain of.
    fn stop(&mut self) -> Result<()> {
        let Some(mut agent) = self.agent.take() else {
            return Ok(());
        };
        if self.environment.disk_is_fine() {
            return stop(agent);
        }
        agent.signal(Signal::SIGTERM)?;
        let end = agent.wait_exit(SOON)?;
        let said = agent.log();
        let last = said.last().map_or("", |line| line.text.as_str());
        let unwritten =
            last.matches("is not written").count() + last.matches("is not removed").count();
        let complaints = last.matches(';').count() + 1;
        ensure!(
            end.success() || end.code() == Some(33) && unwritten == complaints,
            "{end}: {last}"
        );
        Ok(())
    }

    /// The agent does not run for about so long.
    fn pause(&self, pause: Pause, time: Duration) -> Result<()> {
        let agent = self.agent()?;
        let over = Instant::now() + time;
        let (asleep, awake) = match pause {
            Pause::Stopped => (time, Duration::ZERO),
            Pause::Starved => (Duration::from_millis(120), Duration::from_millis(10)),
        };
        while Instant::now() < over {
            agent.signal(Signal::SIGSTOP)?;
            sleep(asleep);
            agent.signal(Signal::SIGCONT)?;
            sleep(awake);
        }
        Ok(())
    }

    fn fail(&self, uplink: usize, way: Break) -> Result<Fault> {
        let uplink = &self.lab.uplinks()[uplink];
        match way {
            Break::Blackhole => uplink.blackhole(),
            Break::Unreachable => uplink.unreachable(),
            Break::GatewayGone => uplink.gateway_gone(),
            Break::Carrier => uplink.carrier_down(),
            Break::SetDown => uplink.admin_down(),
            Break::LeaseOver => uplink.lease_over(),
            Break::Unplug => uplink.unplug(),
            Break::Rename => uplink.renamed(),
            Break::MoveAway => uplink.moved_away(),
        }
    }

    fn remove(&self, loss: Loss) -> Result<()> {
        let host = self.lab.host().namespace();
        let flag = |family| if family == Family::V4 { "-4" } else { "-6" };
        match loss {
            Loss::Routes(family) => {
                for route in default_routes(&self.lab, family)? {
                    let metric = route.metric.to_string();
                    let which = ["default", "proto", OURS, "metric", &metric];
                    // The agent may be faster.
                    let arguments = [&[flag(family), "route", "del"], &which[..]].concat();
                    host.exec("ip", &arguments).ok();
                }
            }
            Loss::Rules(family) => {
                // It stops at one that the agent itself has just removed.
                let flush = [flag(family), "rule", "flush", "proto", OURS];
                host.exec("ip", &flush).ok();
            }
            Loss::Table(uplink) => {
                let table = (13600 + uplink).to_string();
                host.exec("ip", &["route", "flush", "table", &table])?;
            }
        }
        Ok(())
    }

    fn preempt(&mut self, uplink: usize, family: Family) -> Result<()> {
        self.uplinks[uplink].preempted[family as usize] = true;
        self.bid("replace", uplink, family)
    }

    pub(super) fn bid(&self, verb: &str, uplink: usize, family: Family) -> Result<()> {
        let uplink = &self.lab.uplinks()[uplink];
        let metric = "metric 7 proto static";
        let (flag, gateway) = match family {
            Family::V4 => ("-4", uplink.addresses().gateway_v4.to_string()),
            Family::V6 => ("-6", "fe80::1".to_owned()),
        };
        let via = match uplink.kind() {
            LinkKind::Veth => format!("via {gateway} "),
            LinkKind::Tun => String::new(),
        };
        let name = uplink.name();
        let command = format!("{flag} route {verb} default {via}dev {name} {metric}");
        let arguments: Vec<&str> = command.split(' ').collect();
        self.lab.host().namespace().exec("ip", &arguments).map(drop)
    }

    pub(super) fn second_address(&mut self, uplink: usize) -> Result<()> {
        let added = !self.uplinks[uplink].second_address;
        self.uplinks[uplink].second_address = added;
        let number = uplink + 1;
        let host = self.lab.host().namespace();
        let name = self.lab.uplinks()[uplink].name();
        // Neither is the source of anything: the provider would count it as another uplink's.
        let (v4, v6) = (
            format!("10.64.{number}.77/24"),
            format!("2001:db8:77:{number}::77/64"),
        );
        if added {
            host.exec("ip", &["address", "replace", &v4, "dev", name])?;
            host.exec(
                "ip",
                &["address", "replace", &v6, "dev", name, "preferred_lft", "0"],
            )?;
        } else {
            for address in [&v4, &v6] {
                // It may have gone with its interface.
                host.exec("ip", &["address", "del", address, "dev", name])
                    .ok();
            }
        }
        Ok(())
    }
}
