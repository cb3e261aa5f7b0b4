//! How health, families, causes, gates and times are written in JSON.

use failover_ebpf::Gate;
use serde::{Deserialize, Serialize};

use failover_policy::{Cause, Family, Health};

/// `policy` and the map ABI know nothing of serde; these types define how their words are written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Health")]
pub(super) enum HealthWord {
    Unknown,
    Up,
    Down,
    Blind,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Family")]
pub(super) enum FamilyWord {
    #[serde(rename = "ipv4")]
    V4,
    #[serde(rename = "ipv6")]
    V6,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Cause", rename_all = "kebab-case")]
pub(super) enum CauseWord {
    #[serde(rename = "start-up")]
    Startup,
    Failover,
    Failback,
    Follow,
    Manual,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Gate", rename_all = "lowercase")]
pub(super) enum GateWord {
    Open,
    Closed,
}

/// Times as RFC 3339 in UTC, with microseconds.
pub(super) mod rfc3339 {
    use std::{borrow::Cow, time::SystemTime};

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(in crate::control) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // humantime cannot write years before 1970; a host whose clock was never set starts at 1970.
        let time = (*time).max(SystemTime::UNIX_EPOCH);
        serializer.collect_str(&humantime::format_rfc3339_micros(time))
    }

    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}
