//! An agent with as many uplinks as it takes: 64 uplinks × 2 targets × 10 Hz.

mod churn;
mod detection;
mod load;
mod resync;
mod rounds;
mod routes;

pub(super) use self::{churn::CHURN, detection::DETECTION, load::LOAD, resync::RESYNC};

use std::time::{Duration, Instant};

use anyhow::Result;
use failover_lab::{AgentProcess, TARGETS_V4, WideLab};

use super::Settings;

/// How long the agent may take to start with all uplinks, or to find them Up.
const READY: Duration = Duration::from_secs(60);

/// Targets of each uplink.
const TARGETS: usize = 2;
/// From round to round.
const INTERVAL: Duration = Duration::from_millis(100);
/// Bad rounds in a row until an uplink is Down.
const FALL: u32 = 3;

/// A laboratory and an agent that finds all uplinks Up.
struct Fixture {
    agent: AgentProcess,
    lab: WideLab,
    /// What a probe waits for its answer.
    timeout: Duration,
}

impl Fixture {
    /// `log` is the agent's `RUST_LOG`.
    fn start(settings: &Settings, log: &str) -> Result<Fixture> {
        let lab = WideLab::build(settings.choose(failover_ebpf::MAX_UPLINKS, 8))?;
        // A quick run is for machines that are busy with other things: patience, so that only a fault makes an uplink Down.
        let timeout = settings.choose(INTERVAL, Duration::from_secs(1));
        let targets = TARGETS_V4[..TARGETS].iter();
        let targets: Vec<_> = targets.map(|target| format!("\"{target}\"")).collect();
        let probe = format!(
            "targets = [{}]\ninterval = \"{}ms\"\ntimeout = \"{}ms\"\nfall = {FALL}\nrise = 2",
            targets.join(", "),
            INTERVAL.as_millis(),
            timeout.as_millis(),
        );
        let started = Instant::now();
        let agent = lab.spawn_agent(&settings.agent()?, &probe, log)?;
        let running = agent.wait_for_line("that it runs", READY, |line| says(line, "running"))?;
        let fixture = Fixture {
            agent,
            lab,
            timeout,
        };
        fixture.wait_until_up()?;
        eprintln!(
            "  {} uplinks: programs attached and running after {} ms, all Up after {} ms",
            fixture.lab.uplinks().len(),
            running.at.duration_since(started).as_millis(),
            started.elapsed().as_millis(),
        );
        Ok(fixture)
    }

    /// Waits until the preferred uplink is active and all are Up.
    fn wait_until_up(&self) -> Result<()> {
        let preferred = &self.lab.uplinks()[0].name;
        self.agent
            .wait_for_status("all uplinks Up", READY, |status| {
                let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
                status["active"] == **preferred && uplinks.all(|uplink| uplink["health"] == "Up")
            })?;
        Ok(())
    }
}

/// Whether a line's message is this.
fn says(line: &failover_lab::LogLine, message: &str) -> bool {
    line.field("message").is_some_and(|text| text == message)
}
