//! The wanted content of a directory's files, the work that follows from it, and when to do it. Does no work itself.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    budget::Budget,
    disk::{Reply, Request},
};

/// When a failed write is tried again; the pause doubles each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// All files of a directory, and the outstanding reads.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<String, Entry>,
    /// What is to be read or set aside, oldest first, each with its number.
    pub(super) asked: Vec<(u64, Request)>,
    pub(super) answers: BTreeMap<u64, Reply>,
    pub(super) next: u64,
    pub(super) running: bool,
    /// Since when the current work has been hanging.
    pub(super) busy: Option<Instant>,
    /// Whether the agent is ending: then what waits is tried at once, and once.
    pub(super) ending: bool,
}

/// One file.
#[derive(Debug)]
pub(super) struct Entry {
    /// The wanted content; `None`: the file must not exist.
    pub(super) content: Option<String>,
    pub(super) synced: bool,
    /// Counts the contents: the newest, the one on disk, and the one tried last.
    pub(super) newest: u64,
    pub(super) written: u64,
    pub(super) tried: u64,
    /// Why the last write failed.
    pub(super) failure: Option<String>,
    pause: Duration,
    pub(super) retry: Instant,
    pub(super) budget: Budget,
}

/// Work in progress.
pub(super) enum Work {
    /// The request with this number.
    Asked(u64),
    /// Writing the content with this number.
    Write { name: String, number: u64 },
}

impl State {
    /// Sets the wanted content of a file, or its absence; returns whether that is new.
    pub(super) fn submit(&mut self, name: &str, content: Option<String>, synced: bool) -> bool {
        match self.files.get_mut(name) {
            Some(entry) if entry.content == content => return false,
            Some(entry) => {
                entry.content = content;
                entry.newest += 1;
            }
            None => {
                let mut entry = Entry::new(content, synced);
                entry.newest = 1;
                self.files.insert(name.to_owned(), entry);
            }
        }
        true
    }

    /// The work to do now; if `unbounded`, regardless of the budget.
    pub(super) fn work(&mut self, now: Instant, unbounded: bool) -> Option<(Work, Request)> {
        if !self.asked.is_empty() {
            let (number, request) = self.asked.remove(0);
            return Some((Work::Asked(number), request));
        }
        let ending = self.ending;
        let at_once = unbounded || ending;
        let mut files = self.files.iter_mut();
        let (name, entry) = files.find_map(|(name, entry)| {
            // At once, and once.
            let tried = at_once && entry.tried == entry.newest;
            let due = entry.due(now, at_once).is_some_and(|due| due <= now);
            (due && !tried).then_some((name, entry))
        })?;
        let (name, number, synced) = (name.clone(), entry.newest, entry.synced);
        entry.budget.spend(now);
        entry.tried = number;
        let request = match entry.content.clone() {
            Some(content) => Request::Write {
                name: name.clone(),
                content,
                synced,
            },
            None => Request::Remove { name: name.clone() },
        };
        Some((Work::Write { name, number }, request))
    }

    /// When there will be work.
    pub(super) fn due(&mut self, now: Instant) -> Option<Instant> {
        let files = self.files.values_mut();
        files.filter_map(|entry| entry.due(now, false)).min()
    }

    pub(super) fn done(&mut self, directory: &Path, work: Work, reply: Reply, now: Instant) {
        let (name, number) = match work {
            Work::Asked(number) => {
                self.answers.insert(number, reply);
                return;
            }
            Work::Write { name, number } => (name, number),
        };
        let Some(entry) = self.files.get_mut(&name) else {
            return;
        };
        let path = directory.join(&name);
        let path = path.display();
        let verb = if entry.content.is_some() {
            "write"
        } else {
            "remove"
        };
        match reply {
            Reply::Failed(why) => {
                if entry.failure.is_none() && !self.ending {
                    warn!(
                        "cannot {verb} {path}: {why}: its content stays in memory, and the write is tried again: \
                         make room or make it writable, or choose another directory"
                    );
                }
                entry.failure = Some(why);
                entry.retry = now + entry.pause;
                entry.pause = (entry.pause * 2).min(LONGEST_PAUSE);
            }
            _ => {
                entry.written = number;
                entry.pause = FIRST_PAUSE;
                if entry.failure.take().is_some() {
                    info!("{path} is up to date again");
                }
            }
        }
    }
}

impl Entry {
    /// A file with content that is on disk.
    pub(super) fn new(content: Option<String>, synced: bool) -> Entry {
        let now = Instant::now();
        Entry {
            content,
            synced,
            newest: 0,
            written: 0,
            tried: 0,
            failure: None,
            pause: FIRST_PAUSE,
            retry: now,
            budget: Budget::full(now),
        }
    }

    pub(super) fn is_written(&self) -> bool {
        self.written == self.newest
    }

    /// When it is to be written; `None` if it already is.
    fn due(&mut self, now: Instant, at_once: bool) -> Option<Instant> {
        if self.is_written() {
            return None;
        }
        if at_once {
            return Some(now);
        }
        let allowed = self.budget.next(now);
        Some(match self.failure {
            Some(_) => self.retry.max(allowed),
            None => allowed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(state: &mut State, text: &str) -> bool {
        state.submit("a.json", Some(text.to_owned()), true)
    }

    /// Does the work that is due `now`; returns what was written.
    fn done(state: &mut State, now: Instant, reply: &Reply) -> Option<String> {
        let (work, request) = state.work(now, false)?;
        state.done(Path::new("/"), work, reply.clone(), now);
        match request {
            Request::Write { content, .. } => Some(content),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_newest_is_written_and_what_comes_meanwhile_after_it() {
        let (now, mut state) = (Instant::now(), State::default());
        assert!(say(&mut state, "1"));
        assert!(say(&mut state, "2"));
        assert!(!say(&mut state, "2"));
        let (work, _) = state.work(now, false).unwrap();
        assert!(say(&mut state, "3"));
        state.done(Path::new("/"), work, Reply::Done, now);
        let now = now + Duration::from_secs(1);
        assert_eq!(done(&mut state, now, &Reply::Done).as_deref(), Some("3"));
        assert_eq!(state.due(now), None);
        assert_eq!(done(&mut state, now, &Reply::Done), None);
    }

    #[test]
    fn what_fails_is_tried_again_with_growing_pauses_and_at_the_end_once() {
        let mut state = State::default();
        let failed = Reply::Failed("full".to_owned());
        say(&mut state, "1");
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(done(&mut state, now, &failed).is_some());
            assert_eq!(done(&mut state, now, &failed), None);
            pauses.push(state.files["a.json"].pause.as_secs());
            now += LONGEST_PAUSE;
        }
        assert_eq!(pauses, [2, 4, 8, 10, 10, 10]);
        state.ending = true;
        let entry = state.files.get_mut("a.json").unwrap();
        entry.tried = entry.written;
        assert!(done(&mut state, now, &failed).is_some());
        assert_eq!(done(&mut state, now, &failed), None);
    }
}
