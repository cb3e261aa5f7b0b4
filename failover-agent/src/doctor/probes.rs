//! Whether the targets answer by each uplink: probes like those of the agent, once more for whom does not answer.

use std::{net::IpAddr, time::Duration};

use futures_util::future::join_all;
use nix::libc::EPERM;
use surge_ping::{Client, PingIdentifier, PingSequence, SurgeError};

use super::facts::End;
use crate::probe::icmp;

/// A single packet may be lost on a good link.
const TRIES: u16 = 3;

/// Sends probes from `source` by `interface` to all `targets` at once.
pub(super) async fn probe(
    interface: &str,
    source: IpAddr,
    mark: u32,
    timeout: Duration,
    targets: &[IpAddr],
) -> Vec<(IpAddr, End)> {
    let Ok(client) = icmp::open(interface, source, mark) else {
        return targets
            .iter()
            .map(|target| (*target, End::NotSent))
            .collect();
    };
    let probes = targets.iter().zip(0u16..).map(|(target, number)| {
        let client = client.clone();
        async move { (*target, ask(&client, *target, number, timeout).await) }
    });
    join_all(probes).await
}

async fn ask(client: &Client, target: IpAddr, number: u16, timeout: Duration) -> End {
    let mut pinger = client.pinger(target, identifier(number)).await;
    pinger.timeout(timeout);
    for sequence in 0..TRIES {
        let answer = pinger.ping(PingSequence(sequence), b"failover-agent doctor");
        // As in `probe`: surge-ping's own timeout does not count the time until the packet is sent.
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok((packet, _))) if icmp::is_echo_reply(&packet) => return End::Answered,
            Ok(Err(SurgeError::IOError(error))) if error.raw_os_error() == Some(EPERM) => {
                return End::Refused;
            }
            _ => {}
        }
    }
    End::Silent
}

/// One for each target. The sockets of different uplinks do not see each other's answers.
fn identifier(number: u16) -> PingIdentifier {
    let process = u16::try_from(std::process::id() % (1 << 16)).unwrap_or_default();
    PingIdentifier(process.wrapping_add(number))
}
