//! Failover, failback, confirmation.

use super::*;

#[test]
fn failover_to_the_best_proven_tells_when_and_why() {
    let mut play = Play::started(rules(3));
    play.ticks(2, "-++");
    assert_eq!(play.switches(), []);
    play.round(B, REPLY);
    play.pass(700);
    play.round(A, Outcome::Lost);
    let decided = at(play.now);
    let switch = Action::Switch(Switch {
        family: Family::V4,
        from: only(A),
        to: only(B),
        cause: Cause::Failover,
        detected: decided,
        decided,
    });
    assert!(play.actions().contains(&switch));
    assert_eq!(
        play.machine.active(Family::V4),
        only(A),
        "until it is confirmed"
    );
    play.ticks(3, "-++");
    assert_eq!(play.switches(), [], "one at a time");
    play.switched(C, true);
    assert_eq!(
        play.machine.active(Family::V4),
        only(A),
        "not the switch in flight"
    );
    play.confirm(B);
}

#[test]
fn carrier_loss_fails_over_at_once() {
    let mut play = Play::started(rules(2));
    play.input(Input::Carrier {
        uplink: A,
        up: false,
    });
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);
}

#[test]
fn nothing_changes_while_no_uplink_is_proven() {
    let mut play = Play::started(rules(2));
    play.ticks(20, "--");
    assert_eq!(
        play.notes()
            .into_iter()
            .filter(is_nowhere)
            .collect::<Vec<_>>(),
        [nowhere(only(A))]
    );
    play.ticks(4, "-+");
    let actions = play.actions();
    let came_up = play.machine.since(B, Family::V4);
    let detected = actions.iter().find_map(|action| match action {
        Action::Switch(Switch { to, detected, .. }) if *to == only(B) => Some(*detected),
        _ => None,
    });
    assert_eq!(detected, Some(came_up), "the fact that made it possible");
}

#[test]
fn blind_uplinks_are_neither_left_nor_taken() {
    let mut play = Play::started(rules(2));
    play.ticks(10, "o+");
    assert_eq!((play.health(A), play.switches()), (Health::Blind, vec![]));

    let mut play = Play::started(rules(3));
    play.ticks(3, "+o+");
    play.ticks(3, "-o+");
    assert_eq!(play.switches(), [(Some(A), C, Cause::Failover)]);

    let mut play = Play::started(rules(2));
    play.ticks(2, "-+");
    play.round(B, Outcome::Blind);
    play.tick("-");
    assert_eq!(
        (play.health(B), play.switches()),
        (Health::Up, vec![]),
        "one blind round is no proof"
    );
    play.tick("-+");
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);
}

#[test]
fn stale_proof_is_renewed_before_a_failover() {
    let mut play = Play::started(rules(2));
    play.ticks(2, "- ");
    play.round(A, Outcome::Lost);
    let probe_now = Action::ProbeNow {
        uplink: B,
        family: Family::V4,
    };
    let asks = |play: &mut Play| {
        play.actions()
            .into_iter()
            .filter(|action| *action == probe_now)
            .count()
    };
    assert_eq!(asks(&mut play), 1);
    play.pass(500);
    play.round(A, Outcome::Lost);
    assert_eq!(asks(&mut play), 0, "asked once");
    play.round(B, REPLY);
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);
}

#[test]
fn proof_must_be_younger_than_the_first_failure() {
    let mut slow = rules(2);
    slow.uplinks[B].interval = Duration::from_secs(60);
    let mut play = Play::started(slow);
    // B's last good round is recent as its rounds go, but A was fine then too: both may have died since.
    play.ticks(3, "-");
    let actions = play.actions();
    assert!(actions.contains(&Action::ProbeNow {
        uplink: B,
        family: Family::V4
    }));
    play.tick("--");
    assert_eq!(play.switches(), []);
    assert_eq!(play.health(B), Health::Up);
}

#[test]
fn better_one_is_waited_for_no_longer_than_its_timeout() {
    let start = || {
        let mut play = Play::started(rules(3));
        play.ticks(2, "- +");
        play.round(C, REPLY);
        play.round(A, Outcome::Lost);
        assert!(play.actions().contains(&Action::ProbeNow {
            uplink: B,
            family: Family::V4
        }));
        play
    };
    let mut play = start();
    play.pass(20);
    play.round(B, REPLY);
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);

    let mut play = start();
    play.pass(20);
    play.round(B, Outcome::Lost);
    assert_eq!(
        play.switches(),
        [(Some(A), C, Cause::Failover)],
        "the answer was no"
    );

    let mut play = start();
    play.pass(999);
    assert_eq!(play.switches(), []);
    play.pass(1);
    assert_eq!(
        play.switches(),
        [(Some(A), C, Cause::Failover)],
        "no answer"
    );
}

#[test]
fn failback_waits_for_rise_and_hold() {
    let mut play = Play::started(rules(2));
    play.ticks(3, "-+");
    play.confirm(B);
    play.ticks(30, "++");
    play.tick("-+");
    play.actions();
    let until = at(play.now) + Duration::from_secs(60);
    play.ticks(59, "++");
    play.round(A, REPLY);
    play.pass(999);
    let actions = play.actions();
    assert_eq!(
        actions,
        [Action::Report(Event::Holding {
            uplink: A,
            family: Family::V4,
            until
        })],
        "reported once"
    );
    play.pass(1);
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failback)]);
}

#[test]
fn first_good_round_is_not_enough_for_a_failback() {
    let mut late = rules(2);
    late.uplinks[A].usable = PerFamily::both(false);
    late.uplinks[A].hold = Duration::ZERO;
    let mut play = Play::new(late);
    play.tick(" +");
    play.confirm(B);
    play.input(Input::Usable {
        uplink: A,
        family: Family::V4,
        usable: true,
    });
    play.actions();
    play.tick("++");
    assert_eq!(play.health(A), Health::Up, "its first round ever");
    play.ticks(2, "++");
    assert_eq!(play.switches(), []);
    play.tick("++");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failback)]);
}

#[test]
fn hold_ends_by_the_clock_and_a_stale_proof_is_renewed() {
    let mut short = rules(2);
    short.uplinks[A].hold = Duration::from_millis(3500);
    let mut play = Play::started(short);
    play.ticks(3, "-+");
    play.confirm(B);
    play.ticks(3, "++");
    play.actions();
    play.tick("++");
    assert_eq!(
        play.switches(),
        [(Some(B), A, Cause::Failback)],
        "half a second after the fourth round"
    );
    play.switched(A, false);
    play.pass(1000);
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failback)]);
    play.switched(A, false);
    play.pass(2000);
    let actions = play.actions();
    assert_eq!(
        actions,
        [Action::ProbeNow {
            uplink: A,
            family: Family::V4
        }],
        "no round for some seconds"
    );
    play.tick("+");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failback)]);
}

#[test]
fn down_active_does_not_wait_for_the_hold_time_of_a_better_one() {
    let mut play = Play::started(rules(2));
    play.ticks(3, "-+");
    play.confirm(B);
    play.ticks(4, "++");
    play.actions();
    play.ticks(3, "+-");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failover)]);
}

#[test]
fn failbacks_of_several_uplinks_are_a_hold_time_apart() {
    let mut play = Play::started(rules(3));
    play.ticks(3, "--+");
    play.confirm(C);
    play.actions();
    play.ticks(10, "-++");
    play.ticks(51, "+++");
    assert_eq!(play.switches(), [(Some(C), B, Cause::Failback)]);
    play.confirm(B);
    play.ticks(59, "+++");
    assert_eq!(play.switches(), [], "A has been good for a minute long ago");
    play.ticks(2, "+++");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failback)]);
}

#[test]
fn unconfirmed_switch_is_tried_again_ever_less_often() {
    let mut play = Play::started(rules(2));
    play.ticks(3, "-+");
    play.actions();
    for wait in [1, 2, 4, 8, 16, 30, 30] {
        play.switched(B, false);
        assert_eq!(play.machine.active(Family::V4), only(A));
        play.ticks(wait - 1, "-+");
        assert_eq!(play.switches(), [], "{wait} s");
        play.tick("-+");
        assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)], "{wait} s");
    }
    play.switched(B, false);
    play.ticks(4, "++");
    play.ticks(60, "+ ");
    assert_eq!(play.switches(), [], "the reason is gone");
}

#[test]
fn unconfirmed_switch_does_not_hold_up_others() {
    let mut play = Play::started(rules(3));
    play.ticks(3, "-++");
    play.switched(B, false);
    assert_eq!(
        play.switches(),
        [(Some(A), B, Cause::Failover), (Some(A), C, Cause::Failover)]
    );
    play.confirm(C);
}

#[test]
fn unusable_active_is_left_and_comes_back_by_rise() {
    let mut play = Play::started(rules(2));
    let usable = |usable| Input::Usable {
        uplink: A,
        family: Family::V4,
        usable,
    };
    play.input(usable(false));
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);
    play.confirm(B);
    play.input(usable(true));
    play.ticks(3, "++");
    play.actions();
    play.round(B, Outcome::Lost);
    play.round(B, Outcome::Lost);
    play.round(B, Outcome::Lost);
    assert_eq!(play.switches(), [], "three good rounds are not rise");
    play.tick("+");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failover)]);
}
