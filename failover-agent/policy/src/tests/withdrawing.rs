//! Default routes of uplinks that are Down.

use super::*;

fn withdrawing(uplinks: u32) -> MachineConfig {
    MachineConfig {
        withdraw: true,
        ..rules(uplinks)
    }
}

/// What happened to the routes of IPv4, without reports.
fn events(play: &mut Play) -> Vec<Action> {
    let mut actions = play.actions();
    actions.retain(|action| !matches!(action, Action::Report(_) | Action::Examine { .. }));
    actions
}

fn withdraw(uplinks: &[UplinkId]) -> Action {
    Action::Withdraw {
        family: Family::V4,
        uplinks: set(uplinks),
    }
}

#[test]
fn left_uplink_is_withdrawn_after_the_switch_and_given_back_when_it_is_up() {
    let mut play = Play::started(withdrawing(2));
    play.ticks(3, "-+");
    assert_eq!(events(&mut play).len(), 1, "the switch alone");
    play.confirm(B);
    let cut = Action::Cut {
        family: Family::V4,
        uplink: A,
        cause: Cause::Failover,
    };
    assert_eq!(events(&mut play), [cut, withdraw(&[A])]);
    assert_eq!(play.machine.withdrawn(Family::V4), only(A));
    play.ticks(3, "++");
    assert_eq!(events(&mut play), []);
    play.tick("++");
    assert_eq!(events(&mut play), [withdraw(&[])], "Up again");
}

#[test]
fn route_is_given_back_before_anything_is_switched_to_it() {
    let mut play = Play::started(withdrawing(2));
    play.ticks(4, "+-");
    assert_eq!(events(&mut play), [withdraw(&[B])], "a standby, too");
    play.ticks(3, "-+");
    play.actions();
    play.tick("-+");
    let events = events(&mut play);
    assert_eq!(events[0], withdraw(&[]), "{events:?}");
    assert!(matches!(events[1], Action::Switch(_)), "{events:?}");
}

#[test]
fn nothing_is_withdrawn_without_an_active_uplink_or_for_the_active_one() {
    let mut play = Play::new(withdrawing(2));
    play.ticks(5, "--");
    assert_eq!(events(&mut play), [], "no uplink is active");

    let mut play = Play::started(withdrawing(2));
    play.ticks(5, "--");
    assert_eq!(events(&mut play), [withdraw(&[B])]);
}

#[test]
fn blind_uplinks_keep_their_routes_and_drilled_ones_lose_them() {
    let mut play = Play::started(withdrawing(2));
    play.ticks(5, "+o");
    assert_eq!(events(&mut play), []);

    let mut play = Play::started(withdrawing(3));
    play.tick("+++");
    let until = at(play.now + 5000);
    let drill = Command::Drill { uplink: B, until };
    assert_eq!(play.command(drill), Ok(()));
    assert_eq!(events(&mut play), [withdraw(&[B])]);
}

#[test]
fn family_that_follows_finds_the_route_of_where_the_other_one_is() {
    let mut dual = withdrawing(2);
    dual.uplinks[A].usable = PerFamily::both(true);
    let mut play = Play::new(dual);
    let confirm_v6 = |play: &mut Play, to| {
        play.input(Input::Switched {
            family: Family::V6,
            to: only(to),
            confirmed: true,
        });
    };
    play.tick("++");
    play.confirm(A);
    confirm_v6(&mut play, A);
    play.ticks(3, "-+");
    // B cannot carry IPv6, which stays.
    play.confirm(B);
    play.ticks(5, "--");
    assert_eq!(play.health(B), Health::Down);
    assert_eq!(play.machine.active(Family::V6), only(A));
    assert!(!play.machine.withdrawn(Family::V6).contains(B));
    play.actions();
    play.input(Input::Usable {
        uplink: B,
        family: Family::V6,
        usable: true,
    });
    assert_eq!(play.moves(), [(only(A), only(B), Cause::Follow)]);
}
