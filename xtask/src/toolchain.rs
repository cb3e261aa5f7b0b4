//! The Rust toolchain in use: its LLVM, and the components that it must have.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{cargo, programs::find_program};

/// What `rustc` says about itself.
pub(crate) struct Toolchain {
    /// e.g. `1.95.0`.
    pub(crate) release: String,
    /// The major version of its LLVM: whatever links its bitcode must be at least as new.
    pub(crate) llvm: u32,
    sysroot: PathBuf,
    /// rustup's name of it; `None` when it is not rustup's (a distribution's, or linked).
    rustup_name: Option<String>,
}

/// A rustup component, and a file in the sysroot that tells that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
}

/// `core` is built from source for the bpf target, for which no toolchain ships it.
pub(crate) const RUST_SRC: Component = Component {
    name: "rust-src",
    file: "lib/rustlib/src/rust/library/core/src/lib.rs",
};

/// `cargo xtask test` calls these; rustup's minimal profile lacks them.
pub(crate) const CHECKERS: [Component; 2] = [
    Component {
        name: "rustfmt",
        file: "bin/cargo-fmt",
    },
    Component {
        name: "clippy",
        file: "bin/cargo-clippy",
    },
];

impl Toolchain {
    /// Asks `rustc`, the one that cargo would use in the workspace.
    ///
    /// # Errors
    /// When there is no `rustc`, or it does not tell its version.
    pub(crate) fn in_use() -> Result<Self> {
        let verbose = rustc(&["-vV"])?;
        let field = |name| {
            field(&verbose, name)
                .with_context(|| format!("`rustc -vV` does not tell its {name}:\n{verbose}"))
        };
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
        Ok(Self {
            release: field("release")?.to_owned(),
            llvm: major(field("LLVM version")?)
                .context("`rustc -vV` tells no LLVM version that is a number")?,
            rustup_name: rustup_name(&sysroot, env::var("RUSTUP_TOOLCHAIN").ok().as_deref()),
            sysroot,
        })
    }

    pub(crate) fn has(&self, component: Component) -> bool {
        self.sysroot.join(component.file).exists()
    }

    /// The command that adds components.
    ///
    /// # Errors
    /// When the toolchain is not rustup's: says what to do instead.
    pub(crate) fn add(&self, components: &[Component]) -> Result<Command> {
        let (Some(name), Some(rustup)) = (&self.rustup_name, find_program("rustup")) else {
            bail!(self.without_rustup(components));
        };
        let mut command = Command::new(rustup);
        command
            .args(["component", "add", "--toolchain", name])
            .args(components.iter().map(|component| component.name));
        Ok(command)
    }

    fn without_rustup(&self, components: &[Component]) -> String {
        let names: Vec<_> = components.iter().map(|component| component.name).collect();
        format!(
            "{} missing in {}, which is not a toolchain of rustup: install rustup (https://rustup.rs) and use its \
             toolchain, or get the same from where this rustc {} came from, so that {} exists",
            names.join(", "),
            self.sysroot.display(),
            self.release,
            self.sysroot
                .join(components.first().map_or("", |component| component.file))
                .display(),
        )
    }
}

fn rustc(args: &[&str]) -> Result<String> {
    let program = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&program)
        .args(args)
        .current_dir(cargo::workspace())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} {} failed: {}",
            program.display(),
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The value of `name: value` in the output of `rustc -vV`.
fn field<'a>(verbose: &'a str, name: &str) -> Option<&'a str> {
    verbose
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The number before the first point: 22 of `22.1.2`.
pub(crate) fn major(version: &str) -> Option<u32> {
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// rustup keeps its toolchains in `…/toolchains/NAME`. One that it only links to resolves to a
/// place elsewhere, and components cannot be added there. `chosen` is `RUSTUP_TOOLCHAIN`, which
/// rustup sets for what it starts; it may also be a path.
fn rustup_name(sysroot: &Path, chosen: Option<&str>) -> Option<String> {
    if sysroot.parent()?.file_name()? != "toolchains" {
        return None;
    }
    match chosen {
        Some(name) if !name.contains('/') => Some(name.to_owned()),
        _ => Some(sysroot.file_name()?.to_str()?.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "rustc 1.95.0 (59807616e 2026-04-14)
binary: rustc
commit-hash: 59807616e1fa2540724bfbac14d7976d7e4a3860
host: x86_64-unknown-linux-gnu
release: 1.95.0
LLVM version: 22.1.2
";

    #[test]
    fn rustc_tells_its_release_and_llvm() {
        assert_eq!(field(VERBOSE, "release"), Some("1.95.0"));
        assert_eq!(field(VERBOSE, "LLVM version").and_then(major), Some(22));
        assert_eq!(field(VERBOSE, "codegen backend"), None);
    }

    #[test]
    fn majors() {
        assert_eq!(major("22"), Some(22));
        assert_eq!(major("23.0.0-rc2"), Some(23));
        assert_eq!(major("unknown"), None);
        assert_eq!(major(""), None);
    }

    #[test]
    fn only_toolchains_of_rustup_have_a_name() {
        let sysroot = Path::new("/home/u/.rustup/toolchains/stable-x86_64-unknown-linux-gnu");
        assert_eq!(
            rustup_name(sysroot, None).as_deref(),
            Some("stable-x86_64-unknown-linux-gnu")
        );
        assert_eq!(
            rustup_name(sysroot, Some("1.95.0")).as_deref(),
            Some("1.95.0")
        );
        assert_eq!(
            rustup_name(sysroot, Some("/opt/x")).as_deref(),
            Some("stable-x86_64-unknown-linux-gnu")
        );
        assert_eq!(rustup_name(Path::new("/usr"), None), None);
        assert_eq!(
            rustup_name(Path::new("/home/u/rust/build/host/stage2"), Some("stage2")),
            None
        );
    }

    #[test]
    fn a_distribution_toolchain_is_told_what_to_do() {
        let toolchain = Toolchain {
            release: "1.95.0".into(),
            llvm: 22,
            sysroot: "/usr".into(),
            rustup_name: None,
        };
        let error = toolchain.add(&[RUST_SRC]).unwrap_err().to_string();
        for part in [
            "rust-src",
            "https://rustup.rs",
            "/usr/lib/rustlib/src/rust/library/core",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_toolchain_that_compiled_this_is_understood() {
        let toolchain = Toolchain::in_use().unwrap();
        assert!(toolchain.llvm >= 20);
        assert!(toolchain.sysroot.is_dir());
    }
}
