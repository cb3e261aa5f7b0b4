//! One displaced route, and when another one says that it is outdated.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::Result;
use rtnetlink::{
    packet_core::{Emitable, Parseable},
    packet_route::{
        AddressFamily,
        route::{RouteAttribute, RouteMessage, RouteProtocol},
    },
};
use serde::{Deserialize, Serialize};

use super::displaced::Restorable;
use crate::interface;
use crate::route::wire::{
    hex::{from_hex, to_hex},
    message::{self, describe, hops, interface_name},
};

/// What a default route says, and who says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    family: AddressFamily,
    protocol: RouteProtocol,
    interfaces: BTreeSet<String>,
    /// Of an advertised route: each router speaks for itself.
    router: Option<IpAddr>,
    /// Its source is an IPv4 link-local address.
    link_local: bool,
}

impl Word {
    pub(crate) fn of(route: &RouteMessage) -> Word {
        let hops = hops(route);
        let protocol = route.header.protocol;
        let advertised = protocol == RouteProtocol::Ra;
        let source = message::prefsrc(route);
        Word {
            text: describe(route),
            family: route.header.address_family,
            protocol,
            interfaces: hops.iter().map(|hop| interface_name(hop.ifindex)).collect(),
            router: hops
                .first()
                .and_then(|hop| hop.gateway)
                .filter(|_| advertised),
            link_local: matches!(source, Some(IpAddr::V4(source)) if source.is_link_local()),
        }
    }

    /// Whether it makes what `old` said void, whenever it was said.
    fn replaces(&self, old: &Word) -> bool {
        let same_place = self.family == old.family && self.interfaces == old.interfaces;
        let same_owner = self.protocol == old.protocol && self.router == old.router;
        same_place && (same_owner || old.link_local && !self.link_local)
    }
}

/// One displaced route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    route: RouteMessage,
    pub(crate) word: Word,
    interfaces: Vec<Interface>,
    /// The end of its lifetime, as time since the kernel's boot.
    pub(crate) ends: Option<Duration>,
    /// What was said beside it on the same interfaces, and still stands or is displaced, too: none of this is newer.
    beside: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Interface {
    index: u32,
    name: String,
}

/// The same in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// For people.
    route: String,
    /// The interfaces of its hops: an interface that was created again has another index.
    interfaces: Vec<Interface>,
    /// `struct rtmsg` and its attributes as the kernel reported them (`rtnetlink(7)`), in hexadecimal.
    message: String,
    /// The end of its lifetime in milliseconds since the kernel's boot (`CLOCK_BOOTTIME`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_ms: Option<u64>,
    /// Others' default routes that are no newer.
    #[serde(default)]
    beside: BTreeSet<String>,
}

impl Stored {
    /// For people.
    pub(crate) fn route(&self) -> &str {
        &self.route
    }

    /// # Errors
    /// The message is none.
    pub(crate) fn read(&self) -> Result<Entry> {
        let route = RouteMessage::parse(&from_hex(&self.message)?)?;
        // An interface may have another name by now, and its index may be another interface's.
        let names = self
            .interfaces
            .iter()
            .map(|interface| interface.name.clone());
        let word = Word {
            text: self.route.clone(),
            interfaces: names.collect(),
            ..Word::of(&route)
        };
        Ok(Entry {
            route,
            word,
            interfaces: self.interfaces.clone(),
            ends: self.ends_ms.map(Duration::from_millis),
            beside: self.beside.clone(),
        })
    }
}

impl Entry {
    /// `route` as it stands `now` (time since boot), among these other words.
    pub(crate) fn new(route: &RouteMessage, now: Duration, known: &[Word]) -> Entry {
        let interfaces = hops(route)
            .into_iter()
            .map(|hop| Interface {
                index: hop.ifindex,
                name: interface_name(hop.ifindex),
            })
            .collect();
        let word = Word::of(route);
        let beside = known
            .iter()
            .filter(|other| other.text != word.text && other.replaces(&word));
        Entry {
            ends: message::lifetime(route).map(|left| now + left),
            beside: beside.map(|other| other.text.clone()).collect(),
            route: route.clone(),
            interfaces,
            word,
        }
    }

    pub(crate) fn stored(&self) -> Stored {
        let mut bytes = vec![0; self.route.buffer_len()];
        self.route.emit(&mut bytes);
        Stored {
            route: self.word.text.clone(),
            interfaces: self.interfaces.clone(),
            message: to_hex(&bytes),
            ends_ms: self
                .ends
                .map(|ends| u64::try_from(ends.as_millis()).unwrap_or(u64::MAX)),
            beside: self.beside.clone(),
        }
    }

    /// With what is left of its lifetime.
    pub(crate) fn route(&self, now: Duration) -> RouteMessage {
        let mut route = self.route.clone();
        if let Some(ends) = self.ends {
            message::set_lifetime(&mut route, ends.saturating_sub(now));
        }
        route
    }

    pub(crate) fn interfaces(&self) -> impl Iterator<Item = &str> {
        let interfaces = self.interfaces.iter();
        interfaces.map(|interface| interface.name.as_str())
    }

    /// Whether its lifetime is over.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    /// Whether one of these is a newer word.
    pub(crate) fn is_outdated(&self, standing: &[Word]) -> bool {
        standing
            .iter()
            .any(|word| word.replaces(&self.word) && !self.beside.contains(&word.text))
    }

    /// What is neither there nor displaced any more would be news if it came back.
    pub(crate) fn forget_gone(&mut self, standing: &[Word], displaced: &[String]) {
        self.beside.retain(|text| {
            standing.iter().any(|word| word.text == *text) || displaced.contains(text)
        });
    }

    pub(crate) fn restorable(&self, now: Duration) -> Restorable {
        let mut indexes = Vec::new();
        for interface in &self.interfaces {
            match interface::index(&interface.name) {
                Some(index) => indexes.push((interface.index, index)),
                None => {
                    return Restorable::Gone {
                        route: self.word.text.clone(),
                        interface: interface.name.clone(),
                    };
                }
            }
        }
        let mut route = self.route(now);
        renumber(&mut route, &indexes);
        Restorable::Ready(route)
    }
}

/// Replaces each old interface index by the new one.
fn renumber(route: &mut RouteMessage, indexes: &[(u32, u32)]) {
    let present = |index: u32| {
        indexes
            .iter()
            .find(|(old, _)| *old == index)
            .map_or(index, |(_, new)| *new)
    };
    for attribute in &mut route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => *index = present(*index),
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    hop.interface_index = present(hop.interface_index);
                }
            }
            _ => {}
        }
    }
}
