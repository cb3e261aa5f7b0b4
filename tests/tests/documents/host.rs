//! A host on which a section of a document is followed to the letter: the paths in it are the host's own.

use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use failover_agent::config::{Config, Gateway};
use failover_lab::{Lab, UplinkSpec, agent_path, wait_for, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::markdown::{Command, Section};

/// Long enough for everything that is to happen, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The file that documents call the agent's.
const CONFIG: &str = "/etc/failover-agent.toml";

/// A network and a mount namespace, with an agent in it or without.
#[derive(Debug)]
pub(crate) struct Host {
    /// Keeps the mount namespace.
    holder: Child,
    agent: Option<Child>,
    /// The section starts the agent itself.
    starts_agent: bool,
    /// Scripts that the section has written.
    scripts: Vec<PathBuf>,
    lab: Lab,
}

impl Host {
    /// A host with the uplinks of the section's files, or of `first`, and with all targets in reach.
    pub(crate) fn build(section: &Section, first: &str) -> Result<Host> {
        let mut files: Vec<&str> = section.files().collect();
        if files.is_empty() {
            files.push(first);
        }
        let mut uplinks: Vec<(String, UplinkSpec)> = Vec::new();
        let mut targets: Vec<IpAddr> = Vec::new();
        for file in &files {
            let config = parse(file)?;
            for uplink in &config.uplinks {
                targets.extend(&uplink.probe.targets);
                if uplinks.iter().any(|(name, _)| *name == uplink.interface) {
                    continue;
                }
                let spec = match uplink.gateway {
                    Gateway::None => UplinkSpec::tun(&uplink.interface),
                    _ => UplinkSpec::veth(&uplink.interface),
                };
                // What the documents tell network managers to do: an uplink that one file has and another one has not is in nobody's way.
                let metric = 700 + u32::try_from(uplinks.len())?;
                uplinks.push((uplink.interface.clone(), spec.metric(metric)));
            }
        }
        let specs = uplinks.into_iter().map(|(_, spec)| spec);
        let lab = Lab::builder().uplinks(specs).build()?;
        targets.sort_unstable();
        targets.dedup();
        let lines = targets.iter().map(|target| match target {
            IpAddr::V4(_) => format!("address replace {target}/32 dev lo\n"),
            IpAddr::V6(_) => format!("address replace {target}/128 dev lo nodad\n"),
        });
        let internet = lab.internet().namespace();
        internet.ip_batch(&lines.collect::<String>())?;

        let holder = lab
            .host()
            .namespace()
            .command("unshare")
            .args(["--mount", "--propagation", "private", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()?;
        let host = Host {
            holder,
            agent: None,
            starts_agent: section.starts_agent(),
            scripts: Vec::new(),
            lab,
        };
        host.mount()?;
        host.write(Path::new(CONFIG), files[0])?;
        Ok(host)
    }

    /// Puts file systems of its own where the agent and the documents keep files.
    fn mount(&self) -> Result<()> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt"));
        let (own, its) = (namespace("self")?, self.holder.id().to_string());
        wait_until("there is a mount namespace", SOON, || {
            namespace(&its).is_ok_and(|its| its != own)
        })?;
        fs::create_dir(self.etc())?;
        let script = format!(
            "set -e; cp -a /etc/. {0}; mount --bind {0} /etc; mount -t tmpfs tmpfs /var/lib
             mount -t bpf bpf /sys/fs/bpf; mount -t tmpfs tmpfs /run",
            self.etc().display()
        );
        let output = self.shell(&script)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }

    /// What is its `/etc`.
    fn etc(&self) -> PathBuf {
        self.lab.agent_dirs().scratch.join("etc")
    }

    fn log(&self) -> PathBuf {
        self.lab.agent_dirs().scratch.join("log")
    }

    /// Puts this into the agent's file and checks it.
    pub(crate) fn configure(&self, file: &str) -> Result<()> {
        self.write(Path::new(CONFIG), file)?;
        let output = self.shell(&format!("failover-agent check --config {CONFIG}"))?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }

    /// Writes a file below its `/etc`.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<()> {
        let below = path.strip_prefix("/etc").context("not below /etc")?;
        let path = self.etc().join(below);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&path, text).with_context(|| format!("{}", path.display()))
    }

    /// The same of a script, which must succeed whenever the agent runs it.
    pub(crate) fn write_script(&mut self, path: &Path, text: &str) -> Result<()> {
        self.scripts.push(path.to_owned());
        self.write(path, text)
    }

    /// Runs a command of the document.
    pub(crate) fn run(&mut self, command: &Command) -> Result<()> {
        if command.starts_agent() {
            return self.start(&command.line);
        }
        if self.agent.is_none() && !self.starts_agent {
            self.start(&format!("failover-agent run --config {CONFIG}"))?;
        }
        let output = self.shell(&command.line)?;
        ensure!(
            output.status.code() == Some(command.code),
            "{}, not {}: {}{}",
            output.status,
            command.code,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Starts the agent and waits until it has an active uplink and knows all of them to be Up.
    fn start(&mut self, line: &str) -> Result<()> {
        ensure!(self.agent.is_none(), "it is running already");
        let log = File::create(self.log())?;
        let mut shell = self.command(&format!("exec {line}"));
        self.agent = Some(
            shell
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?,
        );
        wait_for("all uplinks are Up", SOON, || {
            let output = self.shell("failover-agent status --json")?;
            let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
            if status["active"].is_string() && uplinks.all(|uplink| uplink["health"] == "Up") {
                return Ok(());
            }
            bail!("{status:#}")
        })
        .with_context(|| fs::read_to_string(self.log()).unwrap_or_default())
    }

    /// Stops the agent, which must succeed, and looks what became of the section's scripts.
    pub(crate) fn end(mut self) -> Result<()> {
        let Some(mut agent) = self.agent.take() else {
            return Ok(());
        };
        kill(Pid::from_raw(agent.id().try_into()?), Signal::SIGTERM)?;
        let status = wait_for("the agent ends", SOON, || {
            agent.try_wait()?.context("it is still running")
        })?;
        let log = fs::read_to_string(self.log())?;
        ensure!(status.success(), "{status}: {log}");
        let config = parse(&fs::read_to_string(self.etc().join("failover-agent.toml"))?)?;
        let Some(hook) = config.hooks.on_switch.first() else {
            return Ok(());
        };
        if self.scripts.iter().any(|path| path == Path::new(hook)) {
            let ended = |how: &str| log.contains(&format!("{hook} ended with {how}"));
            ensure!(ended("exit status: 0"), "{hook} was not run: {log}");
            ensure!(!log.contains("cannot be started"), "{log}");
        }
        Ok(())
    }

    fn shell(&self, script: &str) -> Result<Output> {
        Ok(self.command(script).stdin(Stdio::null()).output()?)
    }

    /// A shell on this host, with the agent that was built beside this test in its path.
    fn command(&self, script: &str) -> std::process::Command {
        let namespace = self.lab.host().namespace();
        let mut command = namespace.command("nsenter");
        let mounts = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        command.args([&mounts, "sh", "-c", script]);
        let dir = agent_path()
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned));
        let own = std::env::var("PATH").unwrap_or_default();
        command.env(
            "PATH",
            format!("{}:{own}", dir.unwrap_or_default().display()),
        );
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in self.agent.iter_mut().chain([&mut self.holder]) {
            // Both fail only when it has ended already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Reads a file as the agent does.
fn parse(file: &str) -> Result<Config> {
    let copy = tempfile::NamedTempFile::new()?;
    fs::write(copy.path(), file)?;
    Ok(Config::from_file(copy.path())?)
}
