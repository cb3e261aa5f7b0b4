//! Foreign default routes that had to make way, kept on disk so that they can be put back even after a kill -9.

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    packet_core::{Emitable, Parseable},
    packet_route::route::{RouteAttribute, RouteMessage},
};
use serde::{Deserialize, Serialize};

use super::message::{describe, hops, interface_name, metric};
use crate::state::{Life, StateFile};

const FILE: &str = "displaced.json";

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    routes: Vec<Entry>,
}

/// One displaced route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// For people.
    route: String,
    /// The interfaces of its hops: an interface that was made anew has another index.
    interfaces: Vec<Interface>,
    /// `struct rtmsg` and its attributes as the kernel reported them (`rtnetlink(7)`), in hexadecimal.
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Interface {
    index: u32,
    name: String,
}

/// The displaced routes, in memory and on disk.
#[derive(Debug)]
pub(super) struct Displaced {
    file: StateFile,
    entries: Vec<Entry>,
}

/// A displaced route that can be put back, or why not.
pub(super) enum Restorable {
    /// With the interfaces' present indexes.
    Ready(RouteMessage),
    /// Its interface is gone.
    Gone {
        /// The route as it was.
        route: String,
        /// The interface.
        interface: String,
    },
}

impl Displaced {
    /// Reads what an earlier run has left. Nothing is created.
    pub(super) fn load(state_dir: &Path) -> Result<Displaced> {
        // After a boot the kernel knows none of the routes any more.
        let file = StateFile::new(state_dir, FILE, Life::Boot);
        let content: Content = file
            .load("remove it, and check the default routes by hand")?
            .unwrap_or_default();
        let displaced = Displaced {
            file,
            entries: content.routes,
        };
        displaced.routes().context("displaced routes")?;
        Ok(displaced)
    }

    /// The routes as they were displaced.
    pub(super) fn routes(&self) -> Result<Vec<RouteMessage>> {
        self.entries.iter().map(Entry::route).collect()
    }

    /// Names of the interfaces that each one leaves by.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = impl Iterator<Item = &str>> {
        let interfaces = self.entries.iter().map(|entry| entry.interfaces.iter());
        interfaces.map(|interfaces| interfaces.map(|interface| interface.name.as_str()))
    }

    /// The routes as they can be put back now.
    pub(super) fn restorable(&self) -> Result<Vec<Restorable>> {
        self.entries.iter().map(Entry::restorable).collect()
    }

    /// Takes routes in, and returns when they are on disk. A route takes the place of the one that the same
    /// protocol had displaced on the same interface with the same metric before (a new DHCP lease, for example).
    pub(super) fn record(&mut self, routes: &[RouteMessage]) -> Result<()> {
        let new: Vec<Entry> = routes.iter().map(Entry::new).collect();
        let mut entries = Vec::new();
        for old in &self.entries {
            let old_key = key(&old.route()?, &old.interfaces);
            let superseded = routes
                .iter()
                .zip(&new)
                .any(|(route, entry)| key(route, &entry.interfaces) == old_key);
            if !superseded {
                entries.push(old.clone());
            }
        }
        entries.extend(new);
        self.replace(entries)
    }

    /// Puts back what was there before a [`record`](Self::record).
    pub(super) fn rollback(&mut self, to: &Snapshot) -> Result<()> {
        self.replace(to.0.clone())
    }

    /// For [`rollback`](Self::rollback).
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot(self.entries.clone())
    }

    /// Forgets the routes that `keep` says no to, in memory and on disk.
    pub(super) fn retain(&mut self, keep: &[bool]) -> Result<()> {
        let entries = self
            .entries
            .iter()
            .zip(keep)
            .filter(|(_, keep)| **keep)
            .map(|(entry, _)| entry.clone());
        self.replace(entries.collect())
    }

    fn replace(&mut self, entries: Vec<Entry>) -> Result<()> {
        if entries == self.entries {
            return Ok(());
        }
        let written = match entries.is_empty() {
            true => self.file.remove().map(drop),
            false => self.file.store(&Content {
                routes: entries.clone(),
            }),
        };
        written.context("cannot record displaced routes")?;
        self.entries = entries;
        Ok(())
    }
}

/// The displaced routes at one time.
pub(super) struct Snapshot(Vec<Entry>);

impl Entry {
    fn new(route: &RouteMessage) -> Entry {
        let interfaces = hops(route)
            .into_iter()
            .map(|hop| Interface {
                index: hop.ifindex,
                name: interface_name(hop.ifindex),
            })
            .collect();
        let mut bytes = vec![0; route.buffer_len()];
        route.emit(&mut bytes);
        Entry {
            route: describe(route),
            interfaces,
            message: to_hex(&bytes),
        }
    }

    fn route(&self) -> Result<RouteMessage> {
        let parse = || Ok::<_, anyhow::Error>(RouteMessage::parse(&from_hex(&self.message)?)?);
        parse().with_context(|| format!("`{}`", self.route))
    }

    fn restorable(&self) -> Result<Restorable> {
        let mut indexes = Vec::new();
        for interface in &self.interfaces {
            match if_nametoindex(interface.name.as_str()) {
                Ok(index) => indexes.push((interface.index, index)),
                Err(_) => {
                    return Ok(Restorable::Gone {
                        route: self.route.clone(),
                        interface: interface.name.clone(),
                    });
                }
            }
        }
        let mut route = self.route()?;
        renumber(&mut route, &indexes);
        Ok(Restorable::Ready(route))
    }
}

type Key<'a> = (u8, u8, u32, Vec<&'a str>);

fn key<'a>(route: &RouteMessage, interfaces: &'a [Interface]) -> Key<'a> {
    (
        u8::from(route.header.address_family),
        u8::from(route.header.protocol),
        metric(route),
        interfaces
            .iter()
            .map(|interface| interface.name.as_str())
            .collect(),
    )
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

/// As the state files hold messages.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`to_hex`] wrote.
pub(super) fn from_hex(text: &str) -> Result<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        bail!("not a hexadecimal message");
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).context("not a hexadecimal message"))
        .collect()
}
