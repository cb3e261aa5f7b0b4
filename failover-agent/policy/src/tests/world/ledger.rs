//! What the world expects of commands, drills and cuts.

use super::*;

/// How an uplink was left that was active or could have been.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    at: u64,
    cause: Cause,
    cut: bool,
}

impl World {
    pub(super) fn command_switch(&mut self, wanted: Option<UplinkId>) {
        let Some(uplink) = wanted else {
            (self.overrides, self.drill) = (PerFamily::both(None), None);
            let answer = self.machine.command(Command::Auto, at(self.now));
            return assert_eq!(answer, Ok(()));
        };
        let up = |family| (self.health(family, uplink) == Health::Up).then_some(uplink);
        let overrides = PerFamily::from_fn(up);
        let answer = self.machine.command(Command::Switch(uplink), at(self.now));
        assert_eq!(
            answer.is_ok(),
            overrides != PerFamily::both(None),
            "{answer:?}"
        );
        if answer.is_ok() {
            self.overrides = overrides;
        }
    }

    pub(super) fn command_drill(&mut self, uplink: UplinkId, time: u64) {
        let until = at(self.now + time);
        match self
            .machine
            .command(Command::Drill { uplink, until }, at(self.now))
        {
            Ok(()) => self.drill = (time > 0).then_some((uplink, until)),
            Err(refusal) => assert!(matches!(refusal, Refusal::NoOther { .. }) && time > 0),
        }
    }

    pub(super) fn drill_ended(&mut self, uplink: UplinkId, alone: Option<Family>) {
        // Otherwise another drill has already replaced it.
        if let Some((_, until)) = self.drill.take_if(|(drilled, _)| *drilled == uplink) {
            let last = |family: Family| {
                let references = self.references[family].iter().enumerate();
                let up = |(id, reference): (usize, &Reference)| {
                    (reference.health == Health::Up).then_some(UplinkId(id))
                };
                references.filter_map(up).eq([uplink])
            };
            assert!(alone.map_or(until <= at(self.now), last), "{alone:?}");
        }
    }

    /// All others than `to` are left, if they were not before.
    pub(super) fn leave(&mut self, family: Family, from: UplinkSet, to: UplinkSet, cause: Cause) {
        let confirmed =
            |switch: &&Switch| switch.family != family && switch.confirmed == Some(true);
        let followed = self.switches.iter().rfind(confirmed);
        let cause = match (cause, followed) {
            (Cause::Follow, Some(followed)) => followed.cause,
            _ => cause,
        };
        let cause = match cause {
            Cause::Manual if from.first().is_some() && self.rank(to) < self.rank(from) => {
                Cause::Failback
            }
            _ => cause,
        };
        let (at, cut) = (self.now, false);
        for (id, left) in self.left[family].iter_mut().enumerate() {
            if to.contains(UplinkId(id)) {
                *left = None;
            } else {
                left.get_or_insert(Left { at, cause, cut });
            }
        }
    }

    /// The best rank of some uplinks.
    pub(in super::super) fn rank(&self, uplinks: UplinkSet) -> Option<u32> {
        uplinks.iter().map(|id| self.rules.uplinks[id].rank).min()
    }

    /// When an uplink that was left is to be cut.
    pub(super) fn due(&self, uplink: usize, left: Left) -> u64 {
        match left.cause {
            Cause::Failback => left.at + ms(self.rules.uplinks[UplinkId(uplink)].drain),
            _ => left.at,
        }
    }

    /// The family whose rounds determine the health of the uplinks of `family`.
    pub(super) fn judging(&self, family: Family) -> Family {
        let probed = self.references[family].iter().any(Reference::probed);
        if probed { family } else { family.other() }
    }

    /// Whether anything may be cut in favour of the active uplink.
    pub(super) fn favoured(&self, family: Family) -> bool {
        let judging = self.judging(family);
        let good = |active: UplinkId| {
            let newest = self.references[judging][active.0].newest();
            self.health(judging, active) == Health::Up
                && newest.is_some_and(|(verdict, _)| verdict == Verdict::Good)
                && self.references[family][active.0].present()
        };
        self.started(family) && self.machine.active(family).iter().any(good)
    }

    pub(super) fn cut(&mut self, family: Family, uplink: UplinkId, cause: Cause) {
        assert!(!self.machine.active(family).contains(uplink));
        assert!(self.favoured(family), "cut in favour of what is not good");
        assert!(
            !self.in_flight(family),
            "cut before it is known where to go"
        );
        let left = self.left[family][uplink.0].expect("cut though it was not left");
        assert!(!left.cut, "cut twice");
        assert_eq!(cause, left.cause);
        let down = self.health(self.judging(family), uplink) == Health::Down;
        assert!(
            down || self.now >= self.due(uplink.0, left),
            "drain cut short"
        );
        self.left[family][uplink.0] = Some(Left { cut: true, ..left });
    }

    /// What was left is cut when it is due, if cutting is allowed.
    pub(in super::super) fn check_cuts(&self) {
        for family in Family::ALL {
            for (id, left) in self.left[family].iter().enumerate() {
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
}
