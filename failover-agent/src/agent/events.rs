//! Passes on what the programs report of flows that have ended.

use failover_policy::Family;
use tracing::info;

use super::Agent;
use crate::{
    control,
    datapath::{Answer, EndedFlow, Reason},
};

impl Agent<'_> {
    /// Logs an ended flow and publishes it to those who follow `events`.
    pub(super) fn publish(&mut self, flow: &EndedFlow) {
        if flow.reason == Reason::Stale {
            let lost = self.datapath.lost_addresses();
            self.lost_addresses.used |= lost.contains(&flow.source.ip());
        }
        // None: an interface that has just gone.
        let Some(uplink) = self.router.uplink(flow.ifindex) else {
            return;
        };
        let port = |port: u16| (port != 0).then_some(port);
        let event = control::Event {
            at: self.clock.wall(self.clock.now()),
            uplink: self.name(uplink).to_owned(),
            family: match flow.source.is_ipv4() {
                true => Family::V4,
                false => Family::V6,
            },
            protocol: flow.protocol,
            source: flow.source.ip(),
            source_port: port(flow.source.port()),
            destination: flow.destination.ip(),
            destination_port: port(flow.destination.port()),
            reason: match flow.reason {
                Reason::Gate => control::Reason::Gate,
                Reason::Stale => control::Reason::Stale,
            },
            answer: match flow.answer {
                Answer::Reset => control::Answer::Reset,
                Answer::Icmp => control::Answer::Icmp,
                Answer::Dropped => control::Answer::Dropped,
            },
        };
        info!(
            uplink = event.uplink,
            source = %flow.source,
            destination = %flow.destination,
            protocol = flow.protocol,
            reason = ?event.reason,
            answer = ?event.answer,
            "flow ended: {}",
            event.words(),
        );
        self.events.publish(event);
    }
}
