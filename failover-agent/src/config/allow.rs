//! Keys whose values are lists of exemptions from closed gates: networks and packet marks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    kind::{Kind, out_of_range},
    raw::{Raw, invalid, printable},
};
use crate::failure::Failure;

/// Greatest number of networks. The map that holds them has room for the uplinks' on-link networks as well.
const MAX_PREFIXES: usize = 256;

/// Greatest number of marks: the programs compare a packet with each.
const MAX_MARKS: usize = 8;

/// A list of networks.
#[derive(Debug)]
pub(super) struct Prefixes;

impl Kind for Prefixes {
    type Value = Vec<IpNet>;

    fn unit(&self) -> String {
        "list of IPv4 and IPv6 networks".to_owned()
    }

    fn range(&self) -> String {
        format!("up to {MAX_PREFIXES} different ones like `\"192.0.2.0/24\"`; not all addresses")
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<Self::Value, Failure> {
        let raws = raw.list(key, "a list of networks", "[\"192.0.2.0/24\"]")?;
        different(key, raw, &raws, MAX_PREFIXES, |raw| prefix(key, raw))
    }
}

/// An address alone is a network of one host.
fn prefix(key: &str, raw: Raw<'_>) -> Result<IpNet, Failure> {
    let text = raw.text(key, "a list of networks", "[\"192.0.2.0/24\"]")?;
    let bad = |expected: &str, cure: String| Failure::BadAddress {
        place: raw.place(),
        text: printable(text),
        expected: expected.to_owned(),
        cure,
    };
    let (address, length) = text
        .split_once('/')
        .map_or((text, None), |(address, length)| (address, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else {
        let cure = "write it like 192.0.2.0/24 or 2001:db8::/32";
        return Err(bad("an IPv4 or IPv6 network", cure.to_owned()));
    };
    let host = IpNet::from(address);
    let network = match length.map(str::parse) {
        None => host,
        Some(Ok(0)) => {
            let cure = "everything would pass: write mode = \"off\" instead".to_owned();
            return Err(bad("a network that can be allowed", cure));
        }
        Some(length) => {
            let network = length
                .ok()
                .and_then(|length| IpNet::new(address, length).ok());
            network.ok_or_else(|| {
                let cure = format!("give a prefix length of 1 to {}", host.max_prefix_len());
                bad("an IPv4 or IPv6 network", cure)
            })?
        }
    };
    if network != network.trunc() {
        let cure = format!("it has host bits: write {}", network.trunc());
        return Err(bad("a network", cure));
    }
    Ok(network)
}

/// A list of packet marks.
#[derive(Debug)]
pub(super) struct Marks;

impl Kind for Marks {
    type Value = Vec<u32>;

    fn unit(&self) -> String {
        "list of packet marks".to_owned()
    }

    fn range(&self) -> String {
        format!(
            "up to {MAX_MARKS} different ones of 1 to {}, also like `0x1a`",
            u32::MAX
        )
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<Self::Value, Failure> {
        let raws = raw.list(key, "a list of marks", "[0x1a]")?;
        different(key, raw, &raws, MAX_MARKS, |raw| {
            let number = raw.integer(key, "[0x1a]")?;
            // Mark 0 is that of every unmarked packet.
            let mark = u32::try_from(number).ok().filter(|mark| *mark != 0);
            mark.ok_or_else(|| out_of_range(key, &number.to_string(), self, raw))
        })
    }
}

/// Reads all of `raws`, at most `most` and none twice.
fn different<T: PartialEq>(
    key: &str,
    list: Raw<'_>,
    raws: &[Raw<'_>],
    most: usize,
    read: impl Fn(Raw<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    if raws.len() > most {
        return Err(invalid(
            list.place(),
            format!("`{key}` has {} values", raws.len()),
            format!("name up to {most}"),
        ));
    }
    let mut values = Vec::new();
    for raw in raws {
        let value = read(*raw)?;
        if values.contains(&value) {
            return Err(invalid(
                raw.place(),
                format!("the same stands in `{key}` twice"),
                "name each once",
            ));
        }
        values.push(value);
    }
    Ok(values)
}
