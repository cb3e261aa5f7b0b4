//! One directory, and the thread that sees to it that its files say what they should.
//!
//! The newest content of a file replaces what was to be written before it, so that what waits is bounded by the number of files. The
//! thread never touches a disk itself ([`super::hands`]): it waits for a process that does, and may be ended while it waits.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::SigSet;
use tracing::warn;

use super::{
    disk::{self, Reply, Request},
    hands::Hands,
    pending::{Entry, State},
};

/// How long the process that writes is kept when there is nothing to do.
const REST: Duration = Duration::from_secs(2);

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A process of its own; nobody waits for the disk longer than he says.
    Apart,
    /// The caller, at once.
    AtOnce,
    /// The caller, but nothing is changed.
    ReadOnly,
}

/// One directory.
#[derive(Debug)]
pub(super) struct Keeper {
    directory: PathBuf,
    mode: Mode,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Why something is not on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// It is still waited for.
    Late,
    /// The file was written too often just now: its turn comes.
    Deferred,
    /// The disk refuses it.
    Failed(String),
}

/// A file's newest content, and whether it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) name: String,
    pub(super) content: Option<String>,
    pub(super) synced: bool,
    pub(super) written: bool,
}

impl Keeper {
    /// Touches nothing.
    pub(super) fn new(directory: PathBuf, mode: Mode) -> Keeper {
        Keeper {
            directory,
            mode,
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn reads_only(&self) -> bool {
        self.mode == Mode::ReadOnly
    }

    /// What a file should say, if that is known without reading it.
    pub(super) fn known(&self, name: &str) -> Option<Option<String>> {
        let state = self.shared.lock();
        state.files.get(name).map(|entry| entry.content.clone())
    }

    /// Takes note of what was read.
    pub(super) fn learn(&self, name: &str, content: Option<String>, synced: bool) {
        let mut state = self.shared.lock();
        let entry = Entry::new(content, synced);
        state.files.entry(name.to_owned()).or_insert(entry);
    }

    /// What it said was set aside: there is nothing of that name any more, or nothing that counts.
    pub(super) fn forget(&self, name: &str) {
        self.shared.lock().files.remove(name);
    }

    /// Takes over what another program had to write.
    pub(super) fn inherit(&self, file: Newest) {
        let mut entry = Entry::new(file.content, file.synced);
        entry.newest = u64::from(!file.written);
        self.shared.lock().files.insert(file.name, entry);
        self.wake();
    }

    /// Has a file say `content`, or be removed. Does not wait.
    pub(super) fn submit(&self, name: &str, content: Option<String>, synced: bool) {
        if self.shared.lock().submit(name, content, synced) {
            self.wake();
        }
    }

    /// Waits until what was submitted last for a file is on disk. What is known to hang, to fail or to be deferred is not waited for.
    pub(super) fn settle(&self, name: &str, patience: Duration) -> Result<(), Unwritten> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            let left = deadline.saturating_duration_since(now);
            let hangs = state.busy.is_some_and(|since| since + patience <= now);
            let Some(entry) = state.files.get_mut(name) else {
                return Ok(());
            };
            match &entry.failure {
                _ if entry.written == entry.newest || self.reads_only() => return Ok(()),
                Some(failure) if entry.tried == entry.newest || entry.retry > now => {
                    return Err(Unwritten::Failed(failure.clone()));
                }
                _ if entry.budget.next(now) > now => return Err(Unwritten::Deferred),
                _ if hangs || left.is_zero() => return Err(Unwritten::Late),
                _ => {}
            }
            state = self.shared.wait(state, Some(left));
        }
    }

    /// Reads a file, or sets it aside; waits no longer than `patience`.
    pub(super) fn ask(&self, request: Request, patience: Duration) -> Reply {
        if self.mode != Mode::Apart {
            return match request {
                Request::SetAside { .. } if self.reads_only() => Reply::Done,
                request => disk::perform(&self.directory, &request),
            };
        }
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        let number = state.next;
        state.next += 1;
        state.asked.push((number, request));
        drop(state);
        self.wake();
        let mut state = self.shared.lock();
        loop {
            if let Some(reply) = state.answers.remove(&number) {
                return reply;
            }
            let now = Instant::now();
            let left = deadline.saturating_duration_since(now);
            // Who has waited for this disk before need not do it again.
            let hangs = state.busy.is_some_and(|since| since + patience <= now);
            if hangs || left.is_zero() {
                state.asked.retain(|(other, _)| *other != number);
                return Reply::Failed("the disk does not answer".to_owned());
            }
            state = self.shared.wait(state, Some(left));
        }
    }

    /// Tries once more, at once, to write what is not on disk, and waits no longer than `patience`. What is still not, one line each.
    pub(super) fn finish(&self, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        if self.reads_only() || state.files.values().all(Entry::is_written) {
            return Vec::new();
        }
        for entry in state.files.values_mut() {
            entry.tried = entry.written;
            entry.failure = None;
        }
        state.ending = true;
        drop(state);
        self.wake();
        let mut state = self.shared.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // One that is just being tried has not failed yet.
            let open = |entry: &Entry| entry.tried != entry.newest || entry.failure.is_none();
            let pending = |entry: &Entry| !entry.is_written() && open(entry);
            if left.is_zero() || !state.files.values().any(pending) {
                break;
            }
            state = self.shared.wait(state, Some(left));
        }
        state.ending = false;
        let unwritten = state.files.iter().filter(|(_, entry)| !entry.is_written());
        unwritten
            .map(|(name, entry)| {
                let verb = if entry.content.is_some() {
                    "written"
                } else {
                    "removed"
                };
                let why = entry
                    .failure
                    .as_deref()
                    .unwrap_or("the disk does not answer");
                format!("{} is not {verb}: {why}", self.path(name).display())
            })
            .collect()
    }

    /// The newest content of every file.
    pub(super) fn newest(&self) -> Vec<Newest> {
        let state = self.shared.lock();
        let files = state.files.iter().map(|(name, entry)| Newest {
            name: name.clone(),
            content: entry.content.clone(),
            synced: entry.synced,
            written: entry.is_written(),
        });
        files.collect()
    }

    /// Has what waits be done.
    fn wake(&self) {
        match self.mode {
            Mode::ReadOnly => {}
            Mode::AtOnce => {
                let mut state = self.shared.lock();
                while let Some((work, request)) = state.work(Instant::now(), true) {
                    let reply = disk::perform(&self.directory, &request);
                    state.done(&self.directory, work, reply, Instant::now());
                }
            }
            Mode::Apart => {
                let mut state = self.shared.lock();
                if !state.running {
                    let (shared, directory) = (self.shared.clone(), self.directory.clone());
                    let thread = thread::Builder::new().name("store".to_owned());
                    match thread.spawn(move || shared.serve(&directory)) {
                        Ok(_) => state.running = true,
                        // Tried again with the next file; who waits is told that it is late.
                        Err(error) => warn!("the store cannot start a thread: {error}"),
                    }
                }
                self.shared.changed.notify_all();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match timeout {
            Some(timeout) => {
                let waited = self.changed.wait_timeout(state, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    /// The thread: does what waits, as long as the process lives.
    fn serve(&self, directory: &Path) {
        // Signals are for the loop, also those that wait for a new start of the program.
        if let Err(error) = SigSet::all().thread_block() {
            warn!("the store's thread takes signals: {error}");
        }
        let mut hands = Hands::default();
        let mut rest = None;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if let Some((work, request)) = state.work(now, false) {
                state.busy = Some(now);
                drop(state);
                let reply = hands.perform(directory, &request, || tell_of_hanging(directory));
                rest = Some(Instant::now() + REST);
                state = self.lock();
                state.busy = None;
                state.done(directory, work, reply, Instant::now());
                self.changed.notify_all();
                continue;
            }
            if rest.is_some_and(|rest| rest <= now) {
                rest = None;
                drop(state);
                hands.rest();
                state = self.lock();
                continue;
            }
            let due = state.due(now).into_iter().chain(rest).min();
            let timeout = due.map(|due| due.saturating_duration_since(now));
            state = self.wait(state, timeout);
        }
    }
}

fn tell_of_hanging(directory: &Path) {
    warn!(
        "the disk of {} does not answer: what is to be written there is kept in memory until it does",
        directory.display()
    );
}
