//! The facts about the host, as plain data.

use std::net::IpAddr;

use failover_policy::{Family, PerFamily};

use super::{firewall::Firewall, obstacle::Obstacle};
use crate::{
    config::{Config, UplinkConfig},
    datapath,
    route::{
        self,
        inspect::{DefaultRoute, Interface, Sharing},
        lookup::family_of,
        others::Route,
    },
};

/// All facts, at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) config: Config,
    /// What the agent would refuse to start for: problem and cure.
    pub(super) requirement: Option<(String, String)>,
    /// Whether the kernel has TCX.
    pub(super) tcx: bool,
    /// What the kernel cannot end at a cutoff, one line each.
    pub(super) cannot_end: Vec<String>,
    pub(super) interfaces: Vec<Interface>,
    /// The uplinks, in the order of `config.uplinks`.
    pub(super) uplinks: Vec<Uplink>,
    /// Other programs' default routes.
    pub(super) defaults: Vec<DefaultRoute>,
    /// Other programs' routes that are not ordinary default routes.
    pub(super) routes: Vec<Route>,
    pub(super) sharing: Sharing,
    /// Whether the host forwards.
    pub(super) forwarding: PerFamily<bool>,
    /// `None` if the rules cannot be read.
    pub(super) firewall: Option<Firewall>,
}

/// One uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uplink {
    /// `None` if the interface does not exist.
    pub(super) interface: Option<Interface>,
    /// Each family's egress path.
    pub(super) paths: PerFamily<Option<route::EgressPath>>,
    /// Link-layer address of each family's gateway, if it is known.
    pub(super) gateways: PerFamily<Option<Vec<u8>>>,
    pub(super) settings: Settings,
    /// `None` if they cannot be listed.
    pub(super) programs: Option<Vec<datapath::Program>>,
    /// One for each target whose family has a path.
    pub(super) probes: Vec<Probe>,
}

/// Kernel settings of an interface (`sysctl`), as they take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) rp_filter: u8,
    pub(super) arp_ignore: u8,
    pub(super) arp_announce: u8,
    pub(super) disable_ipv6: u8,
    pub(super) accept_ra: u8,
    pub(super) forwarding_v6: u8,
}

/// How one probe of one target by one uplink ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) target: IpAddr,
    pub(super) end: End,
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The target answered in time.
    Answered,
    /// The target did not answer.
    Silent,
    /// A firewall of this host refused the probe (EPERM).
    Refused,
    /// The probe was not sent, because its answer could not come.
    Prevented(Obstacle),
    /// The probe was not sent: the link is down, or something else on this host failed.
    NotSent,
}

impl Facts {
    /// Configuration and facts of each uplink.
    pub(super) fn uplinks(&self) -> impl Iterator<Item = (&UplinkConfig, &Uplink)> {
        self.config.uplinks.iter().zip(&self.uplinks)
    }

    /// The uplinks whose interface exists, each with it.
    pub(super) fn present(&self) -> impl Iterator<Item = (&UplinkConfig, &Uplink, &Interface)> {
        self.uplinks().filter_map(|(config, uplink)| {
            let interface = uplink.interface.as_ref()?;
            Some((config, uplink, interface))
        })
    }

    /// Name of the interface with this index.
    pub(super) fn interface_name(&self, index: u32) -> String {
        self.interfaces
            .iter()
            .find(|interface| interface.index == index)
            .map_or_else(|| format!("if{index}"), |interface| interface.name.clone())
    }

    /// Whether an uplink is on the interface with this index.
    pub(super) fn is_uplink(&self, index: u32) -> bool {
        self.present()
            .any(|(_, _, interface)| interface.index == index)
    }

    /// The uplink on the interface with this index.
    pub(super) fn uplink_on(&self, index: u32) -> Option<(&UplinkConfig, &Uplink)> {
        let mut present = self.present();
        let found = present.find(|(_, _, interface)| interface.index == index);
        found.map(|(config, uplink, _)| (config, uplink))
    }

    /// Interfaces that are not uplinks, behind which there may be other hosts.
    pub(super) fn lans(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(|interface| {
            interface.network
                && interface.up
                && !interface.addresses.is_empty()
                && !self.is_uplink(interface.index)
        })
    }
}

/// The configured targets of one family.
pub(super) fn targets(uplink: &UplinkConfig, family: Family) -> impl Iterator<Item = IpAddr> {
    let targets = uplink.probe.targets.iter().copied();
    targets.filter(move |target| family_of(*target) == family)
}
