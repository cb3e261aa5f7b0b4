//! Loading the programs, with new maps or with pinned ones.

use std::{collections::BTreeMap, fs, io, thread, time::Duration};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{ProgramError, SchedClassifier},
};
use failover_ebpf::maps;
use tracing::{info, warn};

use super::{
    Datapath, Direction, Options, ProbeSockets, addresses, counters, exempt, gates, limits, pins,
    refused, verify::Loaded,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/failover-ebpf"));

/// How often the verification of a program is repeated after an interruption, and the pause before each repetition.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn open(options: &Options) -> Result<Datapath> {
    let bpf_dir = &options.bpf_dir;
    match pins::adoptable(bpf_dir) {
        Ok(true) => info!(directory = %bpf_dir.display(), "adopting pinned maps"),
        Ok(false) => {}
        Err(error) => {
            warn!(directory = %bpf_dir.display(), "removing pinned maps that cannot be adopted: {error:#}");
            pins::remove_pins(bpf_dir)
                .into_result()
                .context("removing pinned maps that cannot be adopted")?;
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
    let mut ebpf = load(&mut loader, OBJECT)?;
    let probes = ProbeSockets::new(
        take(&mut ebpf, maps::PROBES)?,
        take(&mut ebpf, maps::ECHOES)?,
    )?;
    Ok(Datapath {
        loaded: Loaded::of(&mut ebpf, options)?,
        unattached: BTreeMap::new(),
        probes,
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

/// Creates the maps and loads the programs.
///
/// # Errors
///
/// [`Failure::ProgramRefused`] with the end of the verifier's log.
///
/// [`Failure::ProgramRefused`]: crate::failure::Failure::ProgramRefused
fn load(loader: &mut EbpfLoader<'_>, object: &[u8]) -> Result<Ebpf> {
    let mut ebpf = loader.load(object).context("making the eBPF maps")?;
    for direction in Direction::ALL {
        load_program(program(&mut ebpf, direction)?)
            .map_err(|error| refused::failure(direction, error))?;
    }
    Ok(ebpf)
}

/// Makes the kernel verify and load one program. The verifier gives up with `EAGAIN` when a signal is pending for the calling thread
/// (because a child has ended, for example), and with `ENOMEM` when memory is short: neither says anything about the program.
fn load_program(program: &mut SchedClassifier) -> std::result::Result<(), ProgramError> {
    let mut attempt = 1;
    loop {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if is_of_the_moment(&io_error) && attempt < ATTEMPTS =>
            {
                attempt += 1;
                thread::sleep(PAUSE);
            }
            loaded => return loaded,
        }
    }
}

fn is_of_the_moment(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, WouldBlock};
    matches!(error.kind(), OutOfMemory | WouldBlock)
}

/// The program of one direction.
pub(super) fn program(ebpf: &mut Ebpf, direction: Direction) -> Result<&mut SchedClassifier> {
    let name = direction.program();
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name} in the object"))?;
    Ok(program.try_into()?)
}

/// Takes a map of the object; works once per map.
pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("no map {name} in the object"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    #[ignore = "needs root"]
    fn a_program_that_the_verifier_refuses_ends_in_one_line() {
        const LOAD_BYTES: [u8; 8] = [0x85, 0, 0, 0, 26, 0, 0, 0];
        const NO_HELPER: [u8; 8] = [0x85, 0, 0, 0, 0x0f, 0x27, 0, 0];
        // The same object, but the programs call a helper that no kernel has.
        let mut object = OBJECT.to_vec();
        let mut calls = 0;
        for at in (0..object.len() - 8).step_by(8) {
            if object[at..at + 8] == LOAD_BYTES {
                object[at..at + 8].copy_from_slice(&NO_HELPER);
                calls += 1;
            }
        }
        assert_ne!(calls, 0, "bpf_skb_load_bytes is called nowhere");

        let error = load(EbpfLoader::new().btf(None), &object).unwrap_err();
        let Some(failure @ Failure::ProgramRefused { words, .. }) = error.downcast_ref() else {
            panic!("{error:#}");
        };
        assert!(words.contains("unknown#9999"), "{words}");
        let line = failure.to_string();
        assert!(!line.contains('\n') && line.len() < 500, "{line}");
    }
}
