//! Who touches the disk: a small process of its own.
//!
//! A thread that waits for a disk which does not answer (a frozen file system, a dying disk, a network file system whose server is gone)
//! cannot be killed, and the kernel ends no process and executes no program in it before its last thread is done (`de_thread` in
//! `fs/exec.c`, `wait_task_zombie` in `kernel/exit.c`). A stop would never end, and the lock would be held for ever. So the store
//! starts the program's own file once more, under the name [`NAME`], has that do everything, and can leave it behind. It ends when
//! there is nothing to do for a while, and is killed by the kernel with the thread that has started it.

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

/// How the process is called in the process list, which is also how the program knows that it is to be one.
const NAME: &str = "failover-agent-store";

/// How long an answer may take before the disk counts as hanging.
const HANGING: Duration = Duration::from_secs(1);

/// The process, or none while there is nothing to do.
#[derive(Debug, Default)]
pub(super) struct Hands(Option<Running>);

#[derive(Debug)]
struct Running {
    child: Child,
    stream: BufReader<UnixStream>,
}

impl Hands {
    /// Has `request` done in `directory`, and waits for as long as that takes. Calls `hanging` once if it takes long.
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
            Reply::Failed(format!("the process that writes it: {error}"))
        })
    }

    /// Lets the process end.
    pub(super) fn rest(&mut self) {
        if let Some(Running { mut child, stream }) = self.0.take() {
            drop(stream);
            // It has answered, or its end of the stream is gone: it does not hang.
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
            // A Ctrl-C is for the agent.
            .process_group(0)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone()?)))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            // Who reads the log waits for the end of the agent, not for that of a disk.
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

/// Does the store's work if the program was started for that; None if it was started for anything else. Call it first thing.
pub fn serve() -> Option<ExitCode> {
    let mut arguments = env::args_os();
    if arguments.next().as_deref() != Some(OsStr::new(NAME)) {
        return None;
    }
    let (agent, directory) = (arguments.next()?, arguments.next()?);
    // What it has not begun when the agent is gone, it must not do: the next agent may have written the file since.
    let orphaned = || getppid().to_string() != agent.to_string_lossy();
    let bound = set_pdeathsig(Signal::SIGKILL).is_ok() && !orphaned();
    // A stop that a service manager sends to all processes is for the agent, which still has something to write.
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

/// Whatever else the agent had open on the verge of an `execve`, its locks above all, must not live as long as a disk hangs.
fn close_others() {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let others: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    for number in others {
        // One of them was the directory's own, and is closed already.
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
