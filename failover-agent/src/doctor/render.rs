//! A report as text.

use std::fmt::Write as _;

use super::{Finding, Report, Severity};

/// One finding after the other, grouped by severity, each with its cure on a line of its own.
pub fn render(report: &Report) -> String {
    let checks = report.checks_run.len();
    if report.findings.is_empty() {
        return format!("nothing found, {checks} checks\n");
    }
    let mut text = String::new();
    for (severity, title) in [
        (Severity::Error, "errors"),
        (Severity::Warning, "warnings"),
        (Severity::Hint, "hints"),
    ] {
        let findings = report.findings.iter();
        let findings: Vec<&Finding> = findings
            .filter(|finding| finding.severity == severity)
            .collect();
        if findings.is_empty() {
            continue;
        }
        text += &format!("{title}:\n");
        for finding in findings {
            let place = place(finding);
            // Writing to a string cannot fail.
            writeln!(text, "  {place}{} [{}]", finding.problem, finding.check).ok();
            writeln!(text, "    {}", finding.cure).ok();
        }
    }
    text + &format!(
        "errors: {}, warnings: {}, hints: {} ({checks} checks)\n",
        report.count(Severity::Error),
        report.count(Severity::Warning),
        report.count(Severity::Hint)
    )
}

fn place(finding: &Finding) -> String {
    match (&finding.uplink, finding.family) {
        (Some(uplink), Some(family)) => format!("{uplink}, {family}: "),
        (Some(uplink), None) => format!("{uplink}: "),
        (None, Some(family)) => format!("{family}: "),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use failover_policy::Family;

    fn report(findings: Vec<Finding>) -> Report {
        Report {
            version: 1,
            findings,
            checks_run: vec!["a", "b"],
        }
    }

    #[test]
    fn findings_are_grouped_and_cures_can_be_pasted() {
        assert_eq!(render(&report(Vec::new())), "nothing found, 2 checks\n");
        let mut bad = Finding::new(Severity::Error, "it is bad", "sysctl -w x=2");
        bad.check = "a";
        let mut odd = Finding::new(Severity::Hint, "it is odd", "leave it");
        odd.check = "b";
        let report = report(vec![bad.on("lte").family(Family::V4), odd]);
        assert_eq!(
            render(&report),
            "errors:\n  lte, IPv4: it is bad [a]\n    sysctl -w x=2\nhints:\n  it is odd [b]\n    leave it\nerrors: 1, warnings: 0, hints: 1 (2 checks)\n"
        );
    }

    #[test]
    fn json_has_the_words_of_the_status() {
        let mut bad = Finding::new(Severity::Error, "it is bad", "mend it");
        bad.check = "a";
        let report = report(vec![bad.on("lte").family(Family::V6)]);
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            serde_json::json!({
                "version": 1,
                "findings": [{
                    "check": "a",
                    "severity": "error",
                    "uplink": "lte",
                    "family": "ipv6",
                    "problem": "it is bad",
                    "cure": "mend it",
                }],
                "checks_run": ["a", "b"],
            })
        );
    }
}
