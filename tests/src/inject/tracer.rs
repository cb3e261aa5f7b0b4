//! Following a process and all its threads by ptrace, and letting the call fail that is ordered to.
//!
//! ptrace belongs to threads: the one that starts the process is the only one that may speak to it, so each process has a thread of its
//! own here. Waiting is restricted to that thread's tracees (`__WNOTHREAD`): other laboratories of this process have theirs.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    process::Command,
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Event, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{
    calls::{self, Call},
    kind::Fault,
    netlink::Refusals,
    places::Places,
    registers::Registers,
    sockets::Sockets,
    sys,
    watch::Watch,
};
use crate::lab::lock;

/// How long a call hangs.
const HANG: Duration = Duration::from_secs(5);

/// How often it is looked whether a hang is over. Nothing else is ever waited for in steps.
const STEP: Duration = Duration::from_millis(1);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(Signal),
}

/// A process that is followed; killed when dropped.
#[derive(Debug)]
pub(super) struct Traced {
    pid: Pid,
    exit: Arc<Mutex<Option<Exit>>>,
    thread: Option<JoinHandle<()>>,
}

impl Traced {
    /// Starts `command`.
    ///
    /// # Errors
    /// When it cannot be started or followed.
    pub(super) fn start(mut command: Command, watch: Arc<Watch>, places: Places) -> Result<Traced> {
        let exit = Arc::new(Mutex::new(None));
        let (hello, said) = io::pipe()?;
        let (waits, go) = io::pipe()?;
        sys::trace_from_exec(&mut command, calls::TRACED, said, waits)?;
        let (started, pid) = mpsc::channel();
        let end = exit.clone();
        let thread = thread::Builder::new().name("tracer".to_owned());
        let thread = thread.spawn(move || {
            let mut tracer = match Tracer::start(hello, go, watch, places, end) {
                Ok(tracer) => tracer,
                Err(error) => {
                    started.send(Err(error)).ok();
                    return;
                }
            };
            // Whoever started this has gone when nobody receives it; the process is killed below then.
            started.send(Ok(tracer.leader)).ok();
            if let Err(error) = tracer.follow() {
                eprintln!("a traced process is given up: {error:#}");
                kill(tracer.leader, Signal::SIGKILL).ok();
            }
        })?;
        // Returns when the program has begun. The tracer alone waits for its end.
        let spawned = command.spawn();
        // With it goes the pipe in which a process that was never made would have said hello.
        drop(command);
        spawned.context("cannot start the program")?;
        Ok(Traced {
            pid: pid.recv().context("the tracer has ended")??,
            exit,
            thread: Some(thread),
        })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// How it has ended; `None` while it runs.
    pub(super) fn exit(&self) -> Option<Exit> {
        *lock(&self.exit)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).with_context(|| format!("cannot send {signal}"))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.exit().is_none() {
            // It may end by itself just now.
            kill(self.pid, Signal::SIGKILL).ok();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("a tracer has panicked");
        }
    }
}

/// A thread of the process, or a process that it has started.
#[derive(Debug, Default)]
struct Task {
    /// It belongs to a program that was started, whose calls are its own affair.
    foreign: bool,
    /// What is to be done when the call that it is in returns.
    at_return: Option<AtReturn>,
}

#[derive(Debug)]
enum AtReturn {
    /// The kernel has read the messages: what they were before.
    Restore { address: u64, bytes: Vec<u8> },
    /// Answers were received on this socket.
    Answers { socket: String, buffer: u64 },
}

struct Tracer {
    leader: Pid,
    process: OwnedFd,
    memory: File,
    /// The program itself runs.
    begun: bool,
    tasks: HashMap<Pid, Task>,
    hanging: Vec<(Pid, Instant)>,
    sockets: Sockets,
    refusals: Refusals,
    places: Places,
    watch: Arc<Watch>,
    exit: Arc<Mutex<Option<Exit>>>,
}

impl Tracer {
    fn start(
        mut hello: PipeReader,
        mut go: PipeWriter,
        watch: Arc<Watch>,
        places: Places,
        exit: Arc<Mutex<Option<Exit>>>,
    ) -> Result<Tracer> {
        let mut number = [0; 4];
        hello
            .read_exact(&mut number)
            .context("the program was not started")?;
        let leader = Pid::from_raw(i32::from_ne_bytes(number));
        let tracer = Tracer::seize(leader, watch, places, exit);
        if tracer.is_err() {
            // It would wait for ever.
            kill(leader, Signal::SIGKILL).ok();
        }
        go.write_all(&[0])?;
        tracer
    }

    fn seize(
        leader: Pid,
        watch: Arc<Watch>,
        places: Places,
        exit: Arc<Mutex<Option<Exit>>>,
    ) -> Result<Tracer> {
        ptrace::seize(
            leader,
            Options::PTRACE_O_EXITKILL
                | Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACEEXEC
                | Options::PTRACE_O_TRACESECCOMP,
        )?;
        Ok(Tracer {
            leader,
            process: sys::open_process(leader)?,
            memory: open_memory(leader)?,
            begun: false,
            tasks: HashMap::from([(leader, Task::default())]),
            hanging: Vec::new(),
            sockets: Sockets::default(),
            refusals: Refusals::default(),
            places,
            watch,
            exit,
        })
    }

    /// Until nothing of the process is left.
    fn follow(&mut self) -> Result<()> {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let now = Instant::now();
            let (over, hanging) = self.hanging.drain(..).partition(|(_, end)| *end <= now);
            self.hanging = hanging;
            for (task, _) in over {
                resume(task, None)?;
            }
            let wait = if self.hanging.is_empty() {
                flags
            } else {
                flags | WaitPidFlag::WNOHANG
            };
            match waitpid(None, Some(wait)) {
                Ok(WaitStatus::StillAlive) => thread::sleep(STEP),
                Ok(status) => self.stopped(status)?,
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(()),
                Err(error) => return Err(error).context("waiting for a traced process"),
            }
        }
    }

    fn stopped(&mut self, status: WaitStatus) -> Result<()> {
        match status {
            WaitStatus::Exited(task, code) => self.ended(task, Exit::Code(code)),
            WaitStatus::Signaled(task, signal, _) => self.ended(task, Exit::Signal(signal)),
            WaitStatus::PtraceEvent(task, _, event) => return self.event(task, event),
            WaitStatus::PtraceSyscall(task) => {
                self.returned(task);
                return resume(task, None);
            }
            WaitStatus::Stopped(task, signal) => {
                return resume(task, Some(signal));
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, task: Pid, exit: Exit) {
        self.tasks.remove(&task);
        self.hanging.retain(|(hanging, _)| *hanging != task);
        if task == self.leader {
            *lock(&self.exit) = Some(exit);
        }
    }

    fn event(&mut self, task: Pid, event: libc::c_int) -> Result<()> {
        if event == Event::PTRACE_EVENT_SECCOMP as libc::c_int {
            return self.called(task);
        }
        if event == Event::PTRACE_EVENT_EXEC as libc::c_int {
            if task == self.leader {
                self.begun = true;
                // Other threads are gone, and so is the memory that they had.
                self.tasks
                    .retain(|other, state| *other == task || state.foreign);
                self.hanging.clear();
                self.memory = open_memory(task)?;
            }
        } else if event != Event::PTRACE_EVENT_STOP as libc::c_int
            && let Ok(new) = ptrace::getevent(task)
        {
            let new = Pid::from_raw(i32::try_from(new)?);
            let thread = event == Event::PTRACE_EVENT_CLONE as libc::c_int;
            let foreign = !thread || self.tasks.get(&task).is_some_and(|state| state.foreign);
            self.tasks.entry(new).or_default().foreign = foreign;
        }
        resume(task, None)
    }

    /// A task is about to make a call.
    fn called(&mut self, task: Pid) -> Result<()> {
        let foreign = |state: &Task| state.foreign;
        if !self.begun || self.tasks.get(&task).is_some_and(foreign) {
            return resume(task, None);
        }
        let Ok(mut registers) = Registers::of(task) else {
            return Ok(()); // Killed meanwhile.
        };
        let call = calls::decode(
            &registers,
            &calls::Context {
                leader: self.leader,
                process: &self.process,
                memory: &self.memory,
                places: &self.places,
            },
            &mut self.sockets,
        );
        match call {
            Call::Unwatched => {}
            Call::Plain(kind) => {
                if let Some(fault) = self.watch.call(&kind) {
                    return self.fail(task, &mut registers, fault);
                }
            }
            Call::Send {
                whole,
                socket,
                messages,
            } => {
                if let Some(fault) = self.watch.call(&whole) {
                    return self.fail(task, &mut registers, fault);
                }
                for message in messages {
                    let Some(Fault::Refusal(errno)) = self.watch.call(&message.kind) else {
                        continue;
                    };
                    let before = self
                        .refusals
                        .spoil(&self.memory, &socket, &message, errno)?;
                    let state = self.tasks.entry(task).or_default();
                    state.at_return = Some(AtReturn::Restore {
                        address: message.address,
                        bytes: before,
                    });
                    return at_return(task);
                }
            }
            Call::Receive {
                kind,
                socket,
                buffer,
            } => {
                if let Some(fault) = self.watch.call(&kind) {
                    return self.fail(task, &mut registers, fault);
                }
                if self.refusals.expects(&socket) {
                    let state = self.tasks.entry(task).or_default();
                    state.at_return = Some(AtReturn::Answers { socket, buffer });
                    return at_return(task);
                }
            }
        }
        resume(task, None)
    }

    fn fail(&mut self, task: Pid, registers: &mut Registers, fault: Fault) -> Result<()> {
        match fault {
            Fault::Hang => {
                self.hanging.push((task, Instant::now() + HANG));
                Ok(())
            }
            Fault::Error(errno) | Fault::Refusal(errno) => {
                registers.refuse(errno);
                // It may have been killed meanwhile.
                registers.set(task).ok();
                resume(task, None)
            }
        }
    }

    /// A call has returned of which it was to be told.
    fn returned(&mut self, task: Pid) {
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        match state.at_return.take() {
            Some(AtReturn::Restore { address, bytes }) => {
                self.memory.write_all_at(&bytes, address).ok();
            }
            Some(AtReturn::Answers { socket, buffer }) => {
                let length = Registers::of(task).ok().and_then(|state| state.result());
                if let Some(length) = length {
                    self.refusals.answer(&self.memory, &socket, buffer, length);
                }
            }
            None => {}
        }
    }
}

fn open_memory(pid: Pid) -> Result<File> {
    let path = format!("/proc/{pid}/mem");
    let memory = OpenOptions::new().read(true).write(true).open(&path);
    memory.with_context(|| format!("cannot open {path}"))
}

/// Lets a task go on.
fn resume(task: Pid, signal: Option<Signal>) -> Result<()> {
    ignore_killed(ptrace::cont(task, signal))
}

/// The same, until its call returns.
fn at_return(task: Pid) -> Result<()> {
    ignore_killed(ptrace::syscall(task, None))
}

fn ignore_killed(done: nix::Result<()>) -> Result<()> {
    match done {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).context("ptrace"),
    }
}
