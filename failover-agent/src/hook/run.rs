//! One run of a program: from its start to the end of the last process of its group.
//!
//! A program that runs for too long, or while the agent stops, is asked to end (SIGTERM to its whole process group) and killed [`GRACE`]
//! later. So are children that it leaves behind in its group. A process that is to outlive it needs a session of its own (`setsid`, as
//! daemons have), or better a service manager.

use std::{
    ffi::OsString,
    io,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::watch,
};
use tracing::{debug, info, warn};

use super::{Job, Program, output::Output};
use crate::aside;

/// How long a program may take to end after SIGTERM; then it is killed.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Time between two checks whether a process group is gone: the kernel does not notify of that.
const LOOK: Duration = Duration::from_millis(20);

/// The variables of the agent's environment that a program gets.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// `PATH` of a program if the agent has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a job to its end, or until `stop` becomes true.
pub(super) async fn run(job: Job, mut stop: watch::Receiver<bool>) {
    let Job {
        program, variables, ..
    } = job;
    let path = program.command.first().cloned().unwrap_or_default();
    let Program { name, timeout, .. } = program.clone();
    let begun = Instant::now();
    // Finding and executing a file may take long, on a network file system for ever.
    let runtime = Handle::current();
    let starting = aside::start(move || {
        let _within = runtime.enter();
        start(&program, &variables)
    });
    let mut starting =
        std::pin::pin!(async { starting?.await.map_err(io::Error::other).flatten() });
    let started = tokio::select! {
        started = &mut starting => Some(started),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let started = match started {
        Some(started) => started,
        // A program that is still being started is ended below.
        None => match tokio::time::timeout(GRACE, &mut starting).await {
            Ok(started) => started,
            Err(_) => return,
        },
    };
    let (child, group, mut output) = match started {
        Ok(started) => started,
        Err(error) => {
            let cure = cure(&error);
            warn!(
                hook = name,
                "{name}: {path} cannot be started: {error}: {cure}"
            );
            return;
        }
    };
    debug!(
        hook = name,
        pid = group.as_raw(),
        "{name}: {path} is running"
    );
    let ended = {
        let mut running = std::pin::pin!(attend(&name, child, group, timeout, stop));
        tokio::select! {
            ended = &mut running => ended,
            () = output.follow() => running.await,
        }
    };
    output.finish();
    report(&name, &path, ended, begun.elapsed());
}

/// The cure for a program that cannot be started (by the errors of execve(2)).
fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => "correct its path, or that of the interpreter on its first line",
        Some(Errno::EACCES) => "make it executable (chmod +x), on a file system without noexec",
        Some(Errno::ENOEXEC) => "begin it with a line like #!/bin/sh",
        _ => "it is tried again the next time",
    }
}

/// Starts a program in a process group of its own, and returns both.
fn start(
    program: &Program,
    variables: &[(&'static str, String)],
) -> io::Result<(Child, Pid, Output)> {
    let Some((path, arguments)) = program.command.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // One pipe for both, so that lines stay in the order in which they were written.
    let (reader, writer) = io::pipe()?;
    let output = Output::new(&program.name, reader)?;
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .envs(inherited())
        .envs(variables.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let child = command.spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let group = pid.ok_or(io::ErrorKind::NotFound)?;
    Ok((child, Pid::from_raw(group), output))
}

fn inherited() -> impl Iterator<Item = (&'static str, OsString)> {
    INHERITED
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// How a run ended.
#[derive(Debug)]
struct Ended {
    /// The program's exit status; `None`: it cannot be killed.
    status: Option<ExitStatus>,
    /// Why it had to be ended, if it had to be.
    ended_for: Option<String>,
    /// Whether it left children behind.
    children: bool,
}

/// Waits for the program, ends it if necessary, and then what is left of its group.
async fn attend(
    name: &str,
    mut child: Child,
    group: Pid,
    timeout: Duration,
    mut stop: watch::Receiver<bool>,
) -> io::Result<Ended> {
    let ended_for = tokio::select! {
        status = child.wait() => match status {
            Ok(_) => None,
            Err(error) => return Err(error),
        },
        () = tokio::time::sleep(timeout) => {
            Some(format!("it ran for more than {}", humantime::format_duration(timeout)))
        }
        _ = stop.wait_for(|stop| *stop) => Some("the agent stops".to_owned()),
    };
    if let Some(reason) = &ended_for {
        info!(hook = name, "{name}: {reason}: asked to end");
    }
    let children = ended_for.is_none() && is_alive(group);
    let status = end(&mut child, group).await?;
    Ok(Ended {
        status,
        ended_for,
        children,
    })
}

/// Ends every process of a group: SIGTERM, and SIGKILL after [`GRACE`]. Returns the status of `child`, its leader.
async fn end(child: &mut Child, group: Pid) -> io::Result<Option<ExitStatus>> {
    let asked = Instant::now();
    send(group, Signal::SIGTERM)?;
    loop {
        let status = child.try_wait()?;
        if status.is_some() && !is_alive(group) {
            return Ok(status);
        }
        if asked.elapsed() >= 2 * GRACE {
            // In an uninterruptible sleep: it ends when the kernel lets it.
            return Ok(status);
        }
        if asked.elapsed() >= GRACE {
            send(group, Signal::SIGKILL)?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn send(group: Pid, signal: Signal) -> io::Result<()> {
    match killpg(group, signal) {
        // No process of the group is left.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process is left in a group whose leader has ended and was waited for.
fn is_alive(group: Pid) -> bool {
    // If this process is the init process of a container, orphans of the group are its children: no other process reaps them.
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
        waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG))
    {}
    // EPERM: a process is there that has changed its user.
    killpg(group, None) != Err(Errno::ESRCH)
}

fn report(name: &str, path: &str, ended: io::Result<Ended>, took: Duration) {
    let seconds = took.as_secs_f64();
    let Ended {
        status,
        ended_for,
        children,
    } = match ended {
        Ok(ended) => ended,
        Err(error) => {
            warn!(hook = name, "{name}: {path} cannot be watched: {error}");
            return;
        }
    };
    if children {
        warn!(
            hook = name,
            "{name}: {path} has left children behind, which were ended"
        );
    }
    let how = match status {
        Some(status) => format!("ended with {status}"),
        None => "cannot be killed".to_owned(),
    };
    let code = status.and_then(|status| status.code());
    match ended_for {
        None if code == Some(0) => {
            info!(
                hook = name,
                code, seconds, "{name}: {path} {how} after {seconds:.3} s"
            );
        }
        None => warn!(
            hook = name,
            code, seconds, "{name}: {path} {how} after {seconds:.3} s"
        ),
        Some(reason) => warn!(
            hook = name,
            code, seconds, "{name}: {path} {how} after {seconds:.3} s, since {reason}"
        ),
    }
}
