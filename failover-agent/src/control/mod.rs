//! The agent's interface to users and other programs: the lock that makes it the only agent of its run directory, the control socket, and
//! the status.
//!
//! The protocol is one JSON object per line in each direction: `{"request":"status"}` is answered with `{"status":{…}}`, or with
//! `{"error":"…"}`. A connection may carry any number of requests, one after the other. `events` is answered with any number of lines; with
//! `follow` the connection carries nothing else any more.

mod client;
mod events;
mod flock;
mod inherited;
mod lock;
mod namespace;
mod render;
mod server;
pub mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod words;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use client::{events, query};
pub use events::{Answer, Event, Events, MAX_RECENT, Reason};
pub use lock::Lock;
pub use namespace::NamespaceLock;
pub use render::render;
pub use server::{Requests, Server, remove_sockets};
pub use status::Status;

/// Longest drill.
pub const MAX_DRILL: Duration = Duration::from_secs(86_400);

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// Report everything that the agent knows.
    Status,
    /// Keep an uplink active: a manual override.
    Switch {
        /// The uplink's name; `auto` ends the manual override and any drill.
        uplink: String,
    },
    /// Treat an uplink as Down.
    Drill {
        /// The uplink's name.
        uplink: String,
        /// For how many milliseconds, up to [`MAX_DRILL`]; 0 ends a drill.
        for_ms: u64,
    },
    /// Reload the configuration file.
    Reload,
    /// Restart the program in the same process, and keep routes and gates.
    Restart,
    /// Report the last events, oldest first.
    Events {
        /// Also report new ones, until the client closes the connection.
        #[serde(default)]
        follow: bool,
    },
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Answers [`Request::Status`].
    Status(Box<Status>),
    /// A command was carried out, or there are no more events: a text that says so.
    Done(String),
    /// A command was refused: why, and what helps.
    Refused(String),
    /// There is no such uplink: the names of those that exist.
    UnknownUplink(Vec<String>),
    /// Answers [`Request::Events`], one line per event.
    Event(Box<Event>),
    /// The number of events that this client lost by being too slow.
    Lost(u64),
    /// The request failed, and why.
    Error(String),
}

/// The control socket below a run directory.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}
