//! The small process that accesses the disk.
//!
//! A thread that waits for a disk which does not answer (a frozen file system, a dying disk, a network file system whose server is gone)
//! cannot be killed. The kernel ends no process, and executes no program in it, before its last thread has ended (`de_thread` in
//! `fs/exec.c`, `wait_task_zombie` in `kernel/exit.c`): a stop would never end, and the lock would be held for ever. So the store starts
//! the program's own file once more, under the name [`NAME`], lets that process do all disk access, and can leave it behind. The process
//! ends after a while without work, and the kernel kills it when the thread that started it ends.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::Path,
    process::{self, Child, Command, ExitCode, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{SigSet, Signal},
    },
    unistd::{close, getppid},
};

use super::disk::{self, Reply, Request};

/// The process's name in the process list, by which the program also knows that it was started as one.
const NAME: &str = "failover-agent-store";

/// How long an answer may take before the disk counts as hanging.
const HANGING: Duration = Duration::from_secs(1);

/// The process; `None` while there is no work.
#[derive(Debug, Default)]
pub(super) struct Hands(Option<Running>);

#[derive(Debug)]
struct Running {
    child: Child,
    stream: BufReader<UnixStream>,
}

impl Hands {
    /// Carries out `request` in `directory`, and waits for as long as that takes. Calls `hanging` once if it takes long.
    pub(super) fn perform(
        &mut self,
        directory: &Path,
        request: &Request,
        hanging: impl FnOnce(),
    ) -> Reply {
        let asked = match &mut self.0 {
            Some(running) => running.ask(request, hanging),
            None => Running::start(directory)
                .and_then(|running| self.0.insert(running).ask(request, hanging)),
        };
        asked.unwrap_or_else(|error| {
            self.rest();
            Reply::Failed(format!("the process that writes files: {error}"))
        })
    }

    /// Lets the process end.
    pub(super) fn rest(&mut self) {
        if let Some(Running { mut child, stream }) = self.0.take() {
            drop(stream);
            // The process has answered, or has closed its end of the stream: it does not hang.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Running {
    fn start(directory: &Path) -> io::Result<Running> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(HANGING))?;
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .arg(process::id().to_string())
            .arg(directory)
            .current_dir("/")
            // A Ctrl-C is meant for the agent.
            .process_group(0)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone()?)))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            // The reader of the log waits for the agent's end, not for a disk's.
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Running {
            child,
            stream: BufReader::new(ours),
        })
    }

    fn ask(&mut self, request: &Request, hanging: impl FnOnce()) -> io::Result<Reply> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Vec::new();
        let mut hanging = Some(hanging);
        loop {
            match self.stream.read_until(b'\n', &mut answer) {
                Ok(_) if answer.ends_with(b"\n") => return Ok(serde_json::from_slice(&answer)?),
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(hanging) = hanging.take() {
                        hanging();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Runs as the store's process if the program was started as one; `None` if it was not. Call it before everything else.
pub fn serve() -> Option<ExitCode> {
    let mut arguments = env::args_os();
    if arguments.next().as_deref() != Some(OsStr::new(NAME)) {
        return None;
    }
    let (agent, directory) = (arguments.next()?, arguments.next()?);
    // A request that the process has not begun when the agent is gone must not be carried out: the next agent may have written the file
    // since.
    let orphaned = || getppid().to_string() != agent.to_string_lossy();
    let bound = set_pdeathsig(Signal::SIGKILL).is_ok() && !orphaned();
    // A stop signal that a service manager sends to all processes is meant for the agent, which still has something to write.
    let deaf = SigSet::all().thread_block().is_ok();
    close_others();
    if !bound || !deaf {
        return Some(ExitCode::FAILURE);
    }
    Some(match answer(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Other descriptors that the agent had open just before an `execve`, its locks above all, must not stay open as long as a disk hangs.
fn close_others() {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let others: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    for number in others {
        // One of them was the directory stream's own descriptor, which is already closed.
        close(number).ok();
    }
}

fn answer(directory: &Path) -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let mut reply = serde_json::to_vec(&disk::perform(directory, &request))?;
        reply.push(b'\n');
        let mut answers = io::stdout().lock();
        answers.write_all(&reply)?;
        answers.flush()?;
    }
    Ok(())
}
