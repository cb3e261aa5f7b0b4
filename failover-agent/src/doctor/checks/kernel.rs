//! What the kernel must have.

use super::{Finding, facts::Facts};
use crate::{config::AttachMode, doctor::Severity};

/// The agent would not start.
pub(super) fn requirements(facts: &Facts) -> Option<Vec<Finding>> {
    let failure = facts.requirement.iter();
    Some(
        failure
            .map(|(problem, cure)| Finding::new(Severity::Error, problem, cure))
            .collect(),
    )
}

/// The older hook works, but leaves other programs less freedom.
pub(super) fn no_tcx(facts: &Facts) -> Option<Vec<Finding>> {
    let clsact = !facts.tcx && facts.config.datapath.attach == AttachMode::Auto;
    let finding = clsact.then(|| {
        Finding::new(
            Severity::Hint,
            "this kernel has no TCX: the programs will be clsact filters",
            "Linux 6.6 or newer has TCX, where programs of others can stand before and behind",
        )
    });
    Some(finding.into_iter().collect())
}

/// A cutoff cannot end everything.
pub(super) fn cannot_end(facts: &Facts) -> Option<Vec<Finding>> {
    if !facts.config.cutoff.cuts() {
        return Some(Vec::new());
    }
    let missing = facts.cannot_end.iter();
    Some(
        missing
            .map(|problem| {
                Finding::new(
                    Severity::Warning,
                    problem,
                    "use a kernel that has it: without it, an idle connection hangs until it times out",
                )
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{found, healthy, only},
        *,
    };
    use crate::config::CutoffMode;

    #[test]
    fn what_the_agent_would_refuse_to_start_for_is_an_error() {
        let mut facts = healthy();
        facts.requirement = Some(("no BPF file system".to_owned(), "mount it".to_owned()));
        let finding = only("requirements", &facts);
        assert_eq!(finding.severity, Severity::Error);
        assert_eq!(finding.cure, "mount it");
    }

    #[test]
    fn missing_tcx_matters_only_where_the_agent_may_choose() {
        let mut facts = healthy();
        facts.tcx = false;
        assert_eq!(only("no-tcx", &facts).severity, Severity::Hint);
        facts.config.datapath.attach = AttachMode::Clsact;
        assert_eq!(found("no-tcx", &facts), []);
    }

    #[test]
    fn what_cannot_be_ended_matters_only_if_something_is_to_be_cut() {
        let mut facts = healthy();
        facts.cannot_end = vec!["idle TCP sockets cannot be ended".to_owned()];
        assert_eq!(only("cannot-end", &facts).severity, Severity::Warning);
        facts.config.cutoff.mode = CutoffMode::Off;
        assert_eq!(found("cannot-end", &facts), []);
    }
}
