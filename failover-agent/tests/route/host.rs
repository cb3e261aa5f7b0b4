//! Further network namespaces, for those who are not the host under test.

use std::{
    sync::mpsc::{Sender, channel},
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

use crate::netns::ip;

/// Another network namespace: a thread that works off what it is given. It ends with this value.
pub(crate) struct Host {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
    thread: i32,
}

impl Host {
    pub(crate) fn new() -> Host {
        let (jobs, inbox) = channel::<Box<dyn FnOnce() + Send>>();
        let (ready, is_ready) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            ready.send(gettid().as_raw()).unwrap();
            inbox.into_iter().for_each(|job| job());
        });
        Host {
            jobs,
            thread: is_ready.recv().unwrap(),
        }
    }

    /// Takes over an interface of the calling thread's namespace, and sets it up.
    pub(crate) fn take(&self, interface: &str) {
        ip(&format!("link set dev {interface} netns {}", self.thread));
        let up = format!("link set dev {interface} up");
        self.run(move || ip(&up));
    }

    /// Runs `job` there.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        self.jobs
            .send(Box::new(move || sender.send(job()).unwrap()))
            .unwrap();
        receiver.recv().unwrap()
    }
}
