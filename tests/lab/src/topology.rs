//! What the laboratory is made of, and its building.
//!
//! ```text
//!            ┌─ cable ── customer│provider│upstream ─┐
//! client ─ host                                     internet: targets with ping, echo and discard servers
//!            └─ lte ──── customer│provider│upstream ─┘
//! ```

use std::{fmt::Display, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use super::{
    agent::{AgentDirs, AgentProcess, agent_path},
    agent_config::AgentConfig,
    builder::LabBuilder,
    cleanup::Claim,
    clock::WallClock,
    node::Node,
    plan::{TARGETS_V4, TARGETS_V6},
    traffic::Servers,
    uplink::{LinkKind, Uplink},
    wait::wait_until,
};

/// How long the links may take to carry packets.
const READY: Duration = Duration::from_secs(10);

/// How long an agent may take to answer on its control socket.
const AGENT_READY: Duration = Duration::from_secs(30);

/// A host with its surroundings. Everything in it is removed when it goes, whatever the reason.
#[derive(Debug)]
pub struct Lab {
    pub(super) host: Node,
    pub(super) client: Option<Node>,
    pub(super) internet: Node,
    pub(super) uplinks: Vec<Uplink>,
    pub(super) servers: Servers,
    pub(super) dirs: AgentDirs,
    pub(super) build_time: Duration,
    /// Last, so that the names go after everything that uses them.
    pub(super) _claim: Claim,
}

impl Lab {
    /// Describes a laboratory.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The host under test.
    pub fn host(&self) -> &Node {
        &self.host
    }

    /// The client behind the host.
    ///
    /// # Panics
    /// When the laboratory was built without a LAN.
    pub fn client(&self) -> &Node {
        match &self.client {
            Some(client) => client,
            None => panic!("this laboratory was built without .lan()"),
        }
    }

    /// The internet.
    pub fn internet(&self) -> &Node {
        &self.internet
    }

    /// An uplink by its name.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn uplink(&self, name: &str) -> &Uplink {
        match self.uplinks.iter().find(|uplink| uplink.name() == name) {
            Some(uplink) => uplink,
            None => panic!("this laboratory has no uplink `{name}`"),
        }
    }

    /// All uplinks.
    pub fn uplinks(&self) -> &[Uplink] {
        &self.uplinks
    }

    /// The echo and discard servers in the internet, which remember who came.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Directories for an agent, on a BPF file system of the laboratory's own where needed.
    pub fn agent_dirs(&self) -> &AgentDirs {
        &self.dirs
    }

    /// How long the building took.
    pub fn build_time(&self) -> Duration {
        self.build_time
    }

    /// A configuration of all uplinks in order, with the gateways that cannot be learned.
    pub fn agent_config(&self) -> AgentConfig {
        AgentConfig::with(self.uplinks.iter().map(Uplink::agent_config))
    }

    /// The same as text, with the given keys in its `[probe]` table (targets included), and any further tables after them: for
    /// settings that are shown to people in the words of the file.
    pub fn config(&self, probe: &str) -> String {
        format!("[probe]\n{probe}\n{}", self.agent_config())
    }

    /// Starts the agent that was built beside this test in the host, with this configuration, and waits until it answers.
    ///
    /// # Errors
    /// When it is not built, ends, or does not answer.
    pub fn start_agent(&self, config: &(impl Display + ?Sized)) -> Result<AgentProcess> {
        let path = self.write_config(config)?;
        let agent = self.spawn_agent(&["run", "--config", &path.to_string_lossy()])?;
        agent.wait_ready(AGENT_READY)?;
        Ok(agent)
    }

    /// The same, with a time of day of its own.
    ///
    /// # Errors
    /// As [`start_agent`](Self::start_agent).
    pub fn start_agent_by(
        &self,
        clock: &WallClock,
        config: &(impl Display + ?Sized),
    ) -> Result<AgentProcess> {
        let path = self.write_config(config)?;
        let arguments = ["run", "--config", &path.to_string_lossy()];
        let host = self.host.namespace();
        let agent = AgentProcess::spawn_by(clock, &agent_path()?, host, &arguments, &self.dirs)?;
        agent.wait_ready(AGENT_READY)?;
        Ok(agent)
    }

    /// Starts the agent in the host with these arguments, followed by its directories, and does not wait for anything.
    ///
    /// # Errors
    /// When it is not built or cannot be started.
    pub fn spawn_agent(&self, arguments: &[&str]) -> Result<AgentProcess> {
        AgentProcess::spawn(&agent_path()?, self.host.namespace(), arguments, &self.dirs)
    }

    /// Writes an agent's configuration file and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self, config: &(impl Display + ?Sized)) -> Result<PathBuf> {
        let path = self.dirs.config_file();
        std::fs::write(&path, config.to_string()).with_context(|| format!("{}", path.display()))?;
        Ok(path)
    }

    pub(super) fn wait_until_ready(&self) -> Result<()> {
        for uplink in &self.uplinks {
            let a = uplink.addresses();
            let provider = Node::new(uplink.provider().clone(), self.host.origins().clone());
            let transit: [(&Node, IpAddr); 2] = [
                (&provider, TARGETS_V4[0].into()),
                (&provider, TARGETS_V6[0].into()),
            ];
            let access = uplink.unless_bare([
                (&self.host, a.gateway_v4.into()),
                (&self.host, a.gateway_v6.into()),
            ]);
            for (from, to) in access.chain(transit) {
                let what = format!("{} answers {}", to, from.namespace().name());
                wait_until(&what, READY, || {
                    from.ping(to, Duration::from_millis(50))
                        .is_ok_and(|rtt| rtt.is_some())
                })?;
            }
        }
        self.wait_for_link_local()
    }

    /// The kernel gives an Ethernet interface its link-local address a moment after the carrier: a snapshot that is taken before differs
    /// from each later one.
    fn wait_for_link_local(&self) -> Result<()> {
        let host = self.host.namespace();
        let links = self.uplinks.iter();
        let links = links.filter(|uplink| uplink.kind() == LinkKind::Veth);
        wait_until("the uplinks have link-local addresses", READY, || {
            let list = host.exec("ip", &["-6", "-o", "address", "show", "scope", "link"]);
            let list = list.unwrap_or_default();
            let has = |name| {
                list.lines()
                    .any(|line| line.split(' ').nth(1) == Some(name))
            };
            links.clone().all(|uplink| has(uplink.name()))
        })
    }
}
