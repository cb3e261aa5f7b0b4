//! Scripts in the laboratory's directory, and the files that they leave there.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::Result;
use failover_lab::{Lab, wait_for};

use super::SOON;

/// Writes an executable shell script that finds the laboratory's directory as `$DIR`, and returns its path.
///
/// # Errors
/// When it cannot be written.
pub fn script(lab: &Lab, name: &str, text: &str) -> Result<PathBuf> {
    let dir = &lab.agent_dirs().scratch;
    let path = dir.join(name);
    let text = format!("#!/bin/sh -e\nDIR={}\n{text}\n", dir.display());
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Waits until a file in the laboratory's directory fulfils a condition, and returns its text. One that is missing is an empty one.
///
/// # Errors
/// When it does not [`SOON`].
pub fn wait_for_file(lab: &Lab, name: &str, condition: impl Fn(&str) -> bool) -> Result<String> {
    let path = lab.agent_dirs().scratch.join(name);
    wait_for(&format!("{name} is as it should be"), SOON, || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        if condition(&text) {
            Ok(text)
        } else {
            Err(text)
        }
    })
}
