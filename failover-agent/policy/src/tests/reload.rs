//! Other rules for a machine that runs.

use proptest::prelude::*;

use super::scripts::{config, script};
use super::world::World;
use super::*;

impl Play {
    /// `old`: which uplink of before each one is.
    fn reload(&mut self, rules: &MachineConfig, old: &[Option<UplinkId>]) {
        self.actions();
        let next = |old: &Option<UplinkId>| old.map_or(0, |old| self.next[old.0]);
        self.next = old.iter().map(next).collect();
        self.targets = rules
            .uplinks
            .iter()
            .map(|uplink| uplink.targets.v4)
            .collect();
        self.machine.reconfigure(rules, old, at(self.now));
    }
}

/// The rules as a reload would give them: facts are those of now.
fn as_of_now(world: &World) -> MachineConfig {
    let mut rules = world.rules.clone();
    for (id, uplink) in rules.uplinks.iter_mut().enumerate() {
        let of = |family: Family| &world.references[family][id];
        uplink.carrier = of(Family::V4).carrier;
        uplink.usable = PerFamily::from_fn(|family| of(family).usable);
    }
    rules
}

fn all(uplinks: usize) -> Vec<Option<UplinkId>> {
    (0..uplinks).map(|id| Some(UplinkId(id))).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn unchanged_rules_change_nothing(script in script()) {
        World::play(&script, |world| {
            if world.now() % 5 != 0 {
                return;
            }
            // What time alone changes, a reload changes too.
            let mut before = world.machine.clone();
            before.handle_timeout(at(world.now()));
            while before.poll_action().is_some() {}
            let mut machine = before.clone();
            let mut rules = as_of_now(world);
            rules.active = PerFamily::both(UplinkSet::NONE);
            rules.drill = None;
            for uplink in &mut rules.uplinks {
                uplink.earlier = PerFamily::both(Health::Down);
            }
            machine.reconfigure(&rules, &all(world.rules.uplinks.len()), at(world.now()));
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
    let uplinks = (0..world.rules.uplinks.len()).map(UplinkId);
    let kept: Vec<UplinkId> = uplinks.filter(|id| keep[id.0]).collect();
    let now_as = |old: UplinkSet| -> UplinkSet {
        let place = |id| kept.iter().position(|kept| *kept == id).map(UplinkId);
        old.iter().filter_map(place).collect()
    };
    let mut rules = as_of_now(world);
    let known = |id: &UplinkId| rules.uplinks[id.0].clone();
    rules.uplinks = kept.iter().map(known).collect();
    let old: Vec<_> = kept.iter().copied().map(Some).collect();
    let mut machine = world.machine.clone();
    machine.reconfigure(&rules, &old, at(world.now()));
    for family in Family::ALL {
        assert_eq!(machine.active(family), now_as(world.machine.active(family)));
        let cuts =
            |action: &Action| matches!(action, Action::Cut { family: of, .. } if *of == family);
        let actions: Vec<_> = core::iter::from_fn(|| machine.poll_action()).collect();
        // Without an active uplink nothing may be cut in favour of one.
        assert!(
            !machine.active(family).is_empty() || !actions.iter().any(cuts),
            "{actions:?}"
        );
        for (new, old) in kept.iter().enumerate() {
            let id = UplinkId(new);
            if world.drill.is_none() {
                assert_eq!(
                    machine.health(id, family),
                    world.machine.health(*old, family)
                );
            }
            assert_eq!(machine.loss(id, family), world.machine.loss(*old, family));
        }
    }
}

#[test]
fn removed_active_uplink_is_replaced_at_once() {
    let mut play = Play::started(rules(3));
    play.tick("+ +");
    // A new one is more preferred, but nothing is known of it.
    play.reload(&rules(2), &[None, Some(C)]);
    assert_eq!(play.switches(), [(None, B, Cause::Startup)]);
    play.confirm(B);
    assert_eq!(play.cuts(), [(A, Cause::Startup)]);
    assert_eq!(play.machine.cut(B, Family::V4), None);
}

#[test]
fn removed_member_leaves_the_others_active() {
    let mut play = Play::started(ranked(&[0, 0, 1]));
    play.reload(&ranked(&[0, 1]), &[Some(B), Some(C)]);
    assert_eq!((play.moves(), play.cuts()), (vec![], vec![]));
    assert_eq!(play.machine.active(Family::V4), only(A));
    assert_eq!(
        play.machine.cut(B, Family::V4),
        Some(Cause::Startup),
        "as C was"
    );
}

#[test]
fn new_uplink_is_cut_like_any_standby() {
    let mut play = Play::started(rules(2));
    play.reload(&rules(3), &[Some(A), None, Some(B)]);
    assert_eq!(play.cuts(), [(B, Cause::Startup)]);
    assert_eq!(play.machine.cut(C, Family::V4), Some(Cause::Startup));
    play.tick("-+-");
    assert_eq!(
        (play.health(A), play.health(B), play.health(C)),
        (Health::Up, Health::Up, Health::Up)
    );
    play.ticks(2, "-+-");
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);
}

#[test]
fn new_member_joins_by_rise_and_hold() {
    let mut play = Play::started(ranked(&[0, 1]));
    play.reload(&ranked(&[0, 0, 1]), &[Some(A), None, Some(B)]);
    assert_eq!(play.cuts(), [(B, Cause::Startup)]);
    play.ticks(59, "+++");
    assert_eq!(play.moves(), []);
    play.ticks(2, "+++");
    assert_eq!(play.moves(), [(only(A), set(&[A, B]), Cause::Failback)]);
}

#[test]
fn thresholds_count_from_the_next_round_on() {
    let mut play = Play::started(rules(2));
    play.ticks(2, "-+");
    let mut quick = rules(2);
    quick.uplinks[0].fall = 2;
    play.reload(&quick, &all(2));
    assert_eq!(play.health(A), Health::Up);
    play.tick("-+");
    assert_eq!(play.health(A), Health::Down);
}

#[test]
fn other_targets_begin_anew_but_keep_the_health() {
    let mut play = Play::started(rules(2));
    play.ticks(2, "-+");
    let mut more = rules(2);
    more.uplinks[0].targets = PerFamily::new(2, 0);
    play.reload(&more, &all(2));
    play.next[0] = 0;
    assert_eq!(
        (play.health(A), play.machine.loss(A, Family::V4)),
        (Health::Up, None)
    );
    play.ticks(2, "-+");
    assert_eq!(play.health(A), Health::Up);
    play.tick("-+");
    assert_eq!(play.health(A), Health::Down);

    more.uplinks[0].targets = PerFamily::both(0);
    play.reload(&more, &all(2));
    assert_eq!(play.health(A), Health::Unknown, "it is not probed any more");
}

#[test]
fn other_ranks_move_the_traffic_as_a_failback_does() {
    let mut play = Play::started(rules(2));
    play.ticks(60, "++");
    play.reload(&rules(2), &[Some(B), Some(A)]);
    assert_eq!(play.machine.active(Family::V4), only(B));
    play.tick("++");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failback)]);
    play.confirm(A);
    assert!(play.machine.draining(B, Family::V4).is_some());

    // A pair that is one no more goes back to its better half.
    let mut play = Play::started(ranked(&[0, 0]));
    play.ticks(60, "++");
    play.reload(&ranked(&[0, 1]), &all(2));
    play.tick("++");
    assert_eq!(play.moves(), [(set(&[A, B]), only(A), Cause::Failback)]);
}

#[test]
fn answer_to_a_switch_in_flight_is_taken_in_the_new_numbers() {
    let mut play = Play::started(rules(3));
    play.ticks(3, "-++");
    play.reload(&rules(3), &[None, Some(A), Some(B)]);
    assert_eq!(play.switches(), []);
    play.confirm(C);
    assert_eq!(play.cuts().len(), 2, "the new one, and A");

    // The destination is gone: there is no answer to wait for.
    let mut play = Play::started(rules(3));
    play.ticks(3, "-++");
    play.reload(&rules(2), &[Some(A), Some(C)]);
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);
}

#[test]
fn orders_and_graces_move_along() {
    let mut play = Play::started(rules(3));
    play.tick("+++");
    assert_eq!(play.command(Command::Switch(C)), Ok(()));
    play.actions();
    play.confirm(C);
    let until = at(play.now + 60_000);
    let drill = Command::Drill { uplink: B, until };
    assert_eq!(play.command(drill), Ok(()));
    play.reload(&rules(2), &[Some(B), Some(C)]);
    assert_eq!(play.machine.drill(), Some((A, until)));
    assert_eq!(play.machine.pinned(Family::V4), Some(B));
    assert_eq!(play.health(A), Health::Down);
    play.reload(&rules(1), &[Some(B)]);
    assert_eq!(play.machine.drill(), None);

    let mut resetting = rules(2);
    resetting.uplinks[1].reset_grace = Some(Duration::from_secs(10));
    let mut play = Play::started(resetting.clone());
    play.ticks(3, "+-");
    let reset = |action: &Action| matches!(action, Action::Reset { .. });
    assert!(play.actions().iter().any(reset));
    resetting.uplinks.remove(0);
    play.reload(&resetting, &[Some(B)]);
    play.pass(8_000);
    assert!(!play.actions().iter().any(reset), "the grace goes on");
    play.pass(1_000);
    assert!(play.actions().iter().any(reset));
}
