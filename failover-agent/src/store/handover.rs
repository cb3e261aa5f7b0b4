//! What the next program in the agent's process needs to know: sealed memory, whose descriptor survives the `execve`.
//!
//! With it a restart does not depend on a disk, neither to write what is still in memory nor to read it back.

use std::{
    env,
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    process::{self, Command},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::close,
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    Inner,
    keeper::{Keeper, Newest},
    realm::{Counts, Realm},
};

/// Name of the environment variable that holds the descriptor's number.
const VARIABLE: &str = "FAILOVER_AGENT_HANDOVER";

/// Far more than all files together.
const MAX_BYTES: u64 = 16 << 20;

/// Seals under which the memory cannot have been changed since.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Sealed memory for the next program.
#[derive(Debug)]
pub struct Handover(OwnedFd);

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    /// The process for which it is meant. Another program that the agent starts inherits the variable, but not the process id.
    process: u32,
    realm: Realm,
    run: Vec<Entry>,
    state: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    content: Option<String>,
    synced: bool,
    written: bool,
}

impl Handover {
    pub(super) fn of(store: &Inner) -> Result<Handover> {
        let entries = |keeper: &Keeper| -> Vec<Entry> {
            let files = keeper.newest().into_iter();
            files
                .map(|file| Entry {
                    name: file.name,
                    content: file.content,
                    synced: file.synced,
                    written: file.written,
                })
                .collect()
        };
        let content = Content {
            process: process::id(),
            realm: store.realm(),
            run: entries(&store.run),
            state: entries(&store.state),
        };
        let memory =
            memfd_create("failover-agent", MFdFlags::MFD_ALLOW_SEALING).context("memfd_create")?;
        let mut memory = File::from(memory);
        memory
            .write_all(&serde_json::to_vec(&content)?)
            .context("writing to memory")?;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(SEALS)).context("sealing memory")?;
        Ok(Handover(memory.into()))
    }

    /// Names the memory to `command`, which this process is about to execute.
    pub fn announce(&self, command: &mut Command) {
        command.env(VARIABLE, self.0.as_raw_fd().to_string());
    }
}

/// Takes over what the previous program handed to this one, if anything.
pub(super) fn take(store: &Inner) {
    let Some(number) = env::var(VARIABLE).ok().and_then(|text| text.parse().ok()) else {
        return;
    };
    match read(number) {
        Ok(content)
            if content.process == process::id()
                && !matches!(content.realm.counts_in(&store.realm()), Counts::No(_)) =>
        {
            for (keeper, entries) in [(&store.run, content.run), (&store.state, content.state)] {
                for entry in entries {
                    keeper.inherit(Newest {
                        name: entry.name,
                        content: entry.content,
                        synced: entry.synced,
                        written: entry.written,
                    });
                }
            }
        }
        // It was meant for the program that started this one.
        Ok(_) => {}
        Err(error) => warn!("what the previous program handed over cannot be read: {error:#}"),
    }
}

/// Reads the memory and closes it; fails if it is not sealed memory.
fn read(number: i32) -> Result<Content> {
    let path = format!("/proc/self/fd/{number}");
    let memory = File::open(&path).with_context(|| path.clone())?;
    let seals = fcntl(&memory, FcntlArg::F_GET_SEALS).with_context(|| path.clone())?;
    ensure!(
        SealFlag::from_bits_truncate(seals).contains(SEALS),
        "{path} is no sealed memory"
    );
    close(number).with_context(|| path.clone())?;
    let mut bytes = Vec::new();
    memory.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
