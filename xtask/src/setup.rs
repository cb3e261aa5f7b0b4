//! `cargo xtask setup`: the plan that brings what is missing, and its steps.

use std::{process::ExitCode, time::Instant};

use anyhow::{Result, bail};

use crate::{
    daemons::{self, DAEMONS},
    linker, packages,
    programs::{self, find_program},
    progress,
    survey::{Machine, Missing, Scope},
    toolchain::{Component, Toolchain},
};

/// `cargo xtask setup`: gets what is missing, or says that nothing is.
///
/// # Errors
/// When something cannot be got; the text says what to do.
pub(crate) fn setup() -> Result<ExitCode> {
    let started = Instant::now();
    ensure(Scope::Everything)?;
    println!(
        "Everything is there ({:.1} s). Next: cargo xtask build-and-run",
        started.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// `cargo xtask setup --check`: reports, and changes nothing.
///
/// # Errors
/// When there is no `rustc` to ask.
pub(crate) fn check() -> Result<ExitCode> {
    let (report, missing) = Machine::survey(Scope::Everything)?.report();
    print!("{report}");
    if missing == 0 {
        println!("\nEverything is there.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{missing} missing: cargo xtask setup");
    Ok(ExitCode::FAILURE)
}

/// Gets what is missing. Silent when nothing is; otherwise tells the plan before it acts.
///
/// # Errors
/// When something cannot be got.
pub(crate) fn ensure(scope: Scope) -> Result<()> {
    let steps = plan(&Machine::survey(scope)?.missing());
    if steps.is_empty() {
        return Ok(());
    }
    if steps
        .iter()
        .any(|step| matches!(step, Step::Packages(_) | Step::Daemons))
        && find_program("apt-get").is_none()
    {
        bail!(without_apt(&steps));
    }
    eprintln!("Setting up, {} to do:", count(steps.len(), "step"));
    for (number, step) in steps.iter().enumerate() {
        eprintln!("  {}. {}", number + 1, step.describe());
    }
    for (number, step) in steps.iter().enumerate() {
        eprintln!("[{}/{}] {}", number + 1, steps.len(), step.describe());
        step.take()?;
    }
    let left = plan(&Machine::survey(scope)?.missing());
    if !left.is_empty() {
        let left: Vec<_> = left.iter().map(Step::describe).collect();
        bail!(
            "still missing after the set-up, though each step succeeded: {}",
            left.join("; ")
        );
    }
    Ok(())
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Components(Vec<Component>),
    Packages(Vec<String>),
    /// Build bpf-linker with this LLVM major.
    Linker(u32),
    /// Download and unpack the daemons of the tests.
    Daemons,
}

fn plan(missing: &Missing) -> Vec<Step> {
    let mut steps = Vec::new();
    if !missing.components.is_empty() {
        steps.push(Step::Components(missing.components.clone()));
    }
    let mut packages: Vec<_> = missing
        .tools
        .iter()
        .map(|tool| tool.package.to_owned())
        .collect();
    // Several programs come from one package.
    packages.dedup();
    // The library is needed only for building a bpf-linker.
    if missing.linker && missing.llvm_files && linker::BUILDABLE.contains(&missing.llvm) {
        packages.insert(0, packages::llvm_package(missing.llvm));
    }
    if !packages.is_empty() {
        steps.push(Step::Packages(packages));
    }
    if missing.linker {
        steps.push(Step::Linker(missing.llvm));
    }
    if missing.daemons {
        steps.push(Step::Daemons);
    }
    steps
}

impl Step {
    fn describe(&self) -> String {
        match self {
            Self::Components(components) => {
                format!("rustup component add {}", names(components).join(" "))
            }
            Self::Packages(packages) => format!("apt-get install {} (as root)", packages.join(" ")),
            Self::Linker(llvm) => {
                format!(
                    "build bpf-linker {} with LLVM {llvm} into target/tools (half a minute)",
                    linker::VERSION
                )
            }
            Self::Daemons => format!(
                "download {} and unpack them into target/tools/daemons, for the tests (14 MB; nothing is installed)",
                DAEMONS.map(|daemon| daemon.package).join(", ")
            ),
        }
    }

    fn take(&self) -> Result<()> {
        match self {
            Self::Components(components) => {
                progress::run(&mut Toolchain::in_use()?.add(components)?)
            }
            Self::Packages(packages) => packages::apt_install(packages),
            Self::Daemons => daemons::fetch(),
            Self::Linker(llvm) => {
                let (first, last) = (linker::BUILDABLE.start(), linker::BUILDABLE.end());
                let Some(prefix) =
                    linker::llvm_prefix(*llvm).filter(|_| linker::BUILDABLE.contains(llvm))
                else {
                    bail!(
                        "bpf-linker {} can be built with LLVM {first} to {last}, but this rustc has LLVM {llvm}: put a \
                         bpf-linker with LLVM {llvm} or newer on PATH (https://github.com/aya-rs/bpf-linker/releases) and remove target/tools, \
                         or choose a toolchain with such an LLVM (rustup override set 1.95)",
                        linker::VERSION,
                    );
                };
                progress::run(&mut linker::install(*llvm, &prefix))
            }
        }
    }
}

/// The steps for a user whose system has other packages than Debian's.
fn without_apt(steps: &[Step]) -> String {
    let mut text = String::from(
        "there is no apt-get here, so please do this by hand, then run `cargo xtask setup` again:",
    );
    for step in steps {
        match step {
            Step::Components(components) => {
                text.push_str(&format!(
                    "\n  rustup component add {}",
                    names(components).join(" ")
                ));
            }
            Step::Packages(packages) => {
                text.push_str("\n  with the system's package manager, install");
                for package in packages {
                    let programs: Vec<_> = programs::laboratory()
                        .filter(|tool| tool.package == package)
                        .map(|tool| tool.program)
                        .collect();
                    let what = match packages::llvm_of_package(package) {
                        Some(llvm) => format!(
                            "LLVM {llvm}'s development files, with libLLVM.so (on Fedora called \
                             llvm{llvm}-devel or llvm-devel, on Alpine llvm{llvm}-dev, on Arch llvm)"
                        ),
                        None => format!("{} (Debian's package: {package})", programs.join(" ")),
                    };
                    text.push_str(&format!("\n    - {what}"));
                }
            }
            Step::Linker(llvm) => {
                text.push_str(&format!(
                    "\n  {}\n    (LLVM_PREFIX is the directory above the lib with libLLVM.so; or put a ready-made bpf-linker with \
                     LLVM {llvm} or newer on PATH: https://github.com/aya-rs/bpf-linker/releases)",
                    linker::install_text(*llvm)
                ));
            }
            Step::Daemons => {
                let programs = DAEMONS.map(|daemon| {
                    format!(
                        "\n    - {} (Debian's package: {})",
                        daemon.program, daemon.package
                    )
                });
                text.push_str(&format!(
                    "\n  for the tests, put these programs and the libraries that only they need below target/tools/daemons:{}\n    \
                     (nothing but the tests needs them: cargo xtask build-and-run and bench work without)",
                    programs.concat()
                ));
            }
        }
    }
    text
}

fn names(components: &[Component]) -> Vec<&'static str> {
    components.iter().map(|component| component.name).collect()
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::RUST_SRC;

    fn nothing() -> Missing {
        Missing {
            components: vec![],
            linker: false,
            llvm_files: false,
            tools: vec![],
            daemons: false,
            llvm: 22,
        }
    }

    fn packages(list: &[&str]) -> Step {
        Step::Packages(list.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn nothing_missing_is_nothing_to_do() {
        assert_eq!(plan(&nothing()), []);
    }

    #[test]
    fn a_fresh_machine_gets_all_in_order() {
        let missing = Missing {
            components: vec![RUST_SRC],
            linker: true,
            llvm_files: true,
            tools: programs::laboratory()
                .filter(|tool| ["ip", "ss", "nft"].contains(&tool.program))
                .collect(),
            daemons: true,
            llvm: 22,
        };
        let expected = [
            Step::Components(vec![RUST_SRC]),
            packages(&["llvm-22-dev", "iproute2", "nftables"]),
            Step::Linker(22),
            Step::Daemons,
        ];
        assert_eq!(plan(&missing), expected);
    }

    #[test]
    fn llvm_is_got_only_for_building_bpf_linker() {
        assert_eq!(
            plan(&Missing {
                llvm_files: true,
                ..nothing()
            }),
            []
        );
        assert_eq!(
            plan(&Missing {
                linker: true,
                ..nothing()
            }),
            [Step::Linker(22)]
        );
    }

    #[test]
    fn an_llvm_that_bpf_linker_does_not_know_is_refused_before_any_download() {
        let missing = Missing {
            linker: true,
            llvm_files: true,
            llvm: 99,
            ..nothing()
        };
        let steps = plan(&missing);
        assert_eq!(steps, [Step::Linker(99)]);
        let error = steps[0].take().unwrap_err().to_string();
        assert!(
            error.contains("LLVM 99") && error.contains("releases"),
            "{error}"
        );
    }

    #[test]
    fn without_apt_every_step_is_told() {
        let steps = [
            Step::Components(vec![RUST_SRC]),
            packages(&["llvm-22-dev", "nftables"]),
            Step::Linker(22),
            Step::Daemons,
        ];
        let text = without_apt(&steps);
        for part in [
            "rust-src",
            "LLVM 22's",
            "- nft (",
            "LLVM_PREFIX=",
            "--features llvm-22",
            "usr/sbin/radvd",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
