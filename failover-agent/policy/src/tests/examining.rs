//! Failures that a reason on this host explains, hints, and probes that take another path.

use super::*;

fn examinations(play: &mut Play) -> usize {
    let examine = Action::Examine {
        uplink: A,
        family: Family::V4,
    };
    let actions = play.actions();
    actions.iter().filter(|action| **action == examine).count()
}

fn examined(blind: bool) -> Input {
    Input::Examined {
        uplink: A,
        family: Family::V4,
        blind,
    }
}

/// Both are Up, A is active, and the harness does not answer examinations by itself.
fn unanswered(rules: MachineConfig) -> Play {
    let mut play = Play::started(rules);
    play.answers = false;
    play
}

#[test]
fn reason_is_looked_for_at_the_first_failure_and_after_each_fall() {
    let mut play = Play::started(rules(2));
    for expected in [1, 0, 0, 1, 0, 0, 1] {
        play.tick("-+");
        assert_eq!(examinations(&mut play), expected);
    }
    play.tick("++");
    play.tick("-+");
    assert_eq!(examinations(&mut play), 1, "a new run");
}

#[test]
fn one_failure_alone_waits_for_the_answer() {
    let mut quick = rules(2);
    quick.uplinks[A].fall = 1;
    for blind in [false, true] {
        let mut play = unanswered(quick.clone());
        play.tick("-+");
        assert_eq!((play.health(A), play.switches()), (Health::Up, vec![]));
        play.input(examined(blind));
        let (health, switches) = match blind {
            true => (Health::Blind, 0),
            false => (Health::Down, 1),
        };
        assert_eq!((play.health(A), play.switches().len()), (health, switches));
    }
    // No examination is answered.
    let mut play = unanswered(quick);
    play.ticks(2, "-+");
    assert_eq!(play.health(A), Health::Down);
}

#[test]
fn first_round_of_all_waits_for_the_answer() {
    for (blind, health) in [(false, Health::Down), (true, Health::Unknown)] {
        let mut play = Play::new(rules(2));
        play.answers = false;
        play.tick("-+");
        assert_eq!(play.health(A), Health::Unknown);
        play.input(examined(blind));
        assert_eq!(play.health(A), health);
        play.ticks(2, "-+");
        let health = if blind { Health::Blind } else { Health::Down };
        assert_eq!(play.health(A), health);
    }
}

#[test]
fn rounds_under_way_when_the_reason_goes_are_explained() {
    let mut play = unanswered(rules(2));
    play.tick("-+");
    play.input(examined(true));
    play.ticks(3, "-+");
    assert_eq!(play.health(A), Health::Blind);
    let (open, sent) = (play.next[A], play.now);
    play.pass(1);
    play.input(examined(false));
    for round in open..open + 3 {
        play.probe(A, (round, sent), 0, Outcome::Lost);
    }
    assert_eq!(play.health(A), Health::Blind);
    play.next[A] = open + 3;
    play.ticks(3, "-+");
    assert_eq!(play.health(A), Health::Down);
}

#[test]
fn explained_failures_make_it_blind() {
    let mut play = unanswered(rules(2));
    play.tick("-+");
    play.input(examined(true));
    play.ticks(2, "-+");
    assert_eq!(play.health(A), Health::Up);
    play.ticks(20, "-+");
    assert_eq!((play.health(A), play.switches()), (Health::Blind, vec![]));
    play.input(examined(false));
    play.ticks(2, "-+");
    assert_eq!(play.health(A), Health::Blind);
    play.tick("-+");
    assert_eq!(play.health(A), Health::Down);
    play.input(examined(true));
    play.ticks(5, "-+");
    assert_eq!(play.health(A), Health::Down, "known before");
}

#[test]
fn explanation_ends_with_a_good_round_and_with_the_carrier() {
    let mut play = unanswered(rules(2));
    play.tick("-+");
    play.input(examined(true));
    play.tick("++");
    play.ticks(3, "-+");
    assert_eq!(play.health(A), Health::Down, "that was another run");

    let mut play = unanswered(rules(2));
    play.input(examined(true));
    play.ticks(3, "-+");
    assert_eq!(play.health(A), Health::Down, "there was nothing to explain");

    let mut play = unanswered(rules(2));
    play.tick("-+");
    play.input(examined(true));
    play.input(Input::Carrier {
        uplink: A,
        up: false,
    });
    assert_eq!(play.health(A), Health::Down);
}

#[test]
fn suspect_is_asked_at_once_but_not_all_the_time() {
    let mut play = Play::started(rules(2));
    let suspect = |play: &mut Play, uplink| {
        play.input(Input::Suspect {
            uplink,
            family: Family::V4,
        });
        play.actions()
    };
    let ask = Action::ProbeNow {
        uplink: A,
        family: Family::V4,
    };
    assert_eq!(suspect(&mut play, A), core::slice::from_ref(&ask));
    play.pass(499);
    assert_eq!(suspect(&mut play, A), []);
    play.pass(1);
    assert_eq!(suspect(&mut play, A), [ask], "half an interval");
    play.ticks(3, "+-");
    play.actions();
    assert_eq!(suspect(&mut play, B), [], "known to be Down");
    let carrier = |up| Input::Carrier { uplink: A, up };
    play.input(carrier(false));
    play.input(carrier(true));
    play.pass(1000);
    play.actions();
    assert_eq!(suspect(&mut play, A), []);
    assert_eq!(suspect(&mut play, C), [], "a stranger");
}

#[test]
fn probes_from_the_old_address_do_not_count() {
    let mut play = Play::started(rules(2));
    let moved = Input::Moved {
        uplink: A,
        family: Family::V4,
    };
    play.ticks(2, "-+");
    // Two more are on their way when the address changes, of a third the machine never heard.
    let sent = play.now - 1;
    let open = play.next[A];
    play.probe(A, (open + 1, sent), 0, REPLY);
    play.input(moved);
    play.probe(A, (open, sent), 0, Outcome::Lost);
    play.actions();
    // The new prober counts from the start.
    play.next[A] = 0;
    play.ticks(2, "-+");
    assert_eq!((play.health(A), play.switches()), (Health::Up, vec![]));
    play.tick("-+");
    assert_eq!(play.health(A), Health::Down, "three of its own");
    let loss = play.machine.loss(A, Family::V4);
    assert_eq!(loss, Some(5.0 / 6.0), "one that was good at the start");
}
