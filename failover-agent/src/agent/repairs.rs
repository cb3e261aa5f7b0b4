//! Says who did what has been put right.

use std::collections::VecDeque;

use failover_policy::Family;
use tracing::{debug, info, warn};

use super::{
    Agent,
    quarrel::{Matter, Quarrels},
};
use crate::{
    control::status,
    route::{Actor, Change, Offence, Opponent, Origin, protocol_name},
};

/// Deeds of others that are remembered until routes are looked at again; in a flood the last ones tell.
const DEEDS: usize = 64;

/// What somebody else did to routes or rules.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Deed {
    offence: Offence,
    family: Family,
    removed: bool,
    by: Actor,
    what: String,
}

/// What others did since routes were last looked at, and with whom we quarrel.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    deeds: VecDeque<Deed>,
    quarrels: Quarrels,
}

impl Repairs {
    /// Takes note of what may have to be put right.
    pub(super) fn note(&mut self, change: &Change) {
        let deed = match change {
            Change::Route {
                family,
                ours,
                removed,
                by,
                what,
            } if *ours || !*removed => Deed {
                offence: if *ours {
                    Offence::Route
                } else {
                    Offence::Outbid
                },
                family: *family,
                removed: *removed,
                by: by.clone(),
                what: what.clone(),
            },
            Change::Rule { family, by, what } => Deed {
                offence: Offence::Rule,
                family: *family,
                removed: true,
                by: by.clone(),
                what: what.clone(),
            },
            // What stands behind an IPv4 route.
            Change::Nexthop { by, what } => Deed {
                offence: Offence::Route,
                family: Family::V4,
                removed: true,
                by: by.clone(),
                what: what.clone(),
            },
            _ => return,
        };
        // The same again: by many short-lived processes, perhaps.
        self.deeds
            .retain(|known| (known.family, &known.what) != (deed.family, &deed.what));
        if self.deeds.len() == DEEDS {
            self.deeds.pop_front();
        }
        self.deeds.push_back(deed);
    }

    /// The deeds that these changes have undone, and the matter of each; what the kernel does by itself has none.
    fn undone(&mut self, changes: &[String]) -> Vec<(Option<Matter>, Deed)> {
        let deeds = std::mem::take(&mut self.deeds).into_iter();
        deeds
            // Both in the words of the routing edge.
            .filter(|deed| changes.iter().any(|change| change.ends_with(&deed.what)))
            .map(|deed| {
                let with = Opponent::of(&deed.by, deed.offence != Offence::Outbid);
                let matter = with.map(|with| Matter {
                    offence: deed.offence,
                    family: deed.family,
                    with,
                });
                (matter, deed)
            })
            .collect()
    }
}

impl Agent<'_> {
    /// Logs who made the repairs necessary that are in `changes`, and whether that is a quarrel.
    pub(super) fn tell_repairs(&mut self, changes: &[String]) {
        let now = self.clock.now();
        let mut undone = self.repairs.undone(changes);
        // Many routes or rules at one time are one repair, told by the last of them.
        while let Some((matter, deed)) = undone.pop() {
            let before = undone.len();
            undone.retain(|(other, _)| *other != matter);
            let more = match before - undone.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let line = format!("{}{more}: {}", deed.told(), deed.answer());
            let Some(matter) = matter else {
                debug!("{line}");
                continue;
            };
            let told = self.repairs.quarrels.repaired(&matter, now);
            if let Some(repairs) = told.line {
                let (protocol, process) = (deed.by.protocol, deed.by.process());
                info!(family = %matter.family, protocol, process, repairs, "{line}");
            }
            if told.quarrel {
                let (with, cure) = (matter.with.to_string(), matter.with.cure(matter.offence));
                warn!(
                    family = %matter.family,
                    with,
                    cure,
                    "quarrel: {with} {} again and again, and we undo it; cure: {cure}",
                    matter.offence.words(),
                );
            }
        }
    }

    /// The quarrels that go on, for the status.
    pub(super) fn quarrels_status(&self) -> Vec<status::Quarrel> {
        let quarrels = self.repairs.quarrels.ongoing(self.clock.now());
        quarrels
            .map(|quarrel| status::Quarrel {
                with: quarrel.matter.with.to_string(),
                family: quarrel.matter.family,
                what: quarrel.matter.offence.words().to_owned(),
                repairs: quarrel.repairs,
                since: self.clock.wall(quarrel.since),
                cure: quarrel.matter.with.cure(quarrel.matter.offence).to_owned(),
            })
            .collect()
    }
}

impl Deed {
    fn told(&self) -> String {
        let verb = if self.removed { "removed" } else { "put" };
        let (who, what) = (&self.by.origin, &self.what);
        if self.offence != Offence::Outbid {
            return format!("{who} {verb} {what}");
        }
        let number = self.by.protocol;
        match protocol_name(number) {
            Some(name) => format!("{who}, protocol {name} ({number}), {verb} {what}"),
            None => format!("{who}, protocol {number}, {verb} {what}"),
        }
    }

    fn answer(&self) -> &'static str {
        match (self.offence, self.removed) {
            (Offence::Outbid, _) => "displaced",
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
