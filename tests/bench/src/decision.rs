//! From the decision to confirmed routes and gates: the agent's own records of real switches.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use failover_lab::{Lab, TARGET_V4};
use serde_json::Value;

use super::{
    Family, Settings, agent,
    datapath::{command, iptables},
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

/// How long a failover or a failback may take.
const SOON: Duration = Duration::from_secs(20);

pub(super) const DECISION: Family = Family {
    figures: &[Figure {
        name: "decision-ms",
        about: "from the decision to switch until routes and gates are confirmed, 2 uplinks, as the agent records it (`status --json`)",
        unit: "ms",
        goal: Goal::AtMost(1.0),
    }],
    measure: |settings| Ok(vec![decision(settings)?]),
};

fn decision(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().build()?;
    let by_hand = Lab::builder().build()?;
    let mut script = Script::prepare(&by_hand)?;
    let agent = agent::start(
        settings,
        &lab,
        &format!(
            "targets = [\"{TARGET_V4}\"]\ninterval = \"50ms\"\ntimeout = \"100ms\"\nfall = 2\nrise = 2"
        ),
    )?;
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    let mut samples = Samples::default();
    let mut reference = Samples::default();
    for _ in 0..settings.choose(15, 2) {
        let fault = lab.uplink("cable").blackhole()?;
        stream.wait_for_echo_by("lte", fault.since(), SOON)?;
        let repaired = fault.repair()?;
        stream.wait_for_echo_by("cable", repaired, SOON)?;
        let status = agent.status_json()?;
        for cause in ["failback", "failover"] {
            samples.push_ms(from_decision_to_gates(&status, cause)?);
            reference.push_ms(script.switch()?);
        }
    }
    Ok(Measurement {
        samples,
        reference: Reference {
            what: "the same four changes (new route in, old one out, one gate opened, one closed) by `ip route` and `iptables` processes",
            value: ReferenceValue::Measured(reference),
        },
    })
}

/// Of the newest switch for this cause.
fn from_decision_to_gates(status: &Value, cause: &str) -> Result<Duration> {
    let mut switches = status["switches"].as_array().into_iter().flatten();
    let switch = switches
        .find(|switch| switch["cause"] == cause)
        .with_context(|| format!("no {cause} in the status"))?;
    let timeline = &switch["timeline"];
    let decided = timeline["decided_us"].as_u64();
    let gated = timeline["gated_us"].as_u64();
    let (decided, gated) = decided
        .zip(gated)
        .with_context(|| format!("a {cause} without confirmed gates: {timeline}"))?;
    ensure!(gated >= decided, "gated before decided: {timeline}");
    Ok(Duration::from_micros(gated - decided))
}

/// What a shell script would do.
struct Script<'a> {
    lab: &'a Lab,
    /// Index of the active uplink.
    active: usize,
}

impl Script<'_> {
    /// The first uplink is active, the second one's gate closed.
    fn prepare(lab: &Lab) -> Result<Script<'_>> {
        lab.host().namespace().run(|| {
            route(lab, "replace", 0)?;
            iptables("-I", lab.uplinks()[1].name())
        })?;
        Ok(Script { lab, active: 0 })
    }

    /// Makes the other uplink active; how long that took.
    fn switch(&mut self) -> Result<Duration> {
        let (lab, old, new) = (self.lab, self.active, 1 - self.active);
        let took = lab.host().namespace().run(|| {
            let begun = Instant::now();
            iptables("-D", lab.uplinks()[new].name())?;
            route(lab, "append", new)?;
            route(lab, "del", old)?;
            iptables("-I", lab.uplinks()[old].name())?;
            Ok(begun.elapsed())
        })?;
        self.active = new;
        Ok(took)
    }
}

/// Changes an uplink's default route that is better than any other. To be called in the host's namespace.
fn route(lab: &Lab, verb: &str, uplink: usize) -> Result<()> {
    let uplink = &lab.uplinks()[uplink];
    let gateway = uplink.addresses().gateway_v4.to_string();
    let route = [
        "default",
        "via",
        &gateway,
        "dev",
        uplink.name(),
        "metric",
        "50",
    ];
    command("ip", &[&["route", verb], &route[..]].concat())
}
