//! What happens to the probes of a world.

use super::*;

/// What happens to the probes of one uplink in one family.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum LinkCondition {
    Good,
    Bad,
    Lossy,
    Blind,
    /// The prober never reports.
    Silent,
    /// Any outcome, probe by probe.
    Wild,
}

impl World {
    /// A round is sent: its results are on their way.
    pub(super) fn send(&mut self, uplink: UplinkId, family: Family, regular: bool) {
        let sent = self.now;
        let rules = self.rules.uplinks[uplink].clone();
        if regular {
            self.schedule(ms(rules.interval), Event::Send(uplink, family, true));
        }
        let round = self.references[family][uplink.0].send(sent);
        for target in 0..rules.targets[family] as usize {
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
                rtt: Some(Duration::from_millis(rtt)),
            },
        );
        let unreachable = self.random(4) == 0;
        let lost = (if unreachable { rtt } else { timeout }, Outcome::Lost);
        match self.condition[family][uplink.0] {
            LinkCondition::Good => Some(reply),
            LinkCondition::Bad => Some(lost),
            LinkCondition::Blind => Some((0, Outcome::Blind)),
            LinkCondition::Silent => None,
            LinkCondition::Lossy => Some(if dice < 30 { lost } else { reply }),
            LinkCondition::Wild => [
                Some(reply),
                Some(reply),
                Some(lost),
                Some((0, Outcome::Blind)),
                None,
            ][(dice % 5) as usize],
        }
    }
}
