//! The sockets that the agent probes with. Their packets pass closed gates.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use failover_ebpf::{Echo, maps};
use nix::net::if_::if_nametoindex;
use socket2::SockRef;
use tracing::debug;

use super::pins;

/// Registers sockets with the programs. Clones share the same maps.
#[derive(Clone)]
pub struct ProbeSockets(Arc<Mutex<Registry>>);

struct Registry {
    sockets: HashMap<MapData, u64, u32>,
    echoes: HashMap<MapData, Echo, u32>,
    /// How many sockets send with the same identifier on the same interface: one of each family may.
    senders: BTreeMap<(u32, u32), usize>,
}

/// A socket whose packets pass closed gates until this is dropped.
pub struct Registration {
    sockets: ProbeSockets,
    cookie: u64,
    echo: Option<Echo>,
}

impl ProbeSockets {
    /// Removes the entries of earlier runs, whose sockets are closed.
    pub(super) fn new(sockets: Map, echoes: Map) -> Result<ProbeSockets> {
        let mut registry = Registry::new(sockets, echoes)?;
        let cookies: Vec<u64> = registry.sockets.keys().collect::<Result<_, _>>()?;
        for cookie in cookies {
            registry.sockets.remove(&cookie)?;
        }
        let echoes: Vec<Echo> = registry.echoes.keys().collect::<Result<_, _>>()?;
        for echo in echoes {
            registry.echoes.remove(&echo)?;
        }
        Ok(registry.into())
    }

    /// The registry of the agent that has pinned its maps below `bpf_dir`, for additional probes; `None` if there is none.
    pub fn pinned(bpf_dir: &Path) -> Option<ProbeSockets> {
        let open = |name| MapData::from_pin(pins::map(bpf_dir, name)).map(Map::HashMap);
        let (sockets, echoes) = (open(maps::PROBES).ok()?, open(maps::ECHOES).ok()?);
        Some(Registry::new(sockets, echoes).ok()?.into())
    }

    /// Makes closed gates pass what `socket` sends by `interface`. From now on, echo requests with `identifier` that are cut all the same,
    /// because the kernel does not report their socket, are counted.
    ///
    /// # Errors
    ///
    /// The interface does not exist, there are more than [`failover_ebpf::MAX_PROBES`], or the kernel refuses.
    pub fn register(
        &self,
        socket: &SockRef<'_>,
        interface: &str,
        identifier: Option<u16>,
    ) -> Result<Registration> {
        let cookie = socket.cookie().context("asking for a socket's cookie")?;
        let ifindex = if_nametoindex(interface).with_context(|| format!("no {interface}"))?;
        let mut registration = Registration {
            sockets: self.clone(),
            cookie,
            echo: None,
        };
        let mut registry = self.lock();
        let registered = registry.sockets.insert(cookie, ifindex, 0);
        registered.context("noting a socket that probes")?;
        if let Some(identifier) = identifier {
            let echo = Echo {
                ifindex,
                identifier: identifier.into(),
            };
            let noted = registry.echoes.insert(echo, 1, 0);
            noted.context("noting the identifier of probes")?;
            let senders = registry.senders.entry((ifindex, echo.identifier));
            *senders.or_default() += 1;
            registration.echo = Some(echo);
        }
        drop(registry);
        Ok(registration)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // A thread that panicked has left nothing half done that matters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    fn new(sockets: Map, echoes: Map) -> Result<Registry> {
        Ok(Registry {
            sockets: sockets.try_into()?,
            echoes: echoes.try_into()?,
            senders: BTreeMap::new(),
        })
    }

    fn forget_echo(&mut self, echo: Echo) -> Result<()> {
        let key = (echo.ifindex, echo.identifier);
        let left = self.senders.get(&key).map_or(0, |senders| senders - 1);
        if left > 0 {
            self.senders.insert(key, left);
            return Ok(());
        }
        self.senders.remove(&key);
        Ok(self.echoes.remove(&echo)?)
    }
}

impl From<Registry> for ProbeSockets {
    fn from(registry: Registry) -> ProbeSockets {
        ProbeSockets(Arc::new(Mutex::new(registry)))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut registry = self.sockets.lock();
        if let Err(error) = registry.sockets.remove(&self.cookie) {
            debug!("the entry of a closed probe socket stays: {error}");
        }
        if let Some(echo) = self.echo
            && let Err(error) = registry.forget_echo(echo)
        {
            debug!("the entry of a probe identifier stays: {error:#}");
        }
    }
}
