//! What the programs cost where packets really flow: over a veth link between two namespaces, with and without them.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use failover_agent::datapath::{Datapath, LinkLayer};
use failover_lab::Lab;
use nix::{
    net::if_::if_nametoindex,
    time::{ClockId, clock_gettime},
};

use super::{
    Family, Settings, datapath,
    figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
    sample::Samples,
};

pub(super) const THROUGHPUT: Family = Family {
    figures: &[
        Figure {
            name: "throughput-udp-ratio",
            about: "64-byte datagrams sent over veth and received in one second of processor time, with the programs on the link / without; no measurable loss means 0.97 or more",
            unit: "",
            goal: Goal::AtLeast(0.97),
        },
        Figure {
            name: "throughput-tcp-ratio",
            about: "bytes that a bulk TCP connection carries over veth in one second of processor time, with the programs on the link / without; likewise",
            unit: "",
            goal: Goal::AtLeast(0.97),
        },
    ],
    measure: |settings| Ok(vec![udp(settings)?, tcp(settings)?]),
};

/// The two ends of a link without firewall, NAT or forwarding, whose cost would hide that of the programs.
const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 1);
const SINK: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 2);
const LINK: &str = "bench";

/// Datagrams sent before they are received.
const BURST: u64 = 64;

/// How long something that was sent may be on its way.
const PATIENCE: Duration = Duration::from_millis(100);

/// Time from a change to the beginning of the measurement.
const SETTLE: Duration = Duration::from_millis(30);

fn udp(settings: &Settings) -> Result<Measurement> {
    let lab = link()?;
    let sink = lab
        .internet()
        .namespace()
        .run(|| Ok(UdpSocket::bind((SINK, 0))?))?;
    sink.set_read_timeout(Some(PATIENCE))?;
    let target = sink.local_addr()?;
    lab.host().namespace().run(|| {
        let socket = UdpSocket::bind((HOST, 0))?;
        socket.connect(target)?;
        let work = |count: &AtomicU64, stop: &AtomicBool| {
            let mut datagram = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                // One thread and as many as the socket's buffer surely holds: no datagram is lost, and nobody waits for anybody.
                for _ in 0..BURST {
                    socket.send(&datagram)?;
                }
                for _ in 0..BURST {
                    sink.recv(&mut datagram).context("a datagram was lost")?;
                }
                count.fetch_add(BURST, Ordering::Relaxed);
            }
            Ok(())
        };
        compare(settings, &lab, "datagrams", work)
    })
}

fn tcp(settings: &Settings) -> Result<Measurement> {
    let lab = link()?;
    let listener = lab
        .internet()
        .namespace()
        .run(|| Ok(TcpListener::bind((SINK, 0))?))?;
    let target: SocketAddr = listener.local_addr()?;
    lab.host().namespace().run(|| {
        let sender = TcpStream::connect(target)?;
        let (mut receiver, _) = listener.accept()?;
        receiver.set_read_timeout(Some(PATIENCE))?;
        thread::scope(|scope| {
            // Ends when the receiver is closed.
            scope.spawn(move || while (&sender).write_all(&[0; 65536]).is_ok() {});
            let work = move |count: &AtomicU64, stop: &AtomicBool| {
                let mut buffer = vec![0; 1 << 17];
                while !stop.load(Ordering::Relaxed) {
                    match receiver.read(&mut buffer) {
                        Ok(length) => count.fetch_add(length as u64, Ordering::Relaxed),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                        Err(error) => return Err(error.into()),
                    };
                }
                Ok(())
            };
            compare(settings, &lab, "bytes", work)
        })
    })
}

/// Lays the link between the host and the internet.
fn link() -> Result<Lab> {
    let lab = Lab::builder().build()?;
    let (host, internet) = (lab.host().namespace(), lab.internet().namespace());
    host.ip_batch(&format!(
        "link add {LINK} type veth peer name {LINK} netns {}\n\
         address add {HOST}/30 dev {LINK}\n\
         link set {LINK} up",
        internet.name()
    ))?;
    internet.ip_batch(&format!(
        "address add {SINK}/30 dev {LINK}\n\
         link set {LINK} up"
    ))?;
    Ok(lab)
}

/// Lets `work` run and count, with and without the programs by turns.
fn compare(
    settings: &Settings,
    lab: &Lab,
    what: &str,
    work: impl FnOnce(&AtomicU64, &AtomicBool) -> Result<()> + Send,
) -> Result<Measurement> {
    let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let worker = scope.spawn(|| work(&count, &stop));
        let measured = {
            // Also when the measurement fails: the scope waits for the worker.
            let _stop = StopOnDrop(&stop);
            by_turns(settings, lab, what, &count)
        };
        worker.join().ok().context("the sender has panicked")??;
        measured
    })
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Three runs a turn: one with the programs and two without, whose ratio shows what chance alone does. The order rotates, so that no
/// place in it is the better one.
fn by_turns(settings: &Settings, lab: &Lab, what: &str, count: &AtomicU64) -> Result<Measurement> {
    let mut datapath = datapath::open(lab)?;
    let window = settings.choose(Duration::from_millis(200), Duration::from_millis(50));
    let mut samples = Samples::default();
    let mut reference = Samples::default();
    let mut without_programs = Samples::default();
    for turn in 0..settings.choose(30, 3) {
        let mut rates = [0.0; 3];
        for place in 0..3 {
            let run = (turn + place) % 3;
            rates[run] = rate(&mut datapath, run == 0, window, count)?;
        }
        let [with, without, again] = rates;
        samples.push(with / without);
        reference.push(again / without);
        without_programs.push(without);
    }
    if let Some(summary) = without_programs.summary() {
        eprintln!(
            "  without programs: {:.4e} {what} per second of processor time",
            summary.median
        );
    }
    Ok(Measurement {
        samples,
        reference: Reference {
            what: "the same ratio of two runs that are both without programs: what chance alone does",
            value: ReferenceValue::Measured(reference),
        },
    })
}

/// Counts per second of processor time.
fn rate(
    datapath: &mut Datapath,
    programs: bool,
    window: Duration,
    count: &AtomicU64,
) -> Result<f64> {
    if programs {
        let ifindex = if_nametoindex(LINK)?;
        datapath.attach(ifindex, LinkLayer::Ethernet)?;
        // As the agent does, so that sources are checked.
        datapath.set_addresses(ifindex, &[HOST.into()])?;
    } else {
        datapath.retain(&[])?;
    }
    thread::sleep(SETTLE);
    let (begun, before) = (processor_time()?, count.load(Ordering::Relaxed));
    thread::sleep(window);
    let (ended, after) = (processor_time()?, count.load(Ordering::Relaxed));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let counted = (after - before) as f64;
    Ok(counted / ended.saturating_sub(begun).as_secs_f64())
}

/// Of this process, which has nothing to do but to send and receive.
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}
