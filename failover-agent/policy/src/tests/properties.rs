//! What holds in every world.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::reference::Verdict;
use super::scripts::{condition, config, flap_script, pause, script, wait};
use super::world::{Arrival, Change, LONGEST_BACKOFF, LinkCondition, Script, Switch, World, ms};
use super::*;

/// Whether the machine should have left the family's active uplink (or should have chosen one) by now.
fn stuck(world: &World, family: Family) -> Option<UplinkId> {
    let references = &world.references[family];
    let health = |id: usize| world.machine.health(UplinkId(id), family);
    let active = world.machine.active(family);
    let uplinks = || (0..references.len()).map(UplinkId);
    let waits_at_start = || {
        uplinks().any(|id| {
            let adopted_blind = active.contains(id) && health(id.0) == Health::Blind;
            let reference = &references[id.0];
            reference.probed()
                && reference.present()
                && (health(id.0) == Health::Unknown || adopted_blind)
        })
    };
    let due = world
        .machine
        .poll_timeout()
        .is_some_and(|due| due <= at(world.now()));
    if due || world.in_flight(family) || !world.started(family) && waits_at_start() {
        return None;
    }
    let open = |id: usize| {
        world.asked[family][id].filter(|asked| {
            references[id]
                .newest()
                .is_none_or(|(_, sent)| sent < *asked)
        })
    };
    let waiting = |id: usize| {
        let timeout = ms(world.rules.uplinks[UplinkId(id)].timeout);
        open(id).is_some_and(|asked| world.now() < asked + timeout)
    };
    if (0..references.len()).any(waiting) {
        return None;
    }
    let refused =
        |id: usize| world.refused[family][id].is_some_and(|at| world.now() <= at + LONGEST_BACKOFF);
    let takes = |id: &UplinkId| {
        let id = id.0;
        let good = references[id]
            .newest()
            .is_some_and(|(verdict, _)| verdict == Verdict::Good);
        health(id) == Health::Up
            && references[id].present()
            && good
            && open(id).is_none()
            && !refused(id)
    };
    let down = active.iter().any(|id| health(id.0) == Health::Down);
    let all_down = active.iter().all(|id| health(id.0) == Health::Down);
    if !world.started(family) || all_down {
        return uplinks().find(takes);
    }
    // A working uplink is left only for one chosen by a manual override; one that is Down, for its group.
    let wanted = world.overrides[family].filter(|pin| active != only(*pin));
    let stays = active.iter().filter(|_| down);
    wanted.into_iter().chain(stays).find(takes)
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

/// Whether a drill keeps a family from the only uplink that is Up.
fn stranded(world: &World) -> Option<Family> {
    let (drilled, _) = world.drill?;
    Family::ALL.into_iter().find(|family| {
        let references = &world.references[*family];
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
    fn nothing_is_found_down_while_a_younger_round_is_answered(script in script()) {
        let mut before = None;
        World::play(&script, |world| {
            let health: Vec<Vec<Health>> = Family::ALL.into_iter().map(|family| {
                let ids = (0..world.rules.uplinks.len()).map(UplinkId);
                ids.map(|id| world.machine.measured(id, family)).collect()
            }).collect();
            let before = before.replace(health.clone()).unwrap_or_else(|| health.clone());
            let references = || world.references.values().flatten();
            for ((reference, before), now) in references().zip(before.iter().flatten()).zip(health.iter().flatten()) {
                let found = before != now && matches!(now, Health::Down | Health::Blind) && reference.present();
                assert!(!found || !reference.overtaken(), "{now:?} at {} ms", world.now());
            }
        });
    }

    #[test]
    fn pauses_of_the_agent_say_nothing_about_links(
        script in script(),
        pauses in prop::collection::vec((wait(), pause()), 1..6),
    ) {
        let mut script = script;
        script.rules.drill = None;
        for uplink in script.rules.uplinks.values_mut() {
            (uplink.carrier, uplink.earlier) = (true, PerFamily::both(Health::Unknown));
        }
        script.changes = pauses.into_iter().map(|(wait, time)| (wait, Change::Pause(time))).collect();
        let world = World::play(&script, check_health);
        for (at, action) in &world.actions {
            let Action::Report(Event::Health { to, .. }) = action else { continue };
            prop_assert_eq!(*to, Health::Up, "at {} ms", at);
        }
        for switch in &world.switches {
            prop_assert!(matches!(switch.cause, Cause::Startup | Cause::Failback | Cause::Follow), "{switch:?}");
        }
    }

    #[test]
    fn every_switch_has_its_reason(script in script()) {
        let world = World::play(&script, |_| {});
        for switch in &world.switches {
            let group = |id: UplinkId| Some(world.rules.uplinks[id].rank) == world.rank(switch.to);
            prop_assert!(switch.cause == Cause::Follow || switch.to.iter().all(group), "{switch:?}");
            let others_rank = world.rank(switch.from);
            let all_down = switch.down == switch.from;
            match switch.cause {
                Cause::Startup => {
                    prop_assert!(of_family(&world, switch.family).all(|other| {
                        other.at >= switch.at || other.confirmed == Some(false)
                    }), "{switch:?}");
                }
                Cause::Failover => {
                    let leaves = switch.to == switch.from.minus(switch.down);
                    prop_assert!(!switch.down.is_empty() && (all_down || leaves), "{switch:?}");
                }
                Cause::Failback => {
                    let joins = switch.from.within(switch.to);
                    let better = others_rank.is_some_and(|from| world.rank(switch.to) < Some(from));
                    prop_assert!(!switch.from.is_empty() && (joins || better), "{switch:?}");
                    for new in switch.arrivals.iter().filter(|arrival| !arrival.stays) {
                        let rules = &world.rules.uplinks[new.id];
                        prop_assert!(new.good_run.len() >= rules.rise as usize, "{switch:?}");
                        let since = new.good_run[0].at;
                        prop_assert!(switch.at >= since + ms(rules.hold), "{switch:?}");
                    }
                }
                Cause::Follow => {
                    prop_assert!(switch.to.within(switch.leader), "{switch:?}");
                    prop_assert!(switch.unconfirmed || switch.to == switch.leader, "{switch:?}");
                }
                Cause::Manual => {
                    prop_assert_eq!(Some(switch.to), switch.manual_override.map(only));
                    prop_assert!(!all_down, "{switch:?}");
                }
            }
            let again = switch.from == switch.to;
            prop_assert!(!again || of_family(&world, switch.family).all(|other| {
                other.at >= switch.at || other.confirmed == Some(false)
            }), "to where it is already: {switch:?}");
        }
    }

    #[test]
    fn manual_choice_holds_while_it_is_up(script in script()) {
        let world = World::play(&script, |world| {
            for family in Family::ALL {
                assert_eq!(world.machine.manual_override(family), world.overrides[family], "{family}");
            }
        });
        for switch in &world.switches {
            // The start-up check is over before any command counts; a family without targets has no override of its own.
            let free = matches!(switch.cause, Cause::Startup | Cause::Follow);
            let overridden = switch.manual_override.is_none_or(|pin| only(pin) == switch.to);
            let not_there_yet = switch.cause == Cause::Failover && switch.manual_override.map(only) != Some(switch.from);
            prop_assert!(free || overridden || not_there_yet, "{switch:?}");
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
    fn failbacks_are_a_hold_time_apart(script in prop_oneof![script(), flap_script()]) {
        let world = World::play(&script, |_| {});
        for family in Family::ALL {
            let failbacks: Vec<_> = of_family(&world, family).filter(|switch| {
                switch.cause == Cause::Failback && !switch.from.within(switch.to)
            }).collect();
            for (index, later) in failbacks.iter().enumerate() {
                let holds = later.to.iter().map(|id| ms(world.rules.uplinks[id].hold));
                let hold = holds.max().unwrap();
                let mut earlier = failbacks[..index].iter().filter(|switch| switch.confirmed == Some(true));
                prop_assert!(earlier.all(|earlier| earlier.at + hold <= later.at), "{failbacks:?}");
            }
        }
    }

    #[test]
    fn flapping_uplink_is_failed_back_to_once_per_hold_time(
        seed in any::<u64>(),
        flaps in prop::collection::vec((wait(), condition(), prop::option::weighted(0.2, any::<bool>())), 0..40),
    ) {
        let mut rules = rules(2);
        for uplink in rules.uplinks.values_mut() {
            // The hold time alone must do it: without it, one bad and one good round would make a pair of switches.
            (uplink.fall, uplink.rise, uplink.hold) = (1, 1, Duration::from_secs(6));
        }
        let change = |(wait, condition, carrier): (u64, LinkCondition, Option<bool>)| {
            (wait, carrier.map_or(Change::Condition(A, Family::V4, condition), |up| Change::Carrier(A, up)))
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
                Cause::Failover => prop_assert_eq!((switch.from, switch.to), (only(A), only(B))),
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
        let condition = if silent { LinkCondition::Silent } else { LinkCondition::Bad };
        for (_, change) in &mut script.changes {
            if let Change::Condition(_, _, to) = change {
                *to = condition;
            }
        }
        let uplinks = (0..script.rules.uplinks.len()).map(UplinkId);
        let bad = uplinks.flat_map(|id| Family::ALL.map(|family| (0, Change::Condition(id, family, condition))));
        script.changes.splice(0..0, bad);
        let world = World::play(&script, |_| {});
        prop_assert!(world.switches.is_empty(), "{:?}", world.switches);
    }

    #[test]
    fn destination_is_proven(script in script()) {
        let world = World::play(&script, |_| {});
        for switch in &world.switches {
            let first_failure = switch.first_failure.filter(|_| switch.cause == Cause::Failover);
            let proven = |arrival: &&Arrival| {
                let rules = &world.rules.uplinks[arrival.id];
                arrival.health == Health::Up && arrival.newest.is_some_and(|(verdict, sent)| {
                    let recent = switch.at - sent <= ms(rules.interval + rules.timeout);
                    verdict == Verdict::Good && recent && first_failure.is_none_or(|at| sent >= at)
                })
            };
            for arrival in &switch.arrivals {
                // What is already active may have a bad round, or be Blind; and an uplink may join to help out one that is Down.
                let joined = switch.from.within(switch.to) && switch.cause == Cause::Failback;
                let stays = arrival.stays && (arrival.health != Health::Down || joined);
                let followed = switch.cause == Cause::Follow;
                prop_assert!(arrival.present || arrival.stays, "{switch:?}");
                prop_assert!(followed || stays || proven(&arrival), "{switch:?}");
            }
            let followed = switch.cause == Cause::Follow;
            prop_assert!(followed || switch.arrivals.iter().any(|arrival| proven(&arrival)), "{switch:?}");
        }
    }

    #[test]
    fn whole_group_is_taken_as_far_as_it_is_proven(script in script()) {
        let world = World::play(&script, |_| {});
        for switch in &world.switches {
            let elected = match switch.cause {
                Cause::Startup => true,
                Cause::Failover => switch.down == switch.from,
                Cause::Failback | Cause::Follow | Cause::Manual => false,
            };
            let overridden = switch.manual_override.is_some();
            prop_assert!(!elected || overridden || switch.left_out.is_empty(), "{switch:?}");
        }
    }

    #[test]
    fn exactly_the_idle_uplinks_are_withdrawn(script in script()) {
        let world = World::play(&script, World::check_withdrawn);
        for (_, action) in &world.actions {
            let Action::Withdraw { .. } = action else { continue };
            prop_assert!(world.rules.withdraw);
        }
    }

    #[test]
    fn nothing_is_switched_to_without_its_routes(script in script()) {
        let world = World::play(&script, |_| {});
        let mut withdrawn = PerFamily::both(UplinkSet::NONE);
        for (_, action) in &world.actions {
            match *action {
                Action::Withdraw { family, uplinks } => withdrawn[family] = uplinks,
                Action::Switch(crate::Switch { family, to, .. }) => {
                    prop_assert_eq!(to.minus(withdrawn[family]), to);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn dead_uplinks_are_reset_last_and_not_too_often(script in script()) {
        let world = World::play(&script, World::check_recoveries);
        for pair in world.actions.windows(2) {
            if let [(at, Action::Recover { .. }), (later, action)] = pair {
                let last = at < later || matches!(action, Action::Recover { .. });
                prop_assert!(last || !matches!(action, Action::Switch(_) | Action::Cut { .. }), "{pair:?}");
            }
        }
    }

    #[test]
    fn failures_are_looked_into(script in script()) {
        World::play(&script, |world| {
            for reference in world.references.values().flatten() {
                assert!(!reference.examine, "no examination was asked for");
            }
        });
    }
}

/// The properties would hold in a world in which nothing happens, too; this shows that things do happen.
#[test]
fn worlds_are_eventful() {
    let mut runner = TestRunner::deterministic();
    let (mut causes, mut refused, mut asked) = ([0; 5], 0, 0);
    let (mut drained, mut cut, mut alone) = (0, 0, 0);
    let (mut left, mut joined, mut groups) = (0, 0, 0);
    let (mut withdrawn, mut examined, mut recovered) = (0, 0, 0);
    for _ in 0..500 {
        let world = World::play(&script().new_tree(&mut runner).unwrap().current(), |_| {});
        for switch in &world.switches {
            causes[switch.cause as usize] += 1;
            refused += usize::from(switch.confirmed == Some(false));
            let (from, to) = (switch.from, switch.to);
            let kept = to.len() < from.len() && to.within(from);
            left += usize::from(kept && switch.cause == Cause::Failover);
            joined += usize::from(from.within(to) && switch.cause == Cause::Failback);
            groups += usize::from(to.len() > 1 && to.minus(from).len() > 1);
        }
        for (_, action) in &world.actions {
            match action {
                Action::ProbeNow { .. } => asked += 1,
                Action::Withdraw { .. } => withdrawn += 1,
                Action::Examine { .. } => examined += 1,
                Action::Recover { .. } => recovered += 1,
                Action::Cut { cause, .. } if *cause == Cause::Failback => drained += 1,
                Action::Cut { .. } => cut += 1,
                Action::Report(Event::DrillEnded { alone: Some(_), .. }) => alone += 1,
                _ => {}
            }
        }
    }
    let counts = [
        refused, asked, drained, cut, alone, left, joined, groups, withdrawn, examined, recovered,
    ];
    let least = causes.into_iter().chain(counts).min();
    assert!(least >= Some(20), "{causes:?} {counts:?}");
}
