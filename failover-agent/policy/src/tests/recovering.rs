//! The program that may bring a dead uplink back.

use super::*;

/// The grace is 10 s.
fn recovering(ranks: &[u32]) -> MachineConfig {
    let mut rules = ranked(ranks);
    for uplink in rules.uplinks.values_mut() {
        uplink.recover_interval = Some(Duration::from_secs(10));
    }
    rules
}

/// Recoveries since the last call.
fn recoveries(play: &mut Play) -> Vec<UplinkId> {
    let actions = play.actions();
    let recover = |action: &Action| match action {
        Action::Recover { uplink } => Some(*uplink),
        _ => None,
    };
    actions.iter().filter_map(recover).collect()
}

#[test]
fn recovery_comes_after_the_whole_failover_and_again_after_each_grace() {
    let mut play = Play::started(recovering(&[0, 1]));
    play.ticks(2, "-+");
    play.round(B, REPLY);
    play.round(A, Outcome::Lost);
    assert_eq!(recoveries(&mut play), [], "the switch is on its way");
    play.confirm(B);
    let actions = play.actions();
    let cut = actions
        .iter()
        .position(|action| matches!(action, Action::Cut { .. }));
    let recover = actions
        .iter()
        .position(|action| matches!(action, Action::Recover { .. }));
    assert!(
        cut < recover && recover == Some(actions.len() - 1),
        "{actions:?}"
    );
    play.pass(9_999);
    assert_eq!(recoveries(&mut play), []);
    play.pass(1);
    assert_eq!(recoveries(&mut play), [A]);
}

#[test]
fn grace_lasts_over_a_time_of_being_up() {
    let mut play = Play::started(recovering(&[0]));
    play.ticks(3, "-");
    assert_eq!(recoveries(&mut play), [A], "also without any other uplink");
    play.ticks(4, "+");
    assert_eq!(play.health(A), Health::Up);
    play.ticks(4, "-");
    assert_eq!(
        (play.health(A), recoveries(&mut play)),
        (Health::Down, vec![])
    );
    play.ticks(1, "-");
    assert_eq!(recoveries(&mut play), [A]);
}

#[test]
fn drill_and_blindness_are_no_reason() {
    let mut play = Play::started(recovering(&[0, 1]));
    play.tick("++");
    let until = at(play.now + 60_000);
    let drill = Command::Drill { uplink: A, until };
    assert_eq!(play.command(drill), Ok(()));
    assert_eq!(play.health(A), Health::Down);
    play.confirm(B);
    play.ticks(5, "+o");
    assert_eq!(recoveries(&mut play), []);
}

#[test]
fn one_family_that_works_is_reason_enough_not_to() {
    let mut dual = recovering(&[0]);
    dual.uplinks[A].targets = PerFamily::both(1);
    dual.uplinks[A].usable = PerFamily::both(true);
    let v6 = |play: &mut Play, round, outcome| {
        let (sent, target) = (at(play.now), TargetId(1));
        play.input(Input::Probe {
            uplink: A,
            family: Family::V6,
            round,
            sent,
            target,
            outcome,
        });
    };
    let mut play = Play::new(dual.clone());
    v6(&mut play, 0, REPLY);
    play.input(Input::Switched {
        family: Family::V6,
        to: only(A),
        confirmed: true,
    });
    play.ticks(5, "-");
    assert_eq!(recoveries(&mut play), []);
    for round in 1..=3 {
        v6(&mut play, round, Outcome::Lost);
    }
    assert_eq!(recoveries(&mut play), [A]);

    // A family that the uplink cannot carry has no say.
    dual.uplinks[A].usable = PerFamily::new(true, false);
    let mut play = Play::new(dual);
    play.tick("-");
    assert_eq!(recoveries(&mut play), [A]);
}

#[test]
fn uplink_that_starts_as_down_is_not_reset_at_once() {
    let mut found_down = recovering(&[0, 1]);
    found_down.uplinks[A].earlier = PerFamily::both(Health::Down);
    found_down.uplinks[B].carrier = false;
    let mut play = Play::new(found_down);
    play.ticks(10, "-");
    assert_eq!(recoveries(&mut play), [A, B], "ten seconds after the start");
}

#[test]
fn uplink_that_starts_as_down_is_recovered_although_nothing_happens() {
    let mut unplugged = recovering(&[0, 1]);
    unplugged.uplinks[A].carrier = false;
    let mut play = Play::new(unplugged);
    assert_eq!(play.machine.poll_timeout(), Some(at(10_000)));
    play.pass(10_000);
    assert_eq!(recoveries(&mut play), [A]);
}
