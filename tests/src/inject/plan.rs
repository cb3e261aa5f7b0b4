//! Which calls are to fail, and how.

use std::{collections::BTreeSet, fmt, str::FromStr};

use anyhow::{Context, Error, ensure};
use serde::{Serialize, Serializer};

use super::{
    kind::Fault,
    phase::{Phase, Setting},
    watch::{Order, Seen},
};

/// Which occurrence of a call in its phase fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Last,
}

/// One call that is to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Injection {
    pub(super) setting: Setting,
    pub(super) phase: Phase,
    pub(super) place: Place,
    pub(super) order: Order,
}

/// How an injection is named: `plain/switch/first/ENOBUFS/netlink route RTM_NEWROUTE main v4`.
impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Injection {
            setting,
            phase,
            place,
            order,
        } = self;
        let place = match place {
            Place::First => "first",
            Place::Last => "last",
        };
        let Order { kind, fault, .. } = order;
        write!(f, "{setting}/{phase}/{place}/{fault}/{kind}")
    }
}

impl Serialize for Injection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What was seen in one phase of one setting.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) setting: Setting,
    pub(super) phase: Phase,
    pub(super) calls: Vec<Seen>,
}

/// Which injections are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Part of the kind's name.
    pub(super) kind: Option<String>,
    /// Name of the fault.
    pub(super) error: Option<String>,
    /// If not empty, exactly these, as they are printed.
    pub(super) only: Vec<String>,
}

impl Filter {
    fn wants(&self, injection: &Injection) -> bool {
        let Order { kind, fault, .. } = &injection.order;
        self.kind.as_ref().is_none_or(|part| kind.contains(part))
            && self
                .error
                .as_ref()
                .is_none_or(|error| *error == fault.to_string())
            && (self.only.is_empty() || self.only.contains(&injection.to_string()))
    }
}

/// All injections for what was recorded, in order: of a setting only those calls that no earlier one makes in the same phase.
pub(super) fn plan(recorded: &[Recorded], filter: &Filter) -> Vec<Injection> {
    let mut known: BTreeSet<(Phase, &str)> = BTreeSet::new();
    let mut plan = Vec::new();
    for Recorded {
        setting,
        phase,
        calls,
    } in recorded
    {
        for Seen { kind, count } in calls {
            if !known.insert((*phase, &kind.name)) {
                continue;
            }
            let last = (*count > 1).then_some((Place::Last, *count));
            for (place, occurrence) in [(Place::First, 1)].into_iter().chain(last) {
                plan.extend(kind.class.faults().into_iter().map(|fault| Injection {
                    setting: *setting,
                    phase: *phase,
                    place,
                    order: Order {
                        kind: kind.name.clone(),
                        occurrence,
                        fault,
                    },
                }));
            }
        }
    }
    plan.retain(|injection| filter.wants(injection));
    plan
}

/// Some of them, the same ones for the same seed and plan.
pub(super) fn sample(plan: Vec<Injection>, count: usize, seed: u64) -> Vec<Injection> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut chosen = random.choose_multiple(plan, count);
    // Neighbours share a laboratory.
    chosen.sort_by_key(|injection| (injection.setting, injection.phase));
    chosen
}

/// The setting and the phase in an injection's name.
#[derive(Clone, Debug)]
pub(super) struct Whereabouts(pub(super) Setting, pub(super) Phase);

impl FromStr for Whereabouts {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let mut parts = name.split('/');
        let mut part = || parts.next().unwrap_or_default();
        let (setting, phase) = (part(), part());
        let setting = Setting::ALL
            .into_iter()
            .find(|known| known.to_string() == setting);
        let phase = Phase::ALL
            .into_iter()
            .find(|known| known.to_string() == phase);
        let known = setting
            .zip(phase)
            .map(|(setting, phase)| Whereabouts(setting, phase));
        ensure!(
            parts.count() >= 3,
            "`{name}` is not the name of an injection"
        );
        known.with_context(|| format!("no such setting or phase: `{name}`"))
    }
}

/// Whether a fault takes five seconds.
pub(super) fn is_long(injection: &Injection) -> bool {
    injection.order.fault == Fault::Hang
}

#[cfg(test)]
mod tests {
    use super::{
        super::kind::{Class, Kind},
        *,
    };

    fn recorded(setting: Setting, calls: &[(Class, &str, usize)]) -> Recorded {
        let calls = calls.iter().map(|(class, name, count)| Seen {
            kind: Kind::new(*class, *name),
            count: *count,
        });
        Recorded {
            setting,
            phase: Phase::Switch,
            calls: calls.collect(),
        }
    }

    fn names(plan: &[Injection]) -> Vec<String> {
        plan.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_and_the_last_call_fail_in_each_documented_way_in_one_setting() {
        let recorded = [
            recorded(
                Setting::Plain,
                &[
                    (Class::Lock, "file lock run", 1),
                    (Class::Ioctl, "ioctl", 3),
                ],
            ),
            recorded(
                Setting::Group,
                &[(Class::Ioctl, "ioctl", 9), (Class::Thread, "clone", 2)],
            ),
        ];
        let all = plan(&recorded, &Filter::default());
        let expected = [
            "plain/switch/first/ENOLCK/file lock run",
            "plain/switch/first/EPERM/ioctl",
            "plain/switch/last/EPERM/ioctl",
            "group/switch/first/EAGAIN/clone",
            "group/switch/last/EAGAIN/clone",
        ];
        assert_eq!(names(&all), expected);
        assert_eq!(all[2].order.occurrence, 3);

        let only = vec![expected[3].to_owned()];
        let filter = Filter {
            only,
            ..Filter::default()
        };
        assert_eq!(names(&plan(&recorded, &filter)), [expected[3]]);
        let Whereabouts(setting, phase) = expected[3].parse().unwrap();
        assert_eq!((setting, phase), (Setting::Group, Phase::Switch));
        assert!("group/switch".parse::<Whereabouts>().is_err());
    }

    #[test]
    fn a_seed_chooses_the_same_sample_again() {
        let recorded = [recorded(
            Setting::Plain,
            &[
                (Class::Create, "file create state", 5),
                (Class::Bpf, "bpf", 7),
            ],
        )];
        let all = plan(&recorded, &Filter::default());
        let some = names(&sample(all.clone(), 3, 7));
        assert_eq!(some.len(), 3);
        assert_eq!(some, names(&sample(all.clone(), 3, 7)));
        let others = (8..20).map(|seed| names(&sample(all.clone(), 3, seed)));
        assert!(others.into_iter().any(|other| other != some));
    }
}
