//! A time of day that can be set. The host's is everybody's, and no namespace has one of its own: a library that is preloaded into the
//! agent makes one.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};

use super::Lab;

const SOURCE: &str = include_str!("clock.c");

/// The time of day of the agents that [`Lab::start_agent_by`] starts by it.
#[derive(Debug)]
pub struct WallClock {
    library: PathBuf,
    /// Seconds by which it is ahead of the host's.
    file: PathBuf,
    ahead: i64,
}

impl WallClock {
    /// One that is right. A laboratory has one at most.
    ///
    /// # Errors
    /// When the library cannot be compiled.
    pub fn new(lab: &Lab) -> Result<WallClock> {
        let dir = &lab.agent_dirs().scratch;
        let library = dir.join("clock.so");
        compile(&dir.join("clock.c"), &library)?;
        let mut clock = WallClock {
            library,
            file: dir.join("clock"),
            ahead: 0,
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// What an agent must have in its environment; the programs that it starts have it, too.
    pub(super) fn environment(&self) -> [(&'static str, OsString); 2] {
        [
            ("LD_PRELOAD", self.library.clone().into()),
            ("LABORATORY_CLOCK", self.file.clone().into()),
        ]
    }

    /// Sets it so many seconds ahead of the host's, or behind.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&mut self, ahead: i64) -> Result<()> {
        // Whoever reads it reads one of the two.
        let new = self.file.with_extension("new");
        fs::write(&new, ahead.to_string())?;
        fs::rename(&new, &self.file)?;
        self.ahead = ahead;
        Ok(())
    }

    /// What it shows.
    pub fn now(&self) -> SystemTime {
        let ahead = Duration::from_secs(self.ahead.unsigned_abs());
        match self.ahead {
            0.. => SystemTime::now() + ahead,
            _ => SystemTime::now() - ahead,
        }
    }

    /// What it would have shown at an earlier instant, had it always been as it is now.
    pub fn at(&self, instant: Instant) -> SystemTime {
        self.now() - instant.elapsed()
    }
}

fn compile(source: &Path, library: &Path) -> Result<()> {
    fs::write(source, SOURCE)?;
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([library, source])
        .output()
        .context("cannot run cc")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cc: {}", complaint.trim());
    Ok(())
}
