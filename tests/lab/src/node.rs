//! A host in the laboratory, and what can be sent from it.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;

use super::{
    capture::Capture,
    monitor::RouteMonitor,
    namespace::Namespace,
    ping,
    plan::{DISCARD_PORT, ECHO_PORT, Origins},
    snapshot::{DefaultRoute, InterfaceCounters, Snapshot},
    traffic::{TcpClient, TcpMode, UdpStreamBuilder},
};

/// The host under test, the client behind it, or the internet.
#[derive(Clone, Debug)]
pub struct Node {
    namespace: Namespace,
    origins: Origins,
}

impl Node {
    pub(super) fn new(namespace: Namespace, origins: Origins) -> Node {
        Node { namespace, origins }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The uplink by which a packet with this source address has come into the internet.
    pub fn uplink_of(&self, source: IpAddr) -> Option<Arc<str>> {
        self.origins.uplink(source)
    }

    /// A steady stream to the echo server at `target`, every 5 ms from an unconnected socket unless told otherwise.
    pub fn udp_stream(&self, target: IpAddr) -> UdpStreamBuilder {
        UdpStreamBuilder::new(self.clone(), SocketAddr::new(target, ECHO_PORT))
    }

    /// A connection to the echo server at `target` which sends a little every `interval`.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn tcp_stream(&self, target: IpAddr, interval: Duration) -> Result<TcpClient> {
        let target = SocketAddr::new(target, ECHO_PORT);
        TcpClient::start(&self.namespace, target, TcpMode::Steady(interval))
    }

    /// A connection to the echo server at `target` that sends nothing.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn tcp_idle(&self, target: IpAddr) -> Result<TcpClient> {
        let target = SocketAddr::new(target, ECHO_PORT);
        TcpClient::start(&self.namespace, target, TcpMode::Idle)
    }

    /// A connection to the discard server at `target` which sends as much as it can.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn tcp_bulk(&self, target: IpAddr) -> Result<TcpClient> {
        let target = SocketAddr::new(target, DISCARD_PORT);
        TcpClient::start(&self.namespace, target, TcpMode::Bulk)
    }

    /// One echo request; its round-trip time, or `None` when no answer comes within `timeout`.
    ///
    /// # Errors
    /// When it cannot be sent, for example since there is no route.
    pub fn ping(&self, target: IpAddr, timeout: Duration) -> Result<Option<Duration>> {
        self.namespace.run(|| ping::ping(target, None, timeout))
    }

    /// The same, by one interface (SO_BINDTODEVICE).
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn ping_by(
        &self,
        interface: &str,
        target: IpAddr,
        timeout: Duration,
    ) -> Result<Option<Duration>> {
        self.namespace
            .run(|| ping::ping(target, Some(interface), timeout))
    }

    /// Captures on an interface into a pcap file, from now until the guard is finished. `filter` is what `tcpdump` takes; empty: everything.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn capture(&self, interface: &str, filter: &str, file: &Path) -> Result<Capture> {
        Capture::start(&self.namespace, interface, filter, file)
    }

    /// Routes, rules, addresses, queueing disciplines, filters and nftables, to be compared with a later snapshot.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::of(&self.namespace)
    }

    /// The IPv4 default routes of the main table, best first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn default_routes_v4(&self) -> Result<Vec<DefaultRoute>> {
        DefaultRoute::read(&self.namespace, "-4")
    }

    /// The IPv6 default routes of the main table, best first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn default_routes_v6(&self) -> Result<Vec<DefaultRoute>> {
        DefaultRoute::read(&self.namespace, "-6")
    }

    /// Watches the IPv4 default routes of the main table from now on. Nobody may change them while this starts.
    ///
    /// # Errors
    /// When `ip monitor` does not start.
    pub fn watch_default_routes_v4(&self) -> Result<RouteMonitor> {
        RouteMonitor::start(&self.namespace, "-4")
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// When `ip monitor` does not start.
    pub fn watch_default_routes_v6(&self) -> Result<RouteMonitor> {
        RouteMonitor::start(&self.namespace, "-6")
    }

    /// The kernel's counters of an interface.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn counters(&self, interface: &str) -> Result<InterfaceCounters> {
        InterfaceCounters::read(&self.namespace, interface)
    }
}
