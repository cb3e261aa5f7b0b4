//! failover-agent keeps a Linux host or router online over several uplinks.
pub mod agent;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod cutoff;
pub mod datapath;
pub mod failure;
pub mod logging;
mod netlink;
pub mod policy;
pub mod probe;
pub mod route;
pub mod verbs;
