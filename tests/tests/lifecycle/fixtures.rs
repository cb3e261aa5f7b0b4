//! What several families need.

use std::process::{Output, Stdio};

use anyhow::Result;
use failover_lab::{Lab, agent_path};
pub(crate) use failover_tests::fixtures::{Everything, start, start_with};

/// How one run of the agent ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Outcome {
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Flags of `timeout`: an agent that should have been refused must not run forever.
pub(crate) const TIMEOUT: [&str; 2] = ["--kill-after=5", "20"];

/// Runs the agent in the host to its end, on the laboratory's directories.
pub(crate) fn run(lab: &Lab, arguments: &[&str]) -> Result<Outcome> {
    let flags = lab.agent_dirs().flags();
    let output = lab
        .host()
        .namespace()
        .command("timeout")
        .args(TIMEOUT)
        .arg(agent_path()?)
        .args(arguments)
        .args(flags)
        .stdin(Stdio::null())
        .output()?;
    Ok(output.into())
}

/// Gives the first uplink an IPv4 default route that beats every metric and has something of its own in every attribute.
pub(crate) fn set_foreign_route(lab: &Lab) -> Result<()> {
    let cable = &lab.uplinks()[0];
    let (name, a) = (cable.name(), cable.addresses());
    lab.host().namespace().ip_batch(&format!(
        "route del default dev {name}\n\
         route add default via {} dev {name} proto static src {} mtu 1400",
        a.gateway_v4, a.host_v4
    ))
}
