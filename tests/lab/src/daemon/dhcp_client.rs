//! The host's DHCP clients, with the scripts that their packages bring.

use std::fmt::Write;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Daemon, NetworkManager, System, networkd};

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// ISC's, with `dhclient-script`.
    Dhclient,
    /// busybox's, with Debian's `default.script`.
    Udhcpc,
    /// dhcpcd, as a service would run it.
    Dhcpcd,
    /// systemd-networkd.
    Networkd,
    /// NetworkManager, with its internal client.
    NetworkManager,
}

/// A DHCP client on some of the host's interfaces; ended when dropped.
#[derive(Debug)]
pub struct DhcpClient {
    kind: ClientKind,
    /// Held for its drop: the bus that some of them talk on ends after they have.
    running: Running,
}

#[derive(Debug)]
enum Running {
    Daemons(Vec<Daemon>),
    NetworkManager(NetworkManager),
}

impl DhcpClient {
    /// Starts a client on these interfaces, each with the metric that its default route is to have, and does not wait for a lease. udhcpc's script
    /// knows no metric: its routes have none, which is 0.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(
        kind: ClientKind,
        system: &System,
        interfaces: &[(&str, u32)],
    ) -> Result<DhcpClient> {
        let running = match kind {
            ClientKind::Dhclient => Running::Daemons(vec![dhclient(system, interfaces)?]),
            ClientKind::Udhcpc => Running::Daemons(udhcpc(system, interfaces)?),
            ClientKind::Dhcpcd => Running::Daemons(vec![dhcpcd(system, interfaces)?]),
            ClientKind::Networkd => Running::Daemons(vec![networkd::start(system, interfaces)?]),
            ClientKind::NetworkManager => {
                Running::NetworkManager(NetworkManager::start(system, interfaces)?)
            }
        };
        Ok(DhcpClient { kind, running })
    }

    /// Has the client renew its leases now, if it would not by itself at the time that [`DhcpServer`](super::DhcpServer) tells:
    /// udhcpc renews at half the lease time, whatever the server says.
    ///
    /// # Errors
    /// When it has ended.
    pub fn hurry(&self) -> Result<()> {
        match (&self.running, self.kind) {
            (Running::Daemons(daemons), ClientKind::Udhcpc) => daemons
                .iter()
                .try_for_each(|daemon| daemon.signal(Signal::SIGUSR1)),
            _ => Ok(()),
        }
    }

    /// The manager.
    ///
    /// # Panics
    /// When it is another client.
    pub fn network_manager(&self) -> &NetworkManager {
        match &self.running {
            Running::NetworkManager(manager) => manager,
            Running::Daemons(_) => panic!("{:?} is not NetworkManager", self.kind),
        }
    }
}

/// One process for all. Its script takes the metric from a variable, which a hook sets as an administrator would.
fn dhclient(system: &System, interfaces: &[(&str, u32)]) -> Result<Daemon> {
    let mut hook = "case $interface in\n".to_owned();
    for (interface, metric) in interfaces {
        writeln!(hook, "{interface}) IF_METRIC={metric} ;;")?;
    }
    hook.push_str("esac\n");
    system.write("/etc/dhcp/dhclient-enter-hooks.d/metric", &hook)?;
    let mut arguments = vec!["-4", "-d", "-v"];
    arguments.extend(interfaces.iter().map(|(interface, _)| *interface));
    system.start("dhclient", &arguments)
}

/// One process for each.
fn udhcpc(system: &System, interfaces: &[(&str, u32)]) -> Result<Vec<Daemon>> {
    let start = |(interface, _): &(&str, u32)| {
        let script = "/etc/udhcpc/default.script";
        // Pauses of a second, not of 3 and 20.
        let pauses = ["-T", "1", "-A", "1"];
        let arguments = ["-f", "-i", interface, "-s", script];
        system.start("udhcpc", &[&arguments[..], &pauses].concat())
    };
    interfaces.iter().map(start).collect()
}

fn dhcpcd(system: &System, interfaces: &[(&str, u32)]) -> Result<Daemon> {
    const FILE: &str = "/etc/dhcpcd.conf";
    // Debian's settings hold; without the check for duplicates, which takes 5 s, and without udev, which is not here.
    let mut settings = system.read(FILE)?;
    settings.push_str("\nipv4only\nnoarp\nnodev\n");
    for (interface, metric) in interfaces {
        write!(settings, "interface {interface}\nmetric {metric}\n")?;
    }
    system.write(FILE, &settings)?;
    let mut arguments = vec!["--nobackground", "--debug"];
    arguments.extend(interfaces.iter().map(|(interface, _)| *interface));
    system.start("dhcpcd", &arguments)
}
