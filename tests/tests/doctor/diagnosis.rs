//! Running the doctor and its cures.

use std::{
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use failover_lab::{AgentConfig, Lab, TARGET_V4, TARGET_V6, TARGETS_V4, agent_path};
use serde_json::Value;

/// Two targets in IPv4. Who answers does so at once; the timeout only bounds the silence.
pub(crate) fn probed(lab: &Lab) -> AgentConfig {
    lab.agent_config()
        .targets([TARGETS_V4[0], TARGETS_V4[1]])
        .timeout(Duration::from_millis(500))
}

/// The same with IPv6.
pub(crate) fn probed_both(lab: &Lab) -> AgentConfig {
    probed(lab).targets([TARGET_V4, TARGET_V6])
}

/// Flags for both uplinks of a laboratory and one target, instead of a file.
pub(crate) const FLAGS: [&str; 6] = [
    "--uplink",
    "cable",
    "--uplink",
    "lte",
    "--target",
    "192.0.2.1",
];

/// What the doctor said.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    pub(crate) code: i32,
    pub(crate) report: Value,
}

impl Diagnosis {
    /// With this configuration.
    pub(crate) fn make(lab: &Lab, config: &AgentConfig) -> Result<Diagnosis> {
        let file = lab.write_config(config)?;
        Diagnosis::with(lab, &["--config", &file.to_string_lossy()])
    }

    /// With these arguments.
    pub(crate) fn with(lab: &Lab, arguments: &[&str]) -> Result<Diagnosis> {
        let output = doctor(lab, &[&["--json"], arguments].concat())?;
        let report = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let code = output.status.code().context("the doctor was killed")?;
        let diagnosis = Diagnosis { code, report };
        // What the exit code promises.
        let bad = diagnosis
            .findings()
            .any(|finding| finding["severity"] != "hint");
        assert_eq!(diagnosis.code, if bad { 29 } else { 0 }, "{diagnosis:#?}");
        Ok(diagnosis)
    }

    pub(crate) fn findings(&self) -> impl Iterator<Item = &Value> {
        self.report["findings"].as_array().into_iter().flatten()
    }

    /// The findings of one check.
    pub(crate) fn of(&self, check: &str) -> Vec<&Value> {
        self.findings()
            .filter(|finding| finding["check"] == check)
            .collect()
    }

    /// The only finding of one check, with this severity.
    #[track_caller]
    pub(crate) fn only(&self, check: &str, severity: &str) -> &Value {
        let found = self.of(check);
        assert_eq!(found.len(), 1, "{self:#?}");
        assert_eq!(found[0]["severity"], severity, "{self:#?}");
        found[0]
    }

    /// Checks that there are no findings at all.
    #[track_caller]
    pub(crate) fn assert_healthy(&self) {
        assert_eq!(self.findings().count(), 0, "{self:#?}");
        assert_eq!(self.code, 0);
    }
}

/// `failover-agent doctor ARGUMENTS` in the host.
pub(crate) fn doctor(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let mut command = lab.host().namespace().command(agent_path()?);
    Ok(command
        .arg("doctor")
        .args(arguments)
        .args(lab.agent_dirs().flags())
        .output()?)
}

/// Pastes a finding's cure into a shell of the host.
pub(crate) fn apply(lab: &Lab, finding: &Value) -> Result<()> {
    let cure = finding["cure"].as_str().context("no cure")?;
    let mut shell: Command = lab.host().namespace().command("sh");
    let output = shell.args(["-c", cure]).output()?;
    ensure!(
        output.status.success(),
        "{cure}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// What a finding says is wrong.
pub(crate) fn problem(finding: &Value) -> &str {
    finding["problem"].as_str().unwrap_or_default()
}
