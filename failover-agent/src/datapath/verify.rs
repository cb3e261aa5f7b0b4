//! The kernel's state of an uplink's programs, read back.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::MapData};
use failover_ebpf::Hook;
use tracing::warn;

use super::{
    Datapath, Direction, Options, attach::interface_name, clsact, filters, link, load, pins,
};

/// The objects that this run has loaded, by the kernel's ids.
pub(super) struct Loaded {
    /// Ids of the programs, in the order of [`Direction::ALL`].
    programs: [u32; 2],
    /// Ids of the pinned maps.
    maps: BTreeMap<&'static str, u32>,
}

impl Loaded {
    pub(super) fn of(ebpf: &mut Ebpf, options: &Options) -> Result<Loaded> {
        let mut programs = [0; 2];
        for (direction, id) in Direction::ALL.into_iter().zip(&mut programs) {
            let program = load::program(ebpf, direction)?;
            *id = program.info().context("asking for a program's id")?.id();
        }
        let mut maps = BTreeMap::new();
        for name in pins::MAPS {
            let map = MapData::from_pin(pins::map(&options.bpf_dir, name))?;
            maps.insert(name, map.info().context("asking for a map's id")?.id());
        }
        Ok(Loaded { programs, maps })
    }
}

/// What is missing of an uplink's programs, in words that follow its name; `None`: nothing.
pub(super) fn missing(datapath: &Datapath, ifindex: u32) -> Result<Option<String>> {
    let Some(uplink) = datapath.uplinks.get(ifindex)? else {
        return Ok(Some("the programs do not know it".to_owned()));
    };
    if !datapath.counters.has(ifindex)? {
        return Ok(Some("the programs cannot count on it".to_owned()));
    }
    let name = interface_name(ifindex)?;
    if uplink.hook != Hook::Tcx {
        match filters::qdisc(ifindex)? {
            Some(kind) if kind == clsact::CLSACT => {}
            Some(kind) => {
                return Ok(Some(format!(
                    "a qdisc `{kind}` stands in the place of clsact on {name}"
                )));
            }
            None => return Ok(Some(format!("the clsact qdisc on {name} is gone"))),
        }
    }
    for (direction, ours) in Direction::ALL.into_iter().zip(datapath.loaded.programs) {
        if uplink.hook == Hook::Tcx {
            if !link::programs(&name, direction)?.contains(&ours) {
                return Ok(Some(format!(
                    "the {direction} program on {name} is detached"
                )));
            }
            let pin = pins::link(&datapath.options.bpf_dir, ifindex, direction);
            if !pin.exists() {
                return Ok(Some(format!(
                    "the pin of the {direction} program on {name} is gone"
                )));
            }
        } else {
            let filters = filters::list(ifindex, direction)?;
            let mut ours = filters
                .iter()
                .filter(|filter| filter.is_ours() && filter.program == Some(ours));
            if ours.next().is_none() {
                return Ok(Some(format!("the {direction} filter on {name} is gone")));
            }
        }
    }
    Ok(None)
}

/// Pins maps again whose pins are gone, so that a restart finds them.
pub(super) fn pin_maps(datapath: &Datapath) -> Result<()> {
    let bpf_dir = &datapath.options.bpf_dir;
    let mut errors = pins::Errors::default();
    for (name, id) in &datapath.loaded.maps {
        let path = pins::map(bpf_dir, name);
        if path.exists() {
            continue;
        }
        let links = pins::links(bpf_dir);
        let pin = || -> Result<()> {
            fs::create_dir_all(&links).with_context(|| format!("making {}", links.display()))?;
            let map = MapData::from_id(*id)?;
            map.pin(&path)
                .with_context(|| format!("pinning {}", path.display()))?;
            Ok(())
        };
        let pinned = pin();
        if pinned.is_ok() {
            warn!(pin = %path.display(), "a pinned map was removed, and is pinned again");
        }
        errors.note(pinned);
    }
    errors.into_result()
}
