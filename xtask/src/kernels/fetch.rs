//! Kernels, qemu, and what boots them: Debian's packages, downloaded and unpacked below `target/kernels`, never installed.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, packages, programs, progress};

/// Unpacked qemu, busybox and kmod.
pub(super) struct Tools {
    /// `target/kernels`.
    pub(super) dir: PathBuf,
}

/// An unpacked kernel.
pub(super) struct Kernel {
    /// e.g. `6.1.0-56-amd64`.
    pub(super) release: String,
    /// The directory with its `boot` and `lib/modules`.
    pub(super) tree: PathBuf,
}

impl Kernel {
    /// Linux 6.6 and newer.
    pub(super) fn has_tcx(&self) -> bool {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next()?.parse::<u32>().ok();
        (number(), number()) >= (Some(6), Some(6))
    }
}

/// The machine itself, with what it depends on.
const QEMU: &str = "qemu-system-x86";
/// What boots it; this machine may have neither.
const BOOT: [&str; 2] = ["busybox-static", "kmod"];

impl Tools {
    /// Gets what is not there yet.
    ///
    /// # Errors
    /// When a package does not exist in this release, or apt or dpkg-deb fails.
    pub(super) fn fetch() -> Result<Self> {
        let tools = Self {
            dir: cargo::workspace().join("target/kernels"),
        };
        let tree = tools.tree();
        if !tree.is_dir() {
            let new = fresh(&tools.dir.join("tools.new"))?;
            let archives = new.join("archives");
            fs::create_dir_all(archives.join("partial"))?;
            packages::apt_download(&[QEMU.to_owned()], &archives)?;
            download(&BOOT.map(str::to_owned), &archives)?;
            unpack_all(&archives, &new.join("tree"))?;
            // kmod is what its package calls depmod and modprobe by absolute links.
            for name in ["depmod", "modprobe"] {
                let link = new.join("tree/bin").join(name);
                symlink("kmod", &link)
                    .with_context(|| format!("cannot make {}", link.display()))?;
            }
            fs::rename(new.join("tree"), &tree)?;
            fs::remove_dir_all(&new)?;
        }
        Ok(tools)
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("tools")
    }

    /// A program of the tools, e.g. `bin/busybox`.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.tree().join(name)
    }

    /// A command with the tools' own libraries.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        let libraries =
            ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|lib| self.tree().join(lib));
        if let Ok(libraries) = env::join_paths(libraries) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// The newest kernel of a series, with the index of its modules.
    ///
    /// # Errors
    /// When there is none in this release's sources, or it cannot be got or unpacked.
    pub(super) fn kernel(&self, series: &str) -> Result<Kernel> {
        let package = newest(&names(series)?, series)
            .with_context(|| format!("no kernel {series} in this machine's apt sources"))?;
        let release = package
            .strip_prefix("linux-image-")
            .unwrap_or(&package)
            .to_owned();
        let kernel = Kernel {
            tree: self.dir.join(&release),
            release,
        };
        if !kernel.tree.is_dir() {
            let new = fresh(&self.dir.join("kernel.new"))?;
            download(std::slice::from_ref(&package), &new)?;
            let tree = new.join("tree");
            unpack_all(&new, &tree)?;
            // dpkg would do this when the package is installed.
            let mut depmod = self.command("bin/depmod");
            depmod.arg("-b").arg(&tree).arg(&kernel.release);
            progress::run(&mut depmod)?;
            fs::rename(tree, &kernel.tree)?;
            fs::remove_dir_all(&new)?;
        }
        Ok(kernel)
    }
}

/// An empty directory.
fn fresh(dir: &Path) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.to_owned())
}

/// Downloads packages, without what they depend on.
fn download(packages: &[String], dir: &Path) -> Result<()> {
    let mut command = Command::new(programs::of_setup("apt-get")?);
    command
        .args(["--quiet", "download"])
        .args(packages)
        .current_dir(dir);
    progress::run(&mut command)
}

/// Unpacks every package of a directory into one tree.
fn unpack_all(archives: &Path, tree: &Path) -> Result<()> {
    for entry in fs::read_dir(archives)? {
        let archive = entry?.path();
        if archive.extension().is_none_or(|kind| kind != "deb") {
            continue;
        }
        let status = Command::new(programs::of_setup("dpkg-deb")?)
            .arg("--extract")
            .arg(&archive)
            .arg(tree)
            .status()
            .context("cannot start dpkg-deb")?;
        ensure!(status.success(), "cannot unpack {}", archive.display());
    }
    if !tree.is_dir() {
        bail!("no packages in {}", archives.display());
    }
    Ok(())
}

/// The names of all packages that begin like kernels of this series.
fn names(series: &str) -> Result<Vec<String>> {
    let pattern = format!("^linux-image-{}", series.replace('.', "\\."));
    let output = Command::new(programs::of_setup("apt-cache")?)
        .args(["search", "--names-only", &pattern])
        .output()
        .context("cannot start apt-cache")?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
        .collect())
}

/// The newest for common machines: the cloud kernels lack 9p, by which the machine reads its root.
fn newest(names: &[String], series: &str) -> Option<String> {
    let start = format!("linux-image-{series}.");
    let version = |name: &str| -> Option<Vec<u64>> {
        let version = name.strip_prefix(&start)?.strip_suffix("-amd64")?;
        let flavoured = ["cloud", "rt", "dbg", "unsigned"]
            .iter()
            .any(|flavour| version.split('-').any(|part| part == *flavour));
        let numbers = version.split(|c: char| !c.is_ascii_digit());
        (!flavoured).then(|| numbers.filter_map(|number| number.parse().ok()).collect())
    };
    names
        .iter()
        .filter(|name| version(name).is_some())
        .max_by_key(|name| version(name))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_kernel_of_a_series_is_taken() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-6.1.0-57-cloud-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.1.0-57-amd64-unsigned",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.9+deb12-amd64",
        ]
        .map(str::to_owned);
        let newest = |series| newest(&names, series);
        assert_eq!(newest("6.1").as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(
            newest("6.12").as_deref(),
            Some("linux-image-6.12.117+deb12-amd64")
        );
        assert_eq!(newest("5.15"), None);
    }

    #[test]
    fn tcx_came_with_linux_6_6() {
        let has_tcx = |release: &str| {
            let release = release.to_owned();
            let tree = PathBuf::new();
            Kernel { release, tree }.has_tcx()
        };
        assert!(!has_tcx("6.1.0-56-amd64") && !has_tcx("5.15.0-91-generic"));
        assert!(has_tcx("6.12.117+deb12-amd64") && has_tcx("6.6.0") && has_tcx("7.0-1"));
    }
}
