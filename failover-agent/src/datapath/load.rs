//! Loading the programs, with new maps or with pinned ones.

use std::fs;

use anyhow::{Context as _, Result};
use aya::{Ebpf, EbpfLoader, maps::Map, programs::SchedClassifier};
use failover_ebpf::maps;
use tracing::{info, warn};

use super::{Datapath, Direction, Options, counters, exempt, gates, pins};

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

    let mut ebpf = EbpfLoader::new()
        // The programs read no kernel structures: parsing the kernel's BTF would cost megabytes for nothing.
        .btf(None)
        .map_pin_path(maps::UPLINKS, pins::map(bpf_dir, maps::UPLINKS))
        .map_pin_path(maps::COUNTERS, pins::map(bpf_dir, maps::COUNTERS))
        .map_pin_path(maps::EXEMPT, pins::map(bpf_dir, maps::EXEMPT))
        .map_pin_path(maps::SETTINGS, pins::map(bpf_dir, maps::SETTINGS))
        .load(OBJECT)
        .context("making the eBPF maps")?;
    for direction in Direction::ALL {
        program(&mut ebpf, direction)?
            .load()
            .with_context(|| format!("loading {}", direction.program()))?;
    }
    Ok(Datapath {
        uplinks: gates::Uplinks::new(take(&mut ebpf, maps::UPLINKS)?)?,
        settings: gates::Settings::new(take(&mut ebpf, maps::SETTINGS)?, options.probe_mark)?,
        counters: counters::Map::new(take(&mut ebpf, maps::COUNTERS)?)?,
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

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("no map {name} in the object"))
}
