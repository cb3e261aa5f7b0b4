//! A host under test with its uplinks, providers, an internet and a client; faults; traffic; captures; the agent.
//!
//! Everything is an object that undoes itself when it goes out of scope, after a panic and on Ctrl-C too. A scenario reads:
//!
//! ```no_run
//! # use failover_lab::{Lab, TARGET_V4};
//! # use std::time::Duration;
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::builder().uplinks(["cable", "lte"]).build()?;
//! let agent = lab.start_agent(&lab.agent_config().targets([TARGET_V4]).fall(2))?;
//! let stream = lab.host().udp_stream(TARGET_V4).start()?;
//! let fault = lab.uplink("cable").blackhole()?;
//! stream.wait_for_echo_by("lte", fault.since(), Duration::from_secs(10))?;
//! fault.repair()?;
//! println!("{:?}", stream.stop()?.longest_gap());
//! # Ok(()) }
//! ```

mod agent;
mod agent_config;
mod builder;
mod capture;
mod cleanup;
mod clock;
pub mod daemon;
mod disk;
mod fault;
mod monitor;
mod namespace;
mod node;
mod ping;
mod plan;
mod relay;
mod scenario;
mod snapshot;
mod sys;
mod topology;
mod traffic;
mod uplink;
mod usage;
mod wait;
mod wide;
mod worker;

pub use agent::{AgentDirs, AgentProcess, LogLine, agent_path};
pub use agent_config::{AgentConfig, UplinkConfig};
pub use builder::{LabBuilder, UplinkSpec};
pub use capture::{Capture, CaptureFile};
pub use cleanup::sweep;
pub use clock::WallClock;
pub use disk::Disk;
pub use fault::{Direction, Fault, Path};
pub use monitor::RouteMonitor;
pub use namespace::Namespace;
pub use node::Node;
pub use plan::{
    Addresses, DISCARD_PORT, ECHO_PORT, LAN_CLIENT_V4, LAN_CLIENT_V6, LAN_HOST_V4, LAN_HOST_V6,
    LINK_LOCAL_GATEWAY, MAX_UPLINKS, TARGET_V4, TARGET_V6, TARGETS_V4, TARGETS_V6,
};
pub use relay::{RelayCounts, Shape};
pub use scenario::{Failed, Scenario};
pub use snapshot::{DefaultRoute, InterfaceCounters, Snapshot, SnapshotDiff};
pub use topology::Lab;
pub use traffic::{
    Arrival, Connection, Echo, Ended, Gap, Servers, SocketError, TcpClient, TcpState, UdpRecord,
    UdpReport, UdpStream, UdpStreamBuilder,
};
pub use uplink::{LinkKind, Uplink};
pub use usage::{cpu_time, peak_rss_bytes, reset_peak_rss, rss_bytes};
pub use wait::{PACE, pace, paced, wait_for, wait_until};
pub use wide::{WideLab, WideUplink};
pub use worker::lock;
