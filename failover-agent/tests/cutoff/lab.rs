//! Network namespaces, and `ss`, `conntrack` and `nft` as independent tools.

use std::{
    net::SocketAddr,
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use failover_agent::cutoff::Scope;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Uid, gettid},
};
use socket2::{Domain, Socket, Type};

/// Runs a test in a network namespace of its own, which ends with the test's thread. Without root it only says so.
pub(crate) fn isolated(test: impl FnOnce() + Send) {
    if !Uid::effective().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            sh("ip link set lo up");
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
            sh("ip link set lo up");
            ready.send(gettid().as_raw()).unwrap();
            inbox.into_iter().for_each(|job| job());
        });
        Host {
            jobs,
            thread: is_ready.recv().unwrap(),
        }
    }

    /// Lays a cable from `near` in the calling thread's namespace to `far` in this one.
    pub(crate) fn cable(&self, near: &str, far: &str) {
        sh(&format!(
            "ip link add {near} type veth peer name {far} netns {}",
            self.thread
        ));
        sh(&format!("ip link set {near} up"));
        let far = format!("ip link set {far} up");
        self.run(move || sh(&far));
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

/// Commands, one a line; each must succeed. Returns what they print.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {complaints}");
    String::from_utf8(output.stdout).unwrap()
}

/// A bounded wait.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("never happened: {what}");
}

/// Addresses from text, separated by blanks.
pub(crate) fn addresses(text: &str) -> Scope {
    Scope {
        addresses: text
            .split_whitespace()
            .map(|address| address.parse().unwrap())
            .collect(),
        ..Scope::default()
    }
}

/// A socket that is bound to a local address. An IPv4 socket for `192.0.2.1:0`, an IPv6 one for `[::ffff:192.0.2.1]:0`.
pub(crate) fn bound(kind: Type, local: &str) -> Socket {
    let local: SocketAddr = local.parse().unwrap();
    let socket = Socket::new(Domain::for_address(local), kind, None).unwrap();
    if kind == Type::STREAM {
        socket.set_reuse_address(true).unwrap();
    }
    socket.bind(&local.into()).unwrap();
    socket
}

/// The same, connected.
pub(crate) fn connected(kind: Type, local: &str, remote: &str) -> Socket {
    let socket = bound(kind, local);
    let remote: SocketAddr = remote.parse().unwrap();
    socket.connect(&remote.into()).unwrap();
    socket
}

/// A listening TCP socket with a long queue: connections need not be accepted.
pub(crate) fn listener(local: &str) -> Socket {
    let socket = bound(Type::STREAM, local);
    socket.listen(20_000).unwrap();
    socket
}
