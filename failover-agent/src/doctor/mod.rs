//! What keeps failover from working on this host, with a cure for each finding: `failover-agent doctor`.
//!
//! It reads, and sends probes. It changes nothing, needs no running agent, and does not report what a running agent has set up.
//!
//! ```text
//! kernel ──gather──> Facts ──checks──> Vec<Finding> ──render──> text, JSON
//! ```
//!
//! | file | concern |
//! |---|---|
//! | `facts.rs` | the facts about the host, as plain data |
//! | `gather.rs` | gathering them: the only file here that asks the kernel, with `probes.rs` and `firewall.rs` |
//! | `firewall.rs`, `firewall/` | the rules of nftables, and what they do to traffic and probes |
//! | `checks/` | from facts to findings, a file for each subject: pure |
//! | `obstacle.rs` | why an answer to a probe cannot come for a reason on this host; also what makes an uplink Blind |
//! | `render.rs` | the report as text |

mod checks;
mod facts;
mod firewall;
mod gather;
mod obstacle;
mod probes;
mod render;
mod sysctl;

use anyhow::Result;
use failover_policy::Family;
use serde::{Serialize, Serializer};

pub use self::{obstacle::blindness, render::render};
use crate::{config::Config, failure::Failure};

/// Version of the schema of [`Report`]; grows when a key's meaning changes or a key is removed.
pub const VERSION: u32 = 1;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Failover does not work, or not on this uplink.
    Error,
    /// It works, but not always, or not for all traffic.
    Warning,
    /// Worth knowing.
    Hint,
}

/// One problem that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check that found it: stable, in kebab-case.
    pub check: &'static str,
    /// Its severity.
    pub severity: Severity,
    /// Name of the uplink that it concerns; `None`: the host.
    pub uplink: Option<String>,
    /// The family that it concerns; `None`: both, or neither.
    #[serde(serialize_with = "family_word")]
    pub family: Option<Family>,
    /// The problem, in one line.
    pub problem: String,
    /// The cure, in one line; a shell command where there is one.
    pub cure: String,
}

impl Finding {
    fn new(severity: Severity, problem: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding {
            check: "",
            severity,
            uplink: None,
            family: None,
            problem: problem.into(),
            cure: cure.into(),
        }
    }

    fn on(mut self, uplink: &str) -> Finding {
        self.uplink = Some(uplink.to_owned());
        self
    }

    fn family(mut self, family: Family) -> Finding {
        self.family = Some(family);
        self
    }
}

/// The result of the diagnosis. Its JSON is documented in `docs/configuration.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// Ids of the checks that were made.
    pub checks_run: Vec<&'static str>,
}

impl Report {
    /// The failure with which the program ends; `None` if there are only hints.
    pub fn failure(&self) -> Option<Failure> {
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        (errors + warnings > 0).then_some(Failure::Unwell { errors, warnings })
    }

    /// Findings of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

/// Examines this host for a configuration. Takes up to three probe timeouts.
///
/// # Errors
///
/// [`Failure::Privilege`] without root, since half a diagnosis misleads; an error if something essential cannot be read.
pub async fn examine(config: &Config) -> Result<Report> {
    Ok(diagnose(&gather::facts(config).await?))
}

/// Makes every check that the facts allow.
fn diagnose(facts: &facts::Facts) -> Report {
    let mut report = Report {
        version: VERSION,
        findings: Vec::new(),
        checks_run: Vec::new(),
    };
    for check in checks::ALL {
        let Some(findings) = (check.find)(facts) else {
            continue;
        };
        report.checks_run.push(check.id);
        report
            .findings
            .extend(findings.into_iter().map(|finding| Finding {
                check: check.id,
                ..finding
            }));
    }
    // The sort is stable: within a severity the order is that of the checks, which goes from causes to consequences.
    report.findings.sort_by_key(|finding| finding.severity);
    report
}

/// The family, in the words of the status.
fn family_word<S: Serializer>(family: &Option<Family>, serializer: S) -> Result<S::Ok, S::Error> {
    match family {
        Some(Family::V4) => serializer.serialize_some("ipv4"),
        Some(Family::V6) => serializer.serialize_some("ipv6"),
        None => serializer.serialize_none(),
    }
}
