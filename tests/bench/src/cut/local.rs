//! A transmitting application on the host.

use std::{io::ErrorKind, thread, time::Instant};

use anyhow::{Context, Result};
use failover_lab::Lab;

use super::{
    BEFORE, PATIENCE, Script,
    client::{Client, Pace},
    start_agent, switch,
};
use crate::{
    Family, Settings,
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

pub(crate) const LOCAL: Family = Family {
    figures: &[Figure {
        name: "cut-tcp-ms",
        about: "a TCP sender on the host, from the decision to switch, with the new route still to be put in before the gate is closed, to its error",
        unit: "ms",
        goal: Goal::AtMost(1.0),
    }],
    measure: |settings| Ok(vec![local(settings)?]),
};

fn local(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().build()?;
    let by_hand = Lab::builder().build()?;
    let agent = start_agent(settings, &lab)?;
    let mut samples = Samples::default();
    let mut by_reset = 0;
    for _ in 0..settings.choose(25, 3) {
        let client = Client::start(lab.host().namespace(), Pace::Bulk)?;
        thread::sleep(BEFORE);
        let switched = switch(&agent, "lte", "lte")?;
        let end = client.wait(PATIENCE)?.context("the sender was not told")?;
        samples.push_ms(end.at.saturating_duration_since(switched.decided));
        by_reset += usize::from(end.error.kind() == ErrorKind::ConnectionReset);
        switch(&agent, "auto", "cable")?;
    }
    eprintln!(
        "  the programs' RST was the first to tell {by_reset} of {} senders, before the destruction of their sockets",
        samples.count()
    );
    let mut reference = Samples::default();
    for _ in 0..settings.choose(3, 1) {
        let client = Client::start(by_hand.host().namespace(), Pace::Bulk)?;
        thread::sleep(BEFORE);
        let script = Script::switch(&by_hand)?;
        let switched = Instant::now();
        let end = client.wait(PATIENCE)?;
        reference.push_ms(end.map_or(PATIENCE, |end| end.at.saturating_duration_since(switched)));
        drop(script);
    }
    Ok(Measurement {
        samples,
        reference: Reference {
            what: "the same sender when `ip route` makes the other uplink active and `iptables` DROPs what leaves by the old one; 3000 means no error in 3 s",
            value: ReferenceValue::Measured(reference),
        },
    })
}
