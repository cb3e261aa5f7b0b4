//! Whether the targets answer by each uplink: probes like the agent's, repeated for each target that does not answer.

use std::{io, net::IpAddr, path::Path, time::Duration};

use futures_util::future::join_all;
use nix::libc::EPERM;
use surge_ping::{Client, PingSequence, SurgeError};
use tracing::debug;

use super::facts::End;
use crate::{
    datapath::ProbeSockets,
    probe::{icmp, identity::Identity},
};

/// A single packet may be lost on a good link.
const TRIES: u16 = 3;

/// Sends probes from `source` by `interface` to all `targets` at once.
pub(super) async fn probe(
    bpf_dir: &Path,
    interface: &str,
    source: IpAddr,
    mark: u32,
    timeout: Duration,
    targets: &[IpAddr],
) -> Vec<(IpAddr, End)> {
    let Ok((client, identity)) = open(interface, source, mark) else {
        return targets
            .iter()
            .map(|target| (*target, End::NotSent))
            .collect();
    };
    // Through a standby's closed gate pass only packets that the running agent's programs recognize.
    let _registration = ProbeSockets::pinned(bpf_dir).and_then(|sockets| {
        let registered = icmp::register(&sockets, &client, interface, None);
        registered
            .inspect_err(|error| debug!("a closed gate will cut the probes: {error:#}"))
            .ok()
    });
    let (client, identity) = (&client, &identity);
    let probes = targets
        .iter()
        .zip(0u16..)
        .map(|(target, number)| async move {
            let first = number.wrapping_mul(TRIES);
            (
                *target,
                ask(client, identity, *target, first, timeout).await,
            )
        });
    join_all(probes).await
}

fn open(interface: &str, source: IpAddr, mark: u32) -> io::Result<(Client, Identity)> {
    let client = icmp::open(interface, source, mark)?;
    let identity = Identity::random()?;
    identity.guard(&client, source)?;
    Ok((client, identity))
}

/// Sends one echo request to each target, with sequence numbers from `first` on.
async fn ask(
    client: &Client,
    identity: &Identity,
    target: IpAddr,
    first: u16,
    timeout: Duration,
) -> End {
    let mut pinger = client.pinger(target, identity.identifier).await;
    pinger.timeout(timeout);
    let payload = identity.payload();
    for number in 0..TRIES {
        let answer = pinger.ping(PingSequence(first.wrapping_add(number)), &payload);
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
