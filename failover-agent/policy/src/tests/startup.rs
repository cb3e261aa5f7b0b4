//! The start-up check, adoption, and the family that follows.

use super::*;

#[test]
fn start_waits_for_the_better_ones_only() {
    let mut play = Play::new(rules(3));
    play.tick(" ++");
    assert_eq!(play.switches(), [], "A may still turn out to be Up");
    play.tick("-");
    assert_eq!(play.switches(), [(None, B, Cause::Startup)]);

    let mut play = Play::new(rules(3));
    play.tick("+");
    assert_eq!(
        play.switches(),
        [(None, A, Cause::Startup)],
        "whatever B and C are"
    );

    let mut rules = rules(3);
    rules.uplinks[A].usable = PerFamily::both(false);
    rules.uplinks[B].targets = PerFamily::both(0);
    let mut play = Play::new(rules);
    play.round(C, REPLY);
    assert_eq!(
        play.switches(),
        [(None, C, Cause::Startup)],
        "A cannot be used, B is not probed"
    );
}

#[test]
fn start_with_all_down_waits_for_the_first_to_come_up() {
    let mut play = Play::new(rules(2));
    play.tick("--");
    play.ticks(10, "--");
    let notes = play.notes();
    assert_eq!(
        notes
            .iter()
            .filter(|note| is_nowhere(note))
            .collect::<Vec<_>>(),
        [&nowhere(UplinkSet::NONE)]
    );
    play.ticks(3, "-+");
    assert_eq!(play.switches(), []);
    play.tick("-+");
    assert_eq!(play.switches(), [(None, B, Cause::Startup)]);
}

#[test]
fn adopted_uplink_is_switched_to_once() {
    let mut adopted = rules(2);
    adopted.active = PerFamily::new(only(B), UplinkSet::NONE);
    let mut play = Play::new(adopted.clone());
    assert_eq!(play.machine.active(Family::V4), only(B));
    play.tick("-+");
    assert_eq!(
        play.switches(),
        [(Some(B), B, Cause::Startup)],
        "so that routes and gates are made"
    );
    play.confirm(B);
    play.ticks(3, "-+");
    assert_eq!(play.switches(), []);

    let mut play = Play::new(adopted.clone());
    play.tick("+ ");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Startup)]);

    // An adopted uplink that cannot be probed is not left for a worse one.
    adopted.active = PerFamily::new(only(A), UplinkSet::NONE);
    let mut play = Play::new(adopted);
    play.ticks(5, "o+");
    assert_eq!(play.switches(), []);
    play.ticks(3, "-+");
    assert_eq!(play.switches(), [(Some(A), B, Cause::Startup)]);
}

#[test]
fn family_without_targets_follows() {
    let follow = |to, from| {
        Action::Switch(Switch {
            family: Family::V6,
            from: only(from),
            to: only(to),
            cause: Cause::Follow,
            detected: at(3000),
            decided: at(3000),
        })
    };
    let mut dual = rules(3);
    for id in [A, C] {
        dual.uplinks[id].usable = PerFamily::both(true);
    }
    dual.active = PerFamily::new(UplinkSet::NONE, only(A));
    let mut play = Play::new(dual);
    let switched_v6 = |to| Input::Switched {
        family: Family::V6,
        to: only(to),
        confirmed: true,
    };
    play.pass(3000);
    play.round(A, REPLY);
    play.round(B, REPLY);
    play.round(C, REPLY);
    play.actions();
    play.confirm(A);
    let mut actions = play.actions();
    actions.retain(|action| matches!(action, Action::Switch(_)));
    assert_eq!(actions, [follow(A, A)], "once, though adopted");
    play.input(switched_v6(A));

    // B cannot carry IPv6: nothing changes there. C can.
    play.ticks(3, "-++");
    play.confirm(B);
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);
    assert_eq!(play.machine.active(Family::V6), only(A));
    play.ticks(3, "--+");
    play.confirm(C);
    assert_eq!(
        play.switches(),
        [(Some(B), C, Cause::Failover), (Some(A), C, Cause::Follow)]
    );
    play.input(switched_v6(C));
    assert_eq!(play.machine.active(Family::V6), only(C));
}

#[test]
fn what_was_down_before_a_restart_has_to_come_back_as_usual() {
    let mut again = rules(2);
    again.uplinks[A].earlier = PerFamily::new(Health::Down, Health::Unknown);
    again.uplinks[A].hold = Duration::from_secs(10);
    again.active = PerFamily::new(only(B), UplinkSet::NONE);
    let mut play = Play::new(again);
    assert_eq!(play.health(A), Health::Down);
    play.tick("++");
    assert_eq!(play.switches(), [(Some(B), B, Cause::Startup)], "at once");
    play.confirm(B);
    play.ticks(8, "++");
    assert_eq!(play.switches(), []);
    play.ticks(2, "++");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failback)]);
}

#[test]
fn uplink_without_carrier_is_not_waited_for() {
    let mut unplugged = rules(2);
    unplugged.uplinks[A].carrier = false;
    unplugged.uplinks[A].hold = Duration::ZERO;
    let mut play = Play::new(unplugged);
    assert_eq!(play.health(A), Health::Down);
    play.tick(" +");
    assert_eq!(play.switches(), [(None, B, Cause::Startup)]);
    play.confirm(B);
    play.input(Input::Carrier {
        uplink: A,
        up: true,
    });
    play.ticks(3, "++");
    assert_eq!(play.switches(), []);
    play.tick("++");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failback)]);
}

#[test]
fn other_findings_of_an_earlier_run_are_found_anew() {
    for earlier in [Health::Up, Health::Blind, Health::Unknown] {
        let mut again = rules(1);
        again.uplinks[A].earlier = PerFamily::both(earlier);
        assert_eq!(Play::new(again).health(A), Health::Unknown);
    }
}

#[test]
fn what_was_chosen_by_hand_before_a_restart_stays_chosen() {
    let mut overridden = rules(2);
    overridden.active = PerFamily::new(only(B), UplinkSet::NONE);
    overridden.manual_override = PerFamily::new(Some(B), None);
    let mut play = Play::new(overridden.clone());
    play.tick("+ ");
    assert_eq!(play.switches(), [], "B may still turn out to be Up");
    play.tick("++");
    assert_eq!(play.switches(), [(Some(B), B, Cause::Startup)]);
    play.confirm(B);
    play.ticks(20, "++");
    assert_eq!(play.switches(), [], "no failback");
    assert_eq!(play.machine.manual_override(Family::V4), Some(B));

    let mut play = Play::new(overridden);
    play.tick("+-");
    assert_eq!(play.switches(), [(Some(B), A, Cause::Startup)]);
    assert_eq!(
        play.machine.manual_override(Family::V4),
        None,
        "Down, it is forgotten"
    );
}
