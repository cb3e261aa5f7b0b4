//! One directory, and the thread that keeps its files up to date.
//!
//! The newest content of a file replaces content that is still waiting to be written, so the number of files bounds what waits. The thread
//! never accesses a disk itself: it waits for a process that does ([`super::hands`]), and can be ended while it waits.

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

/// How long the writing process is kept without work.
const REST: Duration = Duration::from_secs(2);

/// Who accesses the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A separate process; a caller waits for the disk no longer than it asks for.
    Apart,
    /// The caller, at once.
    AtOnce,
    /// The caller, and nothing is changed.
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

/// Why content is not on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// The write is outstanding.
    Late,
    /// The file was written too often just now, and waits for its turn.
    Deferred,
    /// The disk refuses the write.
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
    /// Touches no file.
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

    /// A file's newest content, if it is known without reading the file.
    pub(super) fn known(&self, name: &str) -> Option<Option<String>> {
        let state = self.shared.lock();
        state.files.get(name).map(|entry| entry.content.clone())
    }

    /// Notes what was read from a file.
    pub(super) fn learn(&self, name: &str, content: Option<String>, synced: bool) {
        let mut state = self.shared.lock();
        let entry = Entry::new(content, synced);
        state.files.entry(name.to_owned()).or_insert(entry);
    }

    /// The file was set aside: there is nothing of that name any more, or nothing that counts.
    pub(super) fn forget(&self, name: &str) {
        self.shared.lock().files.remove(name);
    }

    /// Takes over content that another program had to write.
    pub(super) fn inherit(&self, file: Newest) {
        let mut entry = Entry::new(file.content, file.synced);
        entry.newest = u64::from(!file.written);
        self.shared.lock().files.insert(file.name, entry);
        self.wake();
    }

    /// Sets the content of a file; `None` removes it. Does not wait.
    pub(super) fn submit(&self, name: &str, content: Option<String>, synced: bool) {
        if self.shared.lock().submit(name, content, synced) {
            self.wake();
        }
    }

    /// Waits until the newest content of a file is on disk. Does not wait for a write that is known to hang, to fail or to be deferred.
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

    /// Reads a file or sets it aside; waits at most `patience`.
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
            // A caller has already waited for this disk; the next one need not.
            let hangs = state.busy.is_some_and(|since| since + patience <= now);
            if hangs || left.is_zero() {
                state.asked.retain(|(other, _)| *other != number);
                return Reply::Failed("the disk does not answer".to_owned());
            }
            state = self.shared.wait(state, Some(left));
        }
    }

    /// Tries once more, at once, to write what is not on disk, and waits at most `patience`. Returns one line for each file that is still
    /// not written.
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
            // A write that is being tried has not failed yet.
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

    /// Makes the thread process what waits.
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
                        // It is tried again with the next file; a waiting caller learns that its file is late.
                        Err(error) => warn!("the store cannot start its thread: {error}"),
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

    /// The thread: processes what waits, for as long as the process lives.
    fn serve(&self, directory: &Path) {
        // Signals are meant for the loop, including those that wait for the next program during a restart.
        if let Err(error) = SigSet::all().thread_block() {
            warn!("the store's thread cannot block signals: {error}");
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
        "the disk of {} does not answer: what is to be written to it stays in memory until it does",
        directory.display()
    );
}
