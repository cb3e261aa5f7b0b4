//! Echo replies that nobody asked for: a flood of them costs the agent nothing, and none passes for an answer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use failover_lab::{Lab, Scenario, TARGET_V4, TARGET_V6, Uplink};
use failover_policy::Family;
use failover_tests::fixtures::wait_for_history;
use socket2::{Domain, Protocol, Socket, Type};

use super::fixtures::{start, wake_ups};

/// Sends to the host from beyond an uplink until it is dropped.
struct Flood {
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Echo replies as if they came from the target, with `identifier` and, one after the other, all sequence numbers below `round`.
    fn begin(uplink: &Uplink, family: Family, identifier: u16, round: u16) -> Result<Flood> {
        let (target, host) = match family {
            Family::V4 => (TARGET_V4, uplink.host_v4()),
            Family::V6 => (TARGET_V6, uplink.host_v6()),
        };
        let socket = uplink.provider().run(move || {
            let domain = Domain::for_address(SocketAddr::new(host, 0));
            // That is: the packets bring their IP header.
            let socket = Socket::new(
                domain,
                Type::RAW,
                Some(Protocol::from(nix::libc::IPPROTO_RAW)),
            )?;
            socket.bind_device(Some(b"customer"))?;
            socket.connect(&SocketAddr::new(host, 0).into())?;
            Ok(socket)
        })?;
        let mut packet = reply(target, host, identifier)?;
        let sequence = packet.len() - PAYLOAD.len() - 2;
        let (end, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (ended, counter) = (end.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !ended.load(Ordering::Relaxed) {
                number = (number + 1) % round;
                let bytes: [u8; 2] = u16::to_be_bytes(number);
                packet[sequence..sequence + 2].copy_from_slice(&bytes);
                // A full queue is no reason to stop.
                if socket.send(&packet).is_ok() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Flood {
            end,
            sent,
            thread: Some(thread),
        })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

const PAYLOAD: &[u8] = b"failover-agent probe";

/// An echo reply with its IP header. Raw sockets for IPv4 do not look at the checksum of ICMP, those for IPv6 do: there the agent's socket
/// has none to check before the kernel's filter.
fn reply(from: IpAddr, to: IpAddr, identifier: u16) -> Result<Vec<u8>> {
    let length = u16::try_from(8 + PAYLOAD.len())?;
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The kernel adds length and checksum.
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            header.push(0);
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = length.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, 58, 64];
            header.extend(from.octets());
            header.extend(to.octets());
            header.push(129);
            header
        }
        _ => anyhow::bail!("two families"),
    };
    packet.extend([0, 0, 0]);
    packet.extend(identifier.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(PAYLOAD);
    Ok(packet)
}

#[test]
#[ignore = "needs root"]
fn flood_of_echo_replies_costs_the_agent_nothing() -> Scenario {
    let lab = Lab::builder().build()?;
    let second = Duration::from_secs(1);
    let config = lab.agent_config().targets([TARGET_V4, TARGET_V6]).rise(1);
    let agent = start(&lab, &config.interval(second).timeout(second))?;
    for family in Family::ALL {
        let flood = Flood::begin(lab.uplink("cable"), family, 4711, u16::MAX)?;
        sleep(Duration::from_millis(200));
        let begun = Instant::now();
        let (sent, woken, cpu) = (flood.sent(), wake_ups(&agent)?, agent.cpu_time()?);
        sleep(Duration::from_secs(2));
        let (sent, woken, cpu) = (
            flood.sent() - sent,
            wake_ups(&agent)? - woken,
            agent.cpu_time()? - cpu,
        );
        let took = begun.elapsed();
        eprintln!("{family}: {sent} replies in {took:?}: {woken} wake-ups, {cpu:?} of CPU time");
        assert!(sent > 10_000, "no flood: {sent} in {took:?}");
        // Each that came through would wake it.
        let seconds = u32::try_from(took.as_secs())? + 1;
        assert!(
            woken < 50 * u64::from(seconds) && cpu < Duration::from_millis(30) * seconds,
            "{family}: {woken} wake-ups and {cpu:?} in {took:?} for {sent} replies"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn forged_answers_do_not_keep_a_dead_uplink_up() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = start(&lab, &lab.agent_config().quick())?;
    // All that can be known of a prober: its process and its rounds so far.
    let process = u16::try_from(agent.pid().wrapping_mul(31) % u32::from(u16::MAX))
        .context("an identifier")?;
    let _flood = Flood::begin(lab.uplink("cable"), Family::V4, process, 512)?;
    sleep(Duration::from_millis(300));
    let _fault = lab.uplink("cable").blackhole()?;
    wait_for_history(&agent, Family::V4, &["start-up cable", "failover lte"])?;
    Ok(())
}
