//! The programs of the system that are started here: one list, which says where each comes from.
//!
//! The tests, the demonstration and the benchmark see no other program: their PATH is one directory with a link for each of
//! [`LABORATORY`]. So a program that is not declared here fails on every machine, also on those that happen to have it. What
//! set-up starts itself is in [`SETUP`]; a test reads the sources for whatever would get around either list.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::linker::tools_dir;

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// Debian's package of it.
    pub(crate) package: &'static str,
}

/// Programs of one package.
const fn of<const N: usize>(package: &'static str, programs: [&'static str; N]) -> [Tool; N] {
    let mut tools = [Tool {
        program: "",
        package,
    }; N];
    let mut i = 0;
    while i < N {
        tools[i].program = programs[i];
        i += 1;
    }
    tools
}

/// What the tests, the demonstration and the benchmark start, by package.
pub(crate) const LABORATORY: [&[Tool]; 19] = [
    // The C compiler starts them.
    &of("binutils", ["as", "ld"]),
    &of("bpftool", ["bpftool"]),
    &of("conntrack", ["conntrack"]),
    &of(
        "coreutils",
        [
            "cat", "chmod", "cp", "cut", "date", "dirname", "env", "head", "ls", "mv", "readlink",
            "rm", "sleep", "sort", "timeout", "true", "yes",
        ],
    ),
    &of("dash", ["sh"]),
    &of("e2fsprogs", ["mkfs.ext4"]),
    &of("findutils", ["find"]),
    // Compiles the library by which an agent has a time of day of its own.
    &of("gcc", ["cc"]),
    &of("grep", ["grep"]),
    &of("iproute2", ["ip", "ss", "tc"]),
    &of("iptables", ["ip6tables-nft", "iptables", "iptables-nft"]),
    &of("mawk", ["awk"]),
    &of("mount", ["mount"]),
    &of("nftables", ["nft"]),
    &of("perl-base", ["perl"]),
    &of("procps", ["sysctl"]),
    &of("sed", ["sed"]),
    &of("tcpdump", ["tcpdump"]),
    &of(
        "util-linux",
        [
            "flock", "fsfreeze", "nsenter", "setpriv", "setsid", "unshare",
        ],
    ),
];

/// What set-up, and whatever else runs here rather than in the laboratory, starts by its name. Cargo and what it needs
/// (rustc, a C compiler) were there before us.
pub(crate) const SETUP: [&[Tool]; 5] = [
    &of("apt", ["apt-cache", "apt-get"]),
    &of("coreutils", ["env", "nice", "true"]),
    &of("dash", ["sh"]),
    &of("dpkg", ["dpkg-deb"]),
    &of("tar", ["tar"]),
];

/// Finds a program that set-up starts.
///
/// # Errors
/// When it is not declared in [`SETUP`], or not on this machine.
pub(crate) fn of_setup(name: &str) -> Result<PathBuf> {
    let mut declared = SETUP.into_iter().flatten();
    let tool = declared
        .find(|tool| tool.program == name)
        .with_context(|| format!("`{name}` is not declared in {}", file!()))?;
    find_program(name).with_context(|| missing(*tool))
}

fn missing(Tool { program, package }: Tool) -> String {
    format!("no program `{program}` here (Debian's package: {package})")
}

/// Every program of the laboratory.
pub(crate) fn laboratory() -> impl Iterator<Item = Tool> {
    LABORATORY.into_iter().flatten().copied()
}

/// Lays out the directory that is the laboratory's whole PATH, and returns it: a link for each of [`LABORATORY`], and nothing else.
///
/// # Errors
/// When a program is missing, or the directory cannot be written.
pub(crate) fn laboratory_path() -> Result<PathBuf> {
    let path = tools_dir().join("path");
    lay_out(&path, laboratory())?;
    Ok(path)
}

fn lay_out(path: &Path, tools: impl Iterator<Item = Tool>) -> Result<()> {
    let context = || format!("cannot lay out {}", path.display());
    fs::create_dir_all(path).with_context(context)?;
    let mut wanted = Vec::new();
    for tool in tools {
        let file = find_program(tool.program)
            .with_context(|| format!("{}: cargo xtask setup", missing(tool)))?;
        wanted.push((path.join(tool.program), file));
    }
    for entry in fs::read_dir(path).with_context(context)? {
        let entry = entry.with_context(context)?.path();
        let right = wanted
            .iter()
            .any(|(link, file)| *link == entry && fs::read_link(link).is_ok_and(|to| to == *file));
        if !right {
            fs::remove_file(&entry).with_context(context)?;
        }
    }
    for (link, file) in wanted {
        match symlink(file, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(context);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Looks for a program on PATH and where administrators' programs live: on Debian these
/// directories are not on a user's PATH, but root will find them.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// Whether it is a file that may be executed.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, process::Command};

    use super::*;
    use crate::{cargo, daemons::DAEMONS};

    #[test]
    fn programs_are_found_and_must_be_executable() {
        assert!(find_program("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find_program("no-such-program-anywhere"), None);
        assert!(!is_executable(Path::new("/etc/passwd")));
        assert!(!is_executable(Path::new("/etc")));
    }

    #[test]
    fn the_laboratory_sees_what_is_declared_and_nothing_else() {
        let dir = env::temp_dir().join(format!("xtask-path-{}", std::process::id()));
        let tools = of("any", ["sh", "cat"]);
        lay_out(&dir, tools.into_iter()).unwrap();
        // What a former list had, and a link to a program that was moved.
        symlink("/bin/true", dir.join("true")).unwrap();
        fs::remove_file(dir.join("cat")).unwrap();
        symlink("/nonexistent/cat", dir.join("cat")).unwrap();
        lay_out(&dir, tools.into_iter()).unwrap();

        let shell = |script: &str| {
            let mut sh = Command::new("sh");
            let output = sh.args(["-c", script]).env("PATH", &dir).output().unwrap();
            (
                output.status.code(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        };
        assert_eq!(shell("cat /dev/null"), (Some(0), String::new()));
        let (code, complaint) = shell("ls /dev/null");
        assert_eq!(code, Some(127), "{complaint}");
        assert!(complaint.contains("ls"), "{complaint}");

        let missing = of("some-package", ["no-such-program-anywhere"]);
        let error = format!("{:#}", lay_out(&dir, missing.into_iter()).unwrap_err());
        assert!(error.contains("some-package"), "{error}");
        fs::remove_dir_all(dir).unwrap();
    }

    /// A path leads to a program whatever PATH is, and what set-up starts finds more than it should: so the sources are read.
    #[test]
    fn no_source_names_a_program_that_is_not_declared() {
        let declared = |list: &[&[Tool]]| -> BTreeSet<&str> {
            let tools = list.iter().copied().flatten();
            tools.map(|tool| tool.program).collect()
        };
        let (mut laboratory, setup) = (declared(&LABORATORY), declared(&SETUP));
        let daemons = DAEMONS.iter().map(|daemon| daemon.program.rsplit('/'));
        laboratory.extend(daemons.filter_map(|mut path| path.next()));
        let mut wrong = Vec::new();
        for (directory, by_path) in [
            ("failover-agent/src", true),
            ("failover-agent/tests", true),
            ("tests", true),
            ("xtask/src", false),
        ] {
            for file in sources(&cargo::workspace().join(directory)) {
                if file.ends_with(file!()) {
                    continue;
                }
                let text = without_comments(&fs::read_to_string(&file).unwrap());
                let names = if by_path {
                    paths_of_programs(&text)
                } else {
                    started_by_name(&text)
                };
                let list = if by_path { &laboratory } else { &setup };
                for name in names {
                    if !list.contains(name) && !NEVER_STARTED.contains(&name) {
                        wrong.push(format!("{}: {name}", file.display()));
                    }
                }
            }
        }
        assert_eq!(wrong, [""; 0], "not in {}", file!());
    }

    /// Named in a passwd file, and in examples of a configuration that are only read.
    const NEVER_STARTED: [&str; 2] = ["nologin", "hook"];

    #[test]
    fn what_would_get_around_the_list_is_seen() {
        let text = r##"Path::new("/bin/sh"), "#!/usr/bin/env python3", "/usr/local/sbin/x-1"; "target/bin/y", PATH=/usr/bin:/bin"##;
        assert_eq!(paths_of_programs(text), ["sh", "env", "x-1"]);
        let text = r#"Command::new("tar"); Command::new(&program); as_root("env")?"#;
        assert_eq!(started_by_name(text), ["tar", "env"]);
    }

    fn sources(directory: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
        found
    }

    fn without_comments(text: &str) -> String {
        let code = |line: &&str| !line.trim_start().starts_with("//");
        text.lines().filter(code).collect::<Vec<_>>().join("\n")
    }

    /// `x` of `/usr/sbin/x` and the like.
    fn paths_of_programs(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        for (at, directory) in text.match_indices("bin/") {
            let before = text[..at]
                .trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "/.-_:".contains(c));
            if ["/", "/s", "/usr/", "/usr/s", "/usr/local/", "/usr/local/s"]
                .contains(&&text[before.len()..at])
            {
                found.push(name(&text[at + directory.len()..]));
            }
        }
        found
    }

    /// `x` of `Command::new("x")` and the like.
    fn started_by_name(text: &str) -> Vec<&str> {
        let starts = ["Command::new(\"", "as_root(\""];
        // A path is for whoever looks for paths.
        let after = starts.map(|start| {
            text.match_indices(start)
                .map(move |(at, _)| &text[at + start.len()..])
        });
        after
            .into_iter()
            .flatten()
            .map(name)
            .filter(|name| !name.is_empty())
            .collect()
    }

    fn name(text: &str) -> &str {
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "._+-".contains(c)));
        &text[..end.unwrap_or(text.len())]
    }
}
