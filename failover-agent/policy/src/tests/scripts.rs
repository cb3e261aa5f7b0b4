//! What can happen to a world.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::world::{Change, LinkCondition, Script};
use super::*;

fn uplink_rules() -> impl Strategy<Value = UplinkSettings> {
    let counts = (1..=4_u32, 1..=4_u32, 1..=3_u32);
    let times = (
        prop_oneof![Just(200), Just(500), Just(1000)],
        prop_oneof![Just(100), Just(500), Just(2500)],
        prop_oneof![Just(0), Just(1500), Just(6000)],
        prop_oneof![Just(0), Just(1000), Just(5000)],
    );
    let targets = (prop_oneof![1 => Just(0_u32), 6 => 1..=3_u32], 0..=2_u32)
        .prop_map(|(v4, v6)| PerFamily::new(v4, v6));
    let usable = [prop::bool::weighted(0.9), prop::bool::weighted(0.9)];
    let earlier =
        || prop_oneof![4 => Just(Health::Unknown), 1 => Just(Health::Down), 1 => Just(Health::Up)];
    let start = (prop::bool::weighted(0.9), [earlier(), earlier()]);
    let recover = prop::option::of(1000..8000_u64);
    (counts, times, targets, usable, start, recover).prop_map(
        |(
            (fall, rise, quorum),
            (interval, timeout, hold, drain),
            targets,
            usable,
            (carrier, earlier),
            recover,
        )| {
            let most = targets
                .values()
                .copied()
                .filter(|count| *count > 0)
                .min()
                .unwrap_or(1);
            UplinkSettings {
                rank: 0,
                fall,
                rise,
                quorum: quorum.min(most),
                hold: Duration::from_millis(hold),
                drain: Duration::from_millis(drain),
                interval: Duration::from_millis(interval),
                timeout: Duration::from_millis(timeout),
                targets,
                usable: usable.into(),
                carrier,
                earlier: earlier.into(),
                recover_interval: recover.map(Duration::from_millis),
            }
        },
    )
}

pub(super) fn condition() -> impl Strategy<Value = LinkCondition> {
    prop_oneof![
        5 => Just(LinkCondition::Good),
        4 => Just(LinkCondition::Bad),
        2 => Just(LinkCondition::Lossy),
        1 => Just(LinkCondition::Blind),
        1 => Just(LinkCondition::Silent),
        1 => Just(LinkCondition::Wild),
    ]
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![3 => Just(Family::V4), 1 => Just(Family::V6)]
}

fn change(uplinks: usize) -> impl Strategy<Value = Change> {
    let id = move || (0..uplinks).prop_map(UplinkId);
    prop_oneof![
        12 => (id(), family(), condition()).prop_map(|(id, family, condition)| Change::Condition(id, family, condition)),
        2 => (id(), any::<bool>()).prop_map(|(id, up)| Change::Carrier(id, up)),
        2 => (id(), family(), any::<bool>()).prop_map(|(id, family, usable)| Change::Usable(id, family, usable)),
        2 => (id(), family(), any::<bool>()).prop_map(|(id, family, yes)| Change::Reason(id, family, yes)),
        1 => (id(), family(), any::<bool>()).prop_map(|(id, family, renumbered)| Change::Moved(id, family, renumbered)),
        1 => (id(), family()).prop_map(|(id, family)| Change::Suspect(id, family)),
        1 => prop::bool::weighted(0.7).prop_map(Change::Confirm),
        1 => (family(), id(), any::<bool>()).prop_map(|(family, id, yes)| Change::Stray(family, id, yes)),
        2 => id().prop_map(|id| Change::Override(Some(id))),
        1 => Just(Change::Override(None)),
        3 => (id(), prop_oneof![1 => Just(0), 9 => 500..20_000_u64]).prop_map(|(id, time)| Change::Drill(id, time)),
        1 => pause().prop_map(Change::Pause),
    ]
}

pub(super) fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![0..500_u64, 500..8000_u64]
}

pub(super) fn wait() -> impl Strategy<Value = u64> {
    prop_oneof![2 => 0..500_u64, 4 => 500..4000_u64, 1 => 4000..15_000_u64]
}

/// Two to four uplinks, of which some share a rank; in half of the worlds IPv6 has no targets and follows.
pub(super) fn script() -> impl Strategy<Value = Script> {
    (2..=4_usize, any::<bool>()).prop_flat_map(|(uplinks, follow)| {
        let id = (0..uplinks).prop_map(UplinkId);
        let adopted = prop::collection::vec(id, 0..3).prop_map(|ids| set(&ids));
        let adopted = || adopted.clone();
        let drill = prop::option::weighted(0.1, ((0..uplinks).prop_map(UplinkId), wait()));
        let rules = (
            prop::collection::vec(uplink_rules(), uplinks),
            [adopted(), adopted()],
            drill,
            any::<bool>(),
            prop::collection::vec(prop::bool::weighted(0.5), uplinks),
        );
        let changes = prop::collection::vec((wait(), change(uplinks)), 0..25);
        (rules, changes, any::<u64>()).prop_map(
            move |((mut uplinks, active, drill, withdraw, alone), changes, seed)| {
                let mut rank = 0;
                for (uplink, alone) in uplinks.iter_mut().zip(alone) {
                    rank += u32::from(alone);
                    uplink.rank = rank;
                    if follow {
                        uplink.targets.v6 = 0;
                    }
                }
                Script {
                    rules: MachineConfig {
                        manual_override: PerFamily::both(None),
                        uplinks: (0..).map(UplinkId).zip(uplinks).collect(),
                        active: active.into(),
                        drill: drill.map(|(id, end)| (id, at(end))),
                        withdraw,
                    },
                    seed,
                    changes,
                }
            },
        )
    })
}

/// Uplinks that fail and recover together or one after the other, and nothing else: what failbacks consist of.
pub(super) fn flap_script() -> impl Strategy<Value = Script> {
    let condition = prop_oneof![3 => Just(LinkCondition::Good), 1 => Just(LinkCondition::Bad)];
    let change = (0..3_usize, condition)
        .prop_map(|(id, condition)| Change::Condition(UplinkId(id), Family::V4, condition));
    let both_bad = [0, 1].map(|id| {
        (
            0,
            Change::Condition(UplinkId(id), Family::V4, LinkCondition::Bad),
        )
    });
    let changes = prop::collection::vec((0..6000_u64, change), 0..15);
    (changes, 1..=2_u32, any::<u64>()).prop_map(move |(mut changes, count, seed)| {
        changes.splice(0..0, both_bad);
        let hold = Duration::from_secs(4);
        let uplink = UplinkSettings {
            fall: count,
            rise: count,
            hold,
            timeout: Duration::from_millis(100),
            ..uplink()
        };
        let mut rules = rules(3);
        for (rank, rules) in (0..).zip(rules.uplinks.values_mut()) {
            *rules = UplinkSettings {
                rank,
                ..uplink.clone()
            };
        }
        Script {
            rules,
            seed,
            changes,
        }
    })
}

pub(super) fn config() -> Config {
    Config {
        failure_persistence: None,
        ..Config::default()
    }
}
