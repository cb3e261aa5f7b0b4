//! Balance groups, metrics of the uplinks' own, and withdrawn routes, with the real agent: how connections are shared, and whom it
//! disturbs when members leave and join.

mod fixtures;
mod flows;
mod links;
mod members;
mod metrics;
mod orders;
mod ranks;
mod refused;
mod removed;
mod restart;
mod sharing;
