//! What the world expects of withdrawn routes and of recoveries.

use super::*;

impl World {
    /// Those that are Down, while an uplink that is not among them is active. A family that is not probed uses the other family's health,
    /// and spares the uplinks that the other family uses.
    fn idle(&self, family: Family) -> UplinkSet {
        if !self.rules.withdraw || !self.started(family) {
            return UplinkSet::NONE;
        }
        let judging = self.judging(family);
        let down = |id: &UplinkId| self.health(judging, *id) == Health::Down;
        let uplinks = (0..self.rules.uplinks.len()).map(UplinkId);
        let last = self.switches.iter().rfind(|switch| switch.family == family);
        let coming = last
            .filter(|switch| switch.confirmed.is_none())
            .map(|switch| switch.to);
        // The family that follows may have to go where the other one is.
        let followed = match judging != family && self.started(judging) {
            true => self.machine.active(judging),
            false => UplinkSet::NONE,
        };
        let busy = self
            .machine
            .active(family)
            .union(coming.unwrap_or_default())
            .union(followed);
        uplinks.filter(down).collect::<UplinkSet>().minus(busy)
    }

    pub(super) fn withdraw(&mut self, family: Family, uplinks: UplinkSet) {
        assert_ne!(self.withdrawn[family], uplinks, "announced twice");
        let active = self.machine.active(family);
        assert_eq!(
            active.minus(uplinks),
            active,
            "an active uplink without a route"
        );
        assert!(uplinks.within(self.idle(family)), "withdrawn without need");
        self.withdrawn[family] = uplinks;
    }

    /// Exactly the idle uplinks are withdrawn.
    pub(in super::super) fn check_withdrawn(&self) {
        for family in Family::ALL {
            let withdrawn = self.withdrawn[family];
            assert_eq!(withdrawn, self.idle(family), "{family}");
            assert_eq!(withdrawn, self.machine.withdrawn(family), "{family}");
        }
    }

    /// Whether an uplink is Down wherever it can be measured.
    fn dead(&self, uplink: UplinkId) -> bool {
        let of = |family: Family| &self.references[family][uplink.0];
        let measured: Vec<Health> = (Family::ALL.into_iter().map(of))
            .filter(|reference| reference.probed())
            .filter(|reference| reference.usable || reference.health != Health::Unknown)
            .map(|reference| reference.health)
            .collect();
        !measured.is_empty() && measured.iter().all(|health| *health == Health::Down)
    }

    fn grace(&self, uplink: UplinkId) -> Option<u64> {
        self.rules.uplinks[uplink].recover_interval.map(ms)
    }

    pub(super) fn recover(&mut self, uplink: UplinkId) {
        assert!(self.dead(uplink), "recovered though it lives");
        let grace = self.grace(uplink).expect("recovered without a program");
        let last = self.recovered[uplink.0].replace(self.now);
        assert!(
            last.is_none_or(|last| last + grace <= self.now),
            "recovered too soon"
        );
        let flying = Family::ALL.into_iter().any(|family| self.in_flight(family));
        assert!(!flying, "recovered before the switch was over");
    }

    /// Dead uplinks are recovered, unless that happened just now or a switch needs its time.
    pub(in super::super) fn check_recoveries(&self) {
        let timer = self.machine.poll_timeout();
        let busy = |family: Family| {
            let asked = &self.asked[family];
            let waiting = asked.iter().zip(self.rules.uplinks.values());
            self.in_flight(family)
                || waiting.into_iter().any(|(asked, rules)| {
                    asked.is_some_and(|asked| self.now <= asked + ms(rules.timeout))
                })
        };
        if timer.is_some_and(|timer| timer <= at(self.now)) || Family::ALL.into_iter().any(busy) {
            return;
        }
        for uplink in (0..self.rules.uplinks.len()).map(UplinkId) {
            if let Some(grace) = self.grace(uplink).filter(|_| self.dead(uplink)) {
                let last = self.recovered[uplink.0].expect("dead and not recovered");
                assert!(self.now < last + grace, "not recovered again");
            }
        }
    }
}
