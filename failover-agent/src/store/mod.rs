//! Edge: everything that is written to a disk, and read from it at the start.
//!
//! The loop never waits for a disk: it hands the newest content of a file over, and goes on. A full, read-only, frozen or dying disk costs
//! what a restart after a crash would have known, and a warning, nothing else.
//!
//! | file | where | valid |
//! |---|---|---|
//! | `displaced.json`, `hash_policy.json`, `health.json` | run directory, on a tmpfs | in this boot and this network namespace: they speak of what the kernel has in memory |
//! | `gateways.json`, `drill.json` | state directory | for ever |
//!
//! Each is one JSON object. One that is damaged, or is none of ours, is set aside as `NAME.damaged`, one of another boot or network
//! namespace as `NAME.foreign`, in place of the one before; it counts as none. The agent holds the lock of its run directory, so
//! there is one writer.
//!
//! | file | concern |
//! |---|---|
//! | `pending.rs` | what the files of a directory should say, and what is to be done for that |
//! | `keeper.rs` | the thread that sees to it |
//! | `budget.rs` | how often a file is written |
//! | `hands.rs` | the process that touches the disk |
//! | `disk.rs` | what it does there |
//! | `per_family.rs` | how both families' part of a record is written |
//! | `realm.rs` | boot and network namespace |
//! | `handover.rs` | what the next program in this process has to know |

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

/// What is no record gets this after its name.
const DAMAGED: &str = "damaged";
/// So does a record of another boot or network namespace.
const FOREIGN: &str = "foreign";

/// How long the start waits for a disk from which it reads, once: while the host boots, everything takes its time.
const READING: Duration = Duration::from_secs(5);

/// How long a clean-up waits for a record without which it cannot give everything back, counted from when the disk was asked first:
/// nobody waits for the end of it.
const LAST_READING: Duration = Duration::from_secs(10);

/// How long a switch waits for the record of a route that it takes out of the way.
const RECORDING: Duration = Duration::from_millis(50);

/// How long the end of a run waits for the last files, all in all. Well below the time after which a service manager kills.
const FINISHING: Duration = Duration::from_secs(5);

/// How long a file means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Until the next boot, in this network namespace: it speaks of what the kernel has in memory. In the run directory.
    Boot,
    /// For ever. In the state directory.
    Ever,
}

/// How long the disk is waited for that is to read a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As a start waits.
    Start,
    /// As the loop may wait.
    Moment,
    /// As a clean-up waits: there is no later chance.
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

/// All files. Copies mean the same.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    run: Keeper,
    state: Keeper,
    /// As far as it is known.
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

/// What is in a file: the caller's fields, and with [`Life::Boot`] in what they are valid.
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

    /// The same for a program that may have been executed by an agent in its own process: what that had not written yet is taken over.
    pub fn resume(dirs: &Dirs) -> Store {
        let store = Store::open(dirs);
        handover::take(&store.0);
        store
    }

    /// The same for one that only looks.
    pub fn look(dirs: &Dirs) -> Store {
        Store::new(&dirs.run, &dirs.state, Mode::ReadOnly)
    }

    fn new(run: &Path, state: &Path, mode: Mode) -> Store {
        Store(Arc::new(Inner {
            run: Keeper::new(run.to_owned(), mode),
            state: Keeper::new(state.to_owned(), mode),
            realm: Mutex::new(Realm::here()),
        }))
    }

    /// The file `name`. Touches nothing.
    pub(crate) fn file(&self, name: &'static str, life: Life) -> StoredFile {
        StoredFile {
            store: self.clone(),
            name,
            life,
        }
    }

    /// What is not on disk yet is tried once more, and waited for, but not for ever. Returns what could not be written, one line each.
    pub(crate) fn finish(&self) -> Vec<String> {
        let begun = Instant::now();
        let mut unwritten = self.0.run.finish(FINISHING);
        let left = FINISHING.saturating_sub(begun.elapsed());
        unwritten.extend(self.0.state.finish(left));
        unwritten
    }

    /// What the program that takes over in this process has to know, whether it is on disk or not.
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

/// All files in one directory, read and written by the caller: for programs that nobody waits for.
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
    /// What was stored; None if nothing was, or what counts as nothing: then the log says so. Waits for the disk, but not for ever.
    pub(crate) fn load<T: DeserializeOwned>(&self) -> Option<T> {
        self.try_load(Patience::Start).unwrap_or_else(|error| {
            warn!("{error:#}: it counts as none");
            None
        })
    }

    /// The same where it matters that nothing is overlooked.
    ///
    /// # Errors
    ///
    /// The disk does not answer, or refuses; what the file says may be asked for again.
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

    /// Has it say `content`, which must be a struct or a map, as soon as the disk takes it.
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

    /// Has it removed as soon as the disk takes that.
    pub(crate) fn remove(&self) {
        self.keeper().submit(self.name, None, self.is_synced());
    }

    /// Waits a moment until what it was told to say is on disk.
    ///
    /// # Errors
    ///
    /// It is not, and why: only the memory of this process has it. A file that was just written many times in a row is none: its turn
    /// comes within half a second.
    pub(crate) fn settle(&self) -> Result<()> {
        let path = self.keeper().path(self.name);
        match self.keeper().settle(self.name, RECORDING) {
            Ok(()) | Err(Unwritten::Deferred) => Ok(()),
            Err(Unwritten::Late) => bail!("the disk of {} does not answer", path.display()),
            Err(Unwritten::Failed(why)) => bail!("{}: {why}", path.display()),
        }
    }

    /// The same where nobody knows whether there is one; tells that. What keeps it from being removed, [`Store::finish`] tells.
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

    /// Has what it says set aside as damaged, and tells of it: for what only the caller can know.
    pub(crate) fn damaged(&self, why: &str) {
        self.set_aside(DAMAGED, &format!("it is damaged ({why})"));
    }

    fn keeper(&self) -> &Keeper {
        match self.life {
            Life::Boot => &self.store.0.run,
            Life::Ever => &self.store.0.state,
        }
    }

    /// What is valid in this boot need not survive the loss of power.
    fn is_synced(&self) -> bool {
        self.life == Life::Ever
    }

    fn reading(&self) -> Request {
        Request::Read {
            name: self.name.to_owned(),
        }
    }

    /// The text; outer None: it is damaged, and the log says so.
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

    /// A refusal may be that of a moment.
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
            warn!("{path} counts as none: {why}");
            return;
        }
        let request = Request::SetAside {
            name: self.name.to_owned(),
            word: word.to_owned(),
        };
        match self.keeper().ask(request, READING) {
            Reply::Done => warn!("{path} counts as none: {why}; it is set aside as {path}.{word}"),
            Reply::Failed(error) => {
                warn!("{path} counts as none: {why}; it cannot be set aside: {error}");
            }
            Reply::Absent | Reply::Content(_) | Reply::Damaged(_) => {}
        }
        self.keeper().forget(self.name);
    }
}

#[cfg(test)]
mod tests;
