//! Threads that wait on descriptors and can be stopped at any time.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use super::namespace::Namespace;

/// A thread in a namespace; stops and joins it when dropped.
#[derive(Debug)]
pub(super) struct Worker {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(
        namespace: &Namespace,
        name: &str,
        work: impl FnOnce(Stop) + Send + 'static,
    ) -> Result<Worker> {
        let (reader, writer) = io::pipe()?;
        let thread = namespace.spawn(name, move || work(Stop(reader)))?;
        Ok(Worker {
            stop: Some(writer),
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // Its message is printed already; a second panic here would abort the test.
            eprintln!("a thread of the laboratory has panicked");
        }
    }
}

/// The worker's side of the stop.
#[derive(Debug)]
pub(super) struct Stop(PipeReader);

impl Stop {
    /// Waits until one of `descriptors` is ready, the time is up, or the worker is to stop, which is `None`. Otherwise says what each
    /// descriptor is ready for.
    pub(super) fn wait(
        &self,
        descriptors: &[(BorrowedFd, PollFlags)],
        timeout: Option<Duration>,
    ) -> Option<Vec<PollFlags>> {
        let mut polled: Vec<PollFd> = descriptors
            .iter()
            .map(|(descriptor, events)| PollFd::new(*descriptor, *events))
            .collect();
        polled.push(PollFd::new(self.0.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut polled, timeout.map(TimeSpec::from), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("a thread of the laboratory stops: poll: {error}");
                return None;
            }
        }
        let mut ready: Vec<PollFlags> = polled
            .iter()
            .map(|descriptor| descriptor.revents().unwrap_or(PollFlags::empty()))
            .collect();
        let stop = ready.pop()?;
        stop.is_empty().then_some(ready)
    }
}

/// Locks what threads of the laboratory share. A thread that has panicked is reported by its join; its data is still worth reading.
pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
