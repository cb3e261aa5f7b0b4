//! The probers, one for each uplink and family that has targets, and the queue of what they find out.

use failover_policy::{Family, Input, UplinkId, UplinkSet};
use tokio::sync::mpsc;

use crate::{
    clock::Clock,
    datapath::ProbeSockets,
    probe::{ProbeSpec, Prober},
};

/// Facts that may wait for the loop; more than a round of the greatest number of uplinks needs.
const INPUTS: usize = 1024;

/// All probers of the agent.
pub(super) struct Probers {
    running: Vec<Prober>,
    /// What they have found out.
    inputs: mpsc::Receiver<Input>,
    /// Where they put it.
    sender: mpsc::Sender<Input>,
    clock: Clock,
    sockets: ProbeSockets,
}

impl Probers {
    /// Starts those that the specifications ask for.
    pub(super) fn start(
        specs: impl Iterator<Item = ProbeSpec>,
        clock: Clock,
        sockets: ProbeSockets,
    ) -> Self {
        let (sender, inputs) = mpsc::channel(INPUTS);
        let mut probers = Probers {
            running: Vec::new(),
            inputs,
            sender,
            clock,
            sockets,
        };
        probers.running = specs.map(|spec| probers.spawn(spec)).collect();
        probers
    }

    /// Those whose uplink is `kept` go on; the others begin or end. Returns of whom the targets are others now.
    pub(super) fn replace(
        &mut self,
        specs: impl Iterator<Item = ProbeSpec>,
        kept: UplinkSet,
    ) -> Vec<(UplinkId, Family)> {
        let mut known = std::mem::take(&mut self.running);
        let mut moved = Vec::new();
        for spec in specs {
            let position = known
                .iter()
                .position(|prober| prober.probes(spec.uplink, spec.family))
                .filter(|_| kept.contains(spec.uplink));
            let prober = match position {
                Some(position) => {
                    let prober = known.swap_remove(position);
                    if prober.spec().targets != spec.targets {
                        moved.push((spec.uplink, spec.family));
                    }
                    prober.update(spec);
                    prober
                }
                None => self.spawn(spec),
            };
            self.running.push(prober);
        }
        moved
    }

    fn spawn(&self, spec: ProbeSpec) -> Prober {
        Prober::spawn(spec, self.clock, self.sender.clone(), self.sockets.clone())
    }

    /// The prober of an uplink in a family, if it has targets there.
    pub(super) fn get(&self, uplink: UplinkId, family: Family) -> Option<&Prober> {
        let mut running = self.running.iter();
        running.find(|prober| prober.probes(uplink, family))
    }

    /// The next fact. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Option<Input> {
        self.inputs.recv().await
    }

    /// A fact that waits already.
    pub(super) fn waiting(&mut self) -> Option<Input> {
        self.inputs.try_recv().ok()
    }
}
