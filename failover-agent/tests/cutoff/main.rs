//! Ending connections beside the datapath, against a real kernel: sockets, connection tracking.
#![expect(clippy::unwrap_used, reason = "all of this is tests and their helpers")]

mod flows;
mod lab;
#[path = "../common/namespaces.rs"]
mod namespaces;
mod sockets;
