//! A changed configuration for a running machine.

use proptest::prelude::*;

use super::scripts::{config, script};
use super::world::World;
use super::*;

impl Play {
    /// `kept` are those that existed before; others are new, even if a removed one had their identity.
    fn reload(&mut self, rules: &MachineConfig, kept: &[UplinkId]) {
        self.actions();
        let kept = set(kept);
        self.next = rules.uplinks.carry(&self.next, kept, |_, _| 0);
        self.targets = rules.uplinks.map(|_, uplink| uplink.targets.v4);
        self.machine.reconfigure(rules, kept, at(self.now));
    }
}

/// The configuration as a reload would give it, with the facts of now.
fn as_of_now(world: &World) -> MachineConfig {
    let mut rules = world.rules.clone();
    for (id, uplink) in rules.uplinks.iter_mut() {
        let of = |family: Family| &world.references[family][id.0];
        uplink.carrier = of(Family::V4).carrier;
        uplink.usable = PerFamily::from_fn(|family| of(family).usable);
    }
    rules
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn unchanged_rules_change_nothing(script in script()) {
        World::play(&script, |world| {
            if world.now() % 5 != 0 {
                return;
            }
            // What the passing of time alone would change, a reload changes too.
            let mut before = world.machine.clone();
            before.handle_timeout(at(world.now()));
            while before.poll_action().is_some() {}
            let mut machine = before.clone();
            let mut rules = as_of_now(world);
            rules.active = PerFamily::both(UplinkSet::NONE);
            rules.drill = None;
            for uplink in rules.uplinks.values_mut() {
                uplink.earlier = PerFamily::both(Health::Down);
            }
            machine.reconfigure(&rules, rules.uplinks.ids().collect(), at(world.now()));
            assert_eq!(machine, before);
        });
    }

    #[test]
    fn deciding_again_changes_nothing(script in script()) {
        World::play(&script, |world| {
            if world.now() % 3 != 0 {
                return;
            }
            let again = |machine: &Machine| {
                let mut machine = machine.clone();
                machine.handle_timeout(at(world.now()));
                machine
            };
            let mut once = again(&world.machine);
            while once.poll_action().is_some() {}
            assert_eq!(again(&once), once);
        });
    }

    #[test]
    fn removed_uplinks_leave_the_others_as_they_are(script in script(), keep in any::<[bool; 4]>()) {
        World::play(&script, |world| {
            if world.now() % 7 != 0 {
                return;
            }
            check_removal(world, keep);
        });
    }
}

fn check_removal(world: &World, keep: [bool; 4]) {
    let mut rules = as_of_now(world);
    let known = rules
        .uplinks
        .iter()
        .map(|(id, uplink)| (id, uplink.clone()));
    rules.uplinks = known.filter(|(id, _)| keep[id.0]).collect();
    let kept: UplinkSet = rules.uplinks.ids().collect();
    let mut machine = world.machine.clone();
    machine.reconfigure(&rules, kept, at(world.now()));
    for family in Family::ALL {
        assert_eq!(
            machine.active(family),
            world.machine.active(family).intersection(kept)
        );
        let cuts =
            |action: &Action| matches!(action, Action::Cut { family: of, .. } if *of == family);
        let actions: Vec<_> = core::iter::from_fn(|| machine.poll_action()).collect();
        // Without an active uplink nothing may be cut.
        assert!(
            !machine.active(family).is_empty() || !actions.iter().any(cuts),
            "{actions:?}"
        );
        for id in kept.iter() {
            if world.drill.is_none() {
                assert_eq!(machine.health(id, family), world.machine.health(id, family));
            }
            assert_eq!(machine.loss(id, family), world.machine.loss(id, family));
        }
    }
}

#[test]
fn removed_active_uplink_is_replaced_at_once() {
    let mut play = Play::started(rules(3));
    play.tick("+ +");
    // A new uplink is more preferred, but nothing is known about it.
    // It has the identity of the one that was removed.
    play.reload(&these(&[(A, 0), (C, 1)]), &[C]);
    assert_eq!(play.switches(), [(None, C, Cause::Startup)]);
    play.confirm(C);
    assert_eq!(play.cuts(), [(A, Cause::Startup)]);
    assert_eq!(play.machine.cut(C, Family::V4), None);
}

#[test]
fn removed_member_leaves_the_others_active() {
    let mut play = Play::started(ranked(&[0, 0, 1]));
    play.reload(&these(&[(B, 0), (C, 1)]), &[B, C]);
    assert_eq!((play.moves(), play.cuts()), (vec![], vec![]));
    assert_eq!(play.machine.active(Family::V4), only(B));
    assert_eq!(
        play.machine.cut(C, Family::V4),
        Some(Cause::Startup),
        "as before"
    );
}

#[test]
fn new_uplink_is_cut_like_any_standby() {
    let mut play = Play::started(rules(2));
    play.reload(&these(&[(A, 0), (C, 1), (B, 2)]), &[A, B]);
    assert_eq!(play.cuts(), [(C, Cause::Startup)]);
    assert_eq!(play.machine.cut(B, Family::V4), Some(Cause::Startup));
    play.tick("-+-");
    assert_eq!(
        (play.health(A), play.health(B), play.health(C)),
        (Health::Up, Health::Up, Health::Up)
    );
    play.ticks(2, "-+-");
    assert_eq!(play.switches(), [(Some(A), C, Cause::Failover)]);
}

#[test]
fn new_member_joins_by_rise_and_hold() {
    let mut play = Play::started(ranked(&[0, 1]));
    play.reload(&these(&[(A, 0), (C, 0), (B, 1)]), &[A, B]);
    assert_eq!(play.cuts(), [(C, Cause::Startup)]);
    play.ticks(59, "+++");
    assert_eq!(play.moves(), []);
    play.ticks(2, "+++");
    assert_eq!(play.moves(), [(only(A), set(&[A, C]), Cause::Failback)]);
}

#[test]
fn thresholds_count_from_the_next_round_on() {
    let mut play = Play::started(rules(2));
    play.ticks(2, "-+");
    let mut quick = rules(2);
    quick.uplinks[A].fall = 2;
    play.reload(&quick, &[A, B]);
    assert_eq!(play.health(A), Health::Up);
    play.tick("-+");
    assert_eq!(play.health(A), Health::Down);
}

#[test]
fn other_targets_begin_anew_but_keep_the_health() {
    let mut play = Play::started(rules(2));
    play.ticks(2, "-+");
    let mut more = rules(2);
    more.uplinks[A].targets = PerFamily::new(2, 0);
    play.reload(&more, &[A, B]);
    play.next[A] = 0;
    assert_eq!(
        (play.health(A), play.machine.loss(A, Family::V4)),
        (Health::Up, None)
    );
    play.ticks(2, "-+");
    assert_eq!(play.health(A), Health::Up);
    play.tick("-+");
    assert_eq!(play.health(A), Health::Down);

    more.uplinks[A].targets = PerFamily::both(0);
    play.reload(&more, &[A, B]);
    assert_eq!(play.health(A), Health::Unknown, "it is not probed any more");
}

#[test]
fn other_ranks_move_the_traffic_as_a_failback_does() {
    let mut play = Play::started(rules(2));
    play.ticks(60, "++");
    play.reload(&these(&[(B, 0), (A, 1)]), &[A, B]);
    assert_eq!(play.machine.active(Family::V4), only(A));
    play.tick("++");
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failback)]);
    play.confirm(B);
    assert!(play.machine.draining(A, Family::V4).is_some());

    // A pair that is no group any more goes back to its better half.
    let mut play = Play::started(ranked(&[0, 0]));
    play.ticks(60, "++");
    play.reload(&ranked(&[0, 1]), &[A, B]);
    play.tick("++");
    assert_eq!(play.moves(), [(set(&[A, B]), only(A), Cause::Failback)]);
}

#[test]
fn answer_to_a_switch_in_flight_is_taken_after_a_reload() {
    let mut play = Play::started(rules(3));
    play.ticks(3, "-++");
    play.reload(&these(&[(D, 0), (A, 1), (B, 2)]), &[A, B]);
    assert_eq!(play.switches(), []);
    play.confirm(B);
    assert_eq!(play.cuts().len(), 2, "the new one, and A");

    // The destination was removed: no answer is waited for.
    let mut play = Play::started(rules(3));
    play.ticks(3, "-++");
    play.reload(&these(&[(A, 0), (C, 1)]), &[A, C]);
    assert_eq!(play.switches(), [(Some(A), C, Cause::Failover)]);
}

#[test]
fn commands_and_graces_stay() {
    let mut play = Play::started(rules(3));
    play.tick("+++");
    assert_eq!(play.command(Command::Switch(C)), Ok(()));
    play.actions();
    play.confirm(C);
    let until = at(play.now + 60_000);
    let drill = Command::Drill { uplink: B, until };
    assert_eq!(play.command(drill), Ok(()));
    play.reload(&these(&[(B, 0), (C, 1)]), &[B, C]);
    assert_eq!(play.machine.drill(), Some((B, until)));
    assert_eq!(play.machine.manual_override(Family::V4), Some(C));
    assert_eq!(play.health(B), Health::Down);
    play.reload(&these(&[(C, 0)]), &[C]);
    assert_eq!(play.machine.drill(), None);

    let mut recovering = rules(2);
    recovering.uplinks[B].recover_interval = Some(Duration::from_secs(10));
    let mut play = Play::started(recovering.clone());
    play.ticks(3, "+-");
    let recover = |action: &Action| matches!(action, Action::Recover { .. });
    assert!(play.actions().iter().any(recover));
    let left = (B, recovering.uplinks[B].clone());
    recovering.uplinks = [left].into_iter().collect();
    play.reload(&recovering, &[B]);
    play.pass(8_000);
    assert!(!play.actions().iter().any(recover), "the interval goes on");
    play.pass(1_000);
    assert!(play.actions().iter().any(recover));
}
