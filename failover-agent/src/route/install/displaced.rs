//! Foreign default routes that had to make way, on record so that they can be put back even after a kill -9.
//!
//! A record holds what the route's owner has said last. It ends
//!
//! * when the owner says something else: another default route of the same protocol, interfaces and family appears, or the same one again
//!   (which may have to make way, too, and is then recorded again). An IPv4 link-local address is what a DHCP client does without a
//!   lease (RFC 3927): a default route from such an address ends with any other one of its interface;
//! * with the lifetime of a route that was advertised.
//!
//! Where the disk does not take the record in time, memory has it, and the switch goes on.

use std::time::Duration;

use anyhow::{Result, bail};
use rtnetlink::packet_route::route::RouteMessage;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::entry::{Entry, Stored, Word};
use crate::route::wire::message;
use crate::{
    clock::since_boot,
    store::{Life, Patience, Store, StoredFile},
};

const FILE: &str = "displaced.json";

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    routes: Vec<Stored>,
}

/// The displaced routes, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Displaced {
    file: StoredFile,
    entries: Vec<Entry>,
    /// Why it is not known yet what an earlier run has left.
    unread: Option<String>,
    /// It was reported that the disk does not have them all.
    reported: bool,
}

/// A displaced route that can be put back, or why not.
pub(crate) enum Restorable {
    /// With the interfaces' present indexes, and what is left of its lifetime.
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
    /// Reads what an earlier run in this boot and network namespace has left. What cannot be understood is set aside, and said.
    pub(crate) fn load(store: &Store) -> Displaced {
        let mut displaced = Displaced {
            file: store.file(FILE, Life::Boot),
            entries: Vec::new(),
            unread: None,
            reported: false,
        };
        displaced.read(Patience::Start);
        if let Some(why) = &displaced.unread {
            warn!("{why}: default routes that an earlier run has displaced are not known yet");
        }
        displaced
    }

    /// Reads it if that has not succeeded before.
    ///
    /// # Errors
    /// It still cannot be read: whatever an earlier run has displaced is not known.
    pub(crate) fn catch_up(&mut self, patience: Patience) -> Result<()> {
        if self.unread.is_some() {
            self.read(patience);
        }
        match &self.unread {
            None => Ok(()),
            Some(why) => bail!("{why}: what it says is displaced is not put back"),
        }
    }

    fn read(&mut self, patience: Patience) {
        let content: Content = match self.file.try_load(patience) {
            Ok(content) => content.unwrap_or_default(),
            Err(error) => {
                self.unread = Some(format!("{error:#}"));
                return;
            }
        };
        self.unread = None;
        let mut damaged = Vec::new();
        for stored in &content.routes {
            match stored.read() {
                Ok(entry) => self.entries.push(entry),
                Err(error) => damaged.push(format!("`{}`: {error:#}", stored.route())),
            }
        }
        if !damaged.is_empty() {
            self.file.damaged(&damaged.join("; "));
            self.keep();
        }
    }

    /// The routes, with what is left of their lifetimes.
    pub(crate) fn routes(&self) -> Vec<RouteMessage> {
        let now = since_boot();
        let routes = self.entries.iter().map(|entry| entry.route(now));
        routes.collect()
    }

    /// How long it is until the next one's lifetime ends.
    pub(crate) fn next_end(&self) -> Option<Duration> {
        let now = since_boot();
        let ends = self.entries.iter().filter_map(|entry| entry.ends);
        ends.min().map(|end| end.saturating_sub(now))
    }

    /// Names of the interfaces that each one leaves by.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = impl Iterator<Item = &str>> {
        self.entries.iter().map(Entry::interfaces)
    }

    /// The routes as they can be put back now.
    pub(crate) fn restorable(&self) -> Vec<Restorable> {
        let now = since_boot();
        let entries = self.entries.iter();
        entries.map(|entry| entry.restorable(now)).collect()
    }

    /// Ends the records that are outdated, now that these are the default routes of others that stand, of both families.
    pub(crate) fn observe<'a>(&mut self, standing: impl Iterator<Item = &'a RouteMessage>) {
        self.catch_up(Patience::Moment).ok();
        if self.entries.is_empty() {
            return;
        }
        let now = since_boot();
        let standing: Vec<Word> = standing.map(Word::of).collect();
        let mut entries = self.entries.clone();
        entries.retain(|entry| !entry.is_over(now) && !entry.is_outdated(&standing));
        let displaced: Vec<String> = entries
            .iter()
            .map(|entry| entry.word.text.clone())
            .collect();
        for entry in &mut entries {
            entry.forget_gone(&standing, &displaced);
        }
        self.replace(entries);
    }

    /// Takes in `routes`, which are about to be displaced while these default routes of others stand, and waits a moment until that is on
    /// disk. One whose lifetime is over is nobody's any more.
    pub(crate) fn record(&mut self, routes: &[RouteMessage], standing: &[RouteMessage]) {
        self.catch_up(Patience::Moment).ok();
        let now = since_boot();
        let words: Vec<Word> = standing.iter().map(Word::of).collect();
        let mut entries = self.entries.clone();
        entries.retain(|entry| !entry.is_over(now) && !entry.is_outdated(&words));
        let mut known: Vec<Word> = entries.iter().map(|entry| entry.word.clone()).collect();
        known.extend(words);
        let alive =
            |route: &&RouteMessage| message::lifetime(route).is_none_or(|left| !left.is_zero());
        let new = routes.iter().filter(alive);
        for entry in new.map(|route| Entry::new(route, now, &known)) {
            entries.retain(|old| old.word != entry.word);
            entries.push(entry);
        }
        self.replace(entries);
        match self.file.settle() {
            Ok(()) => self.reported = false,
            Err(error) if !std::mem::replace(&mut self.reported, true) => warn!(
                "default routes of others make way although that is not on record yet: {error:#}: \
                 a stop puts them back all the same, a kill -9 now would lose them"
            ),
            Err(_) => {}
        }
    }

    /// Puts back what was there before a [`record`](Self::record).
    pub(crate) fn rollback(&mut self, to: &Snapshot) {
        self.replace(to.0.clone());
    }

    /// For [`rollback`](Self::rollback).
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.entries.clone())
    }

    /// Forgets the routes that `keep` says no to, in memory and on disk.
    pub(crate) fn retain(&mut self, keep: &[bool]) {
        let entries = self
            .entries
            .iter()
            .zip(keep)
            .filter(|(_, keep)| **keep)
            .map(|(entry, _)| entry.clone());
        self.replace(entries.collect());
    }

    fn replace(&mut self, entries: Vec<Entry>) {
        if entries != self.entries {
            if let Some(why) = self.unread.take() {
                warn!("{why}: it is replaced: what an earlier run has displaced is lost");
            }
            self.entries = entries;
            self.keep();
        }
    }

    /// Brings the file in line.
    fn keep(&self) {
        if self.entries.is_empty() {
            return self.file.remove();
        }
        let routes = self.entries.iter().map(Entry::stored).collect();
        self.file.replace(&Content { routes });
    }
}

/// The displaced routes at one time.
pub(crate) struct Snapshot(Vec<Entry>);

#[cfg(test)]
mod tests;
