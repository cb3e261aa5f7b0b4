//! When uplinks are cut: at once, after a drain, or not yet.

use super::*;

fn drain() -> Duration {
    uplink().drain
}

/// A is active again after a failover to B, and B is draining.
fn failed_back() -> Play {
    let mut quick = rules(3);
    quick.uplinks[A].hold = Duration::ZERO;
    let mut play = Play::started(quick);
    play.ticks(3, "-++");
    play.confirm(B);
    play.ticks(4, "+++");
    play.actions();
    play.confirm(A);
    play
}

#[test]
fn standbys_are_cut_once_the_first_uplink_is_confirmed() {
    let mut play = Play::new(rules(3));
    play.tick("+++");
    assert_eq!(play.cuts(), []);
    play.confirm(A);
    assert_eq!(play.cuts(), [(B, Cause::Startup), (C, Cause::Startup)]);
    play.ticks(3, "+++");
    assert_eq!(play.cuts(), []);
    assert_eq!(play.machine.cut(B, Family::V4), Some(Cause::Startup));
}

#[test]
fn failover_cuts_at_once_and_only_what_is_not_cut_yet() {
    let mut play = Play::started(rules(3));
    play.ticks(3, "-++");
    play.confirm(B);
    assert_eq!(play.cuts(), [(A, Cause::Failover)]);
}

#[test]
fn unconfirmed_switch_cuts_nothing() {
    let mut play = Play::started(rules(2));
    play.ticks(3, "-+");
    play.switched(B, false);
    assert_eq!(play.cuts(), []);
    assert_eq!(play.machine.cut(A, Family::V4), None);
}

#[test]
fn failback_lets_old_connections_finish() {
    let mut play = failed_back();
    assert_eq!(play.cuts(), []);
    let end = at(play.now) + drain();
    assert_eq!(play.machine.draining(B, Family::V4), Some(end));
    assert_eq!(
        play.machine.draining(C, Family::V4),
        None,
        "it is cut since the start"
    );
    play.ticks(29, "+++");
    play.pass(999);
    assert_eq!(play.cuts(), []);
    // Rounds were due meanwhile, but none had a new result.
    play.pass(1);
    assert_eq!(play.cuts(), [(B, Cause::Failback)]);
    assert_eq!(play.machine.draining(B, Family::V4), None);
}

#[test]
fn drain_ends_when_the_uplink_is_active_again() {
    let mut play = failed_back();
    play.ticks(3, "-++");
    play.confirm(B);
    assert_eq!(play.machine.draining(B, Family::V4), None);
    assert_eq!(play.cuts(), [(A, Cause::Failover)]);
    play.ticks(60, "-++");
    assert_eq!(play.cuts(), []);
}

#[test]
fn draining_uplink_that_goes_down_is_cut_at_once() {
    let mut play = failed_back();
    play.ticks(3, "+-+");
    assert_eq!(play.cuts(), [(B, Cause::Failback)]);
}

#[test]
fn nothing_is_cut_in_favour_of_what_is_not_good() {
    let mut play = failed_back();
    play.ticks(28, "+++");
    play.ticks(2, "-o ");
    play.ticks(5, " o ");
    assert_eq!(play.cuts(), [], "the last round of A was lost");
    play.round(A, REPLY);
    assert_eq!(play.cuts(), [(B, Cause::Failback)]);
}

#[test]
fn second_failover_leaves_a_drain_alone() {
    let mut play = failed_back();
    play.ticks(2, "-++");
    play.round(A, Outcome::Lost);
    // B would be taken, but a route to it cannot be confirmed.
    play.switched(B, false);
    play.actions();
    play.confirm(C);
    assert_eq!(play.cuts(), [(A, Cause::Failover)]);
    assert!(play.machine.draining(B, Family::V4).is_some());
}

#[test]
fn follower_cuts_as_its_leader_does() {
    let mut dual = rules(2);
    dual.uplinks[A].hold = Duration::ZERO;
    for uplink in dual.uplinks.values_mut() {
        uplink.usable = PerFamily::both(true);
    }
    let mut play = Play::new(dual);
    let follow = |play: &mut Play, to| {
        play.confirm(to);
        play.actions();
        play.input(Input::Switched {
            family: Family::V6,
            to: only(to),
            confirmed: true,
        });
        let cut = |action| match action {
            Action::Cut {
                family: Family::V6,
                uplink,
                cause,
            } => Some((uplink, cause)),
            _ => None,
        };
        play.actions()
            .into_iter()
            .filter_map(cut)
            .collect::<Vec<_>>()
    };
    play.tick("++");
    assert_eq!(follow(&mut play, A), [(B, Cause::Startup)]);
    play.ticks(2, "-+");
    play.round(B, REPLY);
    play.round(A, Outcome::Lost);
    assert_eq!(follow(&mut play, B), [(A, Cause::Failover)]);
    play.ticks(4, "++");
    assert_eq!(follow(&mut play, A), []);
    assert_eq!(
        play.machine.draining(B, Family::V6),
        Some(at(play.now) + drain())
    );
}
