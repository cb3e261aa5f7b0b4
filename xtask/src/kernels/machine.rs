//! One run of a virtual machine: a family of tests, each as a process of its own with a time limit.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{
    fetch::{Kernel, Tools},
    initramfs::ROOT_TAG,
};
use crate::{
    cargo::Executable,
    libtest::{Event, Reader, Report, Skip},
    programs,
};

/// What is run.
pub(super) struct Job<'a> {
    pub(super) program: &'a Executable,
    pub(super) filters: &'a [String],
    /// PATH of the laboratory.
    pub(super) path: &'a Path,
}

/// Seconds for one test. Without hardware virtualization the machine is ten to forty times slower than this one.
const PATIENCE: u32 = 900;

/// What the scenarios are told of that: how much longer they wait, and how much more patiently they let the agent probe.
const PACE: u32 = 5;

/// What the machine says of a test that it had to end.
const TIME_IS_UP: &str = "124";

/// In the names of tests that are about TCX and nothing else.
const OF_TCX: &str = "tcx";
const NO_TCX: &str = "this kernel has no TCX: Linux 6.6 has it";

/// The lines by which the machine tells of a test: its end, with the exit code.
const ENDED: &str = "==> ended ";
/// It has come as far as its first test.
const BOOTED: &str = "==> booted";

/// Boots the kernel, runs the job, and reads what its tests print. A kernel that ends in the middle of a test has failed it, and is booted
/// again for those that are left.
///
/// # Errors
/// When qemu does not start, or the machine ends before its first test.
pub(super) fn run(tools: &Tools, kernel: &Kernel, initramfs: &Path, job: &Job) -> Result<Report> {
    let mut report = Report::default();
    let (tests, skipped): (Vec<_>, Vec<_>) = job
        .program
        .tests(job.filters)?
        .into_iter()
        .partition(|name| kernel.has_tcx() || !name.contains(OF_TCX));
    report.skipped.extend(skipped.into_iter().map(|name| Skip {
        name,
        reason: NO_TCX.to_owned(),
    }));
    let run = format!("{}.{}", kernel.release, job.program.name);
    let script = tools.dir.join(format!("{run}.sh"));
    let mut left = &tests[..];
    while !left.is_empty() {
        fs::write(&script, guest(tools, kernel, job, left))?;
        let console = tools.dir.join(format!("{run}.{}.console", left.len()));
        let mut qemu = qemu(tools, kernel, initramfs, &script, &console)?;
        let ended = attend(&mut qemu, &mut report)
            .with_context(|| format!("the machine's console is in {}", console.display()))?;
        let Some(during) = left.get(ended) else {
            break;
        };
        println!(
            "    the machine ended during {during}; its console is in {}",
            console.display()
        );
        report.failed += 1;
        left = &left[ended + 1..];
    }
    Ok(report)
}

/// Reads what a machine prints until it ends, and returns how many tests have ended.
fn attend(qemu: &mut Command, report: &mut Report) -> Result<usize> {
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu")?;
    let stdout = child.stdout.take().context("qemu's output is not piped")?;
    let mut reader = Reader::default();
    let (mut booted, mut tests) = (false, 0);
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read from qemu")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        if line == BOOTED {
            booted = true;
        } else if let Some(ended) = line.strip_prefix(ENDED) {
            let (code, name) = ended.split_once(' ').unwrap_or((ended, ""));
            if code == TIME_IS_UP {
                println!("    {name} was ended after {PATIENCE} s");
            }
            report.add(std::mem::take(&mut reader).end(code == "0"));
            tests += 1;
        } else {
            match reader.line(line) {
                Event::Ended(name, outcome) => println!("    {outcome:7} {name}"),
                Event::Show => println!("    {line}"),
                Event::Quiet => {}
            }
        }
    }
    let status = child.wait().context("cannot wait for qemu")?;
    ensure!(booted && status.success(), "it does not boot ({status})");
    Ok(tests)
}

/// What runs in the machine, on this machine's root: file systems as a distribution mounts them, modules, then the tests.
fn guest(tools: &Tools, kernel: &Kernel, job: &Job, tests: &[String]) -> String {
    let release = &kernel.release;
    let modules = kernel.tree.join("lib/modules").join(release);
    let modprobe = tools.program("bin/modprobe");
    let program = &job.program.path;
    let (modules, modprobe, program) = (modules.display(), modprobe.display(), program.display());
    let mut script = format!(
        "export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run /lib/modules/{release}
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind {modules} /lib/modules/{release}
echo {modprobe} > /proc/sys/kernel/modprobe
{modprobe} -a tun veth
ip link set lo up
stty -F /dev/ttyS1 raw 2>/dev/null
exec >/dev/ttyS1 2>&1 </dev/null
export PATH={path} FAILOVER_TESTS_PACE={PACE}
cd {directory}
echo '{BOOTED}'
",
        path = job.path.display(),
        directory = job.program.package_dir.display(),
    );
    for name in tests {
        script.push_str(&format!(
            "timeout {PATIENCE} {program} --color=never --include-ignored --exact {name}; echo \"{ENDED}$? {name}\"\n"
        ));
    }
    script.push_str("sleep 1\necho o > /proc/sysrq-trigger\nsleep 60\n");
    script
}

/// Two processors and no hardware virtualization, which a machine like this rarely offers. Behind whatever else runs here, but not at the
/// lowest priority: on a busy machine the tests would run out of time. The first serial line is the kernel's console,
/// the second what the tests print.
fn qemu(
    tools: &Tools,
    kernel: &Kernel,
    initramfs: &Path,
    script: &Path,
    console: &Path,
) -> Result<Command> {
    let module_dir = "usr/lib/x86_64-linux-gnu/qemu";
    let mut command = Command::new(programs::of_setup("nice")?);
    let with_libraries = tools.command("usr/bin/qemu-system-x86_64");
    for (name, value) in with_libraries.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    // What was installed here was not downloaded, and a downloaded qemu looks only beside itself.
    if !tools.program(module_dir).is_dir() {
        command.env("QEMU_MODULE_DIR", Path::new("/").join(module_dir));
    }
    let mut firmware = Vec::new();
    for share in [tools.program("usr/share"), PathBuf::from("/usr/share")] {
        firmware.extend(["qemu", "seabios"].map(|name| share.join(name)));
    }
    let vmlinuz: PathBuf = kernel.tree.join(format!("boot/vmlinuz-{}", kernel.release));
    command
        .args(["-n", "5"])
        .arg(with_libraries.get_program())
        .args(firmware.iter().flat_map(|dir| [OsStr::new("-L"), dir.as_os_str()]))
        .args(["-M", "q35", "-cpu", "max,la57=off", "-m", "1536", "-smp", "2"])
        .args(["-accel", "tcg,thread=multi,tb-size=512"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        .arg(format!(
            "console=ttyS0 quiet mitigations=off panic=-1 nokaslr random.trust_cpu=on failover.script={}",
            script.display()
        ))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"])
        .arg("-fsdev")
        .arg(format!(
            "local,id={ROOT_TAG},path=/,security_model=none,readonly=on,multidevs=remap"
        ))
        .arg("-device")
        .arg(format!(
            "virtio-9p-pci,fsdev={ROOT_TAG},mount_tag={ROOT_TAG}"
        ))
        .args(["-device", "virtio-rng-pci"]);
    Ok(command)
}
