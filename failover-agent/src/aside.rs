//! Work on a thread of its own, beside the loop.
//!
//! It does not use tokio's `spawn_blocking`, which panics when the kernel refuses to create a thread (`EAGAIN`: a limit on tasks). Such a
//! panic would end the agent in the middle of a switch.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::{Builder, JoinHandle},
};

use tokio::sync::oneshot::{self, Receiver};
use tracing::warn;

/// Does `work` on a thread that ends with it. The receiver fails if the work panics.
///
/// # Errors
///
/// The kernel refuses to create the thread; nothing has been done then.
pub(crate) fn start<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Receiver<T>> {
    let (sender, receiver) = oneshot::channel();
    spawn(move || {
        // The caller may have dropped the receiver.
        sender.send(work()).ok();
    })?;
    Ok(receiver)
}

/// The same, but if no thread can be created, the work is done at once while the caller waits.
pub(crate) fn start_or_do<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    // A thread that could not be created does not give back the work that it got.
    let shared = Arc::new(Mutex::new(Some(move || {
        sender.send(work()).ok();
    })));
    let job = Arc::clone(&shared);
    let take = |job: &Mutex<Option<_>>| job.lock().unwrap_or_else(PoisonError::into_inner).take();
    let started = spawn(move || {
        if let Some(work) = take(&job) {
            work();
        }
    });
    if let Err(error) = started {
        warn!("no thread for work beside the loop: {error}: the loop does it itself and waits");
        if let Some(work) = take(&shared) {
            work();
        }
    }
    receiver
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name("aside".to_owned()).spawn(work)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn work_is_done_elsewhere_and_a_panic_is_an_error() {
        let here = thread::current().id();
        let elsewhere = start(|| thread::current().id()).unwrap();
        assert_ne!(elsewhere.blocking_recv().unwrap(), here);
        let elsewhere = start_or_do(|| thread::current().id());
        assert_ne!(elsewhere.blocking_recv().unwrap(), here);
        assert!(
            start_or_do(|| panic!("on purpose"))
                .blocking_recv()
                .is_err()
        );
    }
}
