//! Programs that also manage routes, and the setting that makes each leave ours alone. Pure data.
//!
//! The metric that the remedies name, 700, stands for any that is above `route.active_metric` and not one of the standbys'.

use std::fmt;

use crate::route::{Actor, Origin, protocol_name};

/// What another program did that the agent had to undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConflictKind {
    /// It added a default route that beats or ties with ours.
    Preempt,
    /// It removed or replaced a route of ours.
    Route,
    /// It removed a rule of ours.
    Rule,
}

impl ConflictKind {
    /// What the contender does, to be read after its name.
    pub fn words(self) -> &'static str {
        match self {
            ConflictKind::Preempt => "adds default routes that beat the agent's",
            ConflictKind::Route => "removes or replaces the agent's routes",
            ConflictKind::Rule => "removes the agent's rules",
        }
    }
}

/// A program that manages routes.
struct Manager {
    name: &'static str,
    /// Its process names, as in `/proc/PID/comm`: at most 15 bytes.
    processes: &'static [&'static str],
    /// Protocol numbers of its routes that no other program uses.
    protocols: &'static [u8],
    /// The remedy against [`ConflictKind::Preempt`].
    preempt: &'static str,
    /// The remedy against the other kinds.
    remove: &'static str,
}

const MANAGERS: &[Manager] = &[
    Manager {
        name: "NetworkManager",
        processes: &["NetworkManager"],
        protocols: &[],
        preempt: "`nmcli connection modify ID ipv4.route-metric 700 ipv6.route-metric 700`, or `… ipv4.never-default yes ipv6.never-default yes` \
                 with the gateway in the agent's configuration; then `nmcli connection up ID`",
        remove: "`nmcli device set INTERFACE managed no`, if something else gives the interface its address",
    },
    Manager {
        name: "systemd-networkd",
        processes: &["systemd-network"],
        protocols: &[],
        preempt: "`RouteMetric=700` in [DHCPv4] and [IPv6AcceptRA], `Metric=700` in [Route] of the .network file; then `networkctl reload`",
        remove: "`ManageForeignRoutes=no` and `ManageForeignRoutingPolicyRules=no` in [Network] of /etc/systemd/networkd.conf; then \
                 `systemctl restart systemd-networkd`",
    },
    Manager {
        name: "dhcpcd",
        processes: &["dhcpcd"],
        protocols: &[],
        preempt: "`metric 700` below `interface INTERFACE` in /etc/dhcpcd.conf, or `nogateway` with the gateway in the agent's configuration; then \
                 `dhcpcd --rebind INTERFACE`",
        remove: "`metric 700` below `interface INTERFACE` in /etc/dhcpcd.conf, so that its routes and the agent's do not meet; then \
                 `dhcpcd --rebind INTERFACE`",
    },
    Manager {
        name: "dhclient",
        processes: &["dhclient", "dhclient-script"],
        protocols: &[],
        preempt: "`metric 700` in the interface's stanza of /etc/network/interfaces; without ifupdown `dhclient -e IF_METRIC=700`",
        remove: "`metric 700` in the interface's stanza of /etc/network/interfaces; without ifupdown `dhclient -e IF_METRIC=700`",
    },
    Manager {
        name: "udhcpc",
        processes: &["udhcpc"],
        protocols: &[],
        preempt: "let its script add the route with metric 700 (on OpenWrt: `option metric 700` in /etc/config/network)",
        remove: "let its script remove no routes but its own (`ip route flush proto dhcp`, or `ip route del … metric 700`)",
    },
    Manager {
        name: "OpenWrt's netifd",
        processes: &["netifd"],
        protocols: &[],
        preempt: "`option metric 700` in the interface's section of /etc/config/network; then `/etc/init.d/network reload`",
        remove: "`option metric 700` in the interface's section of /etc/config/network; then `/etc/init.d/network reload`",
    },
    Manager {
        name: "ConnMan",
        processes: &["connmand"],
        protocols: &[],
        preempt: "`NetworkInterfaceBlacklist=INTERFACE` in [General] of /etc/connman/main.conf, if something else gives it its address",
        remove: "`NetworkInterfaceBlacklist=INTERFACE` in [General] of /etc/connman/main.conf, if something else gives it its address",
    },
    Manager {
        name: "iwd",
        processes: &["iwd"],
        protocols: &[],
        preempt: "`RoutePriorityOffset=700` in [Network] of /etc/iwd/main.conf; then restart iwd",
        remove: "`EnableNetworkConfiguration=false` in [General] of /etc/iwd/main.conf, if something else gives the interface its address",
    },
    Manager {
        name: "keepalived",
        processes: &["keepalived"],
        protocols: &[18],
        preempt: "`metric 700` at the route in `virtual_routes` or `static_routes` of keepalived.conf",
        remove: "take the agent's routes and rules out of `virtual_routes`, `virtual_rules`, `static_routes` and `static_rules` of keepalived.conf",
    },
    Manager {
        name: "FRR",
        processes: &["zebra", "staticd", "bgpd", "ospfd", "watchfrr"],
        // `zebra_rt_netlink.h` in FRR.
        protocols: &[
            11, 186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196, 197, 198,
        ],
        preempt: "zebra installs every route with metric 20: set the agent's `route.active_metric` below 20, or keep its default route out of the \
                 kernel with a route-map that denies 0.0.0.0/0 and `ip protocol any route-map NAME` (IPv6: `ipv6 protocol …`)",
        remove: "set `route.protocol` to a number that FRR does not take for its own (not 11, 42 or 186 to 198)",
    },
    Manager {
        name: "BIRD",
        processes: &["bird", "bird6"],
        protocols: &[12],
        preempt: "`metric 700;` in `protocol kernel` of bird.conf, or an export filter there that rejects 0.0.0.0/0 and ::/0",
        remove: "another number than 12 as `route.protocol`, and `learn off;` in `protocol kernel` of bird.conf",
    },
    Manager {
        name: "pppd",
        processes: &["pppd"],
        protocols: &[],
        preempt: "`defaultroute-metric 700` in /etc/ppp/peers/NAME (pppd 2.4.8 or newer), or `nodefaultroute` with `gateway = \"none\"` in the agent's configuration",
        remove: "`noreplacedefaultroute` in /etc/ppp/peers/NAME",
    },
    Manager {
        name: "another failover-agent",
        processes: &["failover-agent"],
        protocols: &[],
        preempt: "end one of the two: a network namespace has room for one",
        remove: "end one of the two: a network namespace has room for one",
    },
];

/// The other program in a conflict. It is not a single process: a script that runs `ip` again and again is one contender.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Contender {
    /// One of the known programs.
    Known(&'static str),
    /// The program whose routes have this protocol number.
    Protocol(u8),
    /// A program that is not known to us, by its process name.
    Process(String),
    /// Nothing more is known.
    Unknown,
}

impl Contender {
    /// The contender that `actor` is. `ours` says that the actor's protocol number is the one of our own route or rule, which says nothing
    /// about the actor. `None`: the kernel itself, which removes routes when an interface goes down.
    pub fn of(actor: &Actor, ours: bool) -> Option<Contender> {
        if let Origin::Process { name, .. } = &actor.origin
            && let Some(manager) = by_process(name)
        {
            return Some(Contender::Known(manager.name));
        }
        if !ours {
            let manager = by_protocol(actor.protocol);
            let known = manager.map(|manager| Contender::Known(manager.name));
            return Some(known.unwrap_or(Contender::Protocol(actor.protocol)));
        }
        match &actor.origin {
            Origin::Kernel => None,
            Origin::Process { name, .. } if name != "ip" => Some(Contender::Process(name.clone())),
            Origin::Process { .. } | Origin::Unknown => Some(Contender::Unknown),
        }
    }

    /// What the user can do about it.
    pub fn remedy(&self, kind: ConflictKind) -> &'static str {
        match (self, kind) {
            (Contender::Known(name), _) => {
                let manager = MANAGERS.iter().find(|manager| manager.name == *name);
                manager.map_or(UNKNOWN, |manager| match kind {
                    ConflictKind::Preempt => manager.preempt,
                    ConflictKind::Route | ConflictKind::Rule => manager.remove,
                })
            }
            (Contender::Protocol(number), ConflictKind::Preempt) => match number {
                3 => BOOT,
                4 => STATIC,
                9 => ROUTER_ADVERTISEMENTS,
                16 => DHCP,
                _ => UNKNOWN_PREEMPTS,
            },
            (Contender::Process(_) | Contender::Unknown, ConflictKind::Preempt) => UNKNOWN_PREEMPTS,
            (_, ConflictKind::Route | ConflictKind::Rule) => UNKNOWN,
        }
    }
}

const DHCP: &str = "give the DHCP client's route a metric of 700: dhcpcd `metric 700`, systemd-networkd `RouteMetric=700`, NetworkManager \
                    `ipv4.route-metric 700`, ifupdown `metric 700`";
const BOOT: &str = "give the route a metric of 700 where it is made: ifupdown `metric 700` in /etc/network/interfaces, pppd \
                    `defaultroute-metric 700`, or the script that runs `ip route`";
const STATIC: &str = "give the static route a metric of 700 where it is configured: NetworkManager `ipv4.route-metric 700`, systemd-networkd \
                      `Metric=700` in [Route]";
const ROUTER_ADVERTISEMENTS: &str = "`sysctl net.ipv6.conf.INTERFACE.ra_defrtr_metric=1024` for the kernel, `RouteMetric=1024` in [IPv6AcceptRA] for \
                                     systemd-networkd, `ipv6.route-metric 1024` for NetworkManager";
const UNKNOWN_PREEMPTS: &str = "find out which program adds the route and give it a metric of 700 there, or set the agent's `route.active_metric` below it";
const UNKNOWN: &str = "find out which program does it (systemd-networkd needs `ManageForeignRoutes=no` and `ManageForeignRoutingPolicyRules=no`; a script may \
                       flush routes or rules that are not its own)";

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Contender::Known(name) => write!(f, "{name}"),
            Contender::Protocol(number) => match protocol_name(*number) {
                Some(name) => write!(f, "protocol {name} ({number})"),
                None => write!(f, "protocol {number}"),
            },
            Contender::Process(name) => write!(f, "{name}"),
            Contender::Unknown => write!(f, "an unknown program"),
        }
    }
}

fn by_process(name: &str) -> Option<&'static Manager> {
    let mut managers = MANAGERS.iter();
    managers.find(|manager| manager.processes.contains(&name))
}

fn by_protocol(protocol: u8) -> Option<&'static Manager> {
    let mut managers = MANAGERS.iter();
    managers.find(|manager| manager.protocols.contains(&protocol))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn actor(process: Option<&str>, protocol: u8) -> Actor {
        Actor {
            protocol,
            origin: process.map_or(Origin::Unknown, |name| Origin::Process {
                pid: 412,
                name: name.to_owned(),
            }),
        }
    }

    #[test]
    fn each_manager_can_be_recognized() {
        let (mut processes, mut protocols) = (HashSet::new(), HashSet::new());
        for manager in MANAGERS {
            assert!(!manager.processes.is_empty(), "{}", manager.name);
            for process in manager.processes {
                assert!(processes.insert(process), "{process} twice");
                assert!(
                    (1..=15).contains(&process.len()),
                    "{process}: the kernel cuts names off after 15 bytes"
                );
                let contender = Contender::of(&actor(Some(process), 4), false);
                assert_eq!(contender, Some(Contender::Known(manager.name)));
                let contender = Contender::of(&actor(Some(process), 136), true);
                assert_eq!(contender, Some(Contender::Known(manager.name)));
            }
            for protocol in manager.protocols {
                assert!(protocols.insert(protocol), "{protocol} twice");
                let contender = Contender::of(&actor(None, *protocol), false);
                assert_eq!(contender, Some(Contender::Known(manager.name)));
            }
        }
    }

    #[test]
    fn the_protocol_of_our_own_route_says_nothing_of_who_removed_it() {
        // The case in which our number is keepalived's.
        assert_eq!(
            Contender::of(&actor(None, 18), true),
            Some(Contender::Unknown)
        );
        assert_eq!(
            Contender::of(&actor(Some("ip"), 136), true),
            Some(Contender::Unknown)
        );
        assert_eq!(
            Contender::of(&actor(Some("flusher"), 136), true),
            Some(Contender::Process("flusher".to_owned()))
        );
        let kernel = Actor {
            protocol: 136,
            origin: Origin::Kernel,
        };
        assert_eq!(Contender::of(&kernel, true), None);
        // pppd and route(8) ask by ioctl.
        let by_ioctl = Actor {
            protocol: 3,
            ..kernel
        };
        let contender = Contender::of(&by_ioctl, false);
        assert_eq!(contender, Some(Contender::Protocol(3)));
    }

    #[test]
    fn contenders_have_names_and_remedies() {
        let remedy = |process, protocol, kind: ConflictKind| {
            let contender = Contender::of(&actor(process, protocol), kind != ConflictKind::Preempt);
            let contender = contender.unwrap();
            (contender.to_string(), contender.remedy(kind))
        };
        let (name, text) = remedy(Some("systemd-network"), 16, ConflictKind::Route);
        assert_eq!(name, "systemd-networkd");
        assert!(text.contains("ManageForeignRoutes=no"));
        let (name, text) = remedy(None, 16, ConflictKind::Preempt);
        assert_eq!(name, "protocol dhcp (16)");
        assert!(text.contains("dhcpcd `metric 700`"));
        let (name, text) = remedy(Some("NetworkManager"), 16, ConflictKind::Preempt);
        assert_eq!(name, "NetworkManager");
        assert!(text.contains("ipv4.route-metric 700"));
        assert_eq!(
            remedy(None, 200, ConflictKind::Preempt),
            ("protocol 200".to_owned(), UNKNOWN_PREEMPTS)
        );
        assert_eq!(
            remedy(Some("ip"), 136, ConflictKind::Rule),
            ("an unknown program".to_owned(), UNKNOWN)
        );
    }
}
