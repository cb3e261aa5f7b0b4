//! A world for the machine to live in: uplinks with weather, probes on their way, and a clock. It remembers what the machine
//! did and what was true at that moment.

use std::collections::BTreeMap;

use super::reference::{Counted, Reference, Verdict};
use super::*;

/// What becomes of the probes of one uplink in one family.
#[derive(Clone, Copy, Debug)]
pub(super) enum Weather {
    Good,
    Bad,
    Lossy,
    Blind,
    /// The prober never reports.
    Silent,
    /// Anything, probe by probe.
    Wild,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Weather(UplinkId, Family, Weather),
    Carrier(UplinkId, bool),
    Usable(UplinkId, Family, bool),
    /// Whether switches are confirmed from now on.
    Confirm(bool),
    /// An answer that nobody asked for.
    Stray(Family, UplinkId, bool),
    /// An uplink is wanted by hand, or none.
    Pin(Option<UplinkId>),
    /// A drill for some milliseconds.
    Drill(UplinkId, u64),
}

#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) rules: Rules,
    /// For delays and for what the weather leaves open.
    pub(super) seed: u64,
    /// Changes, and the milliseconds before each.
    pub(super) changes: Vec<(u64, Change)>,
}

/// A switch, and what the reference knew at that moment.
#[derive(Clone, Debug)]
pub(super) struct Switch {
    pub(super) at: u64,
    pub(super) family: Family,
    pub(super) from: Option<UplinkId>,
    pub(super) to: UplinkId,
    pub(super) cause: Cause,
    pub(super) confirmed: Option<bool>,
    /// Whether there was a reason to leave the old uplink, and since when.
    pub(super) from_down: bool,
    pub(super) trouble: Option<u64>,
    /// The new one.
    pub(super) present: bool,
    pub(super) last: Option<Counted>,
    pub(super) good_run: Vec<Counted>,
    /// The other family's active uplink.
    pub(super) leader: Option<UplinkId>,
    /// Who was wanted by hand.
    pub(super) pin: Option<UplinkId>,
}

/// How an uplink was left that was active or could have been.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    at: u64,
    cause: Cause,
    cut: bool,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Change(Change),
    Send(UplinkId, Family, bool),
    Input(Input),
}

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) rules: Rules,
    pub(super) references: [Vec<Reference>; 2],
    pub(super) actions: Vec<(u64, Action)>,
    pub(super) switches: Vec<Switch>,
    weather: [Vec<Weather>; 2],
    confirm: bool,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    random: u64,
    /// Times of the last request for a proof.
    pub(super) asked: [Vec<Option<u64>>; 2],
    /// Times of the last refusal.
    pub(super) refused: [Vec<Option<u64>>; 2],
    pub(super) pins: [Option<UplinkId>; 2],
    pub(super) drill: Option<(UplinkId, Time)>,
    left: [Vec<Option<Left>>; 2],
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

impl World {
    fn new(script: &Script) -> Self {
        let rules = script.rules.clone();
        let uplinks = rules.uplinks.len();
        let mut world = World {
            machine: Machine::new(rules.clone()),
            references: Family::ALL.map(|family| {
                rules
                    .uplinks
                    .iter()
                    .map(|uplink| Reference::new(uplink, family))
                    .collect()
            }),
            rules,
            actions: Vec::new(),
            switches: Vec::new(),
            weather: [vec![Weather::Good; uplinks], vec![Weather::Good; uplinks]],
            confirm: true,
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            random: script.seed,
            asked: [vec![None; uplinks], vec![None; uplinks]],
            refused: [vec![None; uplinks], vec![None; uplinks]],
            pins: [None; 2],
            drill: script.rules.drill,
            left: [vec![None; uplinks], vec![None; uplinks]],
        };
        for (id, uplink) in script.rules.uplinks.iter().enumerate() {
            for family in Family::ALL {
                if uplink.targets[family as usize] > 0 {
                    let offset = 1 + world.random(ms(uplink.interval));
                    world.schedule(offset, Event::Send(UplinkId(id), family, true));
                }
            }
        }
        world
    }

    /// Plays the script, then ten seconds more. `check` looks at the world after every step.
    pub(super) fn play(script: &Script, mut check: impl FnMut(&World)) -> World {
        let mut world = World::new(script);
        let mut end = 0;
        for (wait, change) in &script.changes {
            end += wait;
            world.schedule(end, Event::Change(*change));
        }
        while world.step(end + 10_000) {
            check(&world);
        }
        world
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Facts come before the timer when both are due.
    fn step(&mut self, end: u64) -> bool {
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timer = self
            .machine
            .poll_timeout()
            .map(|due| ms(due.0).max(self.now));
        let Some(next) = event
            .into_iter()
            .chain(timer)
            .min()
            .filter(|next| *next <= end)
        else {
            return false;
        };
        self.now = next;
        if event == Some(next) {
            let (_, event) = self.queue.pop_first().unwrap();
            self.happen(event);
        } else {
            for reference in self.references.iter_mut().flatten() {
                reference.timeout(next);
            }
            self.machine.handle_timeout(at(next));
            let due = self.machine.poll_timeout();
            assert!(
                due.is_none_or(|due| due > at(next)),
                "a timeout that was handled is due no more"
            );
        }
        for family in Family::ALL {
            let down = |pin: &mut UplinkId| self.health(family, *pin) == Health::Down;
            let mut pin = self.pins[family as usize];
            pin.take_if(down);
            self.pins[family as usize] = pin;
        }
        while let Some(action) = self.machine.poll_action() {
            self.act(&action);
            self.actions.push((next, action));
        }
        true
    }

    /// What an uplink counts as.
    pub(super) fn health(&self, family: Family, uplink: UplinkId) -> Health {
        let reference = &self.references[family as usize][uplink.0];
        match self.drill {
            Some((drilled, _)) if drilled == uplink && reference.probed() => Health::Down,
            _ => reference.health,
        }
    }

    fn happen(&mut self, event: Event) {
        let input = match event {
            Event::Send(uplink, family, regular) => return self.send(uplink, family, regular),
            Event::Input(input) => input,
            Event::Change(Change::Weather(uplink, family, weather)) => {
                self.weather[family as usize][uplink.0] = weather;
                return;
            }
            Event::Change(Change::Confirm(confirm)) => {
                self.confirm = confirm;
                return;
            }
            Event::Change(Change::Pin(pin)) => return self.order_switch(pin),
            Event::Change(Change::Drill(uplink, time)) => return self.order_drill(uplink, time),
            Event::Change(Change::Carrier(uplink, up)) => Input::Carrier { uplink, up },
            Event::Change(Change::Usable(uplink, family, usable)) => Input::Usable {
                uplink,
                family,
                usable,
            },
            Event::Change(Change::Stray(family, to, confirmed)) => {
                if self.in_flight(family) {
                    return;
                }
                Input::Switched {
                    family,
                    to,
                    confirmed,
                }
            }
        };
        match input {
            Input::Probe {
                uplink,
                family,
                round,
                outcome,
                ..
            } => {
                self.references[family as usize][uplink.0].result(round, outcome, self.now);
            }
            Input::Carrier { uplink, up } => {
                for references in &mut self.references {
                    let usable = references[uplink.0].usable;
                    references[uplink.0].set(up, usable, self.now);
                }
            }
            Input::Usable {
                uplink,
                family,
                usable,
            } => {
                let reference = &mut self.references[family as usize][uplink.0];
                reference.set(reference.carrier, usable, self.now);
            }
            Input::Switched {
                family,
                to,
                confirmed,
            } => {
                let in_flight = self
                    .switches
                    .iter_mut()
                    .rfind(|switch| switch.family == family);
                if let Some(switch) = in_flight.filter(|switch| switch.confirmed.is_none()) {
                    switch.confirmed = Some(confirmed);
                    let (from, cause) = (switch.from, switch.cause);
                    if confirmed {
                        self.leave(family, from, to, cause);
                    }
                    self.refused[family as usize][to.0] = (!confirmed).then_some(self.now);
                }
            }
        }
        self.machine.handle(input, at(self.now));
    }

    pub(super) fn in_flight(&self, family: Family) -> bool {
        let last = self.switches.iter().rfind(|switch| switch.family == family);
        last.is_some_and(|switch| switch.confirmed.is_none())
    }

    /// Whether a switch was ever confirmed.
    pub(super) fn started(&self, family: Family) -> bool {
        self.switches
            .iter()
            .any(|switch| switch.family == family && switch.confirmed == Some(true))
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Switch {
                family,
                from,
                to,
                cause,
                ..
            } => {
                assert!(!self.in_flight(family), "one switch at a time");
                assert_eq!(from, self.machine.active(family));
                self.remember(family, from, to, cause);
                let (wait, confirmed) = (self.random(50), self.confirm);
                self.schedule(
                    wait,
                    Event::Input(Input::Switched {
                        family,
                        to,
                        confirmed,
                    }),
                );
            }
            Action::ProbeNow { uplink, family } => {
                self.asked[family as usize][uplink.0] = Some(self.now);
                self.schedule(0, Event::Send(uplink, family, false));
            }
            Action::Cut {
                family,
                uplink,
                cause,
            } => self.cut(family, uplink, cause),
            Action::Note(Note::DrillEnded { uplink, alone }) => self.drill_ended(uplink, alone),
            Action::Note(_) => {}
        }
    }

    fn remember(&mut self, family: Family, from: Option<UplinkId>, to: UplinkId, cause: Cause) {
        let references = &self.references[family as usize];
        let old = from.map(|from| &references[from.0]);
        let new = &references[to.0];
        let other = Family::ALL[1 - family as usize];
        self.switches.push(Switch {
            at: self.now,
            family,
            from,
            to,
            cause,
            confirmed: None,
            from_down: from.is_some_and(|from| self.health(family, from) == Health::Down),
            trouble: old.and_then(Reference::trouble),
            present: new.present(),
            last: new.last(),
            good_run: new.run(Verdict::Good),
            leader: self.machine.active(other),
            pin: self.pins[family as usize],
        });
    }

    fn order_switch(&mut self, pin: Option<UplinkId>) {
        let Some(uplink) = pin else {
            (self.pins, self.drill) = ([None; 2], None);
            let answer = self.machine.command(Command::Auto, at(self.now));
            return assert_eq!(answer, Ok(()));
        };
        let wanted = |family| (self.health(family, uplink) == Health::Up).then_some(uplink);
        let pins = Family::ALL.map(wanted);
        let answer = self.machine.command(Command::Switch(uplink), at(self.now));
        assert_eq!(answer.is_ok(), pins != [None; 2], "{answer:?}");
        if answer.is_ok() {
            self.pins = pins;
        }
    }

    fn order_drill(&mut self, uplink: UplinkId, time: u64) {
        let until = at(self.now + time);
        match self
            .machine
            .command(Command::Drill { uplink, until }, at(self.now))
        {
            Ok(()) => self.drill = (time > 0).then_some((uplink, until)),
            Err(refusal) => assert!(matches!(refusal, Refusal::NoOther { .. }) && time > 0),
        }
    }

    fn drill_ended(&mut self, uplink: UplinkId, alone: Option<Family>) {
        // Otherwise another one has taken its place already.
        if let Some((_, until)) = self.drill.take_if(|(drilled, _)| *drilled == uplink) {
            let last = |family: Family| {
                let references = self.references[family as usize].iter().enumerate();
                let up = |(id, reference): (usize, &Reference)| {
                    (reference.health == Health::Up).then_some(UplinkId(id))
                };
                references.filter_map(up).eq([uplink])
            };
            assert!(alone.map_or(until <= at(self.now), last), "{alone:?}");
        }
    }

    /// All others than `to` are left, if they were not before.
    fn leave(&mut self, family: Family, from: Option<UplinkId>, to: UplinkId, cause: Cause) {
        let confirmed =
            |switch: &&Switch| switch.family != family && switch.confirmed == Some(true);
        let followed = self.switches.iter().rfind(confirmed);
        let cause = match (cause, followed) {
            (Cause::Follow, Some(followed)) => followed.cause,
            _ => cause,
        };
        let cause = match cause {
            Cause::Manual if from.is_some_and(|from| to < from) => Cause::Failback,
            _ => cause,
        };
        let (at, cut) = (self.now, false);
        for (id, left) in self.left[family as usize].iter_mut().enumerate() {
            if to == UplinkId(id) {
                *left = None;
            } else {
                left.get_or_insert(Left { at, cause, cut });
            }
        }
    }

    /// When an uplink that was left is to be cut.
    fn due(&self, uplink: usize, left: Left) -> u64 {
        match left.cause {
            Cause::Failback => left.at + ms(self.rules.uplinks[uplink].drain),
            _ => left.at,
        }
    }

    /// The family whose rounds say how the uplinks of `family` are.
    fn judging(&self, family: Family) -> Family {
        let probed = self.references[family as usize]
            .iter()
            .any(Reference::probed);
        if probed {
            family
        } else {
            Family::ALL[1 - family as usize]
        }
    }

    /// Whether anything may be cut in favour of the active uplink.
    fn favoured(&self, family: Family) -> bool {
        let judging = self.judging(family);
        let good = |active: UplinkId| {
            let last = self.references[judging as usize][active.0].last();
            self.health(judging, active) == Health::Up
                && last.is_some_and(|last| last.verdict == Verdict::Good)
                && self.references[family as usize][active.0].present()
        };
        self.started(family) && self.machine.active(family).is_some_and(good)
    }

    fn cut(&mut self, family: Family, uplink: UplinkId, cause: Cause) {
        assert_ne!(self.machine.active(family), Some(uplink));
        assert!(self.favoured(family), "cut in favour of what is not good");
        assert!(!self.in_flight(family), "cut before it is known where to go");
        let left = self.left[family as usize][uplink.0].expect("cut though it was not left");
        assert!(!left.cut, "cut twice");
        assert_eq!(cause, left.cause);
        let down = self.health(self.judging(family), uplink) == Health::Down;
        assert!(
            down || self.now >= self.due(uplink.0, left),
            "drain cut short"
        );
        self.left[family as usize][uplink.0] = Some(Left { cut: true, ..left });
    }

    /// What was left is cut when it is due, if that is allowed.
    pub(super) fn check_cuts(&self) {
        for family in Family::ALL {
            for (id, left) in self.left[family as usize].iter().enumerate() {
                let uplink = UplinkId(id);
                let cut = left.filter(|left| left.cut).map(|left| left.cause);
                assert_eq!(self.machine.cut(uplink, family), cut);
                let Some(left) = left.filter(|left| !left.cut) else {
                    assert_eq!(self.machine.draining(uplink, family), None);
                    continue;
                };
                let due = self.due(id, left);
                assert_eq!(self.machine.draining(uplink, family), Some(at(due)));
                let down = self.health(self.judging(family), uplink) == Health::Down;
                let allowed = self.favoured(family) && !self.in_flight(family);
                let timer = self.machine.poll_timeout();
                let late = timer.is_none_or(|timer| timer > at(self.now));
                assert!(
                    !(allowed && late && (down || due <= self.now)),
                    "{family} {id} is not cut"
                );
            }
        }
    }

    /// A round leaves; its results are on their way.
    fn send(&mut self, uplink: UplinkId, family: Family, regular: bool) {
        let sent = self.now;
        let rules = self.rules.uplinks[uplink.0].clone();
        if regular {
            self.schedule(ms(rules.interval), Event::Send(uplink, family, true));
        }
        let round = self.references[family as usize][uplink.0].send(sent);
        for target in 0..rules.targets[family as usize] as usize {
            let Some((delay, outcome)) = self.fate(uplink, family, ms(rules.timeout)) else {
                continue;
            };
            let (target, sent) = (TargetId(target), at(sent));
            self.schedule(
                delay,
                Event::Input(Input::Probe {
                    uplink,
                    family,
                    round,
                    sent,
                    target,
                    outcome,
                }),
            );
        }
    }

    fn fate(&mut self, uplink: UplinkId, family: Family, timeout: u64) -> Option<(u64, Outcome)> {
        let dice = self.random(100);
        let rtt = if dice < 70 {
            1 + self.random(30)
        } else {
            1 + self.random(timeout)
        };
        let reply = (
            rtt,
            Outcome::Reply {
                rtt: Duration::from_millis(rtt),
            },
        );
        let unreachable = self.random(4) == 0;
        let lost = (if unreachable { rtt } else { timeout }, Outcome::Lost);
        match self.weather[family as usize][uplink.0] {
            Weather::Good => Some(reply),
            Weather::Bad => Some(lost),
            Weather::Blind => Some((0, Outcome::Blind)),
            Weather::Silent => None,
            Weather::Lossy => Some(if dice < 30 { lost } else { reply }),
            Weather::Wild => [
                Some(reply),
                Some(reply),
                Some(lost),
                Some((0, Outcome::Blind)),
                None,
            ][(dice % 5) as usize],
        }
    }

    fn schedule(&mut self, wait: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + wait, self.order), event);
    }

    /// splitmix64: the same seed, the same world.
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % below
    }
}
