//! How the agent is spoken to: the lock that makes it the only one of its run directory, the control socket, and the status.
//!
//! The protocol is one JSON object a line in each direction: `{"request":"status"}` is answered with `{"status":{…}}`, or
//! with `{"error":"…"}`. A connection may carry any number of requests, one after the other.

mod client;
mod lock;
mod render;
mod server;
pub mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::query;
pub use lock::Lock;
pub use render::render;
pub use server::{Requests, Server, remove_sockets};
pub use status::Status;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// Everything that the agent knows.
    Status,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// The request failed, and why.
    Error(String),
}

/// The control socket below a run directory.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}
