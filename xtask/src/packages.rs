//! Programs of the system, and Debian's packages that bring them.

use std::{ffi::OsString, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{privilege, programs, progress};

/// Debian's package with the files for linking with this LLVM.
pub(crate) fn llvm_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

/// The LLVM major of such a package's name; `None` for other packages.
pub(crate) fn llvm_of_package(package: &str) -> Option<&str> {
    package.strip_prefix("llvm-")?.strip_suffix("-dev")
}

/// Installs packages with apt, as root. Reads the package lists again only where they are absent
/// or do not know a package, and once more when an installation fails, for old lists name
/// packages that the mirror has replaced.
///
/// # Errors
/// When a package does not exist in this release, or apt fails.
pub(crate) fn apt_install(packages: &[String]) -> Result<()> {
    with_lists(packages, || {
        progress::run(apt_get(&["install", "--yes", "--no-install-recommends"])?.args(packages))
    })
}

/// Downloads packages, also those that are installed, and what they need and is not installed, into `archives`, which has a directory
/// `partial`. Installs nothing, and needs root only where the package lists are absent or old.
///
/// # Errors
/// When a package does not exist in this release, or apt fails.
pub(crate) fn apt_download(packages: &[String], archives: &Path) -> Result<()> {
    let mut directory = OsString::from("Dir::Cache::archives=");
    directory.push(archives);
    with_lists(packages, || {
        let mut command = Command::new(programs::of_setup("apt-get")?);
        command
            .args(["--quiet", "--yes", "--no-install-recommends"])
            // dpkg's lock is for who installs; it would need root.
            .args(["--download-only", "--reinstall", "-o", "Debug::NoLocking=1"])
            .arg("-o")
            .arg(&directory)
            .arg("install")
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive");
        progress::run(&mut command)
    })
}

/// Does something with packages that apt knows, with newer lists where necessary.
fn with_lists(packages: &[String], act: impl Fn() -> Result<()>) -> Result<()> {
    let mut fresh = false;
    if !unknown(packages)?.is_empty() {
        update()?;
        fresh = true;
    }
    let unknown = unknown(packages)?;
    if !unknown.is_empty() {
        bail!(not_in_release(
            &unknown,
            &fs::read_to_string("/etc/os-release").unwrap_or_default()
        ));
    }
    let done = act();
    if done.is_err() && !fresh {
        update()?;
        return act();
    }
    done
}

fn update() -> Result<()> {
    eprintln!("  apt-get update (the package lists are absent or old)");
    progress::run(&mut apt_get(&["update"])?)
}

fn apt_get(args: &[&str]) -> Result<Command> {
    let mut command = privilege::as_root(programs::of_setup("env")?)?;
    command
        .arg("DEBIAN_FRONTEND=noninteractive")
        .arg(programs::of_setup("apt-get")?)
        .arg("--quiet")
        // Another apt, such as the nightly upgrade, may hold the lock: wait rather than fail.
        .args(["-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"])
        .args(args);
    Ok(command)
}

/// Those of the packages that apt could not install from its present lists.
fn unknown(packages: &[String]) -> Result<Vec<String>> {
    let output = Command::new(programs::of_setup("apt-cache")?)
        .arg("policy")
        .args(packages)
        .env("LC_ALL", "C")
        .output()
        .context("cannot start apt-cache")?;
    Ok(without_candidate(
        &String::from_utf8_lossy(&output.stdout),
        packages,
    ))
}

/// Reads `apt-cache policy`: packages that are not mentioned, or have no candidate version.
fn without_candidate(policy: &str, packages: &[String]) -> Vec<String> {
    let mut known = Vec::new();
    let mut package = "";
    for line in policy.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            package = name;
        } else if let Some(version) = line.trim().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            known.push(package);
        }
    }
    packages
        .iter()
        .filter(|package| !known.contains(&package.as_str()))
        .cloned()
        .collect()
}

/// What to do about packages that the release does not have.
fn not_in_release(packages: &[String], os_release: &str) -> String {
    let field = |name: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    let system = field("PRETTY_NAME").unwrap_or_else(|| "this system".into());
    let mut text = format!(
        "no package {} in the apt sources of {system}",
        packages.join(", ")
    );
    let llvm = packages.iter().find_map(|package| llvm_of_package(package));
    if let Some(llvm) = llvm {
        let codename = field("VERSION_CODENAME").unwrap_or_else(|| "CODENAME".into());
        text.push_str(&format!(
            ". Do one of these, then `cargo xtask setup` again:
  - add LLVM's own packages for this release:
      sudo install -d /etc/apt/keyrings
      curl -fsSL https://apt.llvm.org/llvm-snapshot.gpg.key | sudo tee /etc/apt/keyrings/llvm.asc >/dev/null
      echo 'deb [signed-by=/etc/apt/keyrings/llvm.asc] https://apt.llvm.org/{codename}/ llvm-toolchain-{codename}-{llvm} main' | sudo tee /etc/apt/sources.list.d/llvm.list
  - put a ready-made bpf-linker with LLVM {llvm} or newer on PATH (then no LLVM package is needed), and remove target/tools:
      https://github.com/aya-rs/bpf-linker/releases
  - enable the release's security and updates suites, where Debian puts newer LLVM versions"
        ));
    } else {
        text.push_str(": install the programs from elsewhere, so that they are on PATH");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "llvm-22-dev:
  Installed: (none)
  Candidate: 1:22.1.8-1~deb12u1
  Version table:
     1:22.1.8-1~deb12u1 500
        500 http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
bpftool:
  Installed: 7.1.0+6.1.192-2
  Candidate: 7.1.0+6.1.192-2
  Version table:
 *** 7.1.0+6.1.192-2 100
        100 /var/lib/dpkg/status
llvm-23-dev:
  Installed: (none)
  Candidate: (none)
  Version table:
";

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn packages_without_a_candidate_are_unknown() {
        let wanted = names(&["llvm-22-dev", "bpftool", "llvm-23-dev", "nosuch"]);
        assert_eq!(
            without_candidate(POLICY, &wanted),
            ["llvm-23-dev", "nosuch"]
        );
        assert_eq!(without_candidate("", &wanted), wanted, "no lists at all");
    }

    #[test]
    fn a_release_without_that_llvm_gets_alternatives() {
        let os = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_CODENAME=trixie\n";
        let text = not_in_release(&names(&["llvm-22-dev"]), os);
        for part in [
            "Debian GNU/Linux 13",
            "apt.llvm.org/trixie/ llvm-toolchain-trixie-22",
            "bpf-linker/releases",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let text = not_in_release(&names(&["bpftool"]), os);
        assert!(
            text.contains("bpftool") && !text.contains("apt.llvm.org"),
            "{text}"
        );
    }

    #[test]
    fn the_llvm_package_has_the_major_in_its_name() {
        assert_eq!(llvm_of_package(&llvm_package(22)), Some("22"));
        assert_eq!(llvm_of_package("iproute2"), None);
    }
}
