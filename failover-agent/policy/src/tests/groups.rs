//! Balance groups: several uplinks are active together.

use super::*;

/// A and B are a group, C is their backup, D the backup's backup.
fn pair() -> MachineConfig {
    ranked(&[0, 0, 1, 2])
}

const D: UplinkId = UplinkId(3);

fn failover(from: &[UplinkId], to: &[UplinkId]) -> (UplinkSet, UplinkSet, Cause) {
    (set(from), set(to), Cause::Failover)
}

fn failback(from: &[UplinkId], to: &[UplinkId]) -> (UplinkSet, UplinkSet, Cause) {
    (set(from), set(to), Cause::Failback)
}

/// A has left the pair.
fn halved() -> Play {
    let mut play = Play::started(pair());
    play.ticks(3, "-+++");
    assert_eq!(play.moves(), [failover(&[A, B], &[B])]);
    play.confirm(B);
    assert_eq!(play.cuts(), [(A, Cause::Failover)], "and no other");
    play
}

#[test]
fn start_waits_for_the_whole_group() {
    let mut play = Play::new(pair());
    play.tick(" +++");
    assert_eq!(play.moves(), [], "A may still turn out to be Up");
    play.round(A, REPLY);
    let all = (UplinkSet::NONE, set(&[A, B]), Cause::Startup);
    assert_eq!(play.moves(), [all]);

    let mut play = Play::new(pair());
    play.tick("-+  ");
    assert_eq!(play.moves(), [(UplinkSet::NONE, only(B), Cause::Startup)]);
}

#[test]
fn member_that_goes_down_leaves_alone_and_joins_again() {
    let mut play = halved();
    play.ticks(59, "++++");
    play.round(A, REPLY);
    assert_eq!(play.moves(), [], "not before the hold time is over");
    play.ticks(2, "++++");
    assert_eq!(play.moves(), [failback(&[B], &[A, B])]);
    play.confirm_all(set(&[A, B]));
    assert_eq!(play.cuts(), []);
    for id in [A, B, C, D] {
        assert_eq!(play.machine.draining(id, Family::V4), None);
    }
    assert_eq!(play.machine.cut(A, Family::V4), None);
}

#[test]
fn member_is_left_only_in_favour_of_a_proven_one() {
    let mut play = Play::started(pair());
    play.ticks(2, "-++ ");
    play.round(B, Outcome::Lost);
    play.tick("- + ");
    assert_eq!(play.moves(), [], "B has just lost a round");
    assert_eq!(play.health(A), Health::Down);
    play.tick("-++ ");
    assert_eq!(play.moves(), [failover(&[A, B], &[B])]);
}

#[test]
fn members_that_have_not_failed_stay() {
    let mut play = Play::started(ranked(&[0, 0, 0]));
    play.ticks(3, "+o+");
    assert_eq!(play.health(B), Health::Blind);
    play.ticks(3, "-o+");
    assert_eq!(play.moves(), [failover(&[A, B, C], &[B, C])]);
}

#[test]
fn group_is_down_when_all_members_are() {
    let mut play = Play::started(pair());
    play.ticks(2, "--++");
    play.round(C, REPLY);
    play.round(A, Outcome::Lost);
    assert_eq!(play.moves(), [], "B is not Down, but nothing proves it");
    play.round(B, Outcome::Lost);
    assert_eq!(play.moves(), [failover(&[A, B], &[C])]);
    play.confirm(C);
    assert_eq!(play.cuts(), [(A, Cause::Failover), (B, Cause::Failover)]);

    // Together again, if both have been good long enough; the others keep their time.
    play.ticks(61, "++++");
    assert_eq!(play.moves(), [failback(&[C], &[A, B])]);
    play.confirm_all(set(&[A, B]));
    assert_eq!(play.cuts(), []);
    assert!(play.machine.draining(C, Family::V4).is_some());
}

#[test]
fn failback_takes_those_that_are_held_and_the_others_join() {
    let mut play = Play::started(pair());
    play.ticks(3, "--++");
    play.confirm(C);
    play.actions();
    play.ticks(10, "+-++");
    play.ticks(51, "++++");
    assert_eq!(play.moves(), [failback(&[C], &[A])]);
    play.confirm(A);
    play.ticks(8, "++++");
    assert_eq!(play.moves(), []);
    play.ticks(2, "++++");
    assert_eq!(play.moves(), [failback(&[A], &[A, B])], "its own hold time");
}

#[test]
fn joining_does_not_put_off_a_failback() {
    let mut play = Play::started(ranked(&[0, 1, 1]));
    play.ticks(3, "---");
    play.ticks(4, "-+-");
    assert_eq!(play.moves(), [failover(&[A], &[B])]);
    play.confirm(B);
    play.ticks(10, "-++");
    play.ticks(50, "+++");
    assert_eq!(play.moves(), [failback(&[B], &[B, C])]);
    play.confirm_all(set(&[B, C]));
    play.ticks(11, "+++");
    assert_eq!(play.moves(), [failback(&[B, C], &[A])]);
}

#[test]
fn set_that_cannot_be_confirmed_is_tried_one_by_one() {
    let mut play = Play::started(ranked(&[0, 1, 1, 2]));
    play.ticks(60, "++++");
    play.ticks(3, "-+++");
    assert_eq!(play.moves(), [failover(&[A], &[B, C])]);
    play.answer(set(&[B, C]), false);
    assert_eq!(play.moves(), [failover(&[A], &[B])], "at once");
    play.switched(B, false);
    assert_eq!(play.moves(), [failover(&[A], &[C])], "B is passed over");
    play.confirm(C);
    play.tick("-+++");
    assert_eq!(
        play.moves(),
        [failback(&[C], &[B, C])],
        "B was good all along"
    );
    play.answer(set(&[B, C]), false);
    play.tick("-+++");
    assert_eq!(play.moves(), [], "ever less often");
    play.tick("-+++");
    assert_eq!(play.moves(), [failback(&[C], &[B, C])]);
}

#[test]
fn leaving_that_is_not_confirmed_is_tried_again() {
    let mut play = Play::started(pair());
    play.ticks(3, "-+++");
    play.actions();
    play.switched(B, false);
    assert_eq!(play.moves(), []);
    play.tick("-+++");
    assert_eq!(play.moves(), [failover(&[A, B], &[B])], "after a second");
}

#[test]
fn pin_is_alone_and_auto_gives_the_group_back() {
    let mut play = Play::started(pair());
    play.round(B, REPLY);
    assert_eq!(play.command(Command::Switch(B)), Ok(()));
    assert_eq!(play.moves(), [(set(&[A, B]), only(B), Cause::Manual)]);
    play.confirm(B);
    assert_eq!(play.cuts(), [(A, Cause::Manual)]);
    play.ticks(100, "++++");
    assert_eq!(play.moves(), []);
    assert_eq!(play.command(Command::Auto), Ok(()));
    assert_eq!(play.moves(), [failback(&[B], &[A, B])]);
}

#[test]
fn member_in_a_drill_leaves() {
    let mut play = Play::started(pair());
    play.tick("++++");
    let until = at(play.now + 5000);
    let drill = Command::Drill { uplink: A, until };
    assert_eq!(play.command(drill), Ok(()));
    assert_eq!(play.moves(), [failover(&[A, B], &[B])]);
    play.confirm(B);
    assert_eq!(play.cuts(), [(A, Cause::Failover)]);
    play.ticks(64, "++++");
    assert_eq!(play.moves(), [], "the drill counts as being Down");
    play.ticks(2, "++++");
    assert_eq!(play.moves(), [failback(&[B], &[A, B])]);
}

#[test]
fn adopted_member_that_cannot_be_probed_stays() {
    let mut rules = pair();
    rules.active = PerFamily::new(set(&[A, B]), UplinkSet::NONE);
    let mut play = Play::new(rules);
    play.ticks(2, "o +");
    play.tick("o++");
    let both = set(&[A, B]);
    assert_eq!(play.moves(), [(both, both, Cause::Startup)]);
}

#[test]
fn follower_takes_who_can_carry_it() {
    let mut dual = pair();
    for id in [A, B, C] {
        dual.uplinks[id].usable = PerFamily::both(true);
    }
    dual.uplinks[B].usable = PerFamily::new(true, false);
    let mut play = Play::new(dual);
    let follow = |play: &mut Play, to: &[UplinkId]| {
        let v6 = |action| match action {
            Action::Switch(Switch {
                family: Family::V6,
                to,
                ..
            }) => Some(to),
            _ => None,
        };
        let switches: Vec<_> = play.actions().into_iter().filter_map(v6).collect();
        assert_eq!(switches, [set(to)]);
        play.input(Input::Switched {
            family: Family::V6,
            to: set(to),
            confirmed: true,
        });
    };
    play.tick("++++");
    play.confirm_all(set(&[A, B]));
    follow(&mut play, &[A]);
    play.input(Input::Usable {
        uplink: B,
        family: Family::V6,
        usable: true,
    });
    follow(&mut play, &[A, B]);
    play.ticks(3, "-+++");
    play.confirm(B);
    follow(&mut play, &[B]);
    assert_eq!(play.machine.cut(A, Family::V6), Some(Cause::Failover));
    play.ticks(3, "--++");
    play.confirm(C);
    follow(&mut play, &[C]);
}
