//! All programs that run on an interface's packets, ours and others. Reads only.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::{
    SchedClassifier,
    links::{FdLink, PinnedLink},
};

use super::{Direction, clsact, filters, pins, requirements};

/// A program (TCX) or filter (clsact) on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The side it is on.
    pub direction: Direction,
    /// Whether an agent with this `bpf_dir` attached it.
    pub ours: bool,
    /// Its description, in the words of `bpftool` or `tc`.
    pub what: String,
}

/// Whether programs can be attached as TCX links.
pub fn has_tcx() -> bool {
    requirements::has_tcx()
}

/// The programs on an interface in the order in which they run: TCX before clsact, first egress, then ingress.
///
/// # Errors
///
/// No such interface; the kernel refuses.
pub fn on_interface(bpf_dir: &Path, ifindex: u32, name: &str) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    let qdisc = filters::qdisc(ifindex)?;
    for direction in Direction::ALL {
        if requirements::has_tcx() {
            programs.extend(tcx(bpf_dir, ifindex, name, direction)?);
        }
        // An `ingress` qdisc lists its ingress filters as egress filters, too.
        if qdisc.as_deref() == Some(clsact::CLSACT)
            || qdisc.is_some() && direction == Direction::Ingress
        {
            programs.extend(filters(ifindex, direction)?);
        }
    }
    Ok(programs)
}

fn tcx(bpf_dir: &Path, ifindex: u32, name: &str, direction: Direction) -> Result<Vec<Program>> {
    let (_, programs) = SchedClassifier::query_tcx(name, direction.into())
        .with_context(|| format!("listing the {direction} programs of {name}"))?;
    let ours = pinned_program(&pins::link(bpf_dir, ifindex, direction));
    let programs = programs.iter().map(|program| Program {
        direction,
        ours: Some(program.id()) == ours,
        what: format!(
            "TCX program {} (id {})",
            program.name_as_str().unwrap_or_default(),
            program.id()
        ),
    });
    Ok(programs.collect())
}

/// Id of the program behind a pinned link; `None` if nothing (or something else) is pinned there.
fn pinned_program(pin: &Path) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    Some(link.info().ok()?.program_id())
}

/// The filters of a clsact or ingress qdisc.
fn filters(ifindex: u32, direction: Direction) -> Result<Vec<Program>> {
    let filters = filters::list(ifindex, direction)?.into_iter();
    let programs = filters.map(|filter| Program {
        direction,
        ours: filter.is_ours(),
        what: format!("clsact filter {} (pref {})", filter.kind, filter.priority),
    });
    Ok(programs.collect())
}
