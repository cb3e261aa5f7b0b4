//! Where a running agent's configuration came from, so that it can be reloaded.

use std::path::PathBuf;

use super::Config;
use crate::{cli::DirFlags, failure::Failure};

/// A file, and the flags that override its directories.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// Directories given as flags.
    pub dirs: DirFlags,
}

impl Origin {
    /// Reads and validates it, as at the start.
    ///
    /// # Errors
    ///
    /// As for [`Config::from_file`].
    pub fn read(&self) -> Result<Config, Failure> {
        let mut config = Config::from_file(&self.file)?;
        config.dirs = config.dirs.overridden(&self.dirs)?;
        Ok(config)
    }
}
