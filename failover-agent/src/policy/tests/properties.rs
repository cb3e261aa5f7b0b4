//! What holds in every world.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::reference::Verdict;
use super::world::{Change, Script, Switch, Weather, World, ms};
use super::*;

const LONGEST_BACKOFF: u64 = 30_000;

fn uplink_rules() -> impl Strategy<Value = UplinkRules> {
    let counts = (1..=4_u32, 1..=4_u32, 1..=3_u32);
    let times = (
        prop_oneof![Just(200), Just(500), Just(1000)],
        prop_oneof![Just(100), Just(500), Just(2500)],
        prop_oneof![Just(0), Just(1500), Just(6000)],
        prop_oneof![Just(0), Just(1000), Just(5000)],
    );
    let targets =
        (prop_oneof![1 => Just(0_u32), 6 => 1..=3_u32], 0..=2_u32).prop_map(<[u32; 2]>::from);
    let usable = [prop::bool::weighted(0.9), prop::bool::weighted(0.9)];
    (counts, times, targets, usable).prop_map(
        |((fall, rise, quorum), (interval, timeout, hold, drain), targets, usable)| {
            let most = targets
                .into_iter()
                .filter(|count| *count > 0)
                .min()
                .unwrap_or(1);
            UplinkRules {
                fall,
                rise,
                quorum: quorum.min(most),
                hold: Duration::from_millis(hold),
                drain: Duration::from_millis(drain),
                interval: Duration::from_millis(interval),
                timeout: Duration::from_millis(timeout),
                targets,
                usable,
            }
        },
    )
}

fn weather() -> impl Strategy<Value = Weather> {
    prop_oneof![
        5 => Just(Weather::Good),
        4 => Just(Weather::Bad),
        2 => Just(Weather::Lossy),
        1 => Just(Weather::Blind),
        1 => Just(Weather::Silent),
        1 => Just(Weather::Wild),
    ]
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![3 => Just(Family::V4), 1 => Just(Family::V6)]
}

fn change(uplinks: usize) -> impl Strategy<Value = Change> {
    let id = move || (0..uplinks).prop_map(UplinkId);
    prop_oneof![
        12 => (id(), family(), weather()).prop_map(|(id, family, weather)| Change::Weather(id, family, weather)),
        2 => (id(), any::<bool>()).prop_map(|(id, up)| Change::Carrier(id, up)),
        2 => (id(), family(), any::<bool>()).prop_map(|(id, family, usable)| Change::Usable(id, family, usable)),
        1 => prop::bool::weighted(0.7).prop_map(Change::Confirm),
        1 => (family(), id(), any::<bool>()).prop_map(|(family, id, yes)| Change::Stray(family, id, yes)),
        2 => id().prop_map(|id| Change::Pin(Some(id))),
        1 => Just(Change::Pin(None)),
        3 => (id(), prop_oneof![1 => Just(0), 9 => 500..20_000_u64]).prop_map(|(id, time)| Change::Drill(id, time)),
    ]
}

fn wait() -> impl Strategy<Value = u64> {
    prop_oneof![2 => 0..500_u64, 4 => 500..4000_u64, 1 => 4000..15_000_u64]
}

/// Two to four uplinks; in half of the worlds IPv6 has no targets and follows.
fn script() -> impl Strategy<Value = Script> {
    (2..=4_usize, any::<bool>()).prop_flat_map(|(uplinks, follow)| {
        let adopted = || prop::option::of((0..uplinks).prop_map(UplinkId));
        let drill = prop::option::weighted(0.1, ((0..uplinks).prop_map(UplinkId), wait()));
        let rules = (
            prop::collection::vec(uplink_rules(), uplinks),
            [adopted(), adopted()],
            drill,
        );
        let changes = prop::collection::vec((wait(), change(uplinks)), 0..25);
        (rules, changes, any::<u64>()).prop_map(
            move |((mut uplinks, active, drill), changes, seed)| {
                for uplink in &mut uplinks {
                    if follow {
                        uplink.targets[1] = 0;
                    }
                }
                Script {
                    rules: Rules {
                        uplinks,
                        active,
                        drill: drill.map(|(id, end)| (id, at(end))),
                    },
                    seed,
                    changes,
                }
            },
        )
    })
}

/// Uplinks that fail and recover together or one after the other, and nothing else: what failbacks are made of.
fn tides() -> impl Strategy<Value = Script> {
    let weather = prop_oneof![3 => Just(Weather::Good), 1 => Just(Weather::Bad)];
    let change = (0..3_usize, weather)
        .prop_map(|(id, weather)| Change::Weather(UplinkId(id), Family::V4, weather));
    let flood = [0, 1].map(|id| (0, Change::Weather(UplinkId(id), Family::V4, Weather::Bad)));
    let changes = prop::collection::vec((0..6000_u64, change), 0..15);
    (changes, 1..=2_u32, any::<u64>()).prop_map(move |(mut changes, count, seed)| {
        changes.splice(0..0, flood);
        let hold = Duration::from_secs(4);
        let uplink = UplinkRules {
            fall: count,
            rise: count,
            hold,
            timeout: Duration::from_millis(100),
            ..uplink()
        };
        Script {
            rules: Rules {
                uplinks: vec![uplink; 3],
                active: [None; 2],
                drill: None,
            },
            seed,
            changes,
        }
    })
}

fn config() -> Config {
    Config {
        failure_persistence: None,
        ..Config::default()
    }
}

/// Whether the machine should have left the family's active uplink (or should have chosen one) by now.
fn stuck(world: &World, family: Family) -> Option<UplinkId> {
    let index = family as usize;
    let references = &world.references[index];
    let health = |id: usize| world.machine.health(UplinkId(id), family);
    let active = world.machine.active(family);
    let waits_at_start = || {
        (0..references.len()).any(|id| {
            let adopted_blind = active == Some(UplinkId(id)) && health(id) == Health::Blind;
            let reference = &references[id];
            reference.probed()
                && reference.present()
                && (health(id) == Health::Unknown || adopted_blind)
        })
    };
    let due = world
        .machine
        .poll_timeout()
        .is_some_and(|due| due <= at(world.now()));
    let settled = match active {
        _ if due || world.in_flight(family) => true,
        _ if !world.started(family) => waits_at_start(),
        Some(active) => {
            let elsewhere = world.pins[index].is_some_and(|pin| pin != active);
            health(active.0) != Health::Down && !elsewhere
        }
        None => unreachable!("started without an active uplink"),
    };
    if settled {
        return None;
    }
    let open = |id: usize| {
        world.asked[index][id]
            .filter(|asked| references[id].last().is_none_or(|last| last.sent < *asked))
    };
    let waiting = |id: usize| {
        let timeout = ms(world.rules.uplinks[id].timeout);
        open(id).is_some_and(|asked| world.now() < asked + timeout)
    };
    if (0..references.len()).any(waiting) {
        return None;
    }
    let refused =
        |id: usize| world.refused[index][id].is_some_and(|at| world.now() <= at + LONGEST_BACKOFF);
    let takes = |id: &usize| {
        let good = references[*id]
            .last()
            .is_some_and(|last| last.verdict == Verdict::Good);
        health(*id) == Health::Up
            && references[*id].present()
            && good
            && open(*id).is_none()
            && !refused(*id)
    };
    // Who works is left for one that was chosen by hand only.
    let only =
        world.pins[index].filter(|_| active.is_some_and(|active| health(active.0) != Health::Down));
    let other = |id: &usize| {
        let wanted = only.is_none_or(|pin| pin == UplinkId(*id));
        !world.started(family) || active != Some(UplinkId(*id)) && wanted
    };
    (0..references.len())
        .filter(other)
        .find(takes)
        .map(UplinkId)
}

fn check_health(world: &World) {
    for family in Family::ALL {
        for id in 0..world.rules.uplinks.len() {
            assert_eq!(
                world.machine.health(UplinkId(id), family),
                world.health(family, UplinkId(id)),
                "{family} {id}"
            );
        }
    }
}

/// A drill that keeps a family from the only uplink that is Up.
fn stranded(world: &World) -> Option<Family> {
    let (drilled, _) = world.drill?;
    Family::ALL.into_iter().find(|family| {
        let references = &world.references[*family as usize];
        let other = (0..references.len())
            .filter(|id| UplinkId(*id) != drilled)
            .any(|id| {
                let undecided = references[id].health == Health::Unknown;
                let hope = undecided && references[id].probed() && references[id].present();
                references[id].health == Health::Up || hope
            });
        references[drilled.0].health == Health::Up && !other
    })
}

fn of_family(world: &World, family: Family) -> impl Iterator<Item = &Switch> {
    world
        .switches
        .iter()
        .filter(move |switch| switch.family == family)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn never_active_on_a_down_uplink_while_another_is_proven(script in script()) {
        World::play(&script, |world| {
            check_health(world);
            for family in Family::ALL {
                let better = stuck(world, family);
                assert_eq!(better, None, "{family} at {} ms: stays on {:?}", world.now(), world.machine.active(family));
            }
        });
    }

    #[test]
    fn every_switch_has_its_reason(script in script()) {
        let world = World::play(&script, |_| {});
        for switch in &world.switches {
            let rules = &world.rules.uplinks[switch.to.0];
            match switch.cause {
                Cause::Startup => {
                    prop_assert!(of_family(&world, switch.family).all(|other| {
                        other.at >= switch.at || other.confirmed == Some(false)
                    }), "{switch:?}");
                }
                Cause::Failover => prop_assert!(switch.from_down, "{switch:?}"),
                Cause::Failback => {
                    prop_assert!(switch.from.is_some_and(|from| switch.to < from), "{switch:?}");
                    prop_assert!(switch.good_run.len() >= rules.rise as usize, "{switch:?}");
                    let since = switch.good_run[0].at;
                    prop_assert!(switch.at >= since + ms(rules.hold), "{switch:?}");
                }
                Cause::Follow => prop_assert_eq!(Some(switch.to), switch.leader),
                Cause::Manual => {
                    prop_assert_eq!(Some(switch.to), switch.pin);
                    prop_assert!(!switch.from_down, "{switch:?}");
                }
            }
            let again = switch.from == Some(switch.to);
            prop_assert!(!again || of_family(&world, switch.family).all(|other| {
                other.at >= switch.at || other.confirmed == Some(false)
            }), "to where it is already: {switch:?}");
        }
    }

    #[test]
    fn manual_choice_holds_while_it_is_up(script in script()) {
        let world = World::play(&script, |world| {
            for family in Family::ALL {
                assert_eq!(world.machine.pinned(family), world.pins[family as usize], "{family}");
            }
        });
        for switch in &world.switches {
            // The start-up check is over before anybody's wish counts; a family without targets has no wishes of its own.
            let free = matches!(switch.cause, Cause::Startup | Cause::Follow);
            let pinned = switch.pin.is_none_or(|pin| pin == switch.to);
            let not_there_yet = switch.cause == Cause::Failover && switch.pin != switch.from;
            prop_assert!(free || pinned || not_there_yet, "{switch:?}");
        }
    }

    #[test]
    fn drill_takes_no_family_its_last_uplink_and_ends(script in script()) {
        World::play(&script, |world| {
            assert_eq!(world.machine.drill(), world.drill);
            assert_eq!(stranded(world), None);
            assert!(world.drill.is_none_or(|(_, until)| until > at(world.now())
                || world.machine.poll_timeout().is_some_and(|due| due <= at(world.now()))));
        });
    }

    #[test]
    fn cuts_are_in_favour_of_a_good_uplink_once_and_in_time(script in script()) {
        World::play(&script, World::check_cuts);
    }

    #[test]
    fn failbacks_are_a_hold_time_apart(script in prop_oneof![script(), tides()]) {
        let world = World::play(&script, |_| {});
        for family in Family::ALL {
            let failbacks: Vec<_> = of_family(&world, family).filter(|switch| switch.cause == Cause::Failback).collect();
            for (index, later) in failbacks.iter().enumerate() {
                let hold = ms(world.rules.uplinks[later.to.0].hold);
                let mut earlier = failbacks[..index].iter().filter(|switch| switch.confirmed == Some(true));
                prop_assert!(earlier.all(|earlier| earlier.at + hold <= later.at), "{failbacks:?}");
            }
        }
    }

    #[test]
    fn flapping_uplink_is_failed_back_to_once_per_hold_time(
        seed in any::<u64>(),
        flaps in prop::collection::vec((wait(), weather(), prop::option::weighted(0.2, any::<bool>())), 0..40),
    ) {
        let mut rules = rules(2);
        for uplink in &mut rules.uplinks {
            // The hold time alone must do it: without it, one bad and one good round would make a pair of switches.
            (uplink.fall, uplink.rise, uplink.hold) = (1, 1, Duration::from_secs(6));
        }
        let change = |(wait, weather, carrier): (u64, Weather, Option<bool>)| {
            (wait, carrier.map_or(Change::Weather(A, Family::V4, weather), |up| Change::Carrier(A, up)))
        };
        let changes = flaps.into_iter().map(change).collect();
        let world = World::play(&Script { rules, seed, changes }, |_| {});
        let mut last = None;
        for switch in &world.switches {
            match switch.cause {
                Cause::Failback => {
                    prop_assert!(last.is_none_or(|last| last + 6000 <= switch.at), "{:?}", world.switches);
                    last = Some(switch.at);
                }
                Cause::Failover => prop_assert_eq!((switch.from, switch.to), (Some(A), B)),
                _ => {}
            }
        }
    }

    #[test]
    fn same_inputs_give_same_actions(script in script()) {
        let (one, other) = (World::play(&script, |_| {}), World::play(&script, |_| {}));
        prop_assert_eq!(one.actions, other.actions);
    }

    #[test]
    fn nothing_changes_while_all_are_down(script in script(), silent in any::<bool>()) {
        let mut script = script;
        let weather = if silent { Weather::Silent } else { Weather::Bad };
        for (_, change) in &mut script.changes {
            if let Change::Weather(_, _, to) = change {
                *to = weather;
            }
        }
        let uplinks = (0..script.rules.uplinks.len()).map(UplinkId);
        let bad = uplinks.flat_map(|id| Family::ALL.map(|family| (0, Change::Weather(id, family, weather))));
        script.changes.splice(0..0, bad);
        let world = World::play(&script, |_| {});
        prop_assert!(world.switches.is_empty(), "{:?}", world.switches);
    }

    #[test]
    fn destination_is_proven(script in script()) {
        let world = World::play(&script, |_| {});
        for switch in &world.switches {
            prop_assert!(switch.present, "{switch:?}");
            if switch.cause == Cause::Follow {
                continue;
            }
            let last = switch.last.unwrap();
            prop_assert_eq!(last.verdict, Verdict::Good, "{:?}", switch);
            let rules = &world.rules.uplinks[switch.to.0];
            prop_assert!(switch.at - last.sent <= ms(rules.interval + rules.timeout), "{switch:?}");
            if switch.cause == Cause::Failover {
                prop_assert!(switch.trouble.is_none_or(|trouble| last.sent >= trouble), "{switch:?}");
            }
        }
    }
}

/// The properties would hold in a world in which nothing happens, too.
#[test]
fn worlds_are_eventful() {
    let mut runner = TestRunner::deterministic();
    let (mut causes, mut refused, mut asked) = ([0; 5], 0, 0);
    let (mut drained, mut cut, mut alone) = (0, 0, 0);
    for _ in 0..300 {
        let world = World::play(&script().new_tree(&mut runner).unwrap().current(), |_| {});
        for switch in &world.switches {
            causes[switch.cause as usize] += 1;
            refused += usize::from(switch.confirmed == Some(false));
        }
        for (_, action) in &world.actions {
            match action {
                Action::ProbeNow { .. } => asked += 1,
                Action::Cut { cause, .. } if *cause == Cause::Failback => drained += 1,
                Action::Cut { .. } => cut += 1,
                Action::Note(Note::DrillEnded { alone: Some(_), .. }) => alone += 1,
                _ => {}
            }
        }
    }
    let counts = [refused, asked, drained, cut, alone];
    let least = causes.into_iter().chain(counts).min();
    assert!(least >= Some(20), "{causes:?} {counts:?}");
}
