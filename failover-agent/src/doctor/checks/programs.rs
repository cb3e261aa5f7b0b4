//! Other programs' eBPF programs on the uplinks.

use super::{Finding, facts::Facts};
use crate::{datapath::Direction, doctor::Severity};

/// A program that runs before our egress program can take packets past its gate; any other is only worth knowing.
pub(super) fn others(facts: &Facts) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for (config, uplink, interface) in facts.present() {
        let programs = uplink.programs.as_ref()?;
        for direction in Direction::ALL {
            let all: Vec<_> = programs
                .iter()
                .filter(|program| program.direction == direction)
                .collect();
            let ours = all.iter().position(|program| program.ours);
            for (place, program) in all.iter().enumerate().filter(|(_, program)| !program.ours) {
                let before = ours.is_some_and(|ours| place < ours);
                let finding = if before && direction == Direction::Egress {
                    let problem = format!(
                        "{} runs before the gate of {}: what it redirects or lets pass with a final verdict is never cut",
                        program.what, interface.name
                    );
                    let cure = "attach it behind uplink_egress (BPF_F_AFTER); or stop failover-agent and start it: it attaches before all others";
                    Finding::new(Severity::Warning, problem, cure)
                } else {
                    let side = match ours {
                        Some(_) if before => "before the agent's",
                        Some(_) => "behind the agent's",
                        None => "with others to come before it",
                    };
                    let problem = format!(
                        "{} is on {} {direction}, {side}",
                        program.what, interface.name
                    );
                    let cure = format!(
                        "nothing, if you know it: bpftool net show dev {}",
                        interface.name
                    );
                    Finding::new(Severity::Hint, problem, cure)
                };
                findings.push(finding.on(&config.name));
            }
        }
        if let Some(id) = interface.xdp {
            let problem = format!(
                "XDP program (id {id}) is on {}: what it takes is not counted, and probes' answers may be among it",
                interface.name
            );
            let cure = format!("nothing, if you know it: bpftool prog show id {id}");
            findings.push(Finding::new(Severity::Hint, problem, cure).on(&config.name));
        }
    }
    Some(findings)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{found, healthy, only},
        *,
    };
    use crate::datapath::Program;

    fn program(direction: Direction, ours: bool) -> Program {
        Program {
            direction,
            ours,
            what: "TCX program x (id 7)".to_owned(),
        }
    }

    #[test]
    fn only_what_stands_before_the_gate_is_a_warning() {
        let mut facts = healthy();
        facts.uplinks[1].programs = Some(vec![
            program(Direction::Egress, true),
            program(Direction::Egress, false),
            program(Direction::Ingress, false),
            program(Direction::Ingress, true),
        ]);
        let findings = found("other-programs", &facts);
        assert_eq!(findings.len(), 2);
        assert!(
            findings
                .iter()
                .all(|finding| finding.severity == Severity::Hint)
        );
        facts.uplinks[1].programs.as_mut().unwrap().swap(0, 1);
        let findings = found("other-programs", &facts);
        assert_eq!(findings[0].severity, Severity::Warning);
        assert_eq!(findings[0].uplink.as_deref(), Some("lte"));
    }

    #[test]
    fn without_an_agent_nothing_stands_before_it() {
        let mut facts = healthy();
        facts.uplinks[0].programs = Some(vec![program(Direction::Egress, false)]);
        assert_eq!(only("other-programs", &facts).severity, Severity::Hint);
    }

    #[test]
    fn xdp_is_told() {
        let mut facts = healthy();
        facts.uplinks[0].interface.as_mut().unwrap().xdp = Some(9);
        assert!(only("other-programs", &facts).cure.ends_with("id 9"));
    }
}
