//! Manual overrides, and drills.

use super::*;

fn drill(uplink: UplinkId, until: u64) -> Command {
    Command::Drill {
        uplink,
        until: at(until),
    }
}

fn no_other() -> Result<(), Refusal> {
    Err(Refusal::NoOther { family: Family::V4 })
}

#[test]
fn chosen_uplink_stays_active_until_auto() {
    let mut play = Play::started(rules(3));
    assert_eq!(play.command(Command::Switch(C)), Ok(()));
    // C was not probed for a while: it must prove itself first.
    play.tick("+++");
    assert_eq!(play.switches(), [(Some(A), C, Cause::Manual)]);
    play.confirm(C);
    assert_eq!(play.cuts(), [(A, Cause::Manual)], "to a worse one: at once");
    play.ticks(100, "+++");
    assert_eq!(play.switches(), []);
    assert_eq!(play.machine.manual_override(Family::V4), Some(C));
    assert_eq!(play.command(Command::Auto), Ok(()));
    assert_eq!(play.switches(), [(Some(C), A, Cause::Failback)]);
}

#[test]
fn choice_of_a_better_one_drains() {
    let mut play = Play::started(rules(2));
    play.ticks(3, "-+");
    play.confirm(B);
    play.ticks(4, "++");
    play.actions();
    assert_eq!(
        play.command(Command::Switch(A)),
        Ok(()),
        "whatever the hold time"
    );
    assert_eq!(play.switches(), [(Some(B), A, Cause::Manual)]);
    play.confirm(A);
    assert_eq!(play.cuts(), []);
    assert!(play.machine.draining(B, Family::V4).is_some());
}

#[test]
fn chosen_uplink_that_goes_down_is_left_and_forgotten() {
    let mut play = Play::started(rules(2));
    play.tick("++");
    assert_eq!(play.command(Command::Switch(B)), Ok(()));
    play.actions();
    play.confirm(B);
    play.ticks(2, "+-");
    play.round(A, REPLY);
    play.round(B, Outcome::Lost);
    let actions = play.actions();
    let released = Action::Report(Event::Released {
        uplink: B,
        family: Family::V4,
    });
    assert!(actions.contains(&released), "{actions:?}");
    assert_eq!(play.machine.manual_override(Family::V4), None);
    play.confirm(A);
    play.ticks(100, "++");
    assert_eq!(play.switches(), []);
}

#[test]
fn what_is_not_up_cannot_be_chosen() {
    let mut play = Play::started(rules(2));
    play.ticks(3, "+-");
    let refused = Err(Refusal::NotUp {
        health: Health::Down,
        drill: false,
    });
    assert_eq!(play.command(Command::Switch(B)), refused);
    assert_eq!(play.command(Command::Switch(C)), Err(Refusal::Unknown));
    assert_eq!(play.machine.manual_override(Family::V4), None);
}

#[test]
fn drill_fails_over_and_back() {
    let mut quick = rules(2);
    quick.uplinks[A].hold = Duration::from_secs(2);
    let mut play = Play::started(quick);
    play.tick("++");
    let end = play.now + 10_000;
    assert_eq!(play.command(drill(A, end)), Ok(()));
    assert_eq!(play.health(A), Health::Down);
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);
    play.confirm(B);
    assert_eq!(play.cuts(), [(A, Cause::Failover)]);
    let refused = Err(Refusal::NotUp {
        health: Health::Down,
        drill: true,
    });
    assert_eq!(play.command(Command::Switch(A)), refused);
    play.ticks(10, "++");
    assert_eq!(play.health(A), Health::Up, "by itself");
    assert_eq!(play.machine.drill(), None);
    assert_eq!(play.switches(), [], "the hold time begins");
    play.ticks(2, "++");
    play.round(A, REPLY);
    assert_eq!(play.switches(), [(Some(B), A, Cause::Failback)]);
}

#[test]
fn drill_needs_another_uplink_that_is_up() {
    let mut play = Play::started(rules(2));
    play.ticks(3, "+-");
    assert_eq!(play.command(drill(A, 60_000)), no_other());
    assert_eq!(play.health(A), Health::Up);
    // One that is not in use may be drilled.
    assert_eq!(play.command(drill(B, 60_000)), Ok(()));
    play.ticks(4, "++");
    assert_eq!(play.health(B), Health::Down);
    // The drill that would be replaced is no obstacle.
    assert_eq!(play.command(drill(A, 60_000)), Ok(()));
    assert_eq!((play.health(A), play.health(B)), (Health::Down, Health::Up));
}

#[test]
fn drill_ends_when_the_last_other_uplink_goes_down() {
    let mut play = Play::started(rules(2));
    play.tick("++");
    assert_eq!(play.command(drill(A, 600_000)), Ok(()));
    play.actions();
    play.confirm(B);
    play.ticks(3, "+-");
    let actions = play.actions();
    let ended = Action::Report(Event::DrillEnded {
        uplink: A,
        alone: Some(Family::V4),
    });
    assert!(actions.contains(&ended), "{actions:?}");
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Switch(Switch { to, .. }) if *to == only(A)))
    );
}

#[test]
fn drills_are_replaced_and_ended_by_hand() {
    for end in [drill(B, 0), Command::Auto] {
        let mut play = Play::started(rules(3));
        play.tick("+++");
        assert_eq!(play.command(drill(B, 600_000)), Ok(()));
        assert_eq!(play.command(drill(B, 700_000)), Ok(()));
        assert_eq!(play.machine.drill(), Some((B, at(700_000))));
        assert_eq!(play.command(end), Ok(()));
        assert_eq!((play.machine.drill(), play.health(B)), (None, Health::Up));
    }
}

#[test]
fn drill_survives_a_restart() {
    let mut again = rules(2);
    again.drill = Some((A, at(10_000)));
    let mut play = Play::new(again.clone());
    play.tick("++");
    assert_eq!(play.switches(), [(None, B, Cause::Startup)]);
    play.confirm(B);
    play.pass(10_000);
    assert_eq!(play.health(A), Health::Up);

    // Without another uplink that is Up, the drill ends as soon as that is known.
    let mut play = Play::new(again);
    play.tick("+");
    assert_eq!(play.switches(), [], "B is not known yet");
    play.tick(" -");
    assert_eq!(play.switches(), [(None, A, Cause::Startup)]);
}
