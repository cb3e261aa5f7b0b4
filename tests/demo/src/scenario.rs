//! What is done in the laboratory, step by step.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use failover_lab::{Fault, Lab, TARGET_V4, TcpClient, UdpStream};
use nix::{net::if_::if_nametoindex, sys::signal::Signal};

use super::{
    Options, PROBE,
    event::Event,
    screen::Screen,
    summary::{GapSplit, Measured, Packets, PerStream, Summary},
    timeline::{Timeline, milliseconds},
    watch::Watch,
};

/// The preferred uplink and the other one.
const CABLE: &str = "cable";
const LTE: &str = "lte";

/// Time between two packets of the steady streams.
pub(super) const FAST: Duration = Duration::from_millis(5);
/// The same of the stream that keeps its address.
pub(super) const OLD: Duration = Duration::from_millis(50);

/// Old connections end at once; this is for a machine that is very busy.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How long each state is watched when all is well.
const STEADY: Duration = Duration::from_millis(1500);

/// What takes longer than these has failed; with the demonstration's settings a failover takes 0.3 to 0.4 s, a failback 1.5 s.
const START_LIMIT: Duration = Duration::from_secs(10);
const FAILOVER_LIMIT: Duration = Duration::from_secs(5);
const FAILBACK_LIMIT: Duration = Duration::from_secs(15);
const PACKET_LIMIT: Duration = Duration::from_secs(5);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What a demonstration that succeeded has brought.
pub(super) struct Outcome {
    pub(super) summary: Summary,
    /// What bpftool printed while the preferred uplink was broken, if it is installed.
    pub(super) map: Option<String>,
}

/// Builds the laboratory, runs the agent through a failover and a failback, and removes everything.
///
/// # Errors
/// When anything did not happen in time; the error shows the end of the agent's log.
pub(super) fn run(
    options: &Options,
    agent: &Path,
    timeline: &mut Timeline,
    screen: &mut Screen,
) -> Result<Outcome> {
    let lab = Lab::builder().uplinks([CABLE, LTE]).lan().build()?;
    let build_ms = milliseconds(lab.build_time());
    timeline.push(Instant::now(), Event::Laboratory { build_ms });
    let mut watch = Watch::start(&lab, agent, &lab.config(PROBE), timeline, screen)?;
    demonstrate(options, &lab, &mut watch).map_err(|error| match watch.last_lines() {
        Some(lines) => anyhow!("{error:#}\nThe agent's log ended with:\n{lines}"),
        None => anyhow!("{error:#}: it has logged nothing"),
    })
}

fn demonstrate(options: &Options, lab: &Lab, watch: &mut Watch) -> Result<Outcome> {
    watch.until("the agent was not running", START_LIMIT, |watch| {
        watch.running().then_some(())
    })?;
    watch.until("cable was not active", START_LIMIT, |watch| {
        (watch.active() == Some(CABLE)).then_some(())
    })?;
    let streams = Streams::start(lab)?;
    streams.flow(watch)?;
    watch.pause(STEADY)?;

    let _backup = options
        .break_backup
        .then(|| set_fault(lab, LTE, watch))
        .transpose()?;
    if options.break_backup {
        watch.pause(STEADY)?;
    }
    // On a machine that is too busy to answer pings, it may just now be somewhere else.
    watch.until("cable was not active again", FAILBACK_LIMIT, |watch| {
        (watch.active() == Some(CABLE)).then_some(())
    })?;

    let fault = set_fault(lab, CABLE, watch)?;
    let broken = fault.since();
    let failover = watch.until(
        "no failover: lte did not become the active uplink",
        FAILOVER_LIMIT,
        |watch| watch.switch_to(LTE, broken),
    )?;
    let first_by_lte = streams.first_packets(LTE, broken, watch)?;
    let old_ended = streams.old_ones_end(failover.decided, watch)?;
    watch.pause(STEADY)?;
    let map = uplinks_map(lab)?;

    let repaired = fault.repair()?;
    watch.happened(repaired, Event::Repair { uplink: CABLE });
    let failback = watch.until(
        "no failback: cable did not become the active uplink again",
        FAILBACK_LIMIT,
        |watch| watch.switch_to(CABLE, repaired),
    )?;
    let first_by_cable = streams.first_packets(CABLE, repaired, watch)?;
    watch.pause(STEADY)?;

    let cut = Cut::read(watch)?;
    let reports = streams.stop()?;
    stop_agent(watch)?;
    let failover = Measured {
        switch: &failover,
        cause: broken,
        interrupted: broken,
        first_packet: first_by_lte,
        old_ended: Some(old_ended),
        streams: &reports,
        cut: cut.cable,
    }
    .phase();
    let failback = Measured {
        switch: &failback,
        cause: repaired,
        interrupted: failback.decided,
        first_packet: first_by_cable,
        old_ended: None,
        streams: &reports,
        cut: cut.lte,
    }
    .phase();
    let summary = Summary {
        gap_split: GapSplit::of(&failover),
        failover,
        failback,
        packets: PerStream {
            host: Packets::of(&reports.host),
            client: Packets::of(&reports.client),
        },
        total_ms: watch.elapsed_ms(),
    };
    Ok(Outcome { summary, map })
}

fn set_fault(lab: &Lab, uplink: &'static str, watch: &mut Watch) -> Result<Fault> {
    let fault = lab.uplink(uplink).blackhole()?;
    watch.happened(fault.since(), Event::Fault { uplink });
    Ok(fault)
}

/// All traffic.
struct Streams {
    host: UdpStream,
    client: UdpStream,
    /// TCP connections by cable, which cannot go on by lte.
    old: [(&'static str, TcpClient); 2],
}

impl Streams {
    fn start(lab: &Lab) -> Result<Streams> {
        let stream = |node: &failover_lab::Node| node.udp_stream(TARGET_V4).every(FAST).start();
        Ok(Streams {
            host: stream(lab.host())?,
            client: stream(lab.client())?,
            old: [
                ("host", lab.host().tcp_idle(TARGET_V4)?),
                ("client", lab.client().tcp_stream(TARGET_V4, OLD)?),
            ],
        })
    }

    fn named(&self) -> [(&'static str, &UdpStream); 2] {
        [("host", &self.host), ("client", &self.client)]
    }

    /// Waits until both steady ones flow.
    fn flow(&self, watch: &mut Watch) -> Result<()> {
        let begun = Instant::now();
        for (stream, traffic) in self.named() {
            // Sent a moment before `begun` is soon enough, too.
            let after = begun.checked_sub(PACKET_LIMIT).unwrap_or(begun);
            let (at, _) = watch.first_packet((stream, traffic), CABLE, after, PACKET_LIMIT)?;
            let uplink = CABLE.to_owned();
            watch.happened(at, Event::Flowing { stream, uplink });
        }
        Ok(())
    }

    /// Waits until both have changed over, and returns when the host's had.
    fn first_packets(&self, uplink: &str, after: Instant, watch: &mut Watch) -> Result<Instant> {
        let [host, client] = self.named();
        let at = watch.tell_first_packet(host, uplink, after, PACKET_LIMIT)?;
        watch.tell_first_packet(client, uplink, after, PACKET_LIMIT)?;
        Ok(at)
    }

    /// Waits until the applications of both old connections have been told that they are over: milliseconds after `decided`.
    fn old_ones_end(&self, decided: Instant, watch: &mut Watch) -> Result<PerStream<f64>> {
        let mut after_ms = [0.0; 2];
        for ((stream, connection), after_ms) in self.old.iter().zip(&mut after_ms) {
            let what = "an old connection did not end";
            let ended = watch.until(what, END_LIMIT, |_| connection.state().ended)?;
            *after_ms = milliseconds(ended.at.saturating_duration_since(decided));
            let error = ended
                .error
                .map_or("closed".to_owned(), |error| error.kind.to_string());
            watch.happened(
                ended.at,
                Event::Ended {
                    stream,
                    error,
                    after_ms: *after_ms,
                },
            );
        }
        let [host, client] = after_ms;
        Ok(PerStream { host, client })
    }

    fn stop(self) -> Result<PerStream<failover_lab::UdpReport>> {
        Ok(PerStream {
            host: self.host.stop()?,
            client: self.client.stop()?,
        })
    }
}

/// Packets that were cut on each uplink. Cable's gate is closed from the failover to the failback, lte's after that.
struct Cut {
    cable: u64,
    lte: u64,
}

impl Cut {
    fn read(watch: &Watch) -> Result<Cut> {
        let status = watch.agent.status_json()?;
        let uplinks = status["uplinks"].as_array().context("no uplinks")?;
        let of = |name: &str| {
            let uplink = uplinks.iter().find(|uplink| uplink["name"] == name);
            uplink.and_then(|uplink| uplink["counters"]["cut_packets"].as_u64())
        };
        Ok(Cut {
            cable: of(CABLE).context("the status has no counters of cable")?,
            lte: of(LTE).context("the status has no counters of lte")?,
        })
    }
}

/// What `bpftool map dump` shows of the gates, and which key is which; `None` when bpftool is not installed.
fn uplinks_map(lab: &Lab) -> Result<Option<String>> {
    let host = lab.host().namespace();
    let path = lab.agent_dirs().bpf.join("uplinks");
    let Ok(dump) = host.exec(
        "bpftool",
        &["map", "dump", "pinned", &path.to_string_lossy()],
    ) else {
        return Ok(None);
    };
    let (cable, lte) = host.run(|| Ok((if_nametoindex(CABLE)?, if_nametoindex(LTE)?)))?;
    let keys = format!("(interface {cable} is cable, {lte} is lte)");
    Ok(Some(format!("{}\n{keys}", dump.trim_end())))
}

/// Ends the agent as a service manager would.
fn stop_agent(watch: &mut Watch) -> Result<()> {
    watch.agent.signal(Signal::SIGTERM)?;
    let status = watch.agent.wait_exit(STOP_LIMIT)?;
    watch.read_log();
    if !status.success() {
        bail!("the agent did not stop cleanly ({status})");
    }
    watch.happened(Instant::now(), Event::Stopped);
    Ok(())
}
