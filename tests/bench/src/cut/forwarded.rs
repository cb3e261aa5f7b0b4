//! A client behind the host, which forwards and masquerades for it.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use failover_lab::{Lab, TARGET_V4, UdpStream};

use super::{
    BEFORE, PATIENCE, SOON, Script,
    client::{Client, End, Pace},
    start_agent, switch,
};
use crate::{
    Family, Settings,
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

pub(crate) const FORWARDED_TCP: Family = Family {
    figures: &[Figure {
        name: "cut-forwarded-ms",
        about: "a TCP client behind the host (a segment every 20 ms), from its first segment after the new route's confirmation to its error; asked is a round trip and 1 ms, and the round trip is not subtracted here",
        unit: "ms",
        goal: Goal::AtMost(1.0),
    }],
    measure: |settings| Ok(vec![tcp(settings)?]),
};

pub(crate) const FORWARDED_UDP: Family = Family {
    figures: &[Figure {
        name: "cut-udp-packets",
        about: "datagrams of a client behind the host (one every 1 ms) sent after the switch is carried out that are lost before the first one arrives by the new uplink; what is lost between the steps of the switch is told while it is measured",
        unit: "",
        goal: Goal::AtMost(0.0),
    }],
    measure: |settings| Ok(vec![udp(settings)?]),
};

/// Time from one segment to the next.
const SEGMENTS: Duration = Duration::from_millis(20);

/// Time from one datagram to the next.
const DATAGRAMS: Duration = Duration::from_millis(1);

fn tcp(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().lan().build()?;
    let by_hand = Lab::builder().lan().build()?;
    let agent = start_agent(settings, &lab)?;
    let start = |lab: &Lab| -> Result<Client> {
        let client = Client::start(lab.client().namespace(), Pace::Every(SEGMENTS))?;
        thread::sleep(BEFORE);
        Ok(client)
    };
    let mut samples = Samples::default();
    for _ in 0..settings.choose(25, 3) {
        let client = start(&lab)?;
        let switched = switch(&agent, "lte", "lte")?;
        let end = client.wait(PATIENCE)?.context("the client was not told")?;
        samples.push_ms(since_next_write(&end, switched.routed)?);
        switch(&agent, "auto", "cable")?;
    }
    let mut reference = Samples::default();
    for _ in 0..settings.choose(15, 3) {
        let client = start(&by_hand)?;
        let _script = Script::switch(&by_hand)?;
        let switched = Instant::now();
        let end = client.wait(PATIENCE)?;
        reference.push_ms(end.map_or(Ok(PATIENCE), |end| since_next_write(&end, switched))?);
    }
    Ok(Measurement {
        samples,
        reference: Reference {
            what: "the same when `ip route` makes the other uplink active and `iptables` DROPs what leaves by the old one; 3000 means no error in 3 s",
            value: ReferenceValue::Measured(reference),
        },
    })
}

/// From the first write after the switch to the error; from the last one before it, should the error be the answer to that.
fn since_next_write(end: &End, switched: Instant) -> Result<Duration> {
    let next = end.writes.iter().find(|write| **write >= switched);
    let from = next.or(end.writes.last()).context("nothing was written")?;
    Ok(end.at.saturating_duration_since(*from))
}

fn udp(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().lan().build()?;
    let by_hand = Lab::builder().lan().build()?;
    let agent = start_agent(settings, &lab)?;
    let start = |lab: &Lab| -> Result<UdpStream> {
        let stream = lab.client().udp_stream(TARGET_V4).every(DATAGRAMS);
        let stream = stream.start()?;
        stream.wait_for_echo_by("cable", Instant::now(), SOON)?;
        thread::sleep(BEFORE);
        Ok(stream)
    };
    let mut samples = Samples::default();
    let mut reference = Samples::default();
    // From the beginning of the switch, agent and script: what leaves between its steps is lost to the old address.
    let mut in_all = [0, 0];
    for _ in 0..settings.choose(25, 3) {
        let stream = start(&lab)?;
        let switched = switch(&agent, "lte", "lte")?;
        stream.wait_for_echo_by("lte", switched.cut, SOON)?;
        samples.push(lost(&lab, &stream, switched.cut).into());
        in_all[0] += lost(&lab, &stream, switched.decided);
        drop(stream);
        switch(&agent, "auto", "cable")?;

        let stream = start(&by_hand)?;
        let begun = Instant::now();
        let _script = Script::switch(&by_hand)?;
        let done = Instant::now();
        stream.wait_for_echo_by("lte", done, SOON)?;
        reference.push(lost(&by_hand, &stream, done).into());
        in_all[1] += lost(&by_hand, &stream, begun);
    }
    eprintln!(
        "  lost from the beginning of {} switches, not only after them: {}, and by the script {}",
        samples.count(),
        in_all[0],
        in_all[1]
    );
    Ok(Measurement {
        samples,
        reference: Reference {
            what: "the same when `ip route` makes the other uplink active and `iptables` DROPs what leaves by the old one, likewise after both: MASQUERADE alone finds a new address",
            value: ReferenceValue::Measured(reference),
        },
    })
}

/// Datagrams sent after `from` that did not arrive, before the first that arrived by the new uplink.
fn lost(lab: &Lab, stream: &UdpStream, from: Instant) -> u32 {
    let arrivals = lab.servers().arrivals(stream.id());
    let uplinks: BTreeMap<u64, _> = arrivals
        .iter()
        .map(|arrival| (arrival.sequence, arrival.uplink.as_deref()))
        .collect();
    let report = stream.report();
    let sent = report.records.iter();
    sent.filter(|record| record.sent >= from)
        .map(|record| uplinks.get(&record.sequence))
        .take_while(|uplink| *uplink != Some(&Some("lte")))
        .map(|uplink| u32::from(uplink.is_none()))
        .sum()
}
