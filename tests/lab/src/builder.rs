//! The building of a laboratory, with iproute2 and nft as anybody would do it by hand.

use std::{
    fmt::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};

use super::{
    agent::AgentDirs,
    cleanup::{BPF_MOUNT, Claim},
    namespace::Namespace,
    node::Node,
    plan::{
        Addresses, LAN_CLIENT_V4, LAN_CLIENT_V6, LAN_HOST_V4, LAN_HOST_V6, LINK_LOCAL_GATEWAY,
        MAX_UPLINKS, Origins, TARGETS_V4, TARGETS_V6,
    },
    relay::Relay,
    topology::Lab,
    traffic::Servers,
    uplink::{LinkKind, Uplink},
};

/// Describes one uplink of a laboratory to build. A name alone makes a veth one with default routes.
#[derive(Clone, Debug)]
pub struct UplinkSpec {
    name: String,
    kind: LinkKind,
    /// `None`: no default routes.
    metric: Option<u32>,
    default_routes: bool,
    /// IPv4, IPv6: the host has no address and no default route.
    bare: [bool; 2],
}

impl UplinkSpec {
    /// An Ethernet link (veth); `name` is also the host's interface.
    pub fn veth(name: &str) -> UplinkSpec {
        UplinkSpec {
            name: name.to_owned(),
            kind: LinkKind::Veth,
            metric: None,
            default_routes: true,
            bare: [false; 2],
        }
    }

    /// A link without a link-layer header (tun), whose packets a relay carries: it can also delay and lose them.
    pub fn tun(name: &str) -> UplinkSpec {
        UplinkSpec {
            kind: LinkKind::Tun,
            ..UplinkSpec::veth(name)
        }
    }

    /// Metric of its default routes; by default that of the agent's own for it as a standby (5000 and counting), so that the agent has to
    /// displace them.
    #[must_use]
    pub fn metric(mut self, metric: u32) -> UplinkSpec {
        self.metric = Some(metric);
        self
    }

    /// No default routes.
    #[must_use]
    pub fn without_default_routes(mut self) -> UplinkSpec {
        self.default_routes = false;
        self
    }

    /// No IPv4 address and default route on the host's side: a DHCP client is to bring them.
    #[must_use]
    pub fn without_ipv4(mut self) -> UplinkSpec {
        self.bare[0] = true;
        self
    }

    /// No IPv6 address and default route on the host's side: router advertisements are to bring them.
    #[must_use]
    pub fn without_ipv6(mut self) -> UplinkSpec {
        self.bare[1] = true;
        self
    }
}

impl From<&str> for UplinkSpec {
    fn from(name: &str) -> UplinkSpec {
        UplinkSpec::veth(name)
    }
}

/// Describes a laboratory to build.
#[derive(Clone, Debug, Default)]
pub struct LabBuilder {
    uplinks: Vec<UplinkSpec>,
    lan: bool,
}

impl LabBuilder {
    /// The host's uplinks, two to four, in the order in which the agent is to prefer them; `cable` and `lte`, both veth, by default.
    #[must_use]
    pub fn uplinks<S: Into<UplinkSpec>>(
        mut self,
        uplinks: impl IntoIterator<Item = S>,
    ) -> LabBuilder {
        self.uplinks = uplinks.into_iter().map(Into::into).collect();
        self
    }

    /// A client behind the host, which forwards and masquerades for it.
    #[must_use]
    pub fn lan(mut self) -> LabBuilder {
        self.lan = true;
        self
    }

    /// Builds it, and returns when packets flow on every link.
    ///
    /// # Errors
    /// Without root, or when a command fails; whatever was made until then is removed.
    pub fn build(mut self) -> Result<Lab> {
        let begun = Instant::now();
        if self.uplinks.is_empty() {
            self = self.uplinks(["cable", "lte"]);
        }
        ensure!(
            (2..=MAX_UPLINKS).contains(&self.uplinks.len()),
            "a laboratory has 2 to {MAX_UPLINKS} uplinks"
        );
        let claim = Claim::new()?;
        let dirs = make_dirs(claim.dir())?;
        let namespace = |role: &str| Namespace::create(format!("{}-{role}", claim.id()));
        let internet = namespace("internet")?;
        internet.set_sysctls(NO_DAD)?;
        let host = namespace("host")?;
        host.set_sysctls(NO_DAD)?;

        let mut uplinks = Vec::new();
        for (number, spec) in (1..).zip(&self.uplinks) {
            let provider = namespace(&spec.name)?;
            let default_metric = 4999 + u32::from(number);
            uplinks.push(Uplink {
                name: spec.name.as_str().into(),
                kind: spec.kind,
                addresses: Addresses::of(number),
                metric: spec
                    .default_routes
                    .then(|| spec.metric.unwrap_or(default_metric)),
                bare: spec.bare,
                relay: connect(spec, &host, &provider, &internet)?,
                host: host.clone(),
                provider,
            });
        }
        set_up_internet(&internet, &uplinks)?;
        for uplink in &uplinks {
            set_up_provider(uplink)?;
            uplink.set_up_host()?;
        }
        let origins = Origins(
            uplinks
                .iter()
                .map(|uplink| (uplink.name.clone(), uplink.addresses))
                .collect(),
        );
        let client = if self.lan {
            let client = namespace("client")?;
            client.set_sysctls(NO_DAD)?;
            set_up_lan(&host, &client)?;
            Some(Node::new(client, origins.clone()))
        } else {
            None
        };
        let servers = Servers::start(&internet, &origins)?;
        let mut lab = Lab {
            host: Node::new(host, origins.clone()),
            client,
            internet: Node::new(internet, origins),
            uplinks,
            servers,
            dirs,
            build_time: Duration::ZERO,
            _claim: claim,
        };
        lab.wait_until_ready()?;
        lab.build_time = begun.elapsed();
        Ok(lab)
    }
}

/// Addresses are static and unique: nothing to detect. (`nodad` goes further: without it an address cannot be bound for a moment, on
/// the loopback too.)
pub(super) const NO_DAD: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    // New namespaces inherit IPv4 settings from the machine's own; ours are the kernel's defaults.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];

const FORWARDING: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
];

pub(super) fn make_dirs(dir: &Path) -> Result<AgentDirs> {
    let bpf = dir.join(BPF_MOUNT);
    std::fs::create_dir(&bpf)?;
    mount(
        Some("bpf"),
        &bpf,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("cannot mount a BPF file system on {}", bpf.display()))?;
    let dirs = AgentDirs::in_dir(dir, bpf.join("failover-agent"));
    std::fs::create_dir(&dirs.run)?;
    std::fs::create_dir(&dirs.state)?;
    Ok(dirs)
}

/// Makes the interfaces of one uplink: host, `customer` and `upstream` at the provider, and the provider's name in the internet.
fn connect(
    spec: &UplinkSpec,
    host: &Namespace,
    provider: &Namespace,
    internet: &Namespace,
) -> Result<Option<Arc<Relay>>> {
    provider.set_sysctls(NO_DAD)?;
    provider.set_sysctls(FORWARDING)?;
    // So that a carrier that was down for a while comes back with what it had.
    provider.set_sysctl("net/ipv6/conf/default/keep_addr_on_down", "1")?;
    let name = &spec.name;
    if name.is_empty() || name.len() > 15 {
        bail!("`{name}` cannot be the name of an interface");
    }
    let peer = provider.name();
    internet.ip_batch(&format!(
        "link add {name} type veth peer name upstream netns {peer}"
    ))?;
    match spec.kind {
        LinkKind::Veth => {
            plug_in(name, host, provider)?;
            Ok(None)
        }
        LinkKind::Tun => {
            let relay = Relay::start((host, name), (provider, "customer"))?;
            Ok(Some(Arc::new(relay)))
        }
    }
}

/// Makes the host's interface of a veth uplink, and the provider's end of it.
pub(super) fn plug_in(name: &str, host: &Namespace, provider: &Namespace) -> Result<()> {
    let peer = provider.name();
    host.ip_batch(&format!(
        "link add {name} type veth peer name customer netns {peer}"
    ))
}

fn set_up_internet(internet: &Namespace, uplinks: &[Uplink]) -> Result<()> {
    let mut batch = "link set lo up\n".to_owned();
    for target in TARGETS_V4 {
        writeln!(batch, "address add {target}/32 dev lo")?;
    }
    for target in TARGETS_V6 {
        writeln!(batch, "address add {target}/128 dev lo nodad")?;
    }
    for Uplink {
        name, addresses: a, ..
    } in uplinks
    {
        writeln!(
            batch,
            "address add {}/30 dev {name}\n\
             address add {}/64 dev {name} nodad\n\
             link set {name} up\n\
             route add {} via {} dev {name}",
            a.transit_v4,
            a.transit_v6,
            a.customer_v6(),
            a.provider_transit_v6,
        )?;
    }
    internet.ip_batch(&batch)
}

/// Gives the provider's end of the customer's link its addresses.
pub(super) fn set_up_customer_link(uplink: &Uplink) -> Result<()> {
    let a = uplink.addresses();
    let address_v4 = match uplink.kind() {
        LinkKind::Veth => format!("{}/24", a.gateway_v4),
        LinkKind::Tun => format!("{} peer {}/32", a.gateway_v4, a.host_v4),
    };
    uplink.provider().ip_batch(&format!(
        "address add {address_v4} dev customer\n\
         address add {}/64 dev customer nodad\n\
         address add {LINK_LOCAL_GATEWAY}/64 dev customer nodad\n\
         link set customer up",
        a.gateway_v6,
    ))
}

fn set_up_provider(uplink: &Uplink) -> Result<()> {
    let a = uplink.addresses();
    set_up_customer_link(uplink)?;
    uplink.provider().ip_batch(&format!(
        "link set lo up\n\
         address add {}/30 dev upstream\n\
         address add {}/64 dev upstream nodad\n\
         link set upstream up\n\
         route add default via {} metric {PROVIDER_METRIC}\n\
         route add default via {} metric {PROVIDER_METRIC}",
        a.public_v4, a.provider_transit_v6, a.transit_v4, a.transit_v6,
    ))?;
    // BCP 38: a provider takes from a customer only what bears the customer's addresses (and what has none yet).
    uplink.provider().nft(&format!(
        "table inet provider {{
             counter foreign {{ }}
             chain filter_sources {{
                 type filter hook prerouting priority raw
                 iifname customer meta nfproto ipv4 ip saddr != {{ {}, 0.0.0.0 }} counter name foreign drop
                 iifname customer meta nfproto ipv6 ip6 saddr != {{ {}, fe80::/10, :: }} counter name foreign drop
             }}
             chain nat {{
                 type nat hook postrouting priority srcnat
                 oifname upstream meta nfproto ipv4 masquerade
             }}
         }}",
        a.customer_v4(),
        a.customer_v6(),
    ))
}

/// Metric of the providers' default routes; a fault puts better ones before them.
const PROVIDER_METRIC: u32 = 10;

fn set_up_lan(host: &Namespace, client: &Namespace) -> Result<()> {
    host.set_sysctls(FORWARDING)?;
    host.ip_batch(&format!(
        "link add lan type veth peer name eth0 netns {}\n\
         address add {LAN_HOST_V4}/24 dev lan\n\
         address add {LAN_HOST_V6}/64 dev lan nodad\n\
         link set lan up",
        client.name()
    ))?;
    client.ip_batch(&format!(
        "link set lo up\n\
         address add {LAN_CLIENT_V4}/24 dev eth0\n\
         address add {LAN_CLIENT_V6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via {LAN_HOST_V4}\n\
         route add default via {LAN_HOST_V6}"
    ))?;
    host.nft(&format!(
        "table inet lan {{
             chain nat {{
                 type nat hook postrouting priority srcnat
                 ip saddr {LAN_HOST_V4}/24 oifname != lan masquerade
                 ip6 saddr {LAN_HOST_V6}/64 oifname != lan masquerade
             }}
         }}"
    ))
}
