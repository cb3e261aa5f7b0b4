//! Running cargo for the workspace, and reading what it built.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The cargo that started us, in the workspace's directory.
///
/// What `cargo run` set to describe *this* package is removed. The choice of toolchain
/// (`RUSTUP_TOOLCHAIN`) stays: the nested cargo must use the same one.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        }) {
            command.env_remove(name);
        }
    }
    command
}

/// Something executable that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    /// The target's name, e.g. `failover-demo`.
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, `example`.
    pub(crate) kind: String,
    /// Built as a test harness.
    pub(crate) harness: bool,
    pub(crate) path: PathBuf,
    /// The directory of its package: where cargo would run its tests.
    pub(crate) package_dir: PathBuf,
}

impl Executable {
    /// How one of a test program's tests is shown: `program::module::test`.
    pub(crate) fn title(&self, test: &str) -> String {
        format!("{}::{test}", self.name)
    }

    /// Whether one of a test program's tests is shown with one of `filters` in its title, or there are no filters.
    fn is_chosen(&self, test: &str, filters: &[impl AsRef<str>]) -> bool {
        let title = self.title(test);
        let mut filters_in_title = filters
            .iter()
            .filter(|filter| title.contains(filter.as_ref()));
        filters.is_empty() || filters_in_title.next().is_some()
    }

    /// The names of a test program's tests that have one of `filters` in their titles, or of all.
    ///
    /// # Errors
    /// When the program cannot be started, or does not list them.
    pub(crate) fn tests(&self, filters: &[impl AsRef<str>]) -> Result<Vec<String>> {
        let program = self.path.display();
        let output = Command::new(&self.path)
            .args(["--list", "--format=terse"])
            .output()
            .with_context(|| format!("cannot start {program}"))?;
        ensure!(output.status.success(), "{program} does not list its tests");
        let names = String::from_utf8_lossy(&output.stdout);
        Ok(names
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .filter(|name| self.is_chosen(name, filters))
            .map(str::to_owned)
            .collect())
    }
}

/// Runs `cargo <args>`, e.g. `["build", "--release"]`, and returns the executables that it built
/// or found up to date. Diagnostics and progress go to stderr.
///
/// # Errors
/// When cargo cannot be started, or fails.
pub(crate) fn executables(args: &[&str]) -> Result<Vec<Executable>> {
    let shown = format!("cargo {}", args.join(" "));
    let mut child = command()
        .args(args)
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let stdout = child.stdout.take().context("cargo's output is not piped")?;
    let mut found = Vec::new();
    for line in BufReader::new(stdout).lines() {
        found.extend(executable(
            &line.with_context(|| format!("cannot read from {shown}"))?,
        ));
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(found)
}

/// Builds one binary and returns its path, wherever the target directory may be.
///
/// # Errors
/// When the build fails, or makes no such binary.
pub(crate) fn build_binary(name: &str, args: &[&str]) -> Result<PathBuf> {
    executables(args)?
        .into_iter()
        .find(|executable| {
            executable.kind == "bin" && !executable.harness && executable.name == name
        })
        .map(|executable| executable.path)
        .with_context(|| format!("cargo {} made no binary `{name}`", args.join(" ")))
}

/// The executable in one line of cargo's JSON messages, if it tells of one.
fn executable(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Executable {
        path: text(&message["executable"])?.into(),
        name: text(&message["target"]["name"])?,
        kind: text(&message["target"]["kind"][0])?,
        harness: message["profile"]["test"].as_bool()?,
        package_dir: Path::new(message["manifest_path"].as_str()?)
            .parent()?
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_the_directory_above_this_package() {
        assert!(workspace().join("xtask/Cargo.toml").is_file());
    }

    #[test]
    fn an_artifact_with_an_executable_is_found() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/tests#0.1.0","manifest_path":"/w/tests/Cargo.toml",
            "target":{"kind":["test"],"crate_types":["bin"],"name":"failover","src_path":"/w/tests/tests/failover.rs"},
            "profile":{"opt_level":"0","test":true},"executable":"/w/target/debug/deps/failover-1f"}"#;
        assert_eq!(
            executable(line),
            Some(Executable {
                name: "failover".into(),
                kind: "test".into(),
                harness: true,
                path: "/w/target/debug/deps/failover-1f".into(),
                package_dir: "/w/tests".into(),
            })
        );
    }

    #[test]
    fn a_filter_is_compared_with_a_tests_title() {
        let program = Executable {
            name: "uplinks".into(),
            kind: "test".into(),
            harness: true,
            path: "/w/target/debug/deps/uplinks-1f".into(),
            package_dir: "/w/tests".into(),
        };
        let test = "waiting::a_host_without_uplinks";
        assert_eq!(
            program.title(test),
            "uplinks::waiting::a_host_without_uplinks"
        );
        for filter in [
            "uplinks",
            "uplinks::waiting::a_host",
            "links::wait",
            "a_host",
            "",
        ] {
            assert!(program.is_chosen(test, &[filter]), "{filter}");
        }
        for filter in ["cut", "uplinks::a_host", "uplinks-1f"] {
            assert!(!program.is_chosen(test, &[filter]), "{filter}");
        }
        assert!(program.is_chosen(test, &["cut", "waiting::"]));
        assert!(program.is_chosen(test, &[""; 0]));
    }

    #[test]
    fn other_messages_are_passed_over() {
        for line in [
            r#"{"reason":"compiler-artifact","manifest_path":"/w/Cargo.toml","target":{"kind":["lib"],"name":"x"},"profile":{"test":false},"executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "not JSON",
        ] {
            assert_eq!(executable(line), None);
        }
    }
}
