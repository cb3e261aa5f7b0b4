//! Real network daemons in the laboratory: DHCP servers and clients, router advertisements, network managers.
//!
//! Their programs are Debian's, which `cargo xtask setup` unpacks and never installs. They run in a [`System`], which shows them a machine of
//! their own, so that they neither read nor change anything of this one.
//!
//! | file | concern |
//! |---|---|
//! | `system.rs` | the machine that a daemon sees: mounts, users, host name |
//! | `process.rs` | a daemon as a process: started, watched, and ended whatever happens |
//! | `dhcp_server.rs` | a provider's DHCP server (dnsmasq) |
//! | `dhcp_client.rs` | the host's DHCP clients and network managers, one interface to all |
//! | `networkd.rs`, `network_manager.rs` | the two of them that need more than a command line |
//! | `router.rs` | a provider's router advertisements (radvd) |

mod dhcp_client;
mod dhcp_server;
mod network_manager;
mod networkd;
mod process;
mod router;
mod system;

pub use dhcp_client::{ClientKind, DhcpClient};
pub use dhcp_server::{DhcpServer, Lease};
pub use network_manager::NetworkManager;
pub use process::Daemon;
pub use router::{Advertisement, Preference, Router};
pub use system::System;
