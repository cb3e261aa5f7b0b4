//! From rounds to health: the state of one uplink in one family.

use core::time::Duration;
use std::collections::VecDeque;

use super::examination::Examination;
use super::round::{Rounds, Verdict};
use super::{Action, Event, Family, Health, Outcome, TargetId, Time, UplinkId, UplinkSettings};

/// Health of one uplink in one family, and what it is based on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tracker {
    uplink: UplinkId,
    family: Family,
    rules: UplinkSettings,
    carrier: bool,
    usable: bool,
    /// The health as measured.
    health: Health,
    /// Whether a drill makes it count as Down, whatever is measured.
    drilled: bool,
    /// When the health that it counts as last changed.
    since: Time,
    rounds: Rounds,
    /// Consecutive rounds of each verdict. Blind rounds interrupt neither of the other runs.
    good: u32,
    bad: u32,
    blind: u32,
    examination: Examination,
    /// When the current run of good rounds started.
    good_since: Time,
    /// When the first bad round of the last bad run was sent. `None` when the carrier or the address was lost.
    first_failure: Option<Time>,
    /// When the last counted round was sent.
    latest: Option<Time>,
    /// When the carrier or the address last came or went. Rounds sent before say nothing about the link as it is now.
    epoch: Time,
    /// Consecutive failures by target.
    failed: Vec<u32>,
    last_rtt: Option<Duration>,
}

impl Tracker {
    pub(super) fn new(uplink: UplinkId, family: Family, rules: &UplinkSettings) -> Self {
        let found_down = rules.earlier[family] == Health::Down;
        let probed = rules.targets[family] > 0;
        Tracker {
            uplink,
            family,
            rules: rules.lasting(),
            carrier: rules.carrier,
            usable: rules.usable[family],
            health: match probed && (found_down || !rules.carrier) {
                true => Health::Down,
                false => Health::Unknown,
            },
            drilled: false,
            since: Time::default(),
            rounds: Rounds::new(family, rules),
            good: 0,
            bad: 0,
            blind: 0,
            examination: Examination::default(),
            good_since: Time::default(),
            first_failure: None,
            latest: None,
            epoch: Time::default(),
            failed: vec![0; rules.all_targets()],
            last_rtt: None,
        }
    }

    pub(super) fn uplink(&self) -> UplinkId {
        self.uplink
    }

    /// Order of preference, the lowest first.
    pub(super) fn rank(&self) -> u32 {
        self.rules.rank
    }

    /// The health that it counts as.
    pub(super) fn health(&self) -> Health {
        if self.drilled && self.probed() {
            Health::Down
        } else {
            self.health
        }
    }

    /// The health that it would count as without a drill.
    pub(super) fn measured(&self) -> Health {
        self.health
    }

    /// When the health last changed.
    pub(super) fn since(&self) -> Time {
        self.since
    }

    pub(super) fn last_rtt(&self) -> Option<Duration> {
        self.last_rtt
    }

    /// Share of the probes in the last rounds that were lost, from 0 to 1.
    pub(super) fn loss(&self) -> Option<f64> {
        self.rounds.loss()
    }

    /// How long old connections may go on after a failback.
    pub(super) fn drain(&self) -> Duration {
        self.rules.drain
    }

    /// How long a probe waits for its answer.
    pub(super) fn timeout(&self) -> Duration {
        self.rules.timeout
    }

    /// Time from one round to the next.
    pub(super) fn interval(&self) -> Duration {
        self.rules.interval
    }

    /// Least time between two recoveries; `None`: there is no recovery program.
    pub(super) fn recover_interval(&self) -> Option<Duration> {
        self.rules.recover_interval
    }

    /// Whether the uplink is probed in this family.
    pub(super) fn probed(&self) -> bool {
        self.rules.targets[self.family] > 0
    }

    /// Whether traffic could leave by it at all.
    pub(super) fn present(&self) -> bool {
        self.carrier && self.usable
    }

    /// Whether it is Up and the newest known round confirms that.
    pub(super) fn good(&self) -> bool {
        self.health() == Health::Up && self.measured_good()
    }

    /// The same by measurement alone, without a drill.
    fn measured_good(&self) -> bool {
        let good = self.good > 0 && self.blind == 0;
        self.health == Health::Up && self.present() && (good || self.overtaken())
    }

    /// Whether measurement has found it Down; `None` where nothing is measured.
    pub(super) fn found_down(&self) -> Option<bool> {
        let measurable = self.usable || self.health != Health::Unknown;
        (self.probed() && measurable).then_some(self.health == Health::Down)
    }

    /// Whether its first round may still show that it is Up.
    pub(super) fn undecided(&self) -> bool {
        self.probed() && self.present() && self.health() == Health::Unknown
    }

    /// Whether the newest good round is recent enough to switch on: sent within the last interval and timeout, as it is while probing runs,
    /// and not before `first_failure`, since which another uplink is known to have failed.
    pub(super) fn proven(&self, first_failure: Option<Time>, now: Time) -> bool {
        self.good() && self.newest() >= first_failure && self.recent(now)
    }

    /// Whether it would be proven without a drill.
    pub(super) fn reliable(&self, now: Time) -> bool {
        self.measured_good() && self.recent(now)
    }

    fn recent(&self, now: Time) -> bool {
        let recent = |sent: Time| now.since(sent) <= self.rules.interval + self.rules.timeout;
        self.newest().is_some_and(recent)
    }

    /// When the newest known round was sent: the youngest open one that is already good, else the last counted one.
    fn newest(&self) -> Option<Time> {
        self.rounds.answered(self.epoch).or(self.latest)
    }

    /// Whether a round younger than the last counted one is already good. The bad rounds before it are over: they make nothing Down.
    fn overtaken(&self) -> bool {
        self.rounds.answered(self.epoch).is_some()
    }

    /// When the first bad round of the run that made the uplink Down was sent; `None` if it is Down for another reason.
    pub(super) fn first_failure(&self) -> Option<Time> {
        self.first_failure
    }

    /// Whether the result of a round sent at `asked` or later is known.
    pub(super) fn answered(&self, asked: Time) -> bool {
        self.newest() >= Some(asked)
    }

    /// When a failback to this uplink is due, as far as its health goes; `None` before `rise` good rounds in a row. The hold time also
    /// counts from an earlier failback, `after`.
    pub(super) fn held_until(&self, after: Option<Time>) -> Option<Time> {
        let from = self.good_since.max(after.unwrap_or_default());
        (self.good() && self.good >= self.rules.rise).then(|| from + self.rules.hold)
    }

    /// When an open round becomes overdue or expires.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.rounds.deadline()
    }

    /// Counts the rounds that have waited too long for results.
    pub(super) fn expire(&mut self, now: Time, out: &mut VecDeque<Action>) {
        self.rounds.expire(now);
        self.count(now, out);
    }

    pub(super) fn set_carrier(&mut self, up: bool, now: Time, out: &mut VecDeque<Action>) {
        if self.carrier != up {
            self.carrier = up;
            self.restart(up, now, out);
        }
    }

    pub(super) fn set_usable(&mut self, usable: bool, now: Time, out: &mut VecDeque<Action>) {
        if self.usable != usable {
            self.usable = usable;
            self.restart(usable, now, out);
        }
    }

    /// The link is a new one: nothing that was measured holds for it. A lost link is Down; one that is back stays Down until `rise` rounds
    /// are good.
    fn restart(&mut self, back: bool, now: Time, out: &mut VecDeque<Action>) {
        (self.good, self.blind) = (0, 0);
        (self.first_failure, self.latest, self.epoch) = (None, None, now);
        self.clear_failures();
        if !back && self.probed() {
            self.set_health(Health::Down, now, out);
        }
    }

    /// Clears the failures so far.
    fn clear_failures(&mut self) {
        (self.bad, self.examination) = (0, Examination::default());
        self.failed.fill(0);
    }

    /// Probes take another path from now on: earlier failures and unanswered probes may have been due to the old path.
    pub(super) fn moved(&mut self, now: Time) {
        self.rounds.restart(now);
        self.clear_failures();
    }

    /// Whether an examination of bad rounds is due; true once for each.
    pub(super) fn take_examination(&mut self) -> bool {
        self.examination.take_due()
    }

    /// Takes the answer to an examination, and judges the round that waited for it.
    pub(super) fn examined(&mut self, explained: bool, now: Time, out: &mut VecDeque<Action>) {
        if !self.examination.answer(explained, now) {
            return;
        }
        let health = match explained {
            true => {
                self.bad = 0;
                self.judge_blind()
            }
            false if self.overtaken() => self.health,
            false => Health::Down,
        };
        self.set_health(health, now, out);
    }

    /// Whether there have been `fall` bad rounds.
    fn reached_fall(&self) -> bool {
        match self.health {
            Health::Up | Health::Blind => self.bad >= self.rules.fall,
            Health::Unknown => self.bad > 0,
            Health::Down => false,
        }
    }

    /// Takes over a changed configuration. Measurements stay valid as long as there are targets to measure.
    pub(super) fn reconfigure(
        &mut self,
        rules: &UplinkSettings,
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        let (health, probed) = (self.health(), self.probed());
        let old = core::mem::replace(&mut self.rules, rules.lasting());
        let probing = |rules: &UplinkSettings| {
            let UplinkSettings {
                targets,
                quorum,
                interval,
                timeout,
                ..
            } = *rules;
            (targets, quorum, interval, timeout)
        };
        if probing(&old) != probing(rules) {
            self.failed = vec![0; rules.all_targets()];
            self.rounds.reconfigure(self.family, rules, now);
            self.clear_failures();
        }
        if probed != self.probed() {
            (self.good, self.blind, self.latest, self.first_failure) = (0, 0, None, None);
            self.health = match self.probed() && !self.carrier {
                true => Health::Down,
                false => Health::Unknown,
            };
        }
        self.report_change(health, now, out);
        self.set_carrier(rules.carrier, now, out);
        self.set_usable(rules.usable[self.family], now, out);
    }

    /// Takes the result of one probe of round `number`.
    pub(super) fn probe(
        &mut self,
        (number, sent): (u64, Time),
        target: TargetId,
        outcome: Outcome,
        now: Time,
        out: &mut VecDeque<Action>,
    ) {
        if target.0 >= self.failed.len() || !self.rounds.add(number, sent, target, outcome) {
            return;
        }
        match outcome {
            Outcome::Reply { rtt } => {
                self.last_rtt = rtt.or(self.last_rtt);
                self.failed[target.0] = 0;
            }
            Outcome::Lost => self.note_failure(target, out),
            Outcome::Blind => {}
        }
        self.count(now, out);
    }

    fn note_failure(&mut self, target: TargetId, out: &mut VecDeque<Action>) {
        let failed = self.failed[target.0].saturating_add(1);
        self.failed[target.0] = failed;
        if self.present() && self.health != Health::Down {
            let (uplink, family, fall) = (self.uplink, self.family, self.rules.fall);
            out.push_back(Action::Report(Event::ProbeFailed {
                uplink,
                family,
                target,
                failed,
                fall,
            }));
        }
    }

    /// Counts the decided rounds, in the order in which they were sent.
    fn count(&mut self, now: Time, out: &mut VecDeque<Action>) {
        while let Some((verdict, sent)) = self.rounds.count() {
            if self.present() && sent >= self.epoch {
                self.latest = Some(sent);
                let verdict = self.examination.explain(verdict, sent, self.rules.fall);
                let health = self.judge(verdict, sent, now);
                self.set_health(health, now, out);
            }
        }
    }

    /// The health after one more round.
    fn judge(&mut self, verdict: Verdict, sent: Time, now: Time) -> Health {
        match verdict {
            Verdict::Good => {
                (self.good, self.bad, self.blind) = (self.good.saturating_add(1), 0, 0);
                if self.good == 1 {
                    // The run starts when the round is counted, not when it was sent: while bad rounds sent before it were open, it counted
                    // for no more than they did.
                    self.good_since = now;
                }
                match self.health {
                    Health::Down if self.good < self.rules.rise => Health::Down,
                    _ => Health::Up,
                }
            }
            Verdict::Bad => {
                (self.good, self.bad, self.blind) = (0, self.bad.saturating_add(1), 0);
                if self.bad == 1 {
                    self.first_failure = Some(sent);
                }
                match self.reached_fall() && !self.overtaken() && !self.examination.awaits() {
                    true => Health::Down,
                    false => self.health,
                }
            }
            Verdict::Blind => self.judge_blind(),
        }
    }

    fn judge_blind(&mut self) -> Health {
        self.blind = self.blind.saturating_add(1);
        // An uplink that was found Down stays Down: the agent's own blindness must spare it neither a failover nor the `rise` good rounds.
        if self.health == Health::Down || self.blind < self.rules.fall || self.overtaken() {
            return self.health;
        }
        (self.good, self.bad) = (0, 0);
        Health::Blind
    }

    /// Starts or ends a drill. Afterwards the hold time counts from the start, as after any other time of being Down.
    pub(super) fn set_drilled(&mut self, drilled: bool, now: Time, out: &mut VecDeque<Action>) {
        let from = self.health();
        self.drilled = drilled;
        if !drilled {
            self.good_since = now;
        }
        self.report_change(from, now, out);
    }

    fn set_health(&mut self, health: Health, now: Time, out: &mut VecDeque<Action>) {
        let from = self.health();
        self.health = health;
        self.report_change(from, now, out);
    }

    fn report_change(&mut self, from: Health, now: Time, out: &mut VecDeque<Action>) {
        let to = self.health();
        if from != to {
            self.since = now;
            let (uplink, family) = (self.uplink, self.family);
            out.push_back(Action::Report(Event::Health {
                uplink,
                family,
                from,
                to,
            }));
        }
    }
}
