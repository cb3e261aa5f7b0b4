//! Reports who did what the agent has restored.

use std::collections::VecDeque;

use failover_policy::Family;
use tracing::{debug, info, warn};

use super::Agent;
use crate::{
    conflict::{ConflictKey, ConflictKind, Conflicts, Contender},
    control::status,
    route::{Actor, Change, Done, Object, Origin, protocol_name},
};

/// Foreign changes that are remembered until the next scan; in a flood the last ones are.
const MOST_CHANGES: usize = 64;

/// What another program did to routes or rules.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ForeignChange {
    kind: ConflictKind,
    family: Family,
    removed: bool,
    by: Actor,
    object: Object,
}

/// What other programs did since the last scan, and the conflicts with them.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    foreign: VecDeque<ForeignChange>,
    conflicts: Conflicts,
}

impl Repairs {
    /// Takes note of what may have to be restored.
    pub(super) fn note(&mut self, change: &Change) {
        let change = match change {
            Change::Route {
                family,
                ours,
                removed,
                by,
                object,
            } if *ours || !*removed => ForeignChange {
                kind: if *ours {
                    ConflictKind::Route
                } else {
                    ConflictKind::Preempt
                },
                family: *family,
                removed: *removed,
                by: by.clone(),
                object: object.clone(),
            },
            Change::Rule { family, by, object } => ForeignChange {
                kind: ConflictKind::Rule,
                family: *family,
                removed: true,
                by: by.clone(),
                object: object.clone(),
            },
            // What stands behind an IPv4 route.
            Change::Nexthop { by, object } => ForeignChange {
                kind: ConflictKind::Route,
                family: Family::V4,
                removed: true,
                by: by.clone(),
                object: object.clone(),
            },
            _ => return,
        };
        // The same again: by many short-lived processes, perhaps.
        self.foreign
            .retain(|known| (known.family, &known.object) != (change.family, &change.object));
        if self.foreign.len() == MOST_CHANGES {
            self.foreign.pop_front();
        }
        self.foreign.push_back(change);
    }

    /// The foreign changes that these repairs have undone, and the key of each; what the kernel does by itself has none.
    fn undone(&mut self, repairs: &[Done]) -> Vec<(Option<ConflictKey>, ForeignChange)> {
        let foreign = std::mem::take(&mut self.foreign).into_iter();
        foreign
            .filter(|change| repairs.iter().any(|done| done.object == change.object))
            .map(|change| {
                let contender = Contender::of(&change.by, change.kind != ConflictKind::Preempt);
                let key = contender.map(|contender| ConflictKey {
                    kind: change.kind,
                    family: change.family,
                    contender,
                });
                (key, change)
            })
            .collect()
    }
}

impl Agent<'_> {
    /// Logs who made the repairs necessary that are in `changes`, and whether that is a conflict.
    pub(super) fn report_repairs(&mut self, changes: &[Done]) {
        let now = self.clock.now();
        let mut undone = self.repairs.undone(changes);
        // Many routes or rules at one time are one repair, reported by the last of them.
        while let Some((key, change)) = undone.pop() {
            let before = undone.len();
            undone.retain(|(other, _)| *other != key);
            let more = match before - undone.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let line = format!("{}{more}: {}", change.report(), change.answer());
            let Some(key) = key else {
                debug!("{line}");
                continue;
            };
            let report = self.repairs.conflicts.repaired(&key, now);
            if let Some(repairs) = report.line {
                let (protocol, process) = (change.by.protocol, change.by.process());
                info!(family = %key.family, protocol, process, repairs, "{line}");
            }
            if report.conflict {
                let (contender, remedy) =
                    (key.contender.to_string(), key.contender.remedy(key.kind));
                warn!(
                    family = %key.family,
                    contender,
                    remedy,
                    "route conflict: {contender} {} again and again, and the agent undoes it; remedy: {remedy}",
                    key.kind.words(),
                );
            }
        }
    }

    /// The conflicts that go on, for the status.
    pub(super) fn conflicts_status(&self) -> Vec<status::Conflict> {
        let conflicts = self.repairs.conflicts.ongoing(self.clock.now());
        conflicts
            .map(|conflict| status::Conflict {
                contender: conflict.key.contender.to_string(),
                family: conflict.key.family,
                what: conflict.key.kind.words().to_owned(),
                repairs: conflict.repairs,
                since: self.clock.wall(conflict.since),
                remedy: conflict.key.contender.remedy(conflict.key.kind).to_owned(),
            })
            .collect()
    }
}

impl ForeignChange {
    fn report(&self) -> String {
        let verb = if self.removed { "removed" } else { "put" };
        let (who, what) = (&self.by.origin, &self.object);
        if self.kind != ConflictKind::Preempt {
            return format!("{who} {verb} {what}");
        }
        let number = self.by.protocol;
        match protocol_name(number) {
            Some(name) => format!("{who}, protocol {name} ({number}), {verb} {what}"),
            None => format!("{who}, protocol {number}, {verb} {what}"),
        }
    }

    fn answer(&self) -> &'static str {
        match (self.kind, self.removed) {
            (ConflictKind::Preempt, _) => "displaced",
            (_, true) => "put back",
            (_, false) => "removed",
        }
    }
}

impl Actor {
    fn process(&self) -> Option<u32> {
        match self.origin {
            Origin::Process { pid, .. } => Some(pid),
            Origin::Kernel | Origin::Unknown => None,
        }
    }
}
