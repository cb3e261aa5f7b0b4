//! One laboratory in which phases are gone through, with a call that fails or without, and what must be true afterwards:
//! the host is online, the next failover works, and nothing is left.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use failover_lab::{LINK_LOCAL_GATEWAY, Lab, TARGET_V4, wait_for};
use nix::sys::signal::Signal;

use super::{
    phase::{Phase, Setting},
    state::{is_settled, recorded_switches, states},
    streams::Streams,
    subject::{Came, Subject},
    tracer::Exit,
    watch::{Order, Record},
};
use crate::fixtures::Everything;

/// The lease that is configured: as long as the host may be cut off.
const LEASE: Duration = Duration::from_secs(1);
/// How long the agent takes to notice a fault, with the probes that are configured.
const DETECTION: Duration = Duration::from_millis(700);
/// What a busy machine adds to any of these.
pub(super) const MARGIN: Duration = Duration::from_millis(1500);
/// How long the agent may take until its status shows what it should, hangs included. A start has its programs verified and stops for the
/// tracer at hundreds of calls, which takes 15 s on a busy machine; how long the host may be offline is not measured by this.
pub(super) const SOON: Duration = Duration::from_secs(45);
/// How long it may take after the end of a process until the kernel has let go of what it had.
const GONE: Duration = Duration::from_secs(2);
/// How long a phase goes on after its effect shows: files are written then, and flows ended.
const AFTER: Duration = Duration::from_millis(300);

/// What going through a phase came to.
#[derive(Debug)]
pub(super) struct Performed {
    pub(super) record: Record,
    /// The process has ended in an orderly way, with an error: a service manager would start it again.
    pub(super) ended: Option<i32>,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) lab: Lab,
    setting: Setting,
    program: PathBuf,
    before: Everything,
}

impl Host {
    pub(super) fn build(setting: Setting, program: &Path) -> Result<Host> {
        let uplinks = setting.uplinks().iter().copied();
        let lab = Lab::builder().uplinks(uplinks).lan().build()?;
        // Beats every metric: to be displaced, and given back.
        let cable = lab.uplink("cable");
        lab.host().namespace().ip_batch(&format!(
            "route add default via {} dev cable proto static metric 1",
            cable.addresses().gateway_v4
        ))?;
        Ok(Host {
            before: at_rest(&lab)?,
            lab,
            setting,
            program: program.to_owned(),
        })
    }

    /// Goes through a phase, in which a call fails if one is ordered to, and all that comes after it.
    ///
    /// # Errors
    /// What was not as it must be; the host is not to be used any more then.
    pub(super) fn perform(&self, phase: Phase, order: Option<&Order>) -> Result<Performed> {
        self.lab.write_config(&self.setting.config(false))?;
        let streams = Streams::start(self.lab.host())?;
        match phase {
            Phase::Start => self.start(order, &streams),
            Phase::Switch => self.switch(order, &streams),
            Phase::Stop | Phase::Reset => self.end(phase, order, &streams),
            Phase::Reload | Phase::Restart => self.renew(phase, order, &streams),
        }
    }

    fn start(&self, order: Option<&Order>, streams: &Streams) -> Result<Performed> {
        let begun = Instant::now();
        let agent = self.run(Some(order))?;
        explained(&agent, || {
            let came = agent
                .wait_for_status("an active uplink", SOON, |status| is_settled(status, None))?;
            thread::sleep(AFTER);
            let record = agent.end();
            streams.must_flow(record.injected.unwrap_or(begun), LEASE + MARGIN)?;
            self.goes_on(&agent, &came, record, streams)
        })
    }

    fn switch(&self, order: Option<&Order>, streams: &Streams) -> Result<Performed> {
        let _idle = self.lab.host().tcp_idle(TARGET_V4)?;
        let _forwarded = self.lab.client().udp_stream(TARGET_V4).start()?;
        let agent = self.started()?;
        explained(&agent, || {
            let switches = recorded_switches(&agent.status()?);
            agent.begin(order);
            let fault = self.lab.uplink("cable").blackhole()?;
            self.rivals("append")?;
            if order.is_some_and(|order| order.kind.starts_with("netlink route RTM_")) {
                self.gates_follow_routes(&agent, switches)?;
            }
            streams.must_flow(fault.since(), DETECTION + LEASE + MARGIN)?;
            agent.must_show("another active uplink", SOON, |status| {
                is_settled(status, Some("cable"))
            })?;
            thread::sleep(AFTER);
            let record = agent.end();
            fault.repair()?;
            self.next_failover(&agent, streams)?;
            record.wait_for_the_end_of_a_hang();
            end(&agent)?;
            self.rivals("del")
                .context("what was displaced is not given back")?;
            self.nothing_left().context("after the stop")?;
            Ok(Performed {
                record,
                ended: None,
            })
        })
    }

    /// Another program's default routes, which lead to the uplink that fails and beat every metric.
    fn rivals(&self, verb: &str) -> Result<()> {
        let gateway = self.lab.uplink("cable").addresses().gateway_v4;
        let lines = [gateway.into(), IpAddr::V6(LINK_LOCAL_GATEWAY)]
            .map(|via| format!("route {verb} default via {via} dev cable proto 77 metric 2\n"));
        self.lab.host().namespace().ip_batch(&lines.concat())
    }

    fn renew(&self, phase: Phase, order: Option<&Order>, streams: &Streams) -> Result<Performed> {
        let agent = self.started()?;
        explained(&agent, || {
            let before = agent.status()?["agent"]["started"].clone();
            self.lab
                .write_config(&self.setting.config(phase == Phase::Reload))?;
            let begun = Instant::now();
            agent.begin(order);
            let answer = agent.order(&phase.to_string());
            let done = answer.is_ok_and(|answer| answer.get("done").is_some());
            let renewed = phase == Phase::Restart && done;
            thread::sleep(AFTER);
            let what = format!("an active uplink after the {phase}");
            let came = agent.wait_for_status(&what, SOON, |status| {
                is_settled(status, None) && (!renewed || status["agent"]["started"] != before)
            })?;
            thread::sleep(AFTER);
            let record = agent.end();
            streams.must_flow(record.injected.unwrap_or(begun), LEASE + MARGIN)?;
            ensure!(
                phase == Phase::Restart || matches!(came, Came::True(_)),
                "the agent has ended"
            );
            self.goes_on(&agent, &came, record, streams)
        })
    }

    fn end(&self, phase: Phase, order: Option<&Order>, streams: &Streams) -> Result<Performed> {
        let agent = self.started()?;
        let ending = if phase == Phase::Stop {
            agent.begin(order);
            agent.signal(Signal::SIGTERM)?;
            agent
        } else {
            agent.signal(Signal::SIGKILL)?;
            agent.wait_exit(SOON)?;
            Subject::start(&self.lab, &self.program, &["reset"], Some(order))?
        };
        explained(&ending, || {
            let exit = ending.wait_exit(SOON)?;
            let record = ending.end();
            let now = Instant::now();
            streams.must_flow(record.injected.unwrap_or(now), LEASE + MARGIN)?;
            let code = match exit {
                // As any program ends whose reader is gone: after everything is done.
                Exit::Signal(Signal::SIGPIPE) if phase == Phase::Reset => 0,
                exit => orderly(exit)?,
            };
            if code != 0 {
                ended_by_the_failure(&record, code)?;
            }
            if let Err(left) = self.nothing_left() {
                ensure!(code != 0, "the {phase} calls this a success: {left:#}");
                self.reset().with_context(|| format!("after {left:#}"))?;
            }
            let again = self.started()?;
            explained(&again, || {
                self.next_failover(&again, streams)?;
                self.stop(&again, &record)
            })?;
            Ok(Performed {
                record,
                ended: (code != 0).then_some(code),
            })
        })
    }

    /// The next failover by this agent, or by the one that is started after it, and its stop.
    fn goes_on(
        &self,
        agent: &Subject,
        came: &Came,
        record: Record,
        streams: &Streams,
    ) -> Result<Performed> {
        let ended = match came {
            Came::True(_) => {
                self.next_failover(agent, streams)?;
                self.stop(agent, &record)?;
                None
            }
            Came::Ended(exit) => {
                let code = orderly(*exit)?;
                ensure!(code != 0, "the agent has ended as if it had been stopped");
                ended_by_the_failure(&record, code)?;
                let again = self.started()?;
                explained(&again, || {
                    self.next_failover(&again, streams)?;
                    self.stop(&again, &record)
                })?;
                Some(code)
            }
        };
        Ok(Performed { record, ended })
    }

    fn next_failover(&self, agent: &Subject, streams: &Streams) -> Result<()> {
        let status = agent.must_show("all uplinks Up", SOON, |status| {
            is_settled(status, None) && states(status).all(|(_, state)| state["health"] == "Up")
        })?;
        let mut active = states(&status).filter(|(_, state)| state["active"] == true);
        let (name, _) = active.next().context("no active uplink")?;
        let name = name.as_str().context("an uplink without a name")?;
        let fault = self.lab.uplink(name).blackhole()?;
        let failover = streams.must_flow(fault.since(), DETECTION + LEASE + MARGIN);
        failover.with_context(|| format!("the next failover, away from {name}"))?;
        fault.repair()?;
        Ok(())
    }

    /// A stop that finds everything as it should be: what hung does not any more.
    fn stop(&self, agent: &Subject, record: &Record) -> Result<()> {
        record.wait_for_the_end_of_a_hang();
        end(agent)?;
        self.nothing_left().context("after the stop")
    }

    fn reset(&self) -> Result<()> {
        let reset = Subject::start(&self.lab, &self.program, &["reset"], None)?;
        explained(&reset, || {
            let exit = reset.wait_exit(SOON)?;
            ensure!(
                exit == Exit::Code(0),
                "the reset afterwards ended with {exit:?}"
            );
            self.nothing_left().context("after the reset")
        })
    }

    /// Waits until everything is as it was before: the kernel lets go of programs some time after the links' last descriptor.
    fn nothing_left(&self) -> Result<()> {
        wait_for("nothing is left", GONE, || {
            self.before.ensure_same(&Everything::of(&self.lab)?)
        })
    }

    fn run(&self, phase: Option<Option<&Order>>) -> Result<Subject> {
        let config = self.lab.agent_dirs().scratch.join("agent.toml");
        let arguments = ["run", "--config", &config.to_string_lossy()];
        Subject::start(&self.lab, &self.program, &arguments, phase)
    }

    /// An agent that has chosen its uplink.
    fn started(&self) -> Result<Subject> {
        let agent = self.run(None)?;
        explained(&agent, || {
            agent.must_show("an active uplink", SOON, |status| is_settled(status, None))
        })?;
        // What the start ends is no part of what comes next.
        thread::sleep(AFTER);
        Ok(agent)
    }
}

/// Ends the agent as a service manager would.
fn end(agent: &Subject) -> Result<()> {
    agent.signal(Signal::SIGTERM)?;
    let exit = agent.wait_exit(SOON)?;
    ensure!(
        exit == Exit::Code(0),
        "the stop afterwards ended with {exit:?}"
    );
    Ok(())
}

/// What is there when nothing changes by itself any more.
fn at_rest(lab: &Lab) -> Result<Everything> {
    let mut before = Everything::of(lab)?;
    wait_for("the host is at rest", SOON, || {
        thread::sleep(AFTER);
        let now = Everything::of(lab)?;
        let same = before.ensure_same(&now);
        before = now;
        same
    })?;
    Ok(before)
}

/// Runs `f`; its error also has the end of the program's log.
fn explained<T>(subject: &Subject, f: impl FnOnce() -> Result<T>) -> Result<T> {
    f().map_err(|error| {
        let log = subject.last_lines();
        error.context(format!(
            "the log of process {} ends with\n{log}\n",
            subject.pid()
        ))
    })
}

/// The code of a process that was not killed, and did not panic.
fn orderly(exit: Exit) -> Result<i32> {
    match exit {
        // Of std: a panic that was not caught.
        Exit::Code(101) => bail!("the process has panicked"),
        Exit::Code(code) => Ok(code),
        Exit::Signal(signal) => bail!("the process was killed by {signal}"),
    }
}

/// An error with which a process may end: a call of its own has failed.
fn ended_by_the_failure(record: &Record, code: i32) -> Result<()> {
    ensure!(
        record.injected.is_some(),
        "the process has ended with {code} although none of its calls was made to fail"
    );
    Ok(())
}
