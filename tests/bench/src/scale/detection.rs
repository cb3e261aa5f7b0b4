//! How punctually many uplinks are found Down.
//!
//! Uplinks are cut one after the other, at random phases of the interval and faster than they are found Down, until all but the last are.
//! A capture at the other end of the links tells which rounds were lost, and when they were sent. No agent with these settings can know
//! of a fault before the `fall`th lost round has timed out, which was to be sent `fall - 1` intervals after the first. How far from the
//! instant in which that is so the agent's log says Down, by its own time stamps, is the deviation.

use std::{
    hash::{BuildHasher, RandomState},
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use failover_lab::{LogLine, wait_until};

use super::{
    super::{
        Family, Settings,
        figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
        sample::Samples,
    },
    FALL, Fixture, INTERVAL, READY,
    rounds::Rounds,
};

pub(crate) const DETECTION: Family = Family {
    figures: &[
        Figure {
            name: "scale-detection-ms",
            about: "64 uplinks × 2 targets × 10 Hz, 63 of which fail one by one, 20 a second: from the instant at which a fault can be known first (first lost round sent + 2 intervals + timeout) to the log's `is Down`",
            unit: "ms",
            goal: Goal::AtMost(10.0),
        },
        Figure {
            name: "scale-jitter-ms",
            about: "99th percentile of the same",
            unit: "ms",
            goal: Goal::AtMost(10.0),
        },
    ],
    measure: |settings| Ok(detection(settings)?.into()),
};

/// Time from cut to cut in the mean.
const PACE: Duration = Duration::from_millis(50);

/// From the start of the capture to the first cut.
const BEFORE: Duration = Duration::from_millis(300);

fn detection(settings: &Settings) -> Result<[Measurement; 2]> {
    let fixture = Fixture::start(settings, "info")?;
    let mut deviations = Samples::default();
    let mut lateness = Samples::default();
    for _ in 0..settings.choose(3, 1) {
        let sleeper = thread::spawn(sleep_and_look);
        for deviation in fail_all_but_one(&fixture)? {
            deviations.push(deviation);
        }
        let late = sleeper.join().ok().context("the sleeper has panicked")?;
        late.into_iter().for_each(|late| lateness.push_ms(late));
    }
    let what = "how late a bare thread, beside the agent, wakes from sleeps of 10 ms";
    let percentile = |samples: &Samples| -> Result<Samples> {
        let mut one = Samples::default();
        one.push(samples.percentile(99).context("no samples")?);
        Ok(one)
    };
    Ok([
        Measurement {
            reference: Reference {
                what,
                value: ReferenceValue::Measured(lateness.clone()),
            },
            samples: deviations.clone(),
        },
        Measurement {
            reference: Reference {
                what: "99th percentile of how late that thread wakes",
                value: ReferenceValue::Measured(percentile(&lateness)?),
            },
            samples: percentile(&deviations)?,
        },
    ])
}

/// Cuts all uplinks but the last in random order, and mends them. The deviation of each in milliseconds.
fn fail_all_but_one(fixture: &Fixture) -> Result<Vec<f64>> {
    let lab = &fixture.lab;
    let (_, uplinks) = lab.uplinks().split_last().context("no uplinks")?;
    let capture = lab.capture("icmp")?;
    thread::sleep(BEFORE);
    let earlier = fixture.agent.log().len();
    let mut order: Vec<_> = uplinks.iter().collect();
    order.sort_by_cached_key(|uplink| RandomState::new().hash_one(&uplink.name));
    for uplink in order {
        lab.cut([uplink])?;
        thread::sleep(PACE.mul_f64(2.0 * random()));
    }
    let down = || -> Vec<LogLine> {
        let log = fixture.agent.log().into_iter().skip(earlier);
        log.filter(|line| line.field("to").is_some_and(|to| to == "Down"))
            .collect()
    };
    wait_until("all cut uplinks are Down", READY, || {
        down().len() >= uplinks.len()
    })?;
    let rounds = Rounds::read(&capture.finish()?)?;
    lab.mend(uplinks)?;
    fixture.wait_until_up()?;
    down()
        .iter()
        .map(|line| deviation(fixture, &rounds, line))
        .collect()
}

/// How far from the first possible instant this line was logged, in milliseconds.
fn deviation(fixture: &Fixture, rounds: &Rounds, line: &LogLine) -> Result<f64> {
    let name = line.field("uplink").context("a line without an uplink")?;
    let host = host_of(fixture, name.as_str().unwrap_or_default())?;
    let lost: Vec<_> = rounds.lost(host).take(FALL as usize).collect();
    let [first, _, last] = lost[..] else {
        bail!(
            "{name} is Down after {} lost rounds: the machine is too busy",
            lost.len()
        );
    };
    let stamp = line.field("timestamp").and_then(|stamp| stamp.as_str());
    let stamp = humantime::parse_rfc3339(stamp.context("a line without a time stamp")?)?;
    let logged = stamp.duration_since(UNIX_EPOCH)?;
    // A round out of turn, which the agent may ask for before it switches, makes it known earlier.
    let known = last.min(first + INTERVAL * (FALL - 1)) + fixture.timeout;
    Ok(logged.abs_diff(known).as_secs_f64() * 1e3)
}

fn host_of(fixture: &Fixture, name: &str) -> Result<Ipv4Addr> {
    let mut uplinks = fixture.lab.uplinks().iter();
    let uplink = uplinks.find(|uplink| uplink.name == name);
    Ok(uplink.with_context(|| format!("no uplink `{name}`"))?.host)
}

/// From 0 to 1.
fn random() -> f64 {
    let random = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default();
    f64::from(random) / f64::from(u32::MAX)
}

/// How late it woke, for about as long as the uplinks fail.
fn sleep_and_look() -> Vec<Duration> {
    const NAP: Duration = Duration::from_millis(10);
    let begun = Instant::now();
    let naps = (1..=300).map(|nap| {
        let due = NAP * nap;
        thread::sleep(due.saturating_sub(begun.elapsed()));
        begun.elapsed().saturating_sub(due)
    });
    naps.collect()
}
