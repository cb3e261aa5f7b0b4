//! The machine that a daemon sees: the programs of this one and the unpacked ones, and an `/etc`, `/run`, `/var` and `/tmp` of its own.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::sethostname,
};

use super::process::Daemon;
use crate::namespace::Namespace;

/// Where `cargo xtask setup` unpacks the daemons (`xtask/src/daemons.rs`), from the workspace.
const TREE: &str = "target/tools/daemons";

/// Directory of the overlays' upper layers, in the system's own `/run`.
const LAYERS: &str = "/run/laboratory";

/// The users as which some daemons go on when they have started.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
systemd-network:x:998:998::/:/usr/sbin/nologin
";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nsystemd-network:x:998:\n";

/// Files of a machine's `/etc`: the identity is made up (machine-id(5)), and what it calls itself goes into DHCP requests.
const ETC: [(&str, &str); 7] = [
    ("passwd", PASSWD),
    ("group", GROUP),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
    ("hosts", "127.0.0.1 localhost\n"),
    ("hostname", HOST_NAME),
    ("machine-id", "0123456789abcdef0123456789abcdef\n"),
    ("resolv.conf", ""),
];

const HOST_NAME: &str = "laboratory";

/// Where daemons of this release expect to find a directory.
const DIRECTORIES: [&str; 9] = [
    "/run/dbus",
    "/run/systemd",
    "/var/cache",
    "/var/lib/NetworkManager",
    "/var/lib/dhcp",
    "/var/lib/dhcpcd",
    "/var/lib/misc",
    "/var/log",
    "/var/tmp",
];

/// A machine for daemons, in one of the laboratory's network namespaces. A handle; it lives as long as a handle is held or a process runs in it.
///
/// It is a mount and a UTS namespace. The unpacked programs lie over `/usr` (an overlay), so that they and their scripts find each
/// other where they expect it.
#[derive(Clone, Debug)]
pub struct System {
    tree: PathBuf,
    namespace: Namespace,
    mounts: Arc<File>,
    names: Arc<File>,
}

impl System {
    /// Makes one.
    ///
    /// # Errors
    /// When the daemons have not been unpacked (the cure is `cargo xtask setup`), or the kernel has no overlay file system.
    pub fn new(namespace: &Namespace) -> Result<System> {
        let tree = tree(workspace())?;
        let (mounts, names) = namespace.run(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
                .context("unshare(CLONE_NEWNS | CLONE_NEWUTS)")?;
            sethostname(HOST_NAME)?;
            lay_out(&tree)?;
            Ok((
                File::open("/proc/thread-self/ns/mnt")?,
                File::open("/proc/thread-self/ns/uts")?,
            ))
        })?;
        Ok(System {
            tree,
            namespace: namespace.clone(),
            mounts: mounts.into(),
            names: names.into(),
        })
    }

    /// Runs `f` inside, in a thread of its own, and waits for it: paths mean the system's files, and processes that it starts stay there.
    ///
    /// # Errors
    /// When the system cannot be entered, and whatever `f` returns.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.run(|| {
            // Otherwise the mount namespace could not be changed for one thread.
            unshare(CloneFlags::CLONE_FS).context("unshare(CLONE_FS)")?;
            setns(&*self.mounts, CloneFlags::CLONE_NEWNS).context("cannot enter the mounts")?;
            setns(&*self.names, CloneFlags::CLONE_NEWUTS).context("cannot enter the names")?;
            f()
        })
    }

    /// Writes a file, readable by root alone as some daemons demand it, and the directories above it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        self.run(|| write(Path::new(path), content, 0o600))
    }

    /// Writes a file that every user may read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_for_all(&self, path: &str, content: &str) -> Result<()> {
        self.run(|| write(Path::new(path), content, 0o644))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<String> {
        self.run(|| fs::read_to_string(path).with_context(|| format!("cannot read {path}")))
    }

    /// Starts a daemon, which must stay in the foreground.
    ///
    /// # Errors
    /// When it is not in the unpacked packages, or cannot be started.
    pub fn start(&self, program: &str, arguments: &[&str]) -> Result<Daemon> {
        let path = unpacked(&self.tree, program)?;
        self.run(|| Daemon::spawn(command(&path).args(arguments)))
    }

    /// Runs a command to its end and returns its standard output.
    ///
    /// # Errors
    /// When it is not in the unpacked packages, cannot be started, or fails; then the error holds its standard error.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let path = unpacked(&self.tree, program)?;
        self.run(|| {
            let output = command(&path)
                .args(arguments)
                .output()
                .with_context(|| format!("cannot run {program}"))?;
            if !output.status.success() {
                bail!(
                    "{program} {}: {}: {}",
                    arguments.join(" "),
                    output.status,
                    String::from_utf8_lossy(&output.stderr).trim()
                );
            }
            Ok(String::from_utf8(output.stdout)?)
        })
    }
}

/// The workspace that this was compiled in.
fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package)
}

/// The unpacked daemons.
fn tree(workspace: &Path) -> Result<PathBuf> {
    let tree = workspace.join(TREE);
    if !tree.is_dir() {
        bail!(
            "the daemons for the tests are not in {}: cargo xtask setup",
            tree.display()
        );
    }
    Ok(tree)
}

/// Where the system has a program of the unpacked packages. Another would be there or not as this machine happens to have it.
fn unpacked(tree: &Path, program: &str) -> Result<PathBuf> {
    ["usr/sbin", "usr/bin", "usr/lib/systemd"]
        .iter()
        .map(|directory| Path::new(directory).join(program))
        // The link that is one leads nowhere outside the system.
        .find(|path| tree.join(path).symlink_metadata().is_ok())
        .map(|path| Path::new("/").join(path))
        .with_context(|| {
            format!(
                "{program} is not in {}: declare its package in xtask/src/daemons.rs",
                tree.display()
            )
        })
}

/// A program of the system, which finds others as a service would: those of this machine, on which its package depends, too.
fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env("PATH", "/usr/sbin:/usr/bin");
    command
}

/// Mounts everything, in a mount namespace that is still a copy of this machine's.
fn lay_out(tree: &Path) -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("cannot make the mounts private")?;
    let lower = |name: &str| format!("lowerdir={}", tree.join(name).display());
    mount_new("overlay", "/usr", &format!("{}:/usr", lower("usr")))?;

    // For this, /run must be the system's own.
    mount_new("tmpfs", "/run", "mode=755")?;
    let [upper, work] = ["etc", "work"].map(|name| Path::new(LAYERS).join(name));
    for (name, content) in ETC {
        write(&upper.join(name), content, 0o644)?;
    }
    // /usr/bin/awk and others are links to there.
    copy_links(Path::new("/etc/alternatives"), &upper.join("alternatives"))?;
    make_dir(&work)?;
    let (upper, work) = (upper.display(), work.display());
    let layers = format!("{},upperdir={upper},workdir={work}", lower("etc"));
    mount_new("overlay", "/etc", &layers)?;

    mount_new("tmpfs", "/var", "mode=755")?;
    symlink("/run", "/var/run")?;
    for directory in DIRECTORIES {
        make_dir(Path::new(directory))?;
    }
    // Last: the tree may lie below it.
    mount_new("tmpfs", "/tmp", "mode=1777")?;
    // This network namespace's devices. Read-only, as in a container, it also tells daemons not to wait for udev
    // (https://systemd.io/CONTAINER_INTERFACE).
    mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .context("cannot mount sysfs on /sys")
}

fn mount_new(kind: &str, target: &str, options: &str) -> Result<()> {
    mount(
        Some(kind),
        target,
        Some(kind),
        MsFlags::empty(),
        Some(options),
    )
    .with_context(|| format!("cannot mount {kind} on {target} with {options}"))
}

fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

fn write(path: &Path, content: &str, mode: u32) -> Result<()> {
    if let Some(directory) = path.parent() {
        make_dir(directory)?;
    }
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    io::Write::write_all(&mut file, content.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn copy_links(from: &Path, to: &Path) -> Result<()> {
    make_dir(to)?;
    let Ok(entries) = fs::read_dir(from) else {
        return Ok(()); // Not every distribution has them.
    };
    for entry in entries {
        let entry = entry?;
        if let Ok(target) = fs::read_link(entry.path()) {
            symlink(target, to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_daemons_the_cure_is_told() {
        let empty = tempfile::tempdir().unwrap();
        let error = tree(empty.path()).unwrap_err().to_string();
        assert!(error.ends_with(": cargo xtask setup"), "{error}");
    }

    #[test]
    fn programs_of_this_machine_are_none_of_the_systems() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("usr/sbin")).unwrap();
        symlink("/nowhere/busybox", tree.path().join("usr/sbin/udhcpc")).unwrap();
        let udhcpc = unpacked(tree.path(), "udhcpc").unwrap();
        assert_eq!(udhcpc, Path::new("/usr/sbin/udhcpc"));
        let error = unpacked(tree.path(), "sh").unwrap_err().to_string();
        assert!(error.contains("declare its package"), "{error}");
    }
}
