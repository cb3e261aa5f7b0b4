//! What the kernel starts first: it mounts the root and makes way for it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};

use super::fetch::{Kernel, Tools};

/// The tag of the root's export.
pub(super) const ROOT_TAG: &str = "root";

/// What reading that root takes; with what they depend on.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// `/new` becomes the root: this machine's below, and above it what the tests write.
fn init(modules: &[String]) -> String {
    let insmod: String = modules
        .iter()
        .map(|module| format!("insmod /modules/{module} || echo \"{module} is not loaded\"\n"))
        .collect();
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
{insmod}
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 {ROOT_TAG} /lower || echo 'no root'
mount -t tmpfs tmpfs /upper
mkdir /upper/upper /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /new || echo 'no overlay'
umount /proc
exec switch_root /new /bin/sh \"$(sed -n 's/.*failover.script=\\([^ ]*\\).*/\\1/p' /cmdline)\"
"
    )
    // The command line is read while /proc is there.
    .replace("umount /proc", "cat /proc/cmdline > /cmdline\numount /proc")
}

/// Makes the archive; returns its path.
///
/// # Errors
/// When a module is missing, or a file cannot be written.
pub(super) fn make(tools: &Tools, kernel: &Kernel) -> Result<PathBuf> {
    let archive = tools.dir.join(format!("{}.initramfs", kernel.release));
    let tree = tools.dir.join("initramfs.new");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for dir in ["bin", "modules", "proc", "lower", "upper", "new"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    fs::copy(tools.program("bin/busybox"), tree.join("bin/busybox")).context("busybox")?;
    let modules = kernel.tree.join("lib/modules").join(&kernel.release);
    let index = fs::read_to_string(modules.join("modules.dep")).context("modules.dep")?;
    let mut names = Vec::new();
    for path in closure(&index, &MODULES)? {
        names.push(copy_module(
            tools,
            &modules.join(&path),
            &tree.join("modules"),
        )?);
    }
    let script = tree.join("init");
    fs::write(&script, init(&names))?;
    executable(&script)?;

    let list = tree.join("list");
    let files: String = files(&tree, &tree)?;
    fs::write(&list, files)?;
    let status = tools
        .command("bin/busybox")
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(&tree)
        .stdin(fs::File::open(&list)?)
        .stdout(fs::File::create(&archive)?)
        .stderr(Stdio::null())
        .status()
        .context("cannot start busybox")?;
    ensure!(status.success(), "cpio failed ({status})");
    fs::remove_dir_all(&tree)?;
    Ok(archive)
}

fn executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o755),
    )?)
}

/// Copies a module, unpacked, and returns its file's name.
fn copy_module(tools: &Tools, from: &Path, to: &Path) -> Result<String> {
    let name = from
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .with_context(|| format!("{} is no file", from.display()))?;
    let Some(plain) = name.strip_suffix(".xz") else {
        fs::copy(from, to.join(&name)).with_context(|| from.display().to_string())?;
        return Ok(name);
    };
    let status = tools
        .command("bin/busybox")
        .args(["xz", "-dc"])
        .arg(from)
        .stdout(fs::File::create(to.join(plain))?)
        .status()
        .context("cannot start busybox")?;
    ensure!(status.success(), "cannot unpack {}", from.display());
    Ok(plain.to_owned())
}

/// The files of these modules and of all that they need, in the order in which they can be loaded; what is built in has no file.
fn closure(index: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let lines: BTreeMap<String, (&str, Vec<&str>)> = index
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| {
            (
                module_name(file),
                (file, needs.split_whitespace().collect()),
            )
        })
        .collect();
    let mut order = Vec::new();
    for name in wanted {
        // depmod lists all that a module needs, those first that need nothing last.
        let Some((file, needs)) = lines.get(*name) else {
            continue;
        };
        for needed in needs.iter().rev().chain([file]) {
            if !order.iter().any(|known| known == needed) {
                order.push((*needed).to_owned());
            }
        }
    }
    ensure!(!order.is_empty(), "modules.dep names none of {wanted:?}");
    Ok(order)
}

/// `9pnet_virtio` of `kernel/net/9p/9pnet_virtio.ko.xz`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

/// The paths of a tree below it, directories first.
fn files(root: &Path, dir: &Path) -> Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let below = path.strip_prefix(root)?.display();
        text.push_str(&format!("{below}\n"));
        if path.is_dir() {
            text.push_str(&files(root, &path)?);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let index = "kernel/fs/9p/9p.ko: kernel/fs/netfs/netfs.ko kernel/net/9p/9pnet.ko kernel/fs/fscache/fscache.ko
kernel/net/9p/9pnet.ko:
kernel/fs/overlayfs/overlay.ko.xz:
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko
";
        assert_eq!(
            closure(index, &["virtio_pci", "9pnet_virtio", "9p", "overlay"]).unwrap(),
            [
                "kernel/net/9p/9pnet.ko",
                "kernel/net/9p/9pnet_virtio.ko",
                "kernel/fs/fscache/fscache.ko",
                "kernel/fs/netfs/netfs.ko",
                "kernel/fs/9p/9p.ko",
                "kernel/fs/overlayfs/overlay.ko.xz",
            ]
        );
        assert!(closure(index, &["ext4"]).is_err());
        assert_eq!(
            module_name("kernel/drivers/virtio/virtio-pci.ko.xz"),
            "virtio_pci"
        );
    }
}
