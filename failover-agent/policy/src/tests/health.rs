//! Rounds and health.

use super::*;

#[test]
fn first_round_decides_then_fall_and_rise_count() {
    let mut play = Play::new(rules(1));
    assert_eq!(play.health(A), Health::Unknown);
    play.tick("+");
    assert_eq!(play.health(A), Health::Up);
    play.ticks(2, "-");
    assert_eq!(play.health(A), Health::Up);
    play.tick("+");
    play.ticks(2, "-");
    assert_eq!(play.health(A), Health::Up, "only rounds in a row count");
    play.tick("-");
    assert_eq!(play.health(A), Health::Down);
    assert_eq!(play.machine.since(A, Family::V4), at(6000));
    play.ticks(3, "+");
    play.tick("-");
    play.ticks(3, "+");
    assert_eq!(play.health(A), Health::Down);
    play.tick("+");
    assert_eq!(play.health(A), Health::Up);

    let mut play = Play::new(rules(1));
    play.tick("-");
    assert_eq!(play.health(A), Health::Down);
}

#[test]
fn round_is_decided_as_soon_as_it_can_be() {
    let mut rules = rules(1);
    rules.uplinks[A] = UplinkSettings {
        targets: PerFamily::new(3, 0),
        quorum: 2,
        ..uplink()
    };
    let mut play = Play::new(rules.clone());
    play.probe(A, (0, 0), 0, REPLY);
    assert_eq!(play.health(A), Health::Unknown);
    play.probe(A, (0, 0), 1, REPLY);
    assert_eq!(play.health(A), Health::Up, "quorum reached");

    let mut play = Play::new(rules.clone());
    play.probe(A, (0, 0), 0, Outcome::Lost);
    assert_eq!(play.health(A), Health::Unknown);
    play.probe(A, (0, 0), 0, Outcome::Lost);
    assert_eq!(
        play.health(A),
        Health::Unknown,
        "the same result twice is one result"
    );
    play.probe(A, (0, 0), 2, Outcome::Lost);
    assert_eq!(play.health(A), Health::Down, "quorum out of reach");

    let mut play = Play::new(rules);
    play.probe(A, (0, 0), 0, Outcome::Blind);
    play.probe(A, (0, 0), 1, Outcome::Blind);
    assert_eq!(
        play.health(A),
        Health::Unknown,
        "bad or blind: the last probe decides"
    );
    play.probe(A, (0, 0), 2, Outcome::Lost);
    assert_eq!(play.health(A), Health::Down);
}

#[test]
fn rounds_count_in_the_order_in_which_they_were_sent() {
    let mut play = Play::new(rules(1));
    play.tick("+");
    // Three rounds on their way (the first without any result yet); the newest is answered first.
    play.probe(A, (3, 3000), 0, REPLY);
    play.probe(A, (2, 2000), 0, Outcome::Lost);
    assert_eq!(
        play.machine.loss(A, Family::V4),
        Some(0.0),
        "neither counts before round 1"
    );
    play.probe(A, (1, 1000), 0, Outcome::Lost);
    assert_eq!(play.machine.loss(A, Family::V4), Some(0.5));
    play.next[A] = 4;
    play.ticks(2, "-");
    assert_eq!(
        play.health(A),
        Health::Up,
        "round 3 was good: the two before it are forgotten"
    );
    play.tick("-");
    assert_eq!(play.health(A), Health::Down);
}

/// An outage of half a second, a round each 100 ms, a timeout of 2 s: when the first time-outs come, younger rounds are answered.
#[test]
fn outage_that_is_over_before_it_is_noticed_makes_nothing_down() {
    for fall in [1, 3] {
        let mut rules = rules(2);
        for uplink in rules.uplinks.values_mut() {
            (uplink.interval, uplink.timeout) =
                (Duration::from_millis(100), Duration::from_secs(2));
            uplink.fall = fall;
        }
        let mut play = Play::started(rules);
        for round in (1..10).chain(15..20) {
            play.probe(A, (round, round * 100), 0, REPLY);
        }
        for round in 10..15 {
            play.now = round * 100 + 2000;
            play.probe(A, (round, round * 100), 0, Outcome::Lost);
            assert_eq!(play.health(A), Health::Up, "round {round}");
        }
        assert_eq!(play.switches(), []);
        // The next outage is one.
        for round in 20..20 + u64::from(fall) {
            assert_eq!(play.health(A), Health::Up, "round {round}");
            play.probe(A, (round, round * 100), 0, Outcome::Lost);
        }
        assert_eq!(play.health(A), Health::Down);
    }
}

#[test]
fn younger_answer_comes_before_the_verdict_that_waits_for_an_examination() {
    let mut quick = rules(2);
    quick.uplinks[A].fall = 1;
    let mut play = Play::started(quick);
    play.answers = false;
    play.probe(A, (1, 1000), 0, Outcome::Lost);
    // Round 2 has no result yet, round 3 has.
    play.probe(A, (3, 3000), 0, REPLY);
    play.answers = true;
    play.answer_examinations(at(play.now));
    assert_eq!(play.health(A), Health::Up);
}

#[test]
fn younger_answer_proves_an_uplink_whose_older_rounds_are_open() {
    let mut rules = rules(2);
    rules.uplinks[B].timeout = Duration::from_secs(20);
    let mut play = Play::started(rules);
    // Round 1 of B is lost, which is known only after 20 s.
    play.next[B] = 2;
    play.tick("-+");
    play.tick("-+");
    play.tick("-+");
    assert_eq!(play.switches(), [(Some(A), B, Cause::Failover)]);
}

#[test]
fn only_rounds_in_the_order_of_sending_make_it_up_again() {
    let mut play = Play::new(rules(1));
    play.tick("-");
    assert_eq!(play.health(A), Health::Down);
    // Every second round is lost, which is known later than that the others are good.
    for pair in 0..6 {
        play.probe(A, (2 * pair + 2, 0), 0, REPLY);
    }
    for pair in 0..6 {
        play.probe(A, (2 * pair + 1, 0), 0, Outcome::Lost);
    }
    assert_eq!(play.health(A), Health::Down);
}

#[test]
fn late_notice_of_a_timeout_leaves_its_time_to_the_result() {
    let mut rules = rules(1);
    rules.uplinks[A].targets = PerFamily::new(2, 0);
    rules.uplinks[A].quorum = 2;
    let mut play = Play::started(rules);
    play.probe(A, (1, 1000), 0, REPLY);
    // The whole agent is paused for a minute.
    play.now = 61_000;
    play.machine.handle_timeout(at(play.now));
    assert_eq!(
        play.machine.poll_timeout(),
        Some(at(63_000)),
        "an interval and a timeout more"
    );
    assert_eq!(play.machine.loss(A, Family::V4), Some(0.0));
    play.probe(A, (1, 1000), 1, REPLY);
    assert_eq!(play.machine.poll_timeout(), None);
    assert_eq!(play.machine.loss(A, Family::V4), Some(0.0));
}

#[test]
fn missing_results_are_lost_after_timeout_and_interval() {
    let mut rules = rules(1);
    rules.uplinks[A].targets = PerFamily::new(2, 0);
    rules.uplinks[A].quorum = 2;
    let mut play = Play::new(rules);
    play.probe(A, (0, 0), 0, REPLY);
    assert_eq!(play.machine.poll_timeout(), Some(at(1000)), "overdue");
    play.pass(1000);
    assert_eq!(play.machine.poll_timeout(), Some(at(2000)));
    play.pass(999);
    assert_eq!(play.health(A), Health::Unknown);
    play.pass(1);
    assert_eq!(play.health(A), Health::Down);
    assert_eq!(play.machine.poll_timeout(), None);
    assert_eq!(play.machine.loss(A, Family::V4), Some(0.5));
    play.probe(A, (0, 0), 1, REPLY);
    assert_eq!(
        play.health(A),
        Health::Down,
        "a late result changes the statistics only"
    );
    assert_eq!(play.machine.loss(A, Family::V4), Some(0.0));
}

#[test]
fn rounds_without_end_stay_bounded() {
    let mut play = Play::new(rules(1));
    // Every second round has no result, and handle_timeout is not called.
    for round in 0..2000 {
        play.probe(A, (2 * round, 0), 0, REPLY);
    }
    assert_eq!(
        play.machine.loss(A, Family::V4),
        Some(0.5),
        "the oldest were given up"
    );
    // A prober that skips numbers does not make the machine wait for the skipped rounds.
    play.probe(A, (u64::MAX, 0), 0, REPLY);
    assert_eq!(play.machine.loss(A, Family::V4), Some(0.0));
}

#[test]
fn blind_rounds_say_nothing() {
    let mut play = Play::new(rules(1));
    play.tick("+");
    play.ticks(2, "o");
    assert_eq!(play.health(A), Health::Up);
    play.tick("o");
    assert_eq!(play.health(A), Health::Blind);
    assert_eq!(play.machine.loss(A, Family::V4), Some(0.0));
    play.ticks(2, "-");
    assert_eq!(play.health(A), Health::Blind);
    play.tick("-");
    assert_eq!(play.health(A), Health::Down);
    play.ticks(5, "o");
    assert_eq!(
        play.health(A),
        Health::Down,
        "blindness does not lift what was found before"
    );

    let mut play = Play::new(rules(1));
    play.ticks(3, "o");
    assert_eq!(play.health(A), Health::Blind);
    play.tick("+");
    assert_eq!(play.health(A), Health::Up);
    for round in ["-", "o", "-", "o"] {
        play.tick(round);
    }
    assert_eq!(play.health(A), Health::Up);
    play.tick("-");
    assert_eq!(
        play.health(A),
        Health::Down,
        "a blind round does not break a run of bad ones"
    );
}

#[test]
fn carrier_and_address_make_it_down_at_once_and_rise_brings_it_back() {
    let losses = [
        (
            Input::Carrier {
                uplink: A,
                up: false,
            },
            Input::Carrier {
                uplink: A,
                up: true,
            },
        ),
        (
            Input::Usable {
                uplink: A,
                family: Family::V4,
                usable: false,
            },
            Input::Usable {
                uplink: A,
                family: Family::V4,
                usable: true,
            },
        ),
    ];
    for (lost, back) in losses {
        let mut play = Play::new(rules(1));
        play.tick("+");
        play.input(lost);
        assert_eq!(play.health(A), Health::Down);
        play.ticks(5, "+");
        assert_eq!(play.health(A), Health::Down, "nothing counts meanwhile");
        let sent = play.now - 1;
        play.input(back);
        for _ in 0..4 {
            play.probe(A, (play.next[A], sent), 0, REPLY);
            play.next[A] += 1;
        }
        assert_eq!(play.health(A), Health::Down, "sent before it came back");
        play.ticks(3, "+");
        assert_eq!(play.health(A), Health::Down);
        play.input(back);
        play.tick("+");
        assert_eq!(play.health(A), Health::Up, "the same fact again is none");
    }
}

#[test]
fn carrier_concerns_both_families_and_usable_one() {
    let mut rules = rules(1);
    rules.uplinks[A].targets = PerFamily::both(1);
    rules.uplinks[A].usable = PerFamily::both(true);
    let mut play = Play::new(rules);
    let both = |play: &Play| PerFamily::from_fn(|family| play.machine.health(A, family));
    play.input(Input::Usable {
        uplink: A,
        family: Family::V6,
        usable: false,
    });
    assert_eq!(both(&play), PerFamily::new(Health::Unknown, Health::Down));
    play.input(Input::Carrier {
        uplink: A,
        up: false,
    });
    assert_eq!(both(&play), PerFamily::both(Health::Down));
}

#[test]
fn failures_are_told_until_the_uplink_is_down() {
    let mut rules = rules(1);
    rules.uplinks[A].targets = PerFamily::new(2, 0);
    let mut play = Play::new(rules);
    play.tick("+");
    play.actions();
    let failed = |target, failed| Event::ProbeFailed {
        uplink: A,
        family: Family::V4,
        target: TargetId(target),
        failed,
        fall: 3,
    };
    play.probe(A, (1, 1000), 0, Outcome::Lost);
    play.probe(A, (1, 1000), 1, REPLY);
    play.next[A] = 2;
    play.ticks(3, "-");
    let health = |from, to| Event::Health {
        uplink: A,
        family: Family::V4,
        from,
        to,
    };
    let mut expected = vec![failed(0, 1)];
    expected.extend((1..=3).flat_map(|k| [failed(0, k + 1), failed(1, k)]));
    expected.push(health(Health::Up, Health::Down));
    assert_eq!(play.notes(), expected);
    play.ticks(2, "-");
    assert_eq!(play.notes(), []);
}

#[test]
fn loss_and_rtt_are_of_the_last_sixty_rounds() {
    let mut play = Play::new(rules(1));
    assert_eq!(
        (
            play.machine.loss(A, Family::V4),
            play.machine.last_rtt(A, Family::V4)
        ),
        (None, None)
    );
    play.ticks(30, "-");
    assert_eq!(play.machine.loss(A, Family::V4), Some(1.0));
    play.ticks(30, "+");
    assert_eq!(play.machine.loss(A, Family::V4), Some(0.5));
    play.ticks(15, "+");
    assert_eq!(play.machine.loss(A, Family::V4), Some(0.25));
    assert_eq!(
        play.machine.last_rtt(A, Family::V4),
        Some(Duration::from_millis(20))
    );
    play.round(A, Outcome::Reply { rtt: None });
    assert_eq!(
        play.machine.last_rtt(A, Family::V4),
        Some(Duration::from_millis(20)),
        "what is not known changes nothing"
    );
}

#[test]
fn facts_about_strangers_are_ignored() {
    let mut play = Play::new(rules(1));
    play.probe(C, (0, 0), 0, REPLY);
    play.probe(A, (0, 0), 7, REPLY);
    play.input(Input::Carrier {
        uplink: C,
        up: false,
    });
    play.switched(C, true);
    assert_eq!(play.actions(), []);
    assert_eq!(play.health(C), Health::Unknown);
    assert_eq!(play.machine.active(Family::V4), UplinkSet::NONE);
}
