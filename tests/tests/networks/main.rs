//! Real networks: the agent beside real DHCP clients, router advertisements and network managers.
//!
//! Needs the daemons that `cargo xtask setup` unpacks.

mod advertised;
mod dhcp;
mod fixtures;
mod ipv6;
mod isolation;
mod late;
mod managers;
mod temporary;
