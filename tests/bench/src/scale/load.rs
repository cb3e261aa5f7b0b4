//! What many uplinks cost while nothing happens.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use failover_lab::{TARGETS_V4, WideLab};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    super::{
        Family, Settings,
        figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
        idle::percent,
        sample::Samples,
    },
    Fixture, INTERVAL, TARGETS,
};

pub(crate) const LOAD: Family = Family {
    figures: &[Figure {
        name: "scale-cpu",
        about: "processor time of an agent with 64 uplinks × 2 targets × 10 Hz, in percent of one core, in windows of 2 s",
        unit: "%",
        goal: Goal::AtMost(25.0),
    }],
    measure: |settings| Ok(vec![load(settings)?]),
};

/// From the start, with its loading of programs, to rest.
const SETTLE: Duration = Duration::from_secs(1);

/// Part of the probes that must really have been sent.
const ENOUGH: f64 = 0.95;

fn load(settings: &Settings) -> Result<Measurement> {
    let window = settings.choose(Duration::from_secs(2), Duration::from_millis(300));
    let fixture = Fixture::start(settings, "info")?;
    let prober = fixture.lab.host().run(|| BareProber::open(&fixture.lab))?;
    thread::sleep(settings.choose(SETTLE, Duration::ZERO));
    let mut samples = Samples::default();
    let mut reference = Samples::default();
    // By turns, since together they would fight for the processors.
    for _ in 0..settings.choose(5, 1) {
        samples.push(window_of_agent(settings, &fixture, window)?);
        reference.push(prober.run(window)?);
    }
    Ok(Measurement {
        samples,
        reference: Reference {
            what: "a thread that does nothing but send the same echo requests and read the answers (the agent goes on beside it)",
            value: ReferenceValue::Measured(reference),
        },
    })
}

/// The agent's processor time in a window, in percent.
///
/// # Errors
/// When it did not send what it should: a busy machine would make it look cheap.
fn window_of_agent(settings: &Settings, fixture: &Fixture, window: Duration) -> Result<f64> {
    let requests = || echo_requests(&fixture.lab);
    let (begun, before) = (Instant::now(), (fixture.agent.cpu_time()?, requests()?));
    thread::sleep(window);
    let (elapsed, after) = (begun.elapsed(), (fixture.agent.cpu_time()?, requests()?));
    let expected = elapsed.as_secs_f64() / INTERVAL.as_secs_f64()
        * f64::from(u32::try_from(fixture.lab.uplinks().len() * TARGETS)?);
    let sent = f64::from(u32::try_from(after.1 - before.1)?);
    ensure!(
        settings.quick || sent > expected * ENOUGH,
        "the machine is too busy: {sent} probes were sent instead of {expected:.0}"
    );
    Ok(percent(after.0.saturating_sub(before.0), elapsed))
}

/// Echo requests that have reached the targets (`InEchos` of RFC 2011 in `/proc/net/snmp`).
fn echo_requests(lab: &WideLab) -> Result<u64> {
    let text = lab.provider().run(|| {
        let text = fs::read_to_string("/proc/thread-self/net/snmp");
        text.context("/proc/thread-self/net/snmp")
    })?;
    // A line of names, then a line of values.
    let mut lines = text.lines().filter(|line| line.starts_with("Icmp:"));
    let (names, values) = lines.next().zip(lines.next()).context("no ICMP counters")?;
    let mut counters = names.split(' ').zip(values.split(' '));
    let value = counters.find(|(name, _)| *name == "InEchos");
    Ok(value.context("no InEchos")?.1.parse()?)
}

/// Asks all targets by all uplinks, without knowing what for.
struct BareProber(Vec<Socket>);

impl BareProber {
    /// To be called in the host's namespace.
    fn open(lab: &WideLab) -> Result<BareProber> {
        let sockets = lab.uplinks().iter().map(|uplink| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            socket.bind_device(Some(uplink.name.as_bytes()))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Ok(BareProber(sockets.collect::<Result<_>>()?))
    }

    /// Its processor time in such a window, in percent.
    fn run(&self, window: Duration) -> Result<f64> {
        let (begun, before) = (Instant::now(), thread_cpu_time()?);
        let mut answers = 0;
        for beat in 1.. {
            for socket in &self.0 {
                answers += round(socket)?;
            }
            let due = (INTERVAL * beat).min(window);
            thread::sleep(due.saturating_sub(begun.elapsed()));
            if due == window {
                break;
            }
        }
        ensure!(answers > 0, "nobody answers the bare prober");
        let after = thread_cpu_time()?;
        Ok(percent(after.saturating_sub(before), begun.elapsed()))
    }
}

/// Sends a request to two targets, and reads what has come.
fn round(mut socket: &Socket) -> Result<usize> {
    use std::io::Read as _;

    /// Type 8, code 0, checksum (RFC 792), identifier and sequence number 0.
    const ECHO_REQUEST: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];

    for target in &TARGETS_V4[..TARGETS] {
        let target = SockAddr::from(SocketAddr::from((*target, 0)));
        socket
            .send_to(&ECHO_REQUEST, &target)
            .context("the bare prober cannot send")?;
    }
    let mut packet = [0; 256];
    let mut answers = 0;
    // Until nothing is there any more.
    while socket.read(&mut packet).is_ok() {
        answers += 1;
    }
    Ok(answers)
}

fn thread_cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
