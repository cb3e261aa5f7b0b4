//! `failover-agent doctor`: each fault is made for real, found, cured by what the finding says, and found no more.

mod blindness;
mod bypasses;
mod diagnosis;
mod groups;
mod healthy;
mod links;
mod networks;
mod probes;
mod programs;
mod router;
mod routes;
mod xdp;
