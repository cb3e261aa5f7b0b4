//! File systems that fail: full, read-only, frozen.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A file system of its own on a directory of the laboratory. Works again, and is gone, when dropped.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    frozen: bool,
}

impl Disk {
    /// A small file system in memory on `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn in_memory(dir: &Path) -> Result<Disk> {
        fs::create_dir_all(dir)?;
        mount(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=64k,mode=755"),
        )
        .with_context(|| format!("cannot mount a tmpfs on {}", dir.display()))?;
        Ok(Disk::on(dir))
    }

    /// One that can be frozen: ext4 in the file `image`, which is made.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub fn in_file(dir: &Path, image: &Path) -> Result<Disk> {
        fs::create_dir_all(dir)?;
        File::create_new(image)?.set_len(8 << 20)?;
        let (image, mounted) = (image.as_os_str(), dir.as_os_str());
        run(Command::new("mkfs.ext4").arg("-q").arg(image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([image, mounted]))?;
        Ok(Disk::on(dir))
    }

    fn on(dir: &Path) -> Disk {
        Disk {
            dir: dir.to_owned(),
            frozen: false,
        }
    }

    /// Fills it until nothing fits in any more.
    ///
    /// # Errors
    /// When it is no full file system that stops this.
    pub fn fill(&self) -> Result<()> {
        let mut junk = File::create(self.dir.join("junk"))?;
        loop {
            match junk.write_all(&[0; 512]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.dir.join("junk"))?)
    }

    /// Makes it read-only for whoever looks a name up in it from now on; what is open stays writable.
    ///
    /// # Errors
    /// When it cannot be mounted once more.
    pub fn make_read_only(&self) -> Result<()> {
        let (dir, none) = (self.dir.as_path(), None::<&str>);
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(Some(dir), dir, none, MsFlags::MS_BIND, none)
            .and_then(|()| mount(none, dir, none, again, none))
            .with_context(|| format!("cannot mount {} once more", dir.display()))
    }

    /// Makes it writable again.
    ///
    /// # Errors
    /// When it was not read-only.
    pub fn make_writable(&self) -> Result<()> {
        umount2(&self.dir, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", self.dir.display()))
    }

    /// Has whoever writes to it wait until it is thawed.
    ///
    /// # Errors
    /// When it cannot be frozen.
    pub fn freeze(&mut self) -> Result<()> {
        ensure!(!self.frozen, "it is frozen already");
        run(Command::new("fsfreeze").arg("-f").arg(&self.dir))?;
        self.frozen = true;
        Ok(())
    }

    /// Ends that.
    ///
    /// # Errors
    /// When it cannot be thawed.
    pub fn thaw(&mut self) -> Result<()> {
        run(Command::new("fsfreeze").arg("-u").arg(&self.dir))?;
        self.frozen = false;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let thawed = if self.frozen { self.thaw() } else { Ok(()) };
        let unmounted = umount2(&self.dir, MntFlags::MNT_DETACH).map_err(Into::into);
        if let Err(error) = thawed.and(unmounted) {
            eprintln!("{} is not unmounted: {error:#}", self.dir.display());
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}", error.trim());
    }
    Ok(())
}
