//! Edge: everything that is written to a disk, and read from it at the start.
//!
//! The loop never waits for a disk: it hands over the newest content of a file and goes on. A full, read-only, frozen or dying disk costs a
//! warning and what a restart after a crash would have known, nothing else.
//!
//! | file | where | valid |
//! |---|---|---|
//! | `displaced.json`, `hash_policy.json`, `health.json` | run directory, on a tmpfs | in this boot and this network namespace: they describe what the kernel has in memory |
//! | `gateways.json`, `drill.json` | state directory | for ever |
//!
//! Each is one JSON object. A file that is damaged or not ours is set aside as `NAME.damaged`, one of another boot or network namespace as
//! `NAME.foreign`; it replaces an earlier file of that name and counts as missing. The agent holds the lock of its run directory, so there
//! is one writer.
//!
//! | file | concern |
//! |---|---|
//! | `pending.rs` | the wanted content of a directory's files, and the work that follows from it |
//! | `keeper.rs` | the thread that does that work |
//! | `budget.rs` | how often a file is written |
//! | `hands.rs` | the process that accesses the disk |
//! | `disk.rs` | what that process does |
//! | `per_family.rs` | how the two families' parts of a record are written |
//! | `realm.rs` | boot and network namespace |
//! | `handover.rs` | what the next program in this process needs to know |

mod budget;
mod disk;
mod handover;
mod hands;
mod keeper;
mod pending;
pub(crate) mod per_family;
mod realm;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::{error, warn};

use self::{
    disk::{Reply, Request},
    keeper::{Keeper, Mode, Unwritten},
    realm::{Counts, Realm},
};
pub use self::{handover::Handover, hands::serve};
use crate::config::Dirs;

/// Suffix of a file that is not a record.
const DAMAGED: &str = "damaged";
/// Suffix of a record of another boot or network namespace.
const FOREIGN: &str = "foreign";

/// How long a start waits, once, for a disk from which it reads: everything is slow while the host boots.
const READING: Duration = Duration::from_secs(5);

/// How long a clean-up waits for a record without which it cannot restore everything, counted from the first request to the disk. The
/// record has no later chance, and no traffic waits for the clean-up.
const LAST_READING: Duration = Duration::from_secs(10);

/// How long a switch waits for the record of a route that it is about to displace.
const RECORDING: Duration = Duration::from_millis(50);

/// How long the end of a run waits for the last files, in all. Well below the time after which a service manager kills.
const FINISHING: Duration = Duration::from_secs(5);

/// How long a file is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Until the next boot, in this network namespace: it describes what the kernel has in memory. In the run directory.
    Boot,
    /// For ever. In the state directory.
    Ever,
}

/// How long to wait for the disk when reading a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as a start may wait.
    Start,
    /// As long as the loop may wait.
    Moment,
    /// As long as a clean-up may wait, for which there is no later chance.
    Last,
}

impl Patience {
    fn time(self) -> Duration {
        match self {
            Patience::Start => READING,
            Patience::Moment => RECORDING,
            Patience::Last => LAST_READING,
        }
    }
}

/// All files. Copies refer to the same files.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    run: Keeper,
    state: Keeper,
    /// As far as it could be found out.
    realm: Mutex<Realm>,
}

impl Inner {
    fn realm(&self) -> Realm {
        let mut realm = self.realm.lock().unwrap_or_else(PoisonError::into_inner);
        realm.complete();
        realm.clone()
    }
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct StoredFile {
    store: Store,
    name: &'static str,
    life: Life,
}

/// The content of a file: the caller's fields, and with [`Life::Boot`] the realm in which they are valid.
#[derive(Serialize, Deserialize)]
struct Content<T> {
    #[serde(flatten)]
    realm: Realm,
    #[serde(flatten)]
    content: T,
}

impl Store {
    /// The files in the directories of a program that may write them. Reads nothing yet.
    pub fn open(dirs: &Dirs) -> Store {
        Store::new(&dirs.run, &dirs.state, Mode::Apart)
    }

    /// The same for a program that an agent may have executed in its own process: content that the agent had not written yet is taken over.
    pub fn resume(dirs: &Dirs) -> Store {
        let store = Store::open(dirs);
        handover::take(&store.0);
        store
    }

    /// The same for a program that only reads.
    pub fn read_only(dirs: &Dirs) -> Store {
        Store::new(&dirs.run, &dirs.state, Mode::ReadOnly)
    }

    fn new(run: &Path, state: &Path, mode: Mode) -> Store {
        Store(Arc::new(Inner {
            run: Keeper::new(run.to_owned(), mode),
            state: Keeper::new(state.to_owned(), mode),
            realm: Mutex::new(Realm::here()),
        }))
    }

    /// The file `name`. Touches no file.
    pub(crate) fn file(&self, name: &'static str, life: Life) -> StoredFile {
        StoredFile {
            store: self.clone(),
            name,
            life,
        }
    }

    /// Tries once more to write what is not on disk, and waits for it, but not for ever. Returns what could not be written, one line each.
    pub(crate) fn finish(&self) -> Vec<String> {
        let begun = Instant::now();
        let mut unwritten = self.0.run.finish(FINISHING);
        let left = FINISHING.saturating_sub(begun.elapsed());
        unwritten.extend(self.0.state.finish(left));
        unwritten
    }

    /// What the next program in this process needs to know, whether it is on disk or not.
    pub fn hand_over(&self) -> Option<Handover> {
        Handover::of(&self.0)
            .inspect_err(|error| {
                error!("the new program will know only what is on disk: {error:#}");
                for unwritten in self.finish() {
                    error!("{unwritten}");
                }
            })
            .ok()
    }
}

/// All files in one directory, read and written by the caller: for programs that may block.
impl From<&Path> for Store {
    fn from(directory: &Path) -> Store {
        Store::new(directory, directory, Mode::AtOnce)
    }
}

impl From<&Store> for Store {
    fn from(store: &Store) -> Store {
        store.clone()
    }
}

impl StoredFile {
    /// The stored content. `None` if nothing was stored, or if the file counts as missing: then the log says so. Waits for the disk, but
    /// not for ever.
    pub(crate) fn load<T: DeserializeOwned>(&self) -> Option<T> {
        self.try_load(Patience::Start).unwrap_or_else(|error| {
            warn!("{error:#}: it counts as missing");
            None
        })
    }

    /// The same where an existing record must not be overlooked.
    ///
    /// # Errors
    ///
    /// The disk does not answer, or refuses; the caller may ask again.
    pub(crate) fn try_load<T: DeserializeOwned>(&self, patience: Patience) -> Result<Option<T>> {
        let text = match self.keeper().known(self.name) {
            Some(known) => known,
            None => {
                let Some(text) = self.read(patience)? else {
                    return Ok(None);
                };
                self.keeper()
                    .learn(self.name, text.clone(), self.is_synced());
                text
            }
        };
        text.map_or(Ok(None), |text| self.understood(&text))
    }

    fn understood<T: DeserializeOwned>(&self, text: &str) -> Result<Option<T>> {
        let stored: Content<T> = match serde_json::from_str(text) {
            Ok(stored) => stored,
            Err(error) => {
                self.set_aside(DAMAGED, &format!("it is damaged ({error})"));
                return Ok(None);
            }
        };
        let counts = match self.life {
            Life::Boot => stored.realm.counts_in(&self.store.0.realm()),
            Life::Ever => Counts::Yes,
        };
        match counts {
            Counts::Yes => Ok(Some(stored.content)),
            Counts::No(why) => {
                self.set_aside(FOREIGN, why);
                Ok(None)
            }
            Counts::Unknown(what) => {
                let path = self.keeper().path(self.name);
                bail!("cannot read {}: {what} is not known", path.display())
            }
        }
    }

    /// Sets its content, which must be a struct or a map. The disk is written as soon as it takes it.
    pub(crate) fn replace<T: Serialize>(&self, content: &T) {
        let realm = match self.life {
            Life::Boot => self.store.0.realm(),
            Life::Ever => Realm::default(),
        };
        match serde_json::to_string_pretty(&Content { realm, content }) {
            Ok(text) => self
                .keeper()
                .submit(self.name, Some(text), self.is_synced()),
            Err(error) => error!("{} cannot be written as JSON: {error}", self.name),
        }
    }

    /// Removes it as soon as the disk allows.
    pub(crate) fn remove(&self) {
        self.keeper().submit(self.name, None, self.is_synced());
    }

    /// Waits a moment until the newest content is on disk.
    ///
    /// # Errors
    ///
    /// It is not on disk, and why: only the memory of this process has it. A file that was just written many times in a row is no error:
    /// its turn comes within half a second.
    pub(crate) fn settle(&self) -> Result<()> {
        let path = self.keeper().path(self.name);
        match self.keeper().settle(self.name, RECORDING) {
            Ok(()) | Err(Unwritten::Deferred) => Ok(()),
            Err(Unwritten::Late) => bail!("the disk of {} does not answer", path.display()),
            Err(Unwritten::Failed(why)) => bail!("{}: {why}", path.display()),
        }
    }

    /// The same where it is unknown whether the file exists; returns whether it did. [`Store::finish`] reports what prevents its removal.
    pub(crate) fn erase(&self) -> bool {
        let there = match self.keeper().known(self.name) {
            Some(known) => known.is_some(),
            None => match self.ask_twice(&self.reading(), READING) {
                Reply::Absent => false,
                Reply::Damaged(why) => {
                    self.set_aside(DAMAGED, &why);
                    false
                }
                Reply::Content(_) | Reply::Failed(_) | Reply::Done => true,
            },
        };
        if there {
            self.remove();
        }
        there
    }

    /// Sets it aside as damaged and logs that; for damage that only the caller can notice.
    pub(crate) fn damaged(&self, why: &str) {
        self.set_aside(DAMAGED, &format!("it is damaged ({why})"));
    }

    fn keeper(&self) -> &Keeper {
        match self.life {
            Life::Boot => &self.store.0.run,
            Life::Ever => &self.store.0.state,
        }
    }

    /// What is valid only in this boot need not survive a loss of power.
    fn is_synced(&self) -> bool {
        self.life == Life::Ever
    }

    fn reading(&self) -> Request {
        Request::Read {
            name: self.name.to_owned(),
        }
    }

    /// The text. The outer `None` means that the file is damaged and the log says so.
    fn read(&self, patience: Patience) -> Result<Option<Option<String>>> {
        match self.ask_twice(&self.reading(), patience.time()) {
            Reply::Content(text) => Ok(Some(Some(text))),
            Reply::Absent => Ok(Some(None)),
            Reply::Damaged(why) => {
                self.set_aside(DAMAGED, &why);
                Ok(None)
            }
            Reply::Failed(why) => {
                let path = self.keeper().path(self.name);
                bail!("cannot read {}: {why}", path.display())
            }
            Reply::Done => Ok(None),
        }
    }

    /// Asks again after a refusal, which may be momentary.
    fn ask_twice(&self, request: &Request, patience: Duration) -> Reply {
        match self.keeper().ask(request.clone(), patience) {
            Reply::Failed(_) | Reply::Damaged(_) => self.keeper().ask(request.clone(), patience),
            reply => reply,
        }
    }

    fn set_aside(&self, word: &str, why: &str) {
        let path = self.keeper().path(self.name);
        let path = path.display();
        if self.keeper().reads_only() {
            warn!("{path} counts as missing: {why}");
            return;
        }
        let request = Request::SetAside {
            name: self.name.to_owned(),
            word: word.to_owned(),
        };
        match self.keeper().ask(request, READING) {
            Reply::Done => {
                warn!("{path} counts as missing: {why}; it is set aside as {path}.{word}");
            }
            Reply::Failed(error) => {
                warn!("{path} counts as missing: {why}; it cannot be set aside: {error}");
            }
            Reply::Absent | Reply::Content(_) | Reply::Damaged(_) => {}
        }
        self.keeper().forget(self.name);
    }
}

#[cfg(test)]
mod tests;
