//! How long a stream is interrupted when the active uplink dies silently.

use std::{
    hash::{BuildHasher, RandomState},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use failover_lab::{Lab, TARGET_V4, TARGETS_V4};

use super::{
    Family, Settings, agent,
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

/// How long a failover or a failback may take.
const SOON: Duration = Duration::from_secs(30);

/// How long a stream flows before it is interrupted.
const BEFORE: Duration = Duration::from_millis(100);

pub(super) const TENTH: Family = Family {
    figures: &[Figure {
        name: "outage-100ms",
        about: "gap in a UDP stream (one datagram every 5 ms) at a silent blackhole; interval = timeout = 100 ms, fall 3; theory says 300 to 400, 350 in the mean",
        unit: "ms",
        goal: Goal::AtMost(400.0),
    }],
    measure: |settings| {
        let (samples, by_hand) = outages(settings, Duration::from_millis(100), 3)?;
        Ok(vec![Measurement {
            samples,
            reference: Reference {
                what: "the same gap when `ip route` switches by hand in the instant of the blackhole: what no detection at all would cost",
                value: ReferenceValue::Measured(by_hand),
            },
        }])
    },
};

pub(super) const SECOND: Family = Family {
    figures: &[Figure {
        name: "outage-1s",
        about: "the same at interval = timeout = 1 s, fall 2; theory says 2000 to 3000, 2500 in the mean",
        unit: "ms",
        goal: Goal::AtMost(2700.0),
    }],
    measure: |settings| {
        let (samples, _) = outages(settings, Duration::from_secs(1), 2)?;
        Ok(vec![Measurement {
            samples,
            reference: Reference {
                what: "Network Swapper at these settings, its only ones; quoted from an earlier measurement in such a laboratory, median of 5",
                value: ReferenceValue::Quoted(3500.0),
            },
        }])
    },
};

/// Gaps in milliseconds: with the agent, and switched by hand.
fn outages(settings: &Settings, interval: Duration, fall: u32) -> Result<(Samples, Samples)> {
    let lab = Lab::builder().build()?;
    let other_lab = Lab::builder().build()?;
    let targets = TARGETS_V4.map(|target| format!("\"{target}\"")).join(", ");
    let millis = interval.as_millis();
    let probe = format!(
        "targets = [{targets}]\ninterval = \"{millis}ms\"\ntimeout = \"{millis}ms\"\nfall = {fall}\nrise = 2"
    );
    // Runs for as long as outages are measured.
    let _agent = agent::start(settings, &lab, &probe)?;
    let origin = Instant::now();
    let mut samples = Samples::default();
    let mut reference = Samples::default();
    let trials = settings.choose(7, 1);
    for trial in 0..trials {
        let phase = Phase::of_trial(origin, interval, trial, trials);
        let gap = interrupt(&lab, &phase, Cure::Agent)?;
        let by_hand = interrupt(&other_lab, &phase, Cure::Hand)?;
        eprintln!(
            "  {} of {trials}: {} ms, by hand {} ms",
            trial + 1,
            gap.as_millis(),
            by_hand.as_millis()
        );
        samples.push_ms(gap);
        reference.push_ms(by_hand);
    }
    Ok((samples, reference))
}

/// A point in the interval.
struct Phase {
    /// Any instant: the agent's rounds keep their distance to it.
    origin: Instant,
    interval: Duration,
    offset: Duration,
}

impl Phase {
    /// At random, but each trial in a part of the interval of its own, so that few trials represent all of it.
    fn of_trial(origin: Instant, interval: Duration, trial: u32, trials: u32) -> Phase {
        let random = u32::try_from(RandomState::new().hash_one(trial) >> 32).unwrap_or_default();
        let within = f64::from(random) / f64::from(u32::MAX);
        Phase {
            origin,
            interval,
            offset: interval.mul_f64((f64::from(trial) + within) / f64::from(trials)),
        }
    }

    /// Sleeps until it comes next.
    fn wait(&self) {
        let nanos = self.interval.as_nanos();
        let now = self.origin.elapsed().as_nanos() % nanos;
        let pause = (self.offset.as_nanos() + nanos - now) % nanos;
        thread::sleep(Duration::from_nanos(
            u64::try_from(pause).unwrap_or_default(),
        ));
    }
}

/// Who switches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cure {
    Agent,
    Hand,
}

/// Interrupts a stream by the preferred uplink, and ends that when it flows by the other one and back. Returns the gap at the beginning.
fn interrupt(lab: &Lab, phase: &Phase, cure: Cure) -> Result<Duration> {
    let [preferred, other] = [0, 1].map(|rank| &lab.uplinks()[rank]);
    let stream = lab.host().udp_stream(TARGET_V4).start()?;
    stream.wait_for_echo_by(preferred.name(), Instant::now(), SOON)?;
    thread::sleep(BEFORE);
    phase.wait();
    let fault = preferred.blackhole()?;
    if cure == Cure::Hand {
        route(lab, "replace")?;
    }
    stream.wait_for_echo_by(other.name(), fault.since(), SOON)?;
    let gap = stream
        .report()
        .longest_gap_between(fault.since() - BEFORE, Instant::now())
        .context("the stream is empty")?;
    let repaired = fault.repair()?;
    if cure == Cure::Hand {
        route(lab, "del")?;
    }
    stream.wait_for_echo_by(preferred.name(), repaired, SOON)?;
    Ok(gap.duration())
}

/// Puts a default route by the second uplink before all others, or takes it away.
fn route(lab: &Lab, verb: &str) -> Result<()> {
    let uplink = &lab.uplinks()[1];
    let (gateway, name) = (uplink.addresses().gateway_v4, uplink.name());
    let batch = format!("route {verb} default via {gateway} dev {name} metric 5");
    lab.host().namespace().ip_batch(&batch)
}
