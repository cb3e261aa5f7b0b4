//! Looking at everything again, after notifications were lost, beside a full routing table.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use failover_lab::{WideLab, peak_rss_bytes, reset_peak_rss, wait_for};
use nix::sys::signal::Signal;

use super::{
    super::{
        Family, Settings,
        figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
        idle::mebibytes,
        sample::Samples,
    },
    Fixture, routes, says,
};

pub(crate) const RESYNC: Family = Family {
    figures: &[
        Figure {
            name: "scale-resync-ms",
            about: "64 uplinks and 100,000 routes of others in the main table: a stopped agent loses notifications (the kernel says ENOBUFS), goes on, and has looked at everything again",
            unit: "ms",
            goal: Goal::AtMost(1000.0),
        },
        Figure {
            name: "scale-resync-mib",
            about: "peak of resident memory during that, minus resident memory before the 100,000 routes were there",
            unit: "MiB",
            goal: Goal::AtMost(20.0),
        },
    ],
    measure: |settings| Ok(resync(settings)?.into()),
};

/// How long the agent may take at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// Notifications that surely do not fit into the observer's receive buffer (`net.core.rmem_default`, 212,992 bytes; each takes several hundred).
const TOO_MANY: usize = 1000;

fn resync(settings: &Settings) -> Result<[Measurement; 2]> {
    let fixture = Fixture::start(settings, "info,failover_agent::agent::sync=debug")?;
    let repeats = settings.choose(5, 1);
    let mut without = Overruns::default();
    let before = resting(&fixture)?;
    for _ in 0..repeats {
        without.provoke(&fixture, before)?;
    }
    let before = resting(&fixture)?;
    routes::add(&fixture.lab, settings.choose(100_000, 2_000))?;
    let mut with = Overruns::default();
    for _ in 0..repeats {
        with.provoke(&fixture, before)?;
    }
    let measurement = |samples, reference| Measurement {
        samples,
        reference: Reference {
            what: "the same without routes of others",
            value: ReferenceValue::Measured(reference),
        },
    };
    Ok([
        measurement(with.took, without.took),
        measurement(with.grown, without.grown),
    ])
}

/// The agent's resident memory in bytes, by the same counter as its peak.
fn resting(fixture: &Fixture) -> Result<u64> {
    reset_peak_rss(fixture.agent.pid())?;
    peak_rss_bytes(fixture.agent.pid())
}

#[derive(Default)]
struct Overruns {
    took: Samples,
    grown: Samples,
}

impl Overruns {
    /// Makes the agent lose notifications. `before` is its memory to compare with, in bytes.
    fn provoke(&mut self, fixture: &Fixture, before: u64) -> Result<()> {
        let agent = &fixture.agent;
        reset_peak_rss(agent.pid())?;
        let earlier = agent.log().len();
        agent.signal(Signal::SIGSTOP)?;
        let noise = make_noise(&fixture.lab);
        let begun = Instant::now();
        agent.signal(Signal::SIGCONT)?;
        noise?;
        let looked = wait_for("the agent has looked again", PATIENCE, || {
            let mut log = agent.log().into_iter().skip(earlier);
            log.find(|line| says(line, "netlink: Resync"))
                .ok_or("it has not lost notifications")?;
            log.find(|line| says(line, "scanned uplinks and routes"))
                .ok_or("it has not looked again")
        })?;
        self.took.push_ms(looked.at - begun);
        let peak = peak_rss_bytes(agent.pid())?;
        self.grown.push(mebibytes(peak.saturating_sub(before)));
        Ok(())
    }
}

/// Adds and removes a default route in a table that nobody uses: the observer is told of each.
fn make_noise(lab: &WideLab) -> Result<()> {
    let uplink = lab.uplinks().last().context("no uplinks")?;
    let (name, gateway) = (&uplink.name, uplink.gateway);
    let change = |verb: &str| format!("route {verb} default via {gateway} dev {name} table 999\n");
    lab.host()
        .ip_batch(&[change("add"), change("del")].concat().repeat(TOO_MANY / 2))
}
