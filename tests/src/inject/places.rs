//! Which directory a file is in, in words that are the same in every laboratory.

use std::path::{Path, PathBuf};

use failover_lab::AgentDirs;

/// What stands for whatever begins with a path; `None`: not looked at.
#[derive(Clone, Debug)]
pub(super) struct Places(Vec<(PathBuf, Option<&'static str>)>);

impl Places {
    pub(super) fn of(dirs: &AgentDirs, program: &Path) -> Places {
        let own = [
            (dirs.run.clone(), Some("run")),
            (dirs.state.clone(), Some("state")),
            (dirs.bpf.clone(), Some("bpf")),
            (dirs.scratch.clone(), Some("configuration")),
            (program.to_owned(), Some("program")),
        ];
        let common = [
            // The dynamic loader's, before the program begins; and what cannot fail.
            ("/etc/ld.so", None),
            ("/lib", None),
            ("/usr/lib", None),
            ("/dev/null", None),
            ("/proc/sys", Some("sysctl")),
            ("/proc", Some("proc")),
            ("/sys/fs/cgroup", Some("cgroup")),
            ("/sys", Some("sys")),
            ("/etc", Some("etc")),
            ("/run", Some("/run")),
            ("/memfd:", Some("memfd")),
        ];
        let common = common.map(|(path, place)| (PathBuf::from(path), place));
        Places(own.into_iter().chain(common).collect())
    }

    /// The word for a path.
    pub(super) fn name(&self, path: &Path) -> Option<String> {
        let text = path.to_string_lossy();
        // By bytes, not by components: /memfd:name, /etc/ld.so.cache.
        let known = self.0.iter().find(|(prefix, _)| {
            text.strip_prefix(&*prefix.to_string_lossy())
                .is_some_and(|rest| {
                    let prefix = prefix.to_string_lossy();
                    rest.is_empty() || rest.starts_with('/') || is_stem(&prefix)
                })
        });
        match known {
            Some((_, place)) => place.map(str::to_owned),
            None => Some(path.parent().unwrap_or(path).display().to_string()),
        }
    }
}

/// Whether a prefix may end within a name.
fn is_stem(prefix: &str) -> bool {
    matches!(prefix, "/memfd:" | "/etc/ld.so" | "/lib")
}
