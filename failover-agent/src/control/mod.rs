//! How the agent is spoken to: the lock that makes it the only one of its run directory, the control socket, and the status.
//!
//! The protocol is one JSON object a line in each direction: `{"request":"status"}` is answered with `{"status":{…}}`, or
//! with `{"error":"…"}`. A connection may carry any number of requests, one after the other. `events` is answered with
//! any number of lines, and with `follow` the connection carries nothing else any more.

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

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// Everything that the agent knows.
    Status,
    /// Keep an uplink active: a manual override.
    Switch {
        /// Its name; `auto` ends the manual override, and a drill.
        uplink: String,
    },
    /// Treat an uplink as Down.
    Drill {
        /// Its name.
        uplink: String,
        /// For how many milliseconds, up to [`MAX_DRILL`]; 0 ends a drill.
        for_ms: u64,
    },
    /// Read the configuration file anew.
    Reload,
    /// Start the program anew in the same process, without letting go of routes and gates.
    Restart,
    /// The last events, oldest first.
    Events {
        /// And all that come, until the client hangs up.
        #[serde(default)]
        follow: bool,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// An order is carried out, or there are no more events: what that means.
    Done(String),
    /// An order is not carried out: why not, and what helps.
    Refused(String),
    /// There is no such uplink: the names of those that there are.
    UnknownUplink(Vec<String>),
    /// To [`Request::Events`], one line each.
    Event(Box<Event>),
    /// Events that this client was too slow for.
    Lost(u64),
    /// The request failed, and why.
    Error(String),
}

/// The control socket below a run directory.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}
