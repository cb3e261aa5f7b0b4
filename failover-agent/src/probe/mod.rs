//! Edge: probes every uplink and reports to the policy how each probe ended.
//!
//! One [`Prober`] per uplink and family sends a round to all its targets at once, every interval, on a common beat. Several rounds may be
//! in flight when the timeout is longer than the interval. Each probe ends as exactly one [`Input::Probe`]. Time during which the agent
//! itself did not run counts against no target.

pub(crate) mod icmp;
pub(crate) mod identity;
mod patience;

use std::{
    future::ready,
    net::IpAddr,
    time::{Duration, Instant},
};

use failover_policy::{Family, Input, Outcome, TargetId, Time, UplinkId};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval_at},
};

use crate::{clock::Clock, datapath::ProbeSockets, route::EgressPath};

/// What one prober does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    /// The uplink that it probes.
    pub uplink: UplinkId,
    /// The address family.
    pub family: Family,
    /// The uplink's interface: the socket is bound to it.
    pub interface: String,
    /// The targets that it probes, all of the family.
    pub targets: Vec<(TargetId, IpAddr)>,
    /// Time from round to round.
    pub interval: Duration,
    /// How long a probe waits for its answer.
    pub timeout: Duration,
    /// `SO_MARK` of the socket.
    pub mark: u32,
    /// The source address of the probes; without one, nothing is sent.
    pub source: Option<IpAddr>,
    /// Targets on the uplink's own link, whose answers would say nothing about the path beyond it: they count as [`Outcome::Blind`].
    pub on_link: Vec<TargetId>,
}

impl ProbeSpec {
    /// The same probes by another egress path; `None`: there is none.
    #[must_use]
    pub fn by(mut self, path: Option<&EgressPath>) -> ProbeSpec {
        let on_link = |address| path.is_some_and(|path| path.on_link(address).is_some());
        self.on_link = self
            .targets
            .iter()
            .filter(|(_, address)| on_link(*address))
            .map(|(target, _)| *target)
            .collect();
        self.source = path.map(|path| path.source);
        self
    }
}

/// Probes one uplink in one family until it is dropped.
#[derive(Debug)]
pub struct Prober {
    task: JoinHandle<()>,
    out_of_turn: watch::Sender<u64>,
    spec: watch::Sender<ProbeSpec>,
    obstacle: watch::Receiver<Option<String>>,
}

impl Prober {
    /// Starts probing.
    ///
    /// Its sockets are registered in `sockets`, so that closed gates let its probes pass.
    pub fn spawn(
        spec: ProbeSpec,
        clock: Clock,
        inputs: mpsc::Sender<Input>,
        sockets: ProbeSockets,
    ) -> Self {
        let (out_of_turn, now) = watch::channel(0);
        let (spec, specs) = watch::channel(spec);
        let (latest, obstacle) = watch::channel(None);
        let task = tokio::spawn(run(clock, inputs, now, specs, latest, sockets));
        Prober {
            task,
            out_of_turn,
            spec,
            obstacle,
        }
    }

    /// Whether this is the prober of `uplink` in `family`.
    pub fn probes(&self, uplink: UplinkId, family: Family) -> bool {
        let spec = self.spec.borrow();
        (spec.uplink, spec.family) == (uplink, family)
    }

    /// What the prober does at present.
    pub fn spec(&self) -> ProbeSpec {
        self.spec.borrow().clone()
    }

    /// Sends a round now, in addition to the regular ones.
    pub fn probe_now(&self) {
        self.out_of_turn.send_modify(|count| *count += 1);
    }

    /// Why the last probe could not be sent, if that was for a reason on this host.
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle.borrow().clone()
    }

    /// Changes what the prober does, within the same family. Rounds are counted on, and what does not change is not disturbed: probes in
    /// flight are given up only if their target is no longer probed.
    pub fn update(&self, spec: ProbeSpec) {
        self.spec.send_if_modified(|current| {
            let changed = *current != spec;
            *current = spec;
            changed
        });
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    mut out_of_turn: watch::Receiver<u64>,
    mut specs: watch::Receiver<ProbeSpec>,
    obstacle: watch::Sender<Option<String>>,
    sockets: ProbeSockets,
) {
    let mut spec = specs.borrow_and_update().clone();
    let mut beat = beat(clock, spec.interval);
    let mut round = 0;
    let mut link = icmp::Link::new(&spec, sockets.clone());
    let mut in_flight = InFlight::new();
    // The last round of which a probe could not be sent.
    let mut blind = 0;
    send_round(&spec, &mut link, clock, &mut round, &mut in_flight);
    loop {
        tokio::select! {
            // Changes come first: no further round leaves by the old path.
            biased;
            Ok(()) = specs.changed() => {
                let old = std::mem::replace(&mut spec, specs.borrow_and_update().clone());
                if old.interval != spec.interval {
                    beat = self::beat(clock, spec.interval);
                }
                if old.targets != spec.targets {
                    in_flight.clear();
                }
                // All but its uplink's position.
                let socket = ProbeSpec { uplink: old.uplink, ..spec.clone() };
                if old != socket {
                    link = icmp::Link::new(&spec, sockets.clone());
                }
            }
            Some(probe) = in_flight.next(), if !in_flight.is_empty() => {
                let Finished { round, sent, target, source, answer } = probe;
                if answer.reopen {
                    link.close();
                }
                let explains = answer.obstacle.is_some();
                if explains {
                    blind = round;
                }
                // The reason stays, even if other probes of the round could be sent.
                if explains || round > blind {
                    obstacle.send_if_modified(|current| {
                        let changed = *current != answer.obstacle;
                        *current = answer.obstacle;
                        changed
                    });
                }
                let outcome = match answer.outcome {
                    // An answer would have gone to an address that is gone.
                    Outcome::Lost if source != spec.source => Outcome::Blind,
                    outcome => outcome,
                };
                let input = Input::Probe {
                    uplink: spec.uplink,
                    family: spec.family,
                    round,
                    sent,
                    target,
                    outcome,
                };
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
            _ = beat.tick() => send_round(&spec, &mut link, clock, &mut round, &mut in_flight),
            Ok(()) = out_of_turn.changed() => {
                send_round(&spec, &mut link, clock, &mut round, &mut in_flight);
            }
        }
    }
}

/// All probers share the clock's origin, so that their rounds are sent together: one wake-up serves all of them, and rounds of different
/// uplinks can be compared.
fn beat(clock: Clock, interval: Duration) -> tokio::time::Interval {
    let mut beat = interval_at(next_beat(clock.origin(), interval).into(), interval);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    beat
}

/// The first multiple of `interval` after `origin` that is still to come.
fn next_beat(origin: Instant, interval: Duration) -> Instant {
    let beats = origin.elapsed().as_nanos() / interval.as_nanos().max(1) + 1;
    origin + Duration::from_nanos(u64::try_from(interval.as_nanos() * beats).unwrap_or(u64::MAX))
}

/// A probe that has ended.
struct Finished {
    round: u64,
    sent: Time,
    target: TargetId,
    /// Its source address.
    source: Option<IpAddr>,
    answer: icmp::Answer,
}

type InFlight = FuturesUnordered<BoxFuture<'static, Finished>>;

fn send_round(
    spec: &ProbeSpec,
    link: &mut icmp::Link,
    clock: Clock,
    round: &mut u64,
    in_flight: &mut InFlight,
) {
    // Without an address there is nothing to measure; the policy knows that the uplink is not usable.
    if !link.has_source() {
        return;
    }
    *round += 1;
    let (round, sent) = (*round, clock.now());
    let source = spec.source;
    for &(target, address) in &spec.targets {
        let answer = match spec.on_link.contains(&target) {
            true => ready(icmp::Answer::on_link(address)).boxed(),
            false => link.probe(address, round),
        };
        in_flight.push(
            answer
                .map(move |answer| Finished {
                    round,
                    sent,
                    target,
                    source,
                    answer,
                })
                .boxed(),
        );
    }
}
