//! Network namespaces: one for each test, and further ones for those who are not the host under test.
//!
//! Included by `#[path]`: integration tests are crates of their own.

use std::{
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

/// Runs a test in a network namespace of its own, which ends with the test's thread. Needs root.
pub(crate) fn isolated(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            set("dev lo up");
            test();
        };
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

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
            set("dev lo up");
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
        set(&format!("dev {interface} netns {}", self.thread));
        let up = format!("dev {interface} up");
        self.run(move || set(&up));
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

/// `ip link set ARGUMENTS` in the calling thread's namespace, which must succeed.
fn set(arguments: &str) {
    let mut ip = Command::new("ip");
    ip.args(["link", "set"]).args(arguments.split_whitespace());
    let output = ip.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{ip:?}: {complaints}");
}
