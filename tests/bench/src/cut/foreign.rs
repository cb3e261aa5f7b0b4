//! Packets that leave by an uplink with another one's address.

use std::{thread, time::Duration};

use anyhow::Result;
use failover_lab::{Lab, TARGET_V4, TcpClient, UdpStream, Uplink};

use super::{BEFORE, Script, start_agent, switch};
use crate::{
    Family, Settings,
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

pub(crate) const FOREIGN: Family = Family {
    figures: &[Figure {
        name: "foreign-packets",
        about: "packets with a foreign source that all providers see at 10 switches and back, in all (2 TCP senders, an idle one and a connected UDP sender on the host, a TCP and a UDP client behind it)",
        unit: "",
        goal: Goal::AtMost(0.0),
    }],
    measure: |settings| Ok(vec![foreign(settings)?]),
};

/// How long it is looked after a switch: more than TCP's first retransmissions take.
const AFTER: Duration = Duration::from_secs(1);

fn foreign(settings: &Settings) -> Result<Measurement> {
    let lab = Lab::builder().lan().build()?;
    let by_hand = Lab::builder().lan().build()?;
    let agent = start_agent(settings, &lab)?;
    // One number each: a median would hide a single packet.
    let (mut with_agent, mut by_script) = (0, 0);
    for _ in 0..settings.choose(10, 2) {
        with_agent += seen(&lab, || {
            let _old = Traffic::start(&lab)?;
            switch(&agent, "lte", "lte")?;
            let _new = Traffic::start(&lab)?;
            thread::sleep(AFTER);
            switch(&agent, "auto", "cable")?;
            thread::sleep(AFTER);
            Ok(())
        })?;
        by_script += seen(&by_hand, || {
            let _old = Traffic::start(&by_hand)?;
            let script = Script::switch(&by_hand)?;
            let _new = Traffic::start(&by_hand)?;
            thread::sleep(AFTER);
            drop(script);
            thread::sleep(AFTER);
            Ok(())
        })?;
    }
    let mut samples = Samples::default();
    samples.push(f64::from(with_agent));
    let mut reference = Samples::default();
    reference.push(f64::from(by_script));
    Ok(Measurement {
        samples,
        reference: Reference {
            what: "the same when `ip route` makes the other uplink active and `iptables` DROPs what leaves by the old one, and back",
            value: ReferenceValue::Measured(reference),
        },
    })
}

/// Foreign packets while `work` is done.
fn seen(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<u32> {
    let count = || -> Result<u64> {
        let uplinks = lab.uplinks().iter();
        uplinks.map(Uplink::foreign_packets).sum()
    };
    let before = count()?;
    work()?;
    Ok(u32::try_from(count()? - before)?)
}

/// What goes on; ends when dropped.
struct Traffic {
    _tcp: [TcpClient; 4],
    _udp: [UdpStream; 2],
}

impl Traffic {
    fn start(lab: &Lab) -> Result<Traffic> {
        let (host, client) = (lab.host(), lab.client());
        let often = Duration::from_millis(5);
        let traffic = Traffic {
            _tcp: [
                host.tcp_bulk(TARGET_V4)?,
                host.tcp_stream(TARGET_V4, often)?,
                host.tcp_idle(TARGET_V4)?,
                client.tcp_stream(TARGET_V4, often)?,
            ],
            _udp: [
                host.udp_stream(TARGET_V4).connected().start()?,
                client.udp_stream(TARGET_V4).start()?,
            ],
        };
        thread::sleep(BEFORE);
        Ok(traffic)
    }
}
