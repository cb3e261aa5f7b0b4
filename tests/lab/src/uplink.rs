//! One uplink of the host under test, with its provider.

use std::{net::IpAddr, path::Path, sync::Arc};

use anyhow::{Context, Result};

use super::{
    agent_config::UplinkConfig,
    capture::Capture,
    namespace::Namespace,
    plan::{Addresses, LINK_LOCAL_GATEWAY},
    relay::{Relay, RelayCounts},
};

/// What an uplink is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Ethernet: a veth pair.
    Veth,
    /// No link-layer header: two tun devices with a relay between them.
    Tun,
}

/// One uplink: the host's interface and the provider behind it. A handle; clones mean the same uplink.
#[derive(Clone, Debug)]
pub struct Uplink {
    pub(super) name: Arc<str>,
    pub(super) kind: LinkKind,
    pub(super) addresses: Addresses,
    pub(super) metric: Option<u32>,
    /// IPv4, IPv6: something else is to bring the host's address and default route.
    pub(super) bare: [bool; 2],
    pub(super) host: Namespace,
    pub(super) provider: Namespace,
    pub(super) relay: Option<Arc<Relay>>,
}

impl Uplink {
    /// Its name, which is also that of the host's interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is made of.
    pub fn kind(&self) -> LinkKind {
        self.kind
    }

    /// Its addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The provider's namespace; its interfaces are `customer` and `upstream`.
    pub fn provider(&self) -> &Namespace {
        &self.provider
    }

    /// The host's IPv4 address on it.
    pub fn host_v4(&self) -> IpAddr {
        self.addresses.host_v4.into()
    }

    /// The host's IPv6 address on it.
    pub fn host_v6(&self) -> IpAddr {
        self.addresses.host_v6.into()
    }

    /// Packets whose source address is not one of this provider's, and which it has therefore dropped.
    ///
    /// # Errors
    /// When the counter cannot be read.
    pub fn foreign_packets(&self) -> Result<u64> {
        let list = self.provider.exec_json(
            "nft",
            &["-j", "list", "counter", "inet", "provider", "foreign"],
        )?;
        list["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|entry| entry["counter"]["packets"].as_u64())
            .with_context(|| format!("no counter in {list}"))
    }

    /// Captures at the provider's end of the link, where everything arrives that leaves the host, as [`Node::capture`](super::Node::capture).
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn capture(&self, filter: &str, file: &Path) -> Result<Capture> {
        Capture::start(&self.provider, "customer", filter, file)
    }

    /// What became of the packets on an L3 uplink's relay; `None` for a veth one.
    pub fn relay_counts(&self) -> Option<RelayCounts> {
        self.relay.as_ref().map(|relay| relay.counts())
    }

    /// Its table in an agent's configuration.
    pub(super) fn agent_config(&self) -> UplinkConfig {
        let table = UplinkConfig::new(&self.name);
        match (self.kind, self.metric) {
            (LinkKind::Tun, _) => table.gateway("none").gateway6("none"),
            (LinkKind::Veth, Some(_)) => table,
            // There is no route to learn them from.
            (LinkKind::Veth, None) => table
                .gateway(&self.addresses.gateway_v4.to_string())
                .gateway6(&LINK_LOCAL_GATEWAY.to_string()),
        }
    }

    /// The same as text.
    pub fn config(&self) -> String {
        self.agent_config().to_string()
    }

    /// Puts the host's interface up with its addresses and default routes. Also what brings them back after the interface was set down.
    pub(super) fn set_up_host(&self) -> Result<()> {
        let (name, a) = (&self.name, &self.addresses);
        let address_v4 = match self.kind {
            LinkKind::Veth => format!("{}/24", a.host_v4),
            LinkKind::Tun => format!("{} peer {}/32", a.host_v4, a.gateway_v4),
        };
        let mut batch = format!("link set lo up\nlink set {name} up\n");
        let addresses = [
            format!("address replace {address_v4} dev {name}\n"),
            format!("address replace {}/64 dev {name} nodad\n", a.host_v6),
        ];
        batch.extend(self.unless_bare(addresses));
        self.host.ip_batch(&batch)?;
        self.add_default_routes()
    }

    /// Leaves the default routes that a DHCP client and a router advertisement would leave, if the uplink has any.
    pub(super) fn add_default_routes(&self) -> Result<()> {
        let Some(metric) = self.metric else {
            return Ok(());
        };
        let (name, a) = (&self.name, &self.addresses);
        let (via_v4, via_v6) = match self.kind {
            LinkKind::Veth => (
                format!("via {} ", a.gateway_v4),
                format!("via {LINK_LOCAL_GATEWAY} "),
            ),
            LinkKind::Tun => (String::new(), String::new()),
        };
        let routes = [
            format!(
                "route replace 0.0.0.0/0 {via_v4}dev {name} proto dhcp src {} metric {metric}\n",
                a.host_v4
            ),
            format!("route replace ::/0 {via_v6}dev {name} proto ra metric {metric}\n"),
        ];
        let batch: String = self.unless_bare(routes).collect();
        self.host.ip_batch(&batch)
    }

    /// Of something for IPv4 and for IPv6, what the laboratory itself is to give the host.
    pub(super) fn unless_bare<T>(&self, [v4, v6]: [T; 2]) -> impl Iterator<Item = T> + use<T> {
        let bare = self.bare;
        let both = bare.into_iter().zip([v4, v6]);
        both.filter(|(bare, _)| !bare).map(|(_, item)| item)
    }
}
