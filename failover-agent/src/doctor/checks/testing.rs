//! A healthy host, to be spoilt by tests.

use std::net::IpAddr;

use super::{
    Finding,
    facts::{End, Facts, Probe, Settings, Uplink},
};
use failover_policy::PerFamily;

use crate::{
    cli::UplinkFlags,
    config::Config,
    doctor::firewall::Firewall,
    route::{
        EgressPath,
        inspect::{Address, AddressState, HashSetting, Interface, Sharing},
    },
};

/// Interface indexes.
pub(super) const CABLE: u32 = 2;
pub(super) const LTE: u32 = 3;
pub(super) const LAN: u32 = 4;

/// Two uplinks, `cable` and `lte`, that are probed in IPv4, and a LAN behind them.
pub(super) fn healthy() -> Facts {
    let flags = UplinkFlags {
        uplink: vec!["cable".to_owned(), "lte".to_owned()],
        target: vec!["192.0.2.1".to_owned(), "198.51.100.1".to_owned()],
        ..UplinkFlags::default()
    };
    Facts {
        config: Config::from_flags(&flags).unwrap(),
        requirement: None,
        tcx: true,
        cannot_end: Vec::new(),
        interfaces: vec![
            interface(CABLE, "cable", "10.64.1.2"),
            interface(LTE, "lte", "10.64.2.2"),
            interface(LAN, "lan", "192.168.77.1"),
        ],
        uplinks: vec![
            uplink(CABLE, "cable", "10.64.1"),
            uplink(LTE, "lte", "10.64.2"),
        ],
        defaults: Vec::new(),
        routes: Vec::new(),
        sharing: Sharing {
            stands: PerFamily::both(false),
            hash: PerFamily::both(Some(HashSetting {
                value: 0,
                settable: true,
            })),
            resilient: true,
            taken: Vec::new(),
        },
        forwarding: PerFamily::new(true, false),
        firewall: Some(Firewall {
            nat: vec![crate::doctor::firewall::masquerade_everywhere()],
            drops_invalid: true,
            clamps_mss: false,
            ..Firewall::default()
        }),
    }
}

fn interface(index: u32, name: &str, ip: &str) -> Interface {
    Interface {
        index,
        name: name.to_owned(),
        up: true,
        carrier: true,
        network: true,
        mtu: 1500,
        addresses: vec![Address {
            ip: ip.parse().unwrap(),
            length: 24,
            state: AddressState::Usable,
        }],
        ..Interface::default()
    }
}

fn uplink(index: u32, name: &str, network: &str) -> Uplink {
    let ip = |host: u8| -> IpAddr { format!("{network}.{host}").parse().unwrap() };
    let path = EgressPath {
        source: ip(2),
        prefixes: vec![format!("{network}.0/24").parse().unwrap()],
        gateway: Some(ip(1)),
        template: crate::route::Template::default(),
    };
    let answered = |target: &str| Probe {
        target: target.parse().unwrap(),
        end: End::Answered,
    };
    Uplink {
        interface: Some(interface(index, name, &ip(2).to_string())),
        paths: PerFamily::new(Some(path), None),
        gateways: PerFamily::new(
            Some(vec![2, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            None,
        ),
        settings: Settings::default(),
        programs: Some(Vec::new()),
        probes: vec![answered("192.0.2.1"), answered("198.51.100.1")],
    }
}

/// The findings of one check.
pub(super) fn found(id: &str, facts: &Facts) -> Vec<Finding> {
    let check = super::ALL.iter().find(|check| check.id == id).unwrap();
    (check.find)(facts).unwrap()
}

/// The only finding of one check.
pub(super) fn only(id: &str, facts: &Facts) -> Finding {
    let mut found = found(id, facts);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}
