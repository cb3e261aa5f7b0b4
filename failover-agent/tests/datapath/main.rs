//! The datapath in the kernel: verdicts by test_run, and programs on interfaces in network namespaces.
#![expect(clippy::unwrap_used, reason = "all of this is tests and their helpers")]

mod answers;
mod arbitrary;
mod bytes;
mod counting;
mod cut;
mod forwarded;
mod inbound;
mod lab;
mod lifecycle;
mod lost;
mod packets;
mod probes;
mod replies;
mod stale;
mod tagged;
mod verdicts;
mod verified;
