//! Flows that have ended, as the programs report them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, RingBuf};
use failover_ebpf::{Answer, Event, Flow, Reason};
use tokio::io::unix::AsyncFd;

use super::raw::readable;

/// A flow that was ended on an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedFlow {
    /// Interface index of the uplink by which its packet was leaving.
    pub ifindex: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Source of the packet, as it would have been on the wire (after NAT). The port is 0 where the protocol has none.
    pub source: SocketAddr,
    /// Destination of the packet.
    pub destination: SocketAddr,
    /// Why the packet was cut.
    pub reason: Reason,
    /// How the packet was answered.
    pub answer: Answer,
}

/// Events of the programs: a sample, at most one per flow in 10 seconds, and none from before this reader existed.
pub struct Events(AsyncFd<RingBuf<MapData>>);

impl Events {
    pub(super) fn new(map: Map) -> Result<Events> {
        let ring = RingBuf::try_from(map)?;
        Ok(Events(readable(ring).context(WAITING)?))
    }

    /// The next event; waits for it. Nothing is lost if it is dropped while it waits.
    ///
    /// # Errors
    ///
    /// Waiting fails.
    pub async fn next(&mut self) -> Result<EndedFlow> {
        loop {
            if let Some(event) = self.0.get_mut().next() {
                return decode(&event).context("an event that these programs do not send");
            }
            self.0.readable_mut().await.context(WAITING)?.clear_ready();
        }
    }
}

const WAITING: &str = "waiting for the programs' events";

/// Reads an [`Event`], field by field, since not every number is a valid value of an enum.
fn decode(bytes: &[u8]) -> Option<EndedFlow> {
    use std::mem::offset_of;
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let port = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = *bytes.get(at..)?.first_chunk()?;
        Some(Ipv6Addr::from(octets).to_canonical())
    };
    let flow = offset_of!(Event, flow);
    let reasons = [Reason::Gate, Reason::Stale];
    let answers = [Answer::Dropped, Answer::Reset, Answer::Icmp];
    let reason = word(offset_of!(Event, reason))?;
    let answer = word(offset_of!(Event, answer))?;
    Some(EndedFlow {
        ifindex: word(flow + offset_of!(Flow, ifindex))?,
        protocol: u8::try_from(word(flow + offset_of!(Flow, protocol))?).ok()?,
        source: SocketAddr::new(
            address(flow + offset_of!(Flow, local))?,
            port(flow + offset_of!(Flow, local_port))?,
        ),
        destination: SocketAddr::new(
            address(flow + offset_of!(Flow, remote))?,
            port(flow + offset_of!(Flow, remote_port))?,
        ),
        reason: reasons.into_iter().find(|&known| known as u32 == reason)?,
        answer: answers.into_iter().find(|&known| known as u32 == answer)?,
    })
}
