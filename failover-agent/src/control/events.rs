//! Ended flows: each event reaches every client that follows, and the last events are kept for clients that connect later.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use failover_policy::Family;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::words::{FamilyWord, rfc3339};
use crate::clock;

/// How many events are kept for clients that connect later.
pub const MAX_RECENT: usize = 100;

/// How many events may wait for one client. A slower client loses the oldest, and learns how many it lost.
const QUEUE: usize = 1024;

/// A flow was ended: the first packet of it that was cut. A sample, since not every cut packet makes an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When the packet was cut.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// Name of the uplink by which the packet was leaving.
    pub uplink: String,
    /// `ipv4` or `ipv6`.
    #[serde(with = "FamilyWord")]
    pub family: Family,
    /// IP protocol number: 6 is TCP, 17 is UDP.
    pub protocol: u8,
    /// The packet's source address.
    pub source: IpAddr,
    /// The source port; null where the protocol has none.
    pub source_port: Option<u16>,
    /// The destination address.
    pub destination: IpAddr,
    /// The destination port; null where the protocol has none.
    pub destination_port: Option<u16>,
    /// Why it was cut.
    pub reason: Reason,
    /// How the packet was answered.
    pub answer: Answer,
}

/// Why a packet was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The uplink's gate is closed.
    Gate,
    /// The packet's source is another uplink's address.
    Stale,
}

/// How a cut packet is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// With a TCP RST.
    Reset,
    /// With ICMP or ICMPv6 "administratively prohibited".
    Icmp,
    /// Not at all: it was dropped.
    Dropped,
}

impl Event {
    /// What happened, without when and by which uplink: one line to read.
    pub fn words(&self) -> String {
        let protocol = match self.protocol {
            1 => "ICMP".to_owned(),
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            58 => "ICMPv6".to_owned(),
            other => format!("protocol {other}"),
        };
        let source = end(self.source, self.source_port);
        let destination = end(self.destination, self.destination_port);
        let reason = match self.reason {
            Reason::Gate => "gate closed",
            Reason::Stale => "another uplink's address",
        };
        let answer = match self.answer {
            Answer::Reset => "reset",
            Answer::Icmp => "answered by ICMP",
            Answer::Dropped => "dropped",
        };
        format!("{protocol} {source} -> {destination}: {reason}, {answer}")
    }
}

/// One line to read.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = humantime::format_rfc3339_millis(self.at.max(SystemTime::UNIX_EPOCH));
        write!(f, "{at}  {}  {}", self.uplink, self.words())
    }
}

fn end(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// The hub of events. Every copy of it may publish and subscribe.
#[derive(Clone, Debug)]
pub struct Events {
    sender: broadcast::Sender<Event>,
    /// The last events, oldest first. Locked while one is published, so that a subscriber neither misses one nor gets it twice.
    recent: Arc<Mutex<VecDeque<Kept>>>,
}

/// An event that is kept for later clients.
#[derive(Debug)]
struct Kept {
    event: Event,
    published: Instant,
    /// The time of day when it happened, as it was known then.
    wall: SystemTime,
}

impl Kept {
    /// The event with its time of day as known now, since the clock may have been set in between.
    fn now(&self) -> Event {
        let mut event = self.event.clone();
        let now = clock::wall(self.published);
        event.at = match now.duration_since(self.wall) {
            Ok(later) => event.at + later,
            Err(earlier) => event.at.checked_sub(earlier.duration()).unwrap_or(event.at),
        };
        event
    }
}

impl Default for Events {
    fn default() -> Self {
        Events {
            sender: broadcast::Sender::new(QUEUE),
            recent: Arc::default(),
        }
    }
}

impl Events {
    /// Publishes an event to all followers; never waits for any.
    pub fn publish(&self, event: Event) {
        let mut recent = self.recent();
        if recent.len() == MAX_RECENT {
            recent.pop_front();
        }
        let published = Instant::now();
        recent.push_back(Kept {
            event: event.clone(),
            published,
            wall: clock::wall(published),
        });
        // An error means that there are no followers just now.
        self.sender.send(event).ok();
    }

    /// The last events, oldest first, and a receiver of all later ones.
    pub(super) fn subscribe(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let recent = self.recent();
        (
            recent.iter().map(Kept::now).collect(),
            self.sender.subscribe(),
        )
    }

    /// A thread that panicked while it held the lock has left whole events behind.
    fn recent(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
