//! The pinned objects: their paths, whether they can be adopted, and how they are removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::{Array, HashMap, Map, MapData};
use failover_ebpf::{ABI_VERSION, Hook, Settings, Uplink, maps};

use super::{Direction, clsact};

/// The maps that outlive the agent.
pub(super) const MAPS: [&str; 9] = [
    maps::UPLINKS,
    maps::COUNTERS,
    maps::EXEMPT,
    maps::SETTINGS,
    maps::ADDRESSES,
    maps::FLOWS,
    maps::LIMITS,
    maps::PROBES,
    maps::ECHOES,
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

/// Whether there are pins, which then all have this agent's ABI version.
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

/// The result of removing the pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// What was removed.
    pub removed: Vec<String>,
    /// What could not be, and why.
    pub problems: Vec<String>,
}

impl Removal {
    /// Whether everything was removed.
    ///
    /// # Errors
    ///
    /// All problems together.
    pub fn into_result(self) -> Result<()> {
        Errors(self.problems).into_result()
    }

    fn note<T>(&mut self, step: Result<T>) -> Option<T> {
        step.inspect_err(|error| self.problems.push(format!("{error:#}")))
            .ok()
    }
}

/// Makes all gates count as open from now on, if an agent has left some below `bpf_dir`.
///
/// # Errors
///
/// The kernel refuses.
pub fn end_lease(bpf_dir: &Path) -> Result<()> {
    if !adoptable(bpf_dir).unwrap_or(false) {
        return Ok(());
    }
    let path = map(bpf_dir, maps::SETTINGS);
    let mut settings: Array<_, Settings> = Map::Array(MapData::from_pin(&path)?).try_into()?;
    let ended = Settings {
        lease_until_ns: 0,
        ..settings.get(&0, 0)?
    };
    settings.set(0, ended, 0).context("ending the lease")
}

/// Detaches and unpins everything that an agent, running or killed, has left below `bpf_dir`, and removes the directory. Continues after
/// each failure. Files that are not the agent's stay, and then the directory does, too.
pub fn remove_pins(bpf_dir: &Path) -> Removal {
    let mut removal = Removal::default();
    if adoptable(bpf_dir).unwrap_or(false) {
        for (ifindex, hook) in removal.note(hooks(bpf_dir)).unwrap_or_default() {
            let detached = removal.note(clsact::detach(ifindex, hook));
            removal.removed.extend(detached.unwrap_or_default());
        }
    }
    let detached = removal.problems.is_empty();
    let mut pins = Vec::new();
    let links = links(bpf_dir);
    match fs::read_dir(&links) {
        Ok(entries) => pins.extend(
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| link_ifindex(path).is_some()),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let error = anyhow!(error).context(format!("reading {}", links.display()));
            removal.note::<()>(Err(error));
        }
    }
    // The maps show where filters and qdiscs are. While one of these cannot be removed, the maps stay, too, for another attempt.
    let mut dirs = vec![links.as_path()];
    if detached {
        pins.extend(MAPS.iter().map(|name| map(bpf_dir, name)));
        dirs.push(bpf_dir);
    }
    for pin in pins {
        if removal.note(unpin(&pin)) == Some(true) {
            removal.removed.push(format!("pin {}", pin.display()));
        }
    }
    for dir in dirs {
        if removal.note(removed(fs::remove_dir(dir), dir)) == Some(true) {
            removal.removed.push(format!("directory {}", dir.display()));
        }
    }
    removal
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

/// The interface index in the name of a file in the links' directory; `None` if the name is not ours.
pub(super) fn link_ifindex(path: &Path) -> Option<u32> {
    let (ifindex, direction) = path.file_name()?.to_str()?.split_once('-')?;
    let mut directions = Direction::ALL.iter();
    let ours = directions.any(|known| known.to_string() == direction);
    ifindex.parse().ok().filter(|_| ours)
}

/// Errors of steps that must not prevent the following ones.
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
