//! A laboratory for many uplinks: up to the 64 that an agent takes. Where [`Lab`](super::Lab) has a provider and an internet for each,
//! this one has a single namespace at the other ends of all links, which has the targets on its loopback and answers for them.
//!
//! ```text
//!        ┌─ up01 ── up01 ─┐
//! host ──┼─ up02 ── up02 ─┼── provider: targets on lo
//!        └─ …       …    ─┘
//! ```

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    agent::{AgentDirs, AgentProcess},
    builder::{NO_DAD, make_dirs},
    capture::Capture,
    cleanup::Claim,
    namespace::Namespace,
    ping,
    plan::{Addresses, TARGETS_V4},
    snapshot::DefaultRoute,
    wait::wait_until,
};

/// Greatest number of uplinks: as many as an agent takes.
const MOST: usize = 64;

/// How long the links may take to carry packets.
const READY: Duration = Duration::from_secs(20);

/// A host with many uplinks, IPv4 only. Everything in it is removed when it goes, whatever the reason.
#[derive(Debug)]
pub struct WideLab {
    host: Namespace,
    provider: Namespace,
    uplinks: Vec<WideUplink>,
    dirs: AgentDirs,
    /// Last, so that the names go after everything that uses them.
    _claim: Claim,
}

/// One of its uplinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WideUplink {
    /// Its name, which is also that of the interfaces at both ends.
    pub name: String,
    /// The host's address on it.
    pub host: Ipv4Addr,
    /// The provider's address on it, and the host's gateway.
    pub gateway: Ipv4Addr,
}

impl WideLab {
    /// Builds one with `count` uplinks, and returns when packets flow on every link. All have default routes, like a DHCP client's, at
    /// metrics from 1001 on in their order.
    ///
    /// # Errors
    /// Without root, with more uplinks than an agent takes, or when a command fails; whatever was made until then is removed.
    pub fn build(count: usize) -> Result<WideLab> {
        ensure!(
            (1..=MOST).contains(&count),
            "a wide laboratory has 1 to {MOST} uplinks"
        );
        let claim = Claim::new()?;
        let dirs = make_dirs(claim.dir())?;
        let namespace = |role: &str| -> Result<Namespace> {
            let namespace = Namespace::create(format!("{}-{role}", claim.id()))?;
            namespace.set_sysctls(NO_DAD)?;
            // Nothing here speaks it, and the announcements of so many links would be noise.
            namespace.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
            Ok(namespace)
        };
        let lab = WideLab {
            host: namespace("host")?,
            provider: namespace("provider")?,
            uplinks: (1..).take(count).map(WideUplink::numbered).collect(),
            dirs,
            _claim: claim,
        };
        lab.connect()?;
        lab.wait_until_ready()?;
        Ok(lab)
    }

    fn connect(&self) -> Result<()> {
        let mut links = String::new();
        let mut host = "link set lo up\n".to_owned();
        let mut provider = host.clone();
        let peer = self.provider.name();
        for (
            metric,
            WideUplink {
                name,
                host: address,
                gateway,
            },
        ) in (1001..).zip(&self.uplinks)
        {
            writeln!(
                links,
                "link add {name} type veth peer name {name} netns {peer}"
            )?;
            writeln!(
                provider,
                "address add {gateway}/24 dev {name}\nlink set {name} up"
            )?;
            writeln!(
                host,
                "address add {address}/24 dev {name}\n\
                 link set {name} up\n\
                 route add default via {gateway} dev {name} proto dhcp src {address} metric {metric}"
            )?;
        }
        for target in TARGETS_V4 {
            writeln!(provider, "address add {target}/32 dev lo")?;
        }
        self.host.ip_batch(&links)?;
        self.provider.ip_batch(&provider)?;
        self.host.ip_batch(&host)
    }

    fn wait_until_ready(&self) -> Result<()> {
        self.host.run(|| {
            for WideUplink { name, gateway, .. } in &self.uplinks {
                wait_until(&format!("{gateway} answers by {name}"), READY, || {
                    ping::ping((*gateway).into(), Some(name), Duration::from_millis(50))
                        .is_ok_and(|rtt| rtt.is_some())
                })?;
            }
            Ok(())
        })
    }

    /// The host under test.
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// What is at the other ends of all links.
    pub fn provider(&self) -> &Namespace {
        &self.provider
    }

    /// The host's IPv4 default routes in the main table, best first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn default_routes(&self) -> Result<Vec<DefaultRoute>> {
        DefaultRoute::read(&self.host, "-4")
    }

    /// Its uplinks, in the order in which the agent is to prefer them.
    pub fn uplinks(&self) -> &[WideUplink] {
        &self.uplinks
    }

    /// Starts `program`, an agent, with a configuration of all uplinks that has the given keys in its `[probe]` table, and any further
    /// tables after them. Does not wait for anything. `log` is its `RUST_LOG`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_agent(&self, program: &Path, probe: &str, log: &str) -> Result<AgentProcess> {
        let file = self.write_config(probe)?;
        let arguments = ["run", "--config", &file.to_string_lossy()];
        AgentProcess::spawn_logging(program, &self.host, &arguments, &self.dirs, log)
    }

    fn write_config(&self, probe: &str) -> Result<PathBuf> {
        let mut config = format!("[probe]\n{probe}\n");
        for uplink in &self.uplinks {
            writeln!(config, "[[uplink]]\ninterface = \"{}\"", uplink.name)?;
        }
        let path = self.dirs.config_file();
        std::fs::write(&path, config).with_context(|| format!("{}", path.display()))?;
        Ok(path)
    }

    /// Captures at the provider's ends of all links, as [`Node::capture`](super::Node::capture), the first 128 bytes of each packet.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn capture(&self, filter: &str) -> Result<Capture> {
        // What may be on any interface is long; whole packets would leave room for few of them in the ring. And they are handed over in
        // blocks, so that a burst of probes wakes tcpdump once.
        let short = ["-s", "128"];
        let file = self.dirs.scratch.join("wide.pcap");
        Capture::start_with(&self.provider, "any", filter, &file, &short)
    }

    /// From now on nothing comes back by these uplinks, and nobody is told: the provider has no way to their host addresses any more.
    /// Carriers stay up, and the gateways answer ARP.
    ///
    /// # Errors
    /// When one of them is cut already.
    pub fn cut<'a>(&self, uplinks: impl IntoIterator<Item = &'a WideUplink>) -> Result<()> {
        self.blackholes("add", uplinks)
    }

    /// Ends what [`cut`](Self::cut) began.
    ///
    /// # Errors
    /// When one of them was not cut.
    pub fn mend<'a>(&self, uplinks: impl IntoIterator<Item = &'a WideUplink>) -> Result<()> {
        self.blackholes("del", uplinks)
    }

    fn blackholes<'a>(
        &self,
        verb: &str,
        uplinks: impl IntoIterator<Item = &'a WideUplink>,
    ) -> Result<()> {
        let lines = uplinks
            .into_iter()
            .map(|uplink| format!("route {verb} blackhole {}/32\n", uplink.host));
        self.provider.ip_batch(&lines.collect::<String>())
    }
}

impl WideUplink {
    fn numbered(number: u8) -> WideUplink {
        let addresses = Addresses::of(number);
        WideUplink {
            name: format!("up{number:02}"),
            host: addresses.host_v4,
            gateway: addresses.gateway_v4,
        }
    }
}
