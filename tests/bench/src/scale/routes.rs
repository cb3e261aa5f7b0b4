//! Routes of others: many, or changing all the time.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::Ipv4Addr,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use failover_lab::WideLab;

/// The network of a foreign route: one /28 of 10.128.0.0/9 each.
fn network(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + number * 16)
}

/// The way of a foreign route: by the last uplink, as if a routing daemon had learned it there.
fn hop(lab: &WideLab) -> Result<String> {
    let uplink = lab.uplinks().last().context("no uplinks")?;
    Ok(format!(
        "via {} dev {} proto bgp",
        uplink.gateway, uplink.name
    ))
}

/// Puts so many routes into the main table.
pub(super) fn add(lab: &WideLab, count: u32) -> Result<()> {
    let hop = hop(lab)?;
    let mut batch = String::new();
    for number in 0..count {
        writeln!(batch, "route add {}/28 {hop}", network(number))?;
    }
    lab.host().ip_batch(&batch)
}

/// Adds and removes routes in the main table, so many a second, until it is stopped.
#[derive(Debug)]
pub(super) struct Churn {
    stop: Arc<AtomicBool>,
    feeder: JoinHandle<Result<u32>>,
    begun: Instant,
    ip: Child,
}

/// Routes that exist at the same time; a multiple of what a burst changes.
const STANDING: u32 = 500;

/// Time from burst to burst.
const BURST: Duration = Duration::from_millis(10);

impl Churn {
    pub(super) fn start(lab: &WideLab, rate: u32) -> Result<Churn> {
        let hop = hop(lab)?;
        let mut ip = lab
            .host()
            .command("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run ip")?;
        let mut pipe = ip.stdin.take().context("ip has no standard input")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let begun = Instant::now();
        let per_burst =
            rate / u32::try_from(Duration::from_secs(1).as_millis() / BURST.as_millis())?;
        let feeder = thread::spawn(move || {
            let mut changes: u32 = 0;
            for burst in 1.. {
                // Not before the last one is removed again.
                if stopped.load(Ordering::Relaxed) && changes.is_multiple_of(2 * STANDING) {
                    break;
                }
                let mut lines = String::new();
                for change in changes..changes + per_burst {
                    // All are added one by one, then all removed, and so on.
                    let verb = ["add", "del"][(change / STANDING % 2) as usize];
                    writeln!(
                        lines,
                        "route {verb} {}/28 {hop}",
                        network(change % STANDING)
                    )?;
                }
                // Waits when ip does not keep up.
                pipe.write_all(lines.as_bytes())?;
                changes += per_burst;
                thread::sleep((BURST * burst).saturating_sub(begun.elapsed()));
            }
            Ok(changes)
        });
        Ok(Churn {
            stop,
            feeder,
            begun,
            ip,
        })
    }

    /// Ends it, and returns how many changes there were in a second.
    pub(super) fn stop(mut self) -> Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let changes = self
            .feeder
            .join()
            .ok()
            .context("the feeder has panicked")??;
        let status = self.ip.wait()?;
        ensure!(status.success(), "ip -batch: {status}");
        Ok(f64::from(changes) / self.begun.elapsed().as_secs_f64())
    }
}
