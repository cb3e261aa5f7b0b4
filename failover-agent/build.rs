//! Compiles failover-ebpf for the bpf target and leaves the object in `OUT_DIR` for `datapath` to embed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

fn main() {
    if let Err(error) = build() {
        // Ends the build with this one line; a failing exit status would add a page of its own.
        println!("cargo::error={error:#}");
    }
}

fn build() -> Result<()> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir.parent().context("no workspace directory")?;
    let tools = workspace.join("target/tools/bin");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    // OUT_DIR is <target>/<profile>/build/<package>/out. One directory for all profiles: the object is the same
    // for each, so that only the first build pays for it.
    let shared = out_dir
        .ancestors()
        .nth(4)
        .context("OUT_DIR is not in a target directory")?
        .join("ebpf");
    fs::create_dir_all(&shared)?;

    let path = env::join_paths(
        std::iter::once(tools.clone())
            .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )?;
    // SAFETY: a build script has one thread here, so nobody reads the environment meanwhile.
    unsafe {
        env::set_var("PATH", path);
        // -Zbuild-std=core on a stable toolchain.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        env::set_var("OUT_DIR", &shared);
        // aya-build passes everything on as warnings, the list of compiled crates too.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    if tools.is_dir() {
        println!("cargo::rerun-if-changed={}", tools.display());
    }
    println!("cargo::rerun-if-env-changed=RUSTUP_TOOLCHAIN");

    check_toolchain()?;
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".into());
    let root_dir = workspace.join("failover-ebpf");
    aya_build::build_ebpf(
        [Package {
            name: "failover-ebpf",
            root_dir: root_dir
                .to_str()
                .context("the path of failover-ebpf is not UTF-8")?,
            ..Package::default()
        }],
        Toolchain::Custom(&toolchain),
    )?;
    fs::copy(shared.join("failover-ebpf"), out_dir.join("failover-ebpf"))
        .context("no eBPF object was built")?;
    Ok(())
}

/// Finds out before the build what would fail obscurely in it.
fn check_toolchain() -> Result<()> {
    let rustc = env::var_os("RUSTC").context("RUSTC is not set")?;
    let sysroot = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()?
        .stdout;
    let library =
        Path::new(String::from_utf8(sysroot)?.trim()).join("lib/rustlib/src/rust/library");
    if !library.is_dir() {
        bail!(
            "rust-src is missing ({}): run `cargo xtask setup`",
            library.display()
        );
    }
    // Running it also finds an LLVM library that it was built for and that is gone.
    let linker = Command::new("bpf-linker")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !linker.is_ok_and(|status| status.success()) {
        bail!("bpf-linker is missing, or its LLVM library is: run `cargo xtask setup`");
    }
    Ok(())
}
