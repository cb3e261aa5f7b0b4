//! bpf-linker: finding one that can read the bitcode of the `rustc` in use, or building it.
//!
//! bpf-linker links LLVM bitcode. LLVM reads bitcode of its own and of older major versions, so a
//! bpf-linker fits when its LLVM is at least as new as rustc's.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{cargo, programs::find_program, toolchain::major};

/// The bpf-linker that is built where none fits: any 0.13.x.
pub(crate) const VERSION: &str = "~0.13";

/// The LLVM majors that this bpf-linker can be built with (its `llvm-N` features).
pub(crate) const BUILDABLE: std::ops::RangeInclusive<u32> = 21..=23;

/// Where it is built to; `failover-agent/build.rs` looks here too.
pub(crate) fn tools_dir() -> PathBuf {
    cargo::workspace().join("target/tools")
}

/// A bpf-linker that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    /// Its LLVM's major version; `None` when it does not run or does not tell.
    pub(crate) llvm: Option<u32>,
}

impl Linker {
    pub(crate) fn fits(&self, rustc_llvm: u32) -> bool {
        self.llvm.is_some_and(|llvm| llvm >= rustc_llvm)
    }

    /// e.g. `LLVM 22, target/tools/bin/bpf-linker`.
    pub(crate) fn describe(&self) -> String {
        let path = self
            .path
            .strip_prefix(cargo::workspace())
            .unwrap_or(&self.path)
            .display();
        match self.llvm {
            Some(llvm) => format!("LLVM {llvm}, {path}"),
            None => format!("does not run, {path}"),
        }
    }
}

/// The bpf-linker that a build would use: `failover-agent/build.rs` takes the one under
/// `target/tools`, and if there is none the one on PATH.
pub(crate) fn in_use() -> Option<Linker> {
    let built = tools_dir().join("bin/bpf-linker");
    let path = if built.is_file() {
        built
    } else {
        find_program("bpf-linker")?
    };
    Some(Linker {
        llvm: llvm_of(&path),
        path,
    })
}

/// Asks a bpf-linker for the version of its LLVM, be it linked statically or dynamically.
///
/// It has no option for that, but passes arguments on to LLVM, which answers `--version` and
/// exits before any file is opened.
fn llvm_of(bpf_linker: &Path) -> Option<u32> {
    let output = Command::new(bpf_linker)
        .args([
            "--llvm-args=--version",
            "--output",
            "/nonexistent/output",
            "/nonexistent/input",
        ])
        .output()
        .ok()?;
    llvm_version_line(&String::from_utf8_lossy(&output.stdout))
}

/// 22 of `Debian LLVM version 22.1.8`.
fn llvm_version_line(output: &str) -> Option<u32> {
    major(output.split_once("LLVM version ")?.1)
}

/// The prefix of an LLVM with this major version and the files for linking with it.
pub(crate) fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    env::var_os("LLVM_PREFIX")
        .map(PathBuf::from)
        .into_iter()
        .chain([
            format!("/usr/lib/llvm-{llvm}").into(),
            format!("/usr/lib/llvm{llvm}").into(),
            format!("/usr/lib64/llvm{llvm}").into(),
            "/usr".into(),
            "/usr/local".into(),
        ])
        .find(|prefix| {
            ["lib64", "lib"]
                .iter()
                .any(|lib| library_major(&prefix.join(lib).join("libLLVM.so")) == Some(llvm))
        })
}

/// The major version of the library behind the link `libLLVM.so`, which only the development
/// files have.
fn library_major(link: &Path) -> Option<u32> {
    let library = fs::canonicalize(link).ok()?;
    let name = library.file_name()?.to_str()?;
    major(
        name.strip_prefix("libLLVM.so.")
            .or_else(|| name.strip_prefix("libLLVM-"))?,
    )
}

/// The command that builds bpf-linker with the LLVM at `prefix`.
pub(crate) fn install(llvm: u32, prefix: &Path) -> Command {
    let mut command = cargo::command();
    command
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
            "--root",
        ])
        .arg(tools_dir())
        .env("LLVM_PREFIX", prefix)
        // Its release profile has debug information, which doubles the time for nothing here.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    command
}

/// The same as text, for people who do it by hand.
pub(crate) fn install_text(llvm: u32) -> String {
    format!(
        "LLVM_PREFIX=/usr/lib/llvm-{llvm} cargo install bpf-linker --version {VERSION} --locked --force \
         --no-default-features --features llvm-{llvm} --root target/tools"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_answers_its_version() {
        assert_eq!(
            llvm_version_line("Debian LLVM version 22.1.8\n  Optimized build.\n"),
            Some(22)
        );
        assert_eq!(
            llvm_version_line("LLVM (http://llvm.org/):\n  LLVM version 19.1.7-rust\n"),
            Some(19)
        );
        assert_eq!(llvm_version_line("bpf-linker 0.13.0"), None);
    }

    #[test]
    fn the_same_or_a_newer_llvm_fits() {
        let fits = |llvm, rustc_llvm| {
            Linker {
                path: "bpf-linker".into(),
                llvm,
            }
            .fits(rustc_llvm)
        };
        assert!(fits(Some(22), 22));
        assert!(fits(Some(23), 22));
        assert!(!fits(Some(21), 22));
        assert!(!fits(None, 22), "one that does not run");
    }

    #[test]
    fn a_program_that_is_no_bpf_linker_has_no_llvm() {
        assert_eq!(llvm_of(Path::new("/bin/true")), None);
        assert_eq!(llvm_of(Path::new("/nonexistent/bpf-linker")), None);
    }

    #[test]
    fn the_library_behind_the_link_tells_its_major() {
        let dir = env::temp_dir().join(format!("xtask-libllvm-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (name, expected) in [
            ("libLLVM.so.22.1", Some(22)),
            ("libLLVM-21.so.1", Some(21)),
            ("libLLVM.so", None),
        ] {
            let link = dir.join("link");
            fs::write(dir.join(name), "").unwrap();
            std::os::unix::fs::symlink(name, &link).unwrap();
            assert_eq!(library_major(&link), expected, "{name}");
            fs::remove_file(&link).unwrap();
        }
        assert_eq!(library_major(&dir.join("absent")), None);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_text_and_the_command_agree() {
        let command = install(22, Path::new("/usr/lib/llvm-22"));
        let text = install_text(22);
        for arg in command.get_args().map(|arg| arg.to_str().unwrap()) {
            assert!(arg.ends_with("target/tools") || text.contains(arg), "{arg}");
        }
    }
}
