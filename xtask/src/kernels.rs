//! `cargo xtask kernels`: the families of tests that lean on the kernel, on Debian's kernels in virtual machines.
//!
//! The machine's root is this machine's own, read-only below an overlay, so that the test programs, the agent and the programs of the
//! laboratory are there at the paths that are compiled into them, and no image is built. Nothing is installed: the kernels, qemu and what
//! boots them are packages that are downloaded and unpacked below `target/kernels`.
//!
//! | file | concern |
//! |---|---|
//! | `fetch.rs` | the packages: which kernel is the newest of its series, download, unpack |
//! | `initramfs.rs` | what mounts that root: busybox, a script, the modules it needs |
//! | `machine.rs` | one run of qemu: its arguments, its two scripts, what it prints |

mod fetch;
mod initramfs;
mod machine;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::{fetch::Tools, machine::Job};
use crate::{
    cargo::{self, Executable},
    libtest::Report,
    privilege, programs, setup,
    survey::Scope,
};

/// The series of Debian 12: the one that it was released with, and the one of its backports.
const SERIES: [&str; 2] = ["6.1", "6.12"];

/// What leans on the kernel: the programs and their verifier, the end of sockets and flows, routes and rules, and all of it together.
const FAMILIES: [&str; 4] = ["datapath", "cutoff", "route", "failover"];

/// What is to be run.
#[derive(Args)]
pub(crate) struct KernelsArgs {
    /// A kernel series, e.g. 6.1; may be given several times; default: 6.1 and 6.12
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// A family of tests; may be given several times; default: datapath, cutoff, route and failover
    #[arg(long, value_name = "NAME")]
    family: Vec<String>,
    /// Run only the tests whose name contains one of these as it is shown, e.g. `route::groups`
    filter: Vec<String>,
}

/// One line of the table.
struct Row {
    kernel: String,
    family: String,
    report: Report,
    took: Duration,
}

/// Boots each kernel and runs the families there, one machine after another.
///
/// # Errors
/// When something cannot be got or built, or a machine does not boot.
pub(crate) fn kernels(options: &KernelsArgs) -> Result<ExitCode> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the virtual machines are amd64: run this on such a machine"
    );
    ensure!(
        privilege::is_root(),
        "run this as root: the machine reads this machine's root directory"
    );
    setup::ensure(Scope::Everything)?;
    let programs = build(&options.family)?;
    let path = programs::laboratory_path()?;
    let tools = Tools::fetch()?;
    let mut rows = Vec::new();
    for series in wanted(&options.kernel, &SERIES) {
        let kernel = tools.kernel(&series)?;
        let initramfs = initramfs::make(&tools, &kernel)?;
        for program in &programs {
            let title = format!("{}, {}", kernel.release, program.name);
            println!("==> {title}");
            let started = Instant::now();
            let job = Job {
                program,
                filters: &options.filter,
                path: &path,
            };
            let report = machine::run(&tools, &kernel, &initramfs, &job)
                .with_context(|| format!("the virtual machine of {title}"))?;
            rows.push(Row {
                kernel: kernel.release.clone(),
                family: program.name.clone(),
                report,
                took: started.elapsed(),
            });
        }
    }
    print!("\n{}", table(&rows));
    let failed = rows.iter().any(|row| row.report.failed > 0);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// What was asked for, or everything.
fn wanted(asked: &[String], all: &[&str]) -> Vec<String> {
    if asked.is_empty() {
        all.iter().map(|&name| name.to_owned()).collect()
    } else {
        asked.to_vec()
    }
}

/// The agent, which the scenarios start, and the test programs of the families.
fn build(asked: &[String]) -> Result<Vec<Executable>> {
    cargo::executables(&["build", "--package", "failover-agent"])?;
    let families = wanted(asked, &FAMILIES);
    let mut arguments = vec!["test", "--workspace", "--no-run"];
    for family in &families {
        arguments.extend(["--test", family]);
    }
    let built = cargo::executables(&arguments)?;
    let find = |family: &String| {
        let mut tests = built.iter().filter(|built| built.kind == "test");
        tests
            .find(|built| built.name == *family)
            .cloned()
            .with_context(|| format!("no family of tests `{family}`"))
    };
    families.iter().map(find).collect()
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:24} {:10} {:>6} {:>6} {:>7} {:>9}\n",
        "kernel", "family", "passed", "failed", "skipped", "time"
    );
    for Row {
        kernel,
        family,
        report,
        took,
    } in rows
    {
        text.push_str(&format!(
            "{kernel:24} {family:10} {:>6} {:>6} {:>7} {:>7.0} s\n",
            report.passed,
            report.failed,
            report.skipped.len(),
            took.as_secs_f64()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_kernel_and_family() {
        let row = |kernel: &str, passed, failed| Row {
            kernel: kernel.into(),
            family: "datapath".into(),
            report: Report {
                passed,
                failed,
                ..Report::default()
            },
            took: Duration::from_secs(90),
        };
        let text = table(&[
            row("6.1.0-56-amd64", 52, 0),
            row("6.12.117+deb12-amd64", 51, 1),
        ]);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1],
            ["6.1.0-56-amd64", "datapath", "52", "0", "0", "90", "s"]
        );
        assert_eq!(lines[2][2..4], ["51", "1"]);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn nothing_asked_is_everything() {
        assert_eq!(wanted(&[], &SERIES), ["6.1", "6.12"]);
        assert_eq!(wanted(&["6.12".into()], &SERIES), ["6.12"]);
    }
}
