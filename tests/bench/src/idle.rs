//! What the agent needs while nothing happens.
//!
//! Processor time is what the scheduler charges to the process. What the kernel does for its packets in interrupt context is charged to
//! whoever runs at that moment, so it is in none of the figures, nor in those of other programs measured this way.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use failover_lab::{Lab, TARGETS_V4, rss_bytes};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    Family, Settings, agent,
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

pub(super) const IDLE: Family = Family {
    figures: &[
        Figure {
            name: "idle-cpu",
            about: "processor time of an idle agent, 2 uplinks × 3 targets × 1 Hz, in percent of one core (without softirq time)",
            unit: "%",
            goal: Goal::AtMost(0.15),
        },
        Figure {
            name: "idle-rss",
            about: "resident memory of the same agent, file pages included",
            unit: "MiB",
            goal: Goal::AtMost(12.0),
        },
    ],
    measure: idle,
};

/// From the start, with its loading of programs, to rest.
const SETTLE: Duration = Duration::from_secs(5);

fn idle(settings: &Settings) -> Result<Vec<Measurement>> {
    let windows = settings.choose(6, 1);
    let window = settings.choose(Duration::from_secs(10), Duration::from_secs(2));
    let lab = Lab::builder().build()?;
    let bare_lab = Lab::builder().build()?;
    let targets = TARGETS_V4.map(|target| format!("\"{target}\"")).join(", ");
    let probe = format!("targets = [{targets}]\ninterval = \"1s\"\ntimeout = \"1s\"");
    let agent = agent::start(settings, &lab, &probe)?;
    let listener = Listener::start(&bare_lab)?;
    thread::sleep(settings.choose(SETTLE, Duration::ZERO));

    let mut cpu = Samples::default();
    let mut rss = Samples::default();
    let mut listener_rss = Samples::default();
    let bare_cpu = thread::scope(|scope| {
        let bare = scope.spawn(|| {
            let host = bare_lab.host().namespace();
            host.run(|| bare_prober(windows, window))
        });
        for _ in 0..windows {
            let (begun, before) = (Instant::now(), agent.cpu_time()?);
            thread::sleep(window);
            let (elapsed, after) = (begun.elapsed(), agent.cpu_time()?);
            cpu.push(percent(after.saturating_sub(before), elapsed));
            rss.push(mebibytes(agent.rss_bytes()?));
            listener_rss.push(mebibytes(rss_bytes(listener.0.id())?));
        }
        bare.join().ok().context("the bare prober has panicked")?
    })?;
    Ok(vec![
        Measurement {
            samples: cpu,
            reference: Reference {
                what: "a thread that does nothing but send the same echo requests and read the answers",
                value: ReferenceValue::Measured(bare_cpu),
            },
        },
        Measurement {
            samples: rss,
            reference: Reference {
                what: "`ip monitor`, a C program that does nothing but listen to netlink",
                value: ReferenceValue::Measured(listener_rss),
            },
        },
    ])
}

pub(super) fn percent(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64() * 100.0
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

/// `ip monitor` in the host; ends when dropped.
struct Listener(Child);

impl Listener {
    fn start(lab: &Lab) -> Result<Listener> {
        lab.host().namespace().run(|| {
            let child = Command::new("ip")
                .arg("monitor")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .context("cannot run ip monitor")?;
            Ok(Listener(child))
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Asks all targets by both uplinks once a second, in the namespace of the calling thread; its processor time in each window in percent.
fn bare_prober(windows: usize, window: Duration) -> Result<Samples> {
    let sockets = [bare_socket("cable")?, bare_socket("lte")?];
    let mut samples = Samples::default();
    for _ in 0..windows {
        let (begun, before) = (Instant::now(), thread_cpu_time()?);
        for round in 1.. {
            for socket in &sockets {
                bare_round(socket)?;
            }
            let due = Duration::from_secs(round).min(window);
            thread::sleep(due.saturating_sub(begun.elapsed()));
            if due == window {
                break;
            }
        }
        let after = thread_cpu_time()?;
        samples.push(percent(after.saturating_sub(before), begun.elapsed()));
    }
    Ok(samples)
}

fn bare_socket(interface: &str) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // A lost answer is not worth more: it must not keep the next round.
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

/// Sends a request to each target and reads as many packets.
fn bare_round(mut socket: &Socket) -> Result<()> {
    use std::io::Read;

    /// Type 8, code 0, checksum (RFC 792), identifier and sequence number 0.
    const ECHO_REQUEST: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];

    for target in TARGETS_V4 {
        let target = SockAddr::from(SocketAddr::from((target, 0)));
        socket.send_to(&ECHO_REQUEST, &target)?;
    }
    let mut packet = [0; 256];
    let answers = TARGETS_V4
        .iter()
        .filter(|_| socket.read(&mut packet).is_ok_and(|length| length > 0));
    ensure!(answers.count() > 0, "nobody answers the bare prober");
    Ok(())
}

fn thread_cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
