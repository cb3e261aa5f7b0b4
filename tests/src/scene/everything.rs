//! What an agent may leave behind.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use failover_lab::{Lab, Snapshot};

/// All that an agent could have changed: the kernel's state, and files in its directories.
#[derive(Debug)]
pub struct Everything {
    kernel: Snapshot,
    files: BTreeSet<String>,
}

impl Everything {
    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(lab: &Lab) -> Result<Everything> {
        let dirs = lab.agent_dirs();
        let mut files = BTreeSet::new();
        for dir in [&dirs.run, &dirs.bpf, &dirs.state] {
            list(dir, &mut files)?;
        }
        Ok(Everything {
            kernel: lab.host().snapshot()?,
            files,
        })
    }

    /// The kernel's state.
    pub fn kernel(&self) -> &Snapshot {
        &self.kernel
    }

    /// Checks that `later` is exactly the same.
    ///
    /// # Errors
    /// When it is not; the error lists the differences.
    pub fn ensure_same(&self, later: &Everything) -> Result<()> {
        self.kernel.ensure_same(&later.kernel)?;
        ensure!(
            self.files == later.files,
            "files have changed: {:?} before, {:?} after",
            self.files,
            later.files
        );
        Ok(())
    }
}

/// Paths of everything in `dir`, itself included; nothing if it does not exist.
fn list(dir: &Path, files: &mut BTreeSet<String>) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    files.insert(dir.display().to_string());
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.insert(path.display().to_string());
        }
    }
    Ok(())
}
