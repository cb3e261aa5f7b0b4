//! `failover-agent doctor`: each fault is made for real, found, cured by what the finding says, and found no more.

#![expect(
    clippy::unwrap_used,
    reason = "a missing value fails the test, which is what it is for"
)]

mod blindness;
mod diagnosis;
mod healthy;
mod links;
mod networks;
mod probes;
mod programs;
mod router;
mod routes;
