//! Keys whose values are addresses: the targets, the gateways and the sources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use failover_policy::Family;

use super::{
    Gateway,
    kind::Kind,
    raw::{Placed, Raw, printable},
};
use crate::failure::Failure;

/// A list of addresses to probe.
#[derive(Debug)]
pub(super) struct Targets;

impl Kind for Targets {
    type Value = Vec<Placed<IpAddr>>;

    fn unit(&self) -> String {
        "list of IPv4 and IPv6 addresses".to_owned()
    }

    fn range(&self) -> String {
        "1 to 32 different unicast addresses".to_owned()
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<Self::Value, Failure> {
        raw.list(key, "a list of addresses", "[\"1.1.1.1\"]")?
            .into_iter()
            .map(|raw| Ok(Placed::at(raw.place(), target(key, raw)?)))
            .collect()
    }
}

fn target(key: &str, raw: Raw<'_>) -> Result<IpAddr, Failure> {
    let text = raw.text(key, "a list of addresses", "[\"1.1.1.1\"]")?;
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(bad_address(
            raw,
            text,
            "an IPv4 or IPv6 address",
            format!(
                "{}:// targets are not supported yet, use an address",
                printable(scheme)
            ),
        ));
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(bad_address(
            raw,
            text,
            "an IPv4 or IPv6 address",
            "write it like 1.1.1.1 or 2606:4700:4700::1111, names are not resolved",
        ));
    };
    if let Some(kind) = unreachable_kind(address) {
        return Err(bad_address(
            raw,
            text,
            "an address that can be probed",
            format!("it is {kind}: use an address on the internet"),
        ));
    }
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return Err(bad_address(
            raw,
            text,
            "an address that can be probed",
            "it is link-local and says nothing about the path beyond it: use an address on the internet",
        ));
    }
    Ok(address)
}

/// A gateway of one family.
#[derive(Debug)]
pub(super) struct GatewayOf(pub(super) Family);

impl GatewayOf {
    fn example(&self) -> &'static str {
        match self.0 {
            Family::V4 => "192.0.2.1",
            Family::V6 => "fe80::1",
        }
    }
}

impl Kind for GatewayOf {
    type Value = Gateway;

    fn unit(&self) -> String {
        format!("{} address, or a word", self.0)
    }

    fn range(&self) -> String {
        format!("`\"auto\"`, `\"none\"`, or like `\"{}\"`", self.example())
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<Gateway, Failure> {
        let text = raw.text(key, "an address, auto or none", "\"auto\"")?;
        match text {
            "auto" => return Ok(Gateway::Auto),
            "none" => return Ok(Gateway::None),
            _ => {}
        }
        let expected = match self.0 {
            Family::V4 => "an IPv4 address",
            Family::V6 => "an IPv6 address",
        };
        let cure = format!("write an address like {}, auto or none", self.example());
        let Ok(address) = text.parse::<IpAddr>() else {
            return Err(bad_address(raw, text, expected, cure));
        };
        match (self.0, address) {
            (Family::V4, IpAddr::V6(_)) => {
                let cure = format!("write gateway6 = \"{address}\" instead");
                return Err(bad_address(raw, text, expected, cure));
            }
            (Family::V6, IpAddr::V4(_)) => {
                let cure = format!("write gateway = \"{address}\" instead");
                return Err(bad_address(raw, text, expected, cure));
            }
            (Family::V4, IpAddr::V4(_)) | (Family::V6, IpAddr::V6(_)) => {}
        }
        match unreachable_kind(address) {
            Some(kind) => Err(bad_address(
                raw,
                text,
                "the address of a gateway",
                format!("it is {kind}: {cure}"),
            )),
            None => Ok(Gateway::Address(address)),
        }
    }
}

/// An address of this host, of one family, from which connections to the internet may leave.
#[derive(Debug)]
pub(super) struct SourceOf(pub(super) Family);

impl SourceOf {
    fn example(&self) -> &'static str {
        match self.0 {
            Family::V4 => "192.0.2.7",
            Family::V6 => "2001:db8::7",
        }
    }
}

impl Kind for SourceOf {
    type Value = IpAddr;

    fn unit(&self) -> String {
        format!("{} address", self.0)
    }

    fn range(&self) -> String {
        format!("unicast, like `\"{}\"`", self.example())
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<IpAddr, Failure> {
        let text = raw.text(key, "an address", &format!("\"{}\"", self.example()))?;
        let expected = format!("an {} address of this host", self.0);
        let cure = format!(
            "write an address of the uplink's interface like {}, or leave `{key}` out",
            self.example()
        );
        let address = text.parse::<IpAddr>().ok();
        let address = address.filter(|address| family_of(*address) == self.0);
        let Some(address) = address else {
            return Err(bad_address(raw, text, &expected, cure));
        };
        let kind = match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
            _ => unreachable_kind(address),
        };
        match kind {
            Some(kind) => Err(bad_address(
                raw,
                text,
                &expected,
                format!("it is {kind}: {cure}"),
            )),
            None => Ok(address),
        }
    }
}

fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// The reason why no other host can have an address; `None` if one can.
fn unreachable_kind(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("this host's own address"),
        _ if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("the broadcast address"),
        IpAddr::V6(v6) if Ipv6Addr::to_ipv4_mapped(&v6).is_some() => {
            Some("an IPv4 address in IPv6 dress")
        }
        _ => None,
    }
}

fn bad_address(raw: Raw<'_>, text: &str, expected: &str, cure: impl Into<String>) -> Failure {
    Failure::BadAddress {
        place: raw.place(),
        text: printable(text),
        expected: expected.to_owned(),
        cure: cure.into(),
    }
}
