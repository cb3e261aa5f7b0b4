//! Flags become a [`Draft`], by the same keys and ranges as a file.

use std::path::{Path, PathBuf};

use super::{
    draft::{Draft, UplinkDraft},
    key::Key,
    kind::Kind,
    nearest, probe_keys,
    raw::{Placed, Raw, invalid},
    schema, uplink_keys,
};
use crate::{cli::UplinkFlags, failure::Failure};

/// What may follow the interface in `--uplink`.
const OPTIONS: [&str; 9] = [
    "gateway", "gateway6", "source", "source6", "name", "metered", "rank", "weight", "metric",
];

/// Reads the flags that replace a file.
pub(super) fn read(flags: &UplinkFlags) -> Result<Draft, Failure> {
    let mut draft = Draft::new("command line".to_owned());
    let probe = &mut draft.probe;
    if !flags.target.is_empty() {
        probe.targets = Placed::at("--target".to_owned(), Vec::new());
    }
    for text in &flags.target {
        let raw = Raw::Flag {
            flag: "--target",
            text,
        };
        let target = probe_keys::TARGETS.kind.read("target", raw)?;
        probe.targets.value.extend(target);
    }
    set(
        &mut probe.interval,
        &probe_keys::INTERVAL,
        "--interval",
        flags.interval.as_deref(),
    )?;
    set(
        &mut probe.timeout,
        &probe_keys::TIMEOUT,
        "--timeout",
        flags.timeout.as_deref(),
    )?;
    set(
        &mut probe.fall,
        &probe_keys::FALL,
        "--fall",
        flags.fall.as_deref(),
    )?;
    set(
        &mut probe.rise,
        &probe_keys::RISE,
        "--rise",
        flags.rise.as_deref(),
    )?;
    set(
        &mut probe.quorum,
        &probe_keys::QUORUM,
        "--quorum",
        flags.quorum.as_deref(),
    )?;
    set(
        &mut probe.hold,
        &probe_keys::HOLD,
        "--hold",
        flags.hold.as_deref(),
    )?;
    set(
        &mut draft.active_metric,
        &schema::ACTIVE_METRIC,
        "--active-metric",
        flags.active_metric.as_deref(),
    )?;
    set(
        &mut draft.standby_metric,
        &schema::STANDBY_METRIC,
        "--standby-metric",
        flags.standby_metric.as_deref(),
    )?;
    set(
        &mut draft.mode,
        &schema::MODE,
        "--cutoff",
        flags.cutoff.as_deref(),
    )?;
    for text in &flags.uplink {
        let uplink = uplink(text, &draft)?;
        draft.uplinks.push(uplink);
    }
    Ok(draft)
}

/// Sets `dir` to the directory that `flag` names, made absolute.
pub(super) fn override_dir<K: Kind<Value = PathBuf>>(
    dir: &mut PathBuf,
    key: &Key<K>,
    flag: &str,
    path: Option<&Path>,
) -> Result<(), Failure> {
    if let Some(path) = path {
        let absolute = std::path::absolute(path)
            .map_err(|error| invalid(flag, error.to_string(), "give an absolute path"))?;
        let Some(text) = absolute.to_str() else {
            return Err(invalid(
                flag,
                format!("{} is not UTF-8", absolute.display()),
                "choose another path",
            ));
        };
        *dir = key.kind.read(key.name, Raw::Flag { flag, text })?;
    }
    Ok(())
}

/// `IF[,gateway=ADDR][,gateway6=ADDR][,source=ADDR][,source6=ADDR][,name=NAME][,metered][,rank=N][,weight=N][,metric=N]`.
fn uplink(text: &str, draft: &Draft) -> Result<UplinkDraft, Failure> {
    let mut parts = text.split(',');
    let interface = parts.next().unwrap_or_default();
    let place = format!("--uplink {interface}");
    let read_interface = Raw::Flag {
        flag: "--uplink",
        text: interface,
    };
    let interface = uplink_keys::INTERFACE
        .kind
        .read("interface", read_interface)?;
    let mut uplink = UplinkDraft::new(interface, place.clone(), draft);
    for part in parts {
        let (option, value) = part.split_once('=').unwrap_or((part, ""));
        match option {
            "gateway" => set(
                &mut uplink.gateway,
                &uplink_keys::GATEWAY,
                &place,
                Some(value),
            )?,
            "gateway6" => set(
                &mut uplink.gateway6,
                &uplink_keys::GATEWAY6,
                &place,
                Some(value),
            )?,
            "source" => set(
                &mut uplink.source,
                &uplink_keys::SOURCE,
                &place,
                Some(value),
            )?,
            "source6" => set(
                &mut uplink.source6,
                &uplink_keys::SOURCE6,
                &place,
                Some(value),
            )?,
            "name" => set(&mut uplink.name, &uplink_keys::NAME, &place, Some(value))?,
            "rank" => set(&mut uplink.rank, &uplink_keys::RANK, &place, Some(value))?,
            "weight" => set(
                &mut uplink.weight,
                &uplink_keys::WEIGHT,
                &place,
                Some(value),
            )?,
            "metric" => set(
                &mut uplink.metric,
                &uplink_keys::METRIC_OF,
                &place,
                Some(value),
            )?,
            "metered" if part == "metered" => uplink.metered = Placed::at(place.clone(), true),
            "metered" => set(
                &mut uplink.metered,
                &uplink_keys::METERED,
                &place,
                Some(value),
            )?,
            _ => {
                let cure = match nearest(option, OPTIONS) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("valid options are {}", OPTIONS.join(", ")),
                };
                return Err(invalid(place, format!("unknown option `{option}`"), cure));
            }
        }
    }
    Ok(uplink)
}

fn set<K: Kind>(
    into: &mut Placed<K::Value>,
    key: &Key<K>,
    flag: &str,
    text: Option<&str>,
) -> Result<(), Failure> {
    if let Some(text) = text {
        *into = Placed::at(
            flag.to_owned(),
            key.kind.read(key.name, Raw::Flag { flag, text })?,
        );
    }
    Ok(())
}
