//! The network daemons that the scenarios run: DHCP clients and servers, router advertisements, network managers.
//!
//! They are never installed. `apt-get install network-manager` would start a service that takes over this machine's
//! interfaces; so their packages are only downloaded and unpacked, into a directory that the laboratory lays over `/usr` and
//! `/etc` in mount namespaces of its own.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo,
    linker::tools_dir,
    packages,
    programs::{self, Tool, is_executable},
};

/// The daemons; each program's path is below [`dir`].
pub(crate) const DAEMONS: [Tool; 8] = [
    Tool {
        program: "usr/sbin/dnsmasq",
        package: "dnsmasq-base",
    },
    Tool {
        program: "usr/sbin/radvd",
        package: "radvd",
    },
    Tool {
        program: "usr/sbin/dhclient",
        package: "isc-dhcp-client",
    },
    Tool {
        program: "usr/sbin/udhcpc",
        package: "udhcpc",
    },
    Tool {
        program: "usr/sbin/dhcpcd",
        package: "dhcpcd-base",
    },
    Tool {
        program: "usr/lib/systemd/systemd-networkd",
        package: "systemd",
    },
    Tool {
        program: "usr/sbin/NetworkManager",
        package: "network-manager",
    },
    Tool {
        program: "usr/bin/dbus-daemon",
        package: "dbus-daemon",
    },
];

/// What nobody runs.
const LEFT_OUT: [&str; 3] = ["usr/share/doc", "usr/share/man", "usr/share/locale"];

/// Where the packages are unpacked; the laboratory (`tests/lab/src/daemon`) looks there too.
pub(crate) fn dir() -> PathBuf {
    tools_dir().join("daemons")
}

/// The daemon's program, if it has been unpacked.
pub(crate) fn find(daemon: Tool) -> Option<PathBuf> {
    find_in(&dir(), daemon)
}

fn find_in(dir: &Path, daemon: Tool) -> Option<PathBuf> {
    let path = dir.join(daemon.program);
    // udhcpc is an absolute link to busybox, which is in the tree as well.
    let file = match fs::read_link(&path) {
        Ok(target) => dir.join(target.strip_prefix("/").unwrap_or(&target)),
        Err(_) => path.clone(),
    };
    is_executable(&file).then_some(path)
}

/// e.g. `target/tools/daemons/usr/sbin/radvd`.
pub(crate) fn describe(path: &Path) -> String {
    let path = path.strip_prefix(cargo::workspace()).unwrap_or(path);
    path.display().to_string()
}

/// Downloads the packages of all daemons, and of what they need and this machine lacks, and unpacks them. Installs nothing and
/// needs root for nothing, unless the package lists are absent.
///
/// # Errors
/// When a package does not exist in this release, or apt, dpkg-deb or tar fails. Then nothing has changed.
pub(crate) fn fetch() -> Result<()> {
    let new = tools_dir().join("daemons.new");
    remove(&new)?;
    let archives = new.join("archives");
    // apt wants the second one to be there.
    fs::create_dir_all(archives.join("partial"))
        .with_context(|| format!("cannot make {}", archives.display()))?;
    packages::apt_download(&DAEMONS.map(|daemon| daemon.package.to_owned()), &archives)?;

    let tree = new.join("tree");
    prepare(&tree)?;
    for entry in fs::read_dir(&archives)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|kind| kind == "deb") {
            unpack(&archive, &tree)?;
        }
    }
    let lacking = DAEMONS
        .iter()
        .find(|daemon| find_in(&tree, **daemon).is_none());
    if let Some(Tool { program, package }) = lacking {
        bail!("the package {package} of this release has no {program}");
    }
    // In one step, so that what is there is whole.
    remove(&dir())?;
    fs::rename(&tree, dir()).with_context(|| format!("cannot make {}", dir().display()))?;
    remove(&new)
}

/// Lays out `/bin`, `/sbin` and `/lib` as the system has them, as links into `/usr`: packages may still name files by the old paths.
fn prepare(tree: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(tree.join("usr").join(name))?;
        symlink(Path::new("usr").join(name), tree.join(name))?;
    }
    Ok(())
}

/// What `dpkg -x` does, without replacing those links by directories.
fn unpack(archive: &Path, tree: &Path) -> Result<()> {
    let mut contents = Command::new(programs::of_setup("dpkg-deb")?)
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let mut tar = Command::new(programs::of_setup("tar")?);
    tar.args(["-x", "--keep-directory-symlink", "--no-same-owner", "-C"])
        .arg(tree)
        .args(LEFT_OUT.map(|path| format!("--exclude=./{path}")));
    if let Some(contents) = contents.stdout.take() {
        tar.stdin(contents);
    }
    let unpacked = tar.status().context("cannot start tar")?;
    let read = contents.wait().context("cannot wait for dpkg-deb")?;
    if !unpacked.success() || !read.success() {
        bail!(
            "cannot unpack {}: dpkg-deb {read}, tar {unpacked}",
            archive.display()
        );
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_daemon_is_found_by_its_program_or_by_what_that_links_to() {
        let tree = std::env::temp_dir().join(format!("xtask-daemons-{}", std::process::id()));
        prepare(&tree).unwrap();
        let [udhcpc, dhcpcd] = ["udhcpc", "dhcpcd-base"].map(|package| {
            let daemon = DAEMONS.iter().find(|daemon| daemon.package == package);
            *daemon.unwrap()
        });
        let found = || {
            (
                find_in(&tree, udhcpc).is_some(),
                find_in(&tree, dhcpcd).is_some(),
            )
        };
        symlink("/bin/busybox", tree.join("usr/sbin/udhcpc")).unwrap();
        fs::write(tree.join("usr/sbin/dhcpcd"), "").unwrap();
        assert_eq!(found(), (false, false));
        for program in ["usr/bin/busybox", "usr/sbin/dhcpcd"] {
            fs::write(tree.join(program), "").unwrap();
            fs::set_permissions(tree.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(found(), (true, true));
        remove(&tree).unwrap();
    }
}
