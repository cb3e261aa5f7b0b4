//! The pinned objects: where they are, whether they can be adopted, and how they are removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::{Array, HashMap, Map, MapData};
use failover_ebpf::{ABI_VERSION, Hook, Settings, Uplink, maps};

use super::{Direction, clsact};

/// The maps that outlive the agent.
pub(super) const MAPS: [&str; 7] = [
    maps::UPLINKS,
    maps::COUNTERS,
    maps::EXEMPT,
    maps::SETTINGS,
    maps::ADDRESSES,
    maps::FLOWS,
    maps::LIMITS,
];

/// Where a map is pinned.
pub(super) fn map(bpf_dir: &Path, name: &str) -> PathBuf {
    bpf_dir.join(name.to_lowercase())
}

/// The directory of the TCX links.
pub(super) fn links(bpf_dir: &Path) -> PathBuf {
    bpf_dir.join("links")
}

/// Where the TCX link of one hook is pinned.
pub(super) fn link(bpf_dir: &Path, ifindex: u32, direction: Direction) -> PathBuf {
    links(bpf_dir).join(format!("{ifindex}-{direction}"))
}

/// Removes a file; true if there was one.
pub(super) fn unpin(path: &Path) -> Result<bool> {
    removed(fs::remove_file(path), path)
}

fn removed(result: io::Result<()>, path: &Path) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}

/// Whether there are pins, all of which are of this agent's ABI version.
///
/// # Errors
///
/// There are pins that must not be adopted.
pub(super) fn adoptable(bpf_dir: &Path) -> Result<bool> {
    let missing: Vec<_> = MAPS
        .into_iter()
        .filter(|name| !map(bpf_dir, name).exists())
        .collect();
    if missing.len() == MAPS.len() {
        return Ok(false);
    }
    if !missing.is_empty() {
        bail!("{} missing", missing.join(", ").to_lowercase());
    }
    let path = map(bpf_dir, maps::SETTINGS);
    let settings: Array<_, Settings> = Map::Array(MapData::from_pin(&path)?).try_into()?;
    let version = settings.get(&0, 0)?.abi_version;
    if version != ABI_VERSION {
        bail!("their ABI version is {version}, this agent's is {ABI_VERSION}");
    }
    Ok(true)
}

/// Detaches and unpins everything that an agent left below `bpf_dir`, running or killed, and removes the directory.
/// Says what it removed. Files that are not the agent's are left alone, and then the directory too.
///
/// # Errors
///
/// All errors together, after everything that can be removed has been.
pub fn remove_pins(bpf_dir: &Path) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let mut errors = Errors::default();
    if adoptable(bpf_dir).unwrap_or(false) {
        match hooks(bpf_dir) {
            Ok(hooks) => {
                for (ifindex, hook) in hooks {
                    match clsact::detach(ifindex, hook) {
                        Ok(removed) => done.extend(removed),
                        error => errors.note(error.map(drop)),
                    }
                }
            }
            error => errors.note(error.map(drop)),
        }
    }
    let mut pins = Vec::new();
    let links = links(bpf_dir);
    match fs::read_dir(&links) {
        Ok(entries) => pins.extend(
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| is_link(path)),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => errors.note(Err(
            anyhow!(error).context(format!("reading {}", links.display()))
        )),
    }
    pins.extend(MAPS.iter().map(|name| map(bpf_dir, name)));
    for pin in pins {
        match unpin(&pin) {
            Ok(true) => done.push(format!("pin {}", pin.display())),
            Ok(false) => {}
            error => errors.note(error.map(drop)),
        }
    }
    for dir in [links.as_path(), bpf_dir] {
        match removed(fs::remove_dir(dir), dir) {
            Ok(true) => done.push(format!("directory {}", dir.display())),
            Ok(false) => {}
            error => errors.note(error.map(drop)),
        }
    }
    errors.into_result().map(|()| done)
}

/// The hook of every uplink, from the pinned map.
fn hooks(bpf_dir: &Path) -> Result<Vec<(u32, Hook)>> {
    let path = map(bpf_dir, maps::UPLINKS);
    let map = Map::HashMap(
        MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?,
    );
    let uplinks: HashMap<_, u32, Uplink> = map.try_into()?;
    uplinks
        .iter()
        .map(|entry| Ok(entry.map(|(ifindex, uplink)| (ifindex, uplink.hook))?))
        .collect()
}

/// Whether a file in the links' directory bears a name of ours.
fn is_link(path: &Path) -> bool {
    let Some((ifindex, direction)) = path
        .file_name()
        .and_then(|name| name.to_str()?.split_once('-'))
    else {
        return false;
    };
    ifindex.parse::<u32>().is_ok()
        && Direction::ALL
            .iter()
            .any(|known| known.to_string() == direction)
}

/// Errors of steps that must not keep the next ones from being tried.
#[derive(Default)]
pub(super) struct Errors(Vec<String>);

impl Errors {
    pub(super) fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{error:#}"));
        }
    }

    pub(super) fn into_result(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(anyhow!(self.0.join("; ")))
    }
}
