//! Network namespaces, made and entered natively.
//!
//! Not with `ip netns exec`, which also makes a mount namespace and mounts another /sys: the laboratory's BPF file system
//! would be hidden from whatever runs inside. They are visible to `ip netns` all the same.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::fd::AsRawFd as _,
    panic,
    path::{Path, PathBuf},
    process::{self, Command, Output, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use super::{cleanup, sys};

/// Where `ip netns` keeps its names.
pub(super) const NETNS_DIR: &str = "/run/netns";

/// The calling thread's namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// A handle on a network namespace. Its name goes with the laboratory; the namespace itself lives as long as a process is in it
/// or holds a handle.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace with its loopback down, as the kernel leaves it.
    ///
    /// The laboratory that owns the name prefix removes it (see `cleanup`).
    pub(super) fn create(name: String) -> Result<Namespace> {
        let path = Path::new(NETNS_DIR).join(&name);
        let bind = || -> Result<File> {
            File::create_new(&path)?;
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
            mount(
                Some(OWN),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .context("bind mount of the namespace")?;
            Ok(File::open(&path)?)
        };
        // Not while a signal's clean-up runs: it would miss the new name.
        let file = cleanup::exclusively(|| in_thread(bind))
            .with_context(|| format!("cannot make network namespace {name}"))?;
        Ok(Namespace {
            name,
            file: Arc::new(file),
        })
    }

    /// Makes a namespace without a name, its loopback down. Nothing has to remove it: it goes with its handles and whoever is in it.
    ///
    /// # Errors
    /// Without root.
    pub fn unnamed() -> Result<Namespace> {
        let file = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
            Ok(File::open(OWN)?)
        })
        .context("cannot make a network namespace")?;
        Ok(Namespace {
            name: format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd()),
            file: Arc::new(file),
        })
    }

    /// What `ip link` takes after `netns`: the name that `ip netns` knows, or the path of one that has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` inside, in a thread of its own, and waits for it. A panic in there goes on here.
    ///
    /// Sockets that `f` opens stay in the namespace wherever they are used later, and so do threads and processes that it starts.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and whatever `f` returns.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            setns(&*self.file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter network namespace {}", self.name))?;
            f()
        })
    }

    /// Starts a named thread inside.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or no thread can be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        // A thread inherits its creator's namespace.
        self.run(|| Ok(thread::Builder::new().name(name.to_owned()).spawn(f)?))
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        sys::enter_before_exec(&mut command, self.file.clone());
        command
    }

    /// Runs a command inside to its end and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails; the error holds the whole command and its standard error.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        self.checked(output, || format!("{program} {}", arguments.join(" ")))
    }

    /// The same, with JSON on standard output, which is parsed. No output at all is an empty array, as `ip -j` has it.
    ///
    /// # Errors
    /// As [`exec`](Self::exec), and when the output is no JSON.
    pub fn exec_json(&self, program: &str, arguments: &[&str]) -> Result<serde_json::Value> {
        let output = self.exec(program, arguments)?;
        if output.trim().is_empty() {
            return Ok(serde_json::Value::Array(Vec::new()));
        }
        serde_json::from_str(&output)
            .with_context(|| format!("{program} {}: {output}", arguments.join(" ")))
    }

    /// Runs lines of `ip` subcommands inside, by one `ip -batch`.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        self.feed("ip", &["-batch", "-"], lines)
    }

    /// Applies an nftables script inside, as one transaction.
    ///
    /// # Errors
    /// When the kernel or nft refuses it.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], script)
    }

    fn feed(&self, program: &str, arguments: &[&str], input: &str) -> Result<()> {
        let output = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                if let Some(mut stdin) = child.stdin.take() {
                    stdin.write_all(input.as_bytes())?;
                }
                child.wait_with_output()
            });
        self.checked(output, || {
            format!("{program} {} <<END\n{input}\nEND", arguments.join(" "))
        })
        .map(drop)
    }

    fn checked(
        &self,
        output: std::io::Result<Output>,
        command: impl Fn() -> String,
    ) -> Result<String> {
        let output =
            output.with_context(|| format!("cannot run in {}: {}", self.name, command()))?;
        if !output.status.success() {
            bail!(
                "in {}: {}\n{}: {}",
                self.name,
                command(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim(),
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Sets a sysctl inside; `key` has slashes, since interface names may have dots: `net/ipv4/conf/cable/rp_filter`.
    ///
    /// # Errors
    /// When there is no such key, or the value is refused.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.set_sysctls(&[(key, value)])
    }

    /// Sets several.
    pub(super) fn set_sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                fs::write(sysctl_path(key), value)
                    .with_context(|| format!("cannot set sysctl {key} = {value}"))?;
            }
            Ok(())
        })
    }

    /// Reads a sysctl inside.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        self.run(|| {
            let value = fs::read_to_string(sysctl_path(key))
                .with_context(|| format!("cannot read sysctl {key}"))?;
            Ok(value.trim().to_owned())
        })
    }
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// Runs `f` in a thread that ends with it, so that no other code ever runs in the namespace the thread has entered.
fn in_thread<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("namespace".to_owned())
            .spawn_scoped(scope, f)
            .map_err(|error| anyhow!("cannot start a thread: {error}"))?
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}
