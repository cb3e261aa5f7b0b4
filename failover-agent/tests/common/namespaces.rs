//! Network namespaces: one for each test, and further ones for those who are not the host under test.
//!
//! Included by `#[path]`: integration tests are crates of their own.

use std::process::Command;

use failover_lab::Namespace;

/// Runs a test in a network namespace of its own, which ends with the test. Needs root.
pub(crate) fn isolated(test: impl FnOnce() + Send) {
    Host::new().run(test);
}

/// Another network namespace. It ends with this value.
pub(crate) struct Host(Namespace);

impl Host {
    pub(crate) fn new() -> Host {
        let namespace = Namespace::unnamed().unwrap();
        namespace.ip_batch("link set dev lo up").unwrap();
        Host(namespace)
    }

    /// Takes over an interface of the calling thread's namespace, and sets it up.
    pub(crate) fn take(&self, interface: &str) {
        let mut ip = Command::new("ip");
        ip.args(["link", "set", "dev", interface, "netns", self.0.name()]);
        let output = ip.output().unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{ip:?}: {complaints}");
        let up = format!("link set dev {interface} up");
        self.0.ip_batch(&up).unwrap();
    }

    /// Runs `job` there.
    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        self.0.run(|| Ok(job())).unwrap()
    }
}
