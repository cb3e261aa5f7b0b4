//! What follows when an uplink's link is not what it was: a pure comparison of the two, and a small part that carries its effects out.

use std::net::IpAddr;

use failover_policy::{Family, Input, UplinkId};
use tracing::{info, warn};

use super::{
    Agent,
    setup::{attach, describe, warn_of_duplicate},
};
use crate::route::{EgressPath, Link};

/// One thing to be done because a link has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Report an address that the kernel does not use, because another host on the link has it, too.
    Duplicate(IpAddr),
    /// Report the carrier to the policy. It knows already, unless the notification was lost.
    Carrier { up: bool },
    /// Attach the programs: this is another interface than before.
    Attach,
    /// Give the programs the link's networks and addresses.
    Describe,
    /// Have the prober of a family use the present egress path, or none.
    Probe(Family),
    /// Report to the policy that what was measured so far was measured by another egress path.
    Moved(Family),
    /// Report to the policy, and in the log, that an egress path was found or lost.
    Usable { family: Family, usable: bool },
    /// Set the gate of a new interface, which begins with open ones.
    Gate(Family),
}

/// What is to be done when a link that was `before` is `after`, in this order.
pub(super) fn difference(before: &Link, after: &Link) -> Vec<Effect> {
    if before == after {
        return Vec::new();
    }
    let new = |address: &&IpAddr| !before.duplicates.contains(address);
    let duplicates = after.duplicates.iter().filter(new);
    let mut effects: Vec<Effect> = duplicates.copied().map(Effect::Duplicate).collect();
    if before.carrier != after.carrier {
        effects.push(Effect::Carrier { up: after.carrier });
    }
    let present = after.ifindex != 0;
    let appeared = present && before.ifindex != after.ifindex;
    if appeared {
        effects.push(Effect::Attach);
    } else if present {
        effects.push(Effect::Describe);
    }
    for family in Family::ALL {
        let [known, now] = [before, after].map(|link| link.families[family].as_ref());
        if known != now {
            effects.push(Effect::Probe(family));
        }
        let way = |path: &EgressPath| (path.source, path.gateway);
        match (known.map(way), now.map(way)) {
            (Some(known), Some(now)) if known != now => effects.push(Effect::Moved(family)),
            (Some(_), Some(_)) | (None, None) => {}
            (_, now) => effects.push(Effect::Usable {
                family,
                usable: now.is_some(),
            }),
        }
        if appeared {
            effects.push(Effect::Gate(family));
        }
    }
    effects
}

impl Agent<'_> {
    /// Brings one uplink's programs, probes and policy in line with its link, which was `before`.
    pub(super) fn follow(&mut self, uplink: UplinkId, before: &Link) {
        for effect in difference(before, &self.router.links()[uplink]) {
            self.carry_out(uplink, effect);
        }
    }

    fn carry_out(&mut self, uplink: UplinkId, effect: Effect) {
        let link = &self.router.links()[uplink];
        let config = &self.uplinks[uplink];
        let input = match effect {
            Effect::Duplicate(address) => {
                return warn_of_duplicate(&config.name, &link.interface, address);
            }
            Effect::Attach => return attach(self.datapath, &self.config.cutoff, config, link),
            Effect::Describe => {
                if let Err(error) = describe(self.datapath, &self.config.cutoff, link) {
                    warn!(uplink = config.name, "{error:#}");
                }
                return;
            }
            Effect::Probe(family) => return self.probe_by(uplink, family),
            Effect::Gate(family) => {
                if let Some(cause) = self.machine.cut(uplink, family) {
                    self.gate_off(uplink, family, cause);
                }
                return;
            }
            Effect::Carrier { up } => Input::Carrier { uplink, up },
            Effect::Moved(family) => Input::Moved { uplink, family },
            Effect::Usable { family, usable } => {
                self.log_usable(uplink, family, usable);
                Input::Usable {
                    uplink,
                    family,
                    usable,
                }
            }
        };
        self.machine.handle(input, self.clock.now());
    }

    /// Has a family's prober use the present egress path.
    fn probe_by(&self, uplink: UplinkId, family: Family) {
        let Some(prober) = self.probers.get(uplink, family) else {
            return;
        };
        let path = self.router.links()[uplink].families[family].as_ref();
        let (known, now) = (prober.spec(), prober.spec().by(path));
        for (target, address) in &now.targets {
            if now.on_link.contains(target) && !known.on_link.contains(target) {
                let name = self.name(uplink);
                warn!(uplink = name, probed = %address, "{name}: target {address} is on its own link now: its answers count for nothing, choose one beyond the gateway");
            }
        }
        prober.update(now);
    }

    fn log_usable(&self, uplink: UplinkId, family: Family, usable: bool) {
        let name = self.name(uplink);
        match (usable, self.router.why_lost(uplink, family)) {
            (false, Some(reason)) => {
                info!(uplink = name, %family, usable, "{name}: {family} egress path lost: {reason}");
            }
            _ => {
                let word = if usable { "found" } else { "lost" };
                info!(uplink = name, %family, usable, "{name}: {family} egress path {word}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use failover_ebpf::LinkLayer;
    use failover_policy::PerFamily;

    use super::*;
    use crate::route::Template;

    const V4: Family = Family::V4;
    const V6: Family = Family::V6;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn path(source: &str, gateway: &str) -> EgressPath {
        EgressPath {
            source: ip(source),
            prefixes: Vec::new(),
            gateway: Some(ip(gateway)),
            template: Template::default(),
        }
    }

    /// With carrier, an address and an IPv4 egress path.
    fn link() -> Link {
        Link {
            ifindex: 7,
            interface: "eth0".to_owned(),
            link_layer: LinkLayer::Ethernet,
            carrier: true,
            rank: 1,
            weight: 1,
            metric: None,
            addresses: vec![ip("192.0.2.2")],
            duplicates: Vec::new(),
            families: PerFamily::new(Some(path("192.0.2.2", "192.0.2.1")), None),
        }
    }

    /// An interface that is not there.
    fn absent() -> Link {
        Link {
            ifindex: 0,
            carrier: false,
            addresses: Vec::new(),
            families: PerFamily::default(),
            ..link()
        }
    }

    /// The effects of a change of [`link`].
    fn effects(change: impl FnOnce(&mut Link)) -> Vec<Effect> {
        let mut after = link();
        change(&mut after);
        difference(&link(), &after)
    }

    fn usable(family: Family, usable: bool) -> Effect {
        Effect::Usable { family, usable }
    }

    #[test]
    fn what_is_as_it_was_has_no_effect() {
        assert_eq!(effects(|_| {}), []);
        assert_eq!(difference(&absent(), &absent()), []);
    }

    #[test]
    fn an_interface_that_appears_gets_programs_before_anything_counts_on_it() {
        let appeared = difference(&absent(), &link());
        let expected = [
            Effect::Carrier { up: true },
            Effect::Attach,
            Effect::Probe(V4),
            usable(V4, true),
            Effect::Gate(V4),
            Effect::Gate(V6),
        ];
        assert_eq!(appeared, expected);
    }

    #[test]
    fn an_interface_under_another_index_is_a_new_one_by_the_same_path() {
        let replaced = effects(|link| link.ifindex = 8);
        assert_eq!(
            replaced,
            [Effect::Attach, Effect::Gate(V4), Effect::Gate(V6)]
        );
    }

    #[test]
    fn an_interface_that_is_gone_takes_its_paths_along() {
        let gone = difference(&link(), &absent());
        let expected = [
            Effect::Carrier { up: false },
            Effect::Probe(V4),
            usable(V4, false),
        ];
        assert_eq!(gone, expected);
    }

    #[test]
    fn a_carrier_that_no_notification_told_of_is_told() {
        let lost = effects(|link| link.carrier = false);
        assert_eq!(lost, [Effect::Carrier { up: false }, Effect::Describe]);
    }

    #[test]
    fn programs_hear_of_every_other_address() {
        let another = effects(|link| link.addresses.push(ip("192.0.2.3")));
        assert_eq!(another, [Effect::Describe]);
    }

    #[test]
    fn a_path_that_comes_or_goes_makes_its_family_usable_or_not() {
        let lost = effects(|link| link.families.v4 = None);
        assert_eq!(
            lost,
            [Effect::Describe, Effect::Probe(V4), usable(V4, false)]
        );
        let found = effects(|link| link.families.v6 = Some(path("2001:db8::2", "fe80::1")));
        assert_eq!(
            found,
            [Effect::Describe, Effect::Probe(V6), usable(V6, true)]
        );
    }

    #[test]
    fn what_was_measured_by_another_source_or_gateway_does_not_count() {
        let moved = [Effect::Describe, Effect::Probe(V4), Effect::Moved(V4)];
        for other in [
            path("192.0.2.9", "192.0.2.1"),
            path("192.0.2.2", "192.0.2.9"),
        ] {
            assert_eq!(effects(|link| link.families.v4 = Some(other)), moved);
        }
        // Another network on the link concerns programs and probes, but not what was measured.
        let network = effects(|link| {
            let path = link.families.v4.as_mut().unwrap();
            path.prefixes.push("192.0.2.0/24".parse().unwrap());
        });
        assert_eq!(network, [Effect::Describe, Effect::Probe(V4)]);
    }

    #[test]
    fn a_duplicate_address_is_told_once() {
        let (old, new) = (ip("2001:db8::66"), ip("2001:db8::67"));
        let mut before = link();
        before.duplicates = vec![old];
        let mut after = before.clone();
        after.duplicates = vec![old, new];
        assert_eq!(
            difference(&before, &after),
            [Effect::Duplicate(new), Effect::Describe]
        );
        assert_eq!(difference(&after, &before), [Effect::Describe]);
    }
}
