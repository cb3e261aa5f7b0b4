//! Loading the programs, with new maps or with pinned ones.

use std::fs;

use anyhow::{Context as _, Result};
use aya::{Ebpf, EbpfLoader, maps::Map, programs::SchedClassifier};
use failover_ebpf::maps;
use tracing::{info, warn};

use super::{Datapath, Direction, Options, addresses, counters, exempt, gates, limits, pins};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/failover-ebpf"));

pub(super) fn open(options: &Options) -> Result<Datapath> {
    let bpf_dir = &options.bpf_dir;
    match pins::adoptable(bpf_dir) {
        Ok(true) => info!(directory = %bpf_dir.display(), "adopting pinned maps"),
        Ok(false) => {}
        Err(error) => {
            warn!(directory = %bpf_dir.display(), "removing pinned maps that cannot be adopted: {error:#}");
            pins::remove_pins(bpf_dir).context("removing pinned maps that cannot be adopted")?;
        }
    }
    let links = pins::links(bpf_dir);
    fs::create_dir_all(&links).with_context(|| format!("making {}", links.display()))?;

    let mut loader = EbpfLoader::new();
    // The programs read no kernel structures: parsing the kernel's BTF would cost megabytes for nothing.
    loader.btf(None);
    for name in pins::MAPS {
        loader.map_pin_path(name, pins::map(bpf_dir, name));
    }
    let mut ebpf = loader.load(OBJECT).context("making the eBPF maps")?;
    for direction in Direction::ALL {
        program(&mut ebpf, direction)?
            .load()
            .with_context(|| format!("loading {}", direction.program()))?;
    }
    Ok(Datapath {
        uplinks: gates::Uplinks::new(take(&mut ebpf, maps::UPLINKS)?)?,
        settings: gates::Settings::new(take(&mut ebpf, maps::SETTINGS)?, options.probe_mark)?,
        counters: counters::Map::new(take(&mut ebpf, maps::COUNTERS)?)?,
        addresses: addresses::Map::new(take(&mut ebpf, maps::ADDRESSES)?)?,
        limits: limits::Map::new(take(&mut ebpf, maps::LIMITS)?)?,
        exempt: exempt::Trie::new(take(&mut ebpf, maps::EXEMPT)?)?,
        options: options.clone(),
        ebpf,
    })
}

/// The program of one direction.
pub(super) fn program(ebpf: &mut Ebpf, direction: Direction) -> Result<&mut SchedClassifier> {
    let name = direction.program();
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name} in the object"))?;
    Ok(program.try_into()?)
}

/// A map of the object, once.
pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("no map {name} in the object"))
}
