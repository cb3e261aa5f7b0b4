//! Following a process, its threads and what it starts, and letting the call fail that is ordered to.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use failover_lab::lock;
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
    kind::{Fault, HANG},
    netlink::Refusals,
    places::Places,
    registers::Registers,
    sockets::Sockets,
    sys,
    tracer::{Exit, Life},
    watch::Watch,
};

/// How often the tracer looks whether a hang is over. It polls for nothing else.
const STEP: Duration = Duration::from_millis(1);

/// A process: the one that was started, or one that it has started.
#[derive(Debug)]
struct Process {
    handle: OwnedFd,
    memory: File,
    /// It executes another program, whose calls are its own affair.
    foreign: bool,
}

impl Process {
    fn open(pid: Pid) -> Result<Process> {
        let path = format!("/proc/{pid}/mem");
        let memory = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Process {
            handle: sys::open_process(pid)?,
            memory: memory.with_context(|| format!("cannot open {path}"))?,
            foreign: false,
        })
    }
}

/// A thread of one of them.
#[derive(Debug)]
struct Task {
    process: Pid,
    /// What is to be done when the call that it is in returns.
    at_return: Option<AtReturn>,
}

#[derive(Debug)]
enum AtReturn {
    /// The kernel has read the messages: what they were before.
    Restore { address: u64, before: Vec<u8> },
    /// Answers were received on this socket.
    Answers { socket: String, buffer: u64 },
}

/// Follows a process and all that it starts.
pub(super) struct Tracer {
    leader: Pid,
    /// The program's file, as soon as it is executed.
    program: Option<PathBuf>,
    processes: HashMap<Pid, Process>,
    tasks: HashMap<Pid, Task>,
    hanging: Vec<(Pid, Instant)>,
    sockets: Sockets,
    refusals: Refusals,
    places: Places,
    watch: Arc<Watch>,
    life: Arc<Mutex<Life>>,
}

impl Tracer {
    /// Takes hold of a process that has not begun its program.
    pub(super) fn seize(
        leader: Pid,
        watch: Arc<Watch>,
        places: Places,
        life: Arc<Mutex<Life>>,
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
        let mut tracer = Tracer {
            leader,
            program: None,
            processes: HashMap::new(),
            tasks: HashMap::new(),
            hanging: Vec::new(),
            sockets: Sockets::default(),
            refusals: Refusals::default(),
            places,
            watch,
            life,
        };
        tracer.add_process(leader)?;
        Ok(tracer)
    }

    /// The process that was started first.
    pub(super) fn leader(&self) -> Pid {
        self.leader
    }

    fn add_process(&mut self, pid: Pid) -> Result<()> {
        let mut life = lock(&self.life);
        life.processes.insert(pid);
        if life.abandoned {
            kill(pid, Signal::SIGKILL).ok();
        }
        drop(life);
        self.processes.insert(pid, Process::open(pid)?);
        let task = Task {
            process: pid,
            at_return: None,
        };
        self.tasks.insert(pid, task);
        Ok(())
    }

    /// Until nothing of the process is left.
    pub(super) fn follow(&mut self) -> Result<()> {
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
            WaitStatus::Stopped(task, signal) => return resume(task, Some(signal)),
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, task: Pid, exit: Exit) {
        self.tasks.remove(&task);
        self.hanging.retain(|(hanging, _)| *hanging != task);
        if self.processes.remove(&task).is_some() {
            let mut life = lock(&self.life);
            life.processes.remove(&task);
            if task == self.leader {
                life.exit = Some(exit);
            }
        }
    }

    fn event(&mut self, task: Pid, event: libc::c_int) -> Result<()> {
        if event == Event::PTRACE_EVENT_SECCOMP as libc::c_int {
            return self.called(task);
        }
        if event == Event::PTRACE_EVENT_EXEC as libc::c_int {
            // A process that is being killed executes nothing any more.
            self.executes(task).ok();
        } else if event != Event::PTRACE_EVENT_STOP as libc::c_int
            && let Ok(new) = ptrace::getevent(task)
        {
            let new = Pid::from_raw(i32::try_from(new)?);
            if event != Event::PTRACE_EVENT_CLONE as libc::c_int {
                self.add_process(new).ok();
            } else if let Some(process) = self.tasks.get(&task).map(|task| task.process) {
                let task = Task {
                    process,
                    at_return: None,
                };
                self.tasks.insert(new, task);
            }
        }
        resume(task, None)
    }

    /// A process executes a program: its other threads are gone, and so is the memory that it had.
    fn executes(&mut self, pid: Pid) -> Result<()> {
        let gone = |task: &Pid, state: &Task| state.process == pid && *task != pid;
        let tasks = &mut self.tasks;
        tasks.retain(|task, state| !gone(task, state));
        self.hanging.retain(|(task, _)| tasks.contains_key(task));
        let file = fs::read_link(format!("/proc/{pid}/exe"))?;
        let program = self.program.get_or_insert_with(|| file.clone());
        let foreign = file != *program;
        let process = Process::open(pid)?;
        self.processes.insert(pid, Process { foreign, ..process });
        Ok(())
    }

    /// A task is about to make a call.
    fn called(&mut self, task: Pid) -> Result<()> {
        let pid = self.tasks.get(&task).map(|task| task.process);
        let known = pid.and_then(|pid| Some((pid, self.processes.get(&pid)?)));
        let Some((pid, process)) = known.filter(|(_, process)| {
            // Not before the program has begun.
            self.program.is_some() && !process.foreign
        }) else {
            return resume(task, None);
        };
        let Ok(mut registers) = Registers::of(task) else {
            return Ok(()); // Killed meanwhile.
        };
        let context = calls::Context {
            pid,
            process: &process.handle,
            memory: &process.memory,
            places: &self.places,
        };
        let call = calls::decode(&registers, &context, &mut self.sockets);
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
                    let memory = &process.memory;
                    let before = self.refusals.spoil(memory, &socket, &message, errno)?;
                    let address = message.address;
                    return self.at_return(task, AtReturn::Restore { address, before });
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
                    return self.at_return(task, AtReturn::Answers { socket, buffer });
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

    /// Lets a call be made, and does something when it has returned.
    fn at_return(&mut self, task: Pid, what: AtReturn) -> Result<()> {
        if let Some(state) = self.tasks.get_mut(&task) {
            state.at_return = Some(what);
        }
        ignore_killed(ptrace::syscall(task, None))
    }

    fn returned(&mut self, task: Pid) {
        let Some(state) = self.tasks.get_mut(&task) else {
            return;
        };
        let Some(process) = self.processes.get(&state.process) else {
            return;
        };
        match state.at_return.take() {
            Some(AtReturn::Restore { address, before }) => {
                process.memory.write_all_at(&before, address).ok();
            }
            Some(AtReturn::Answers { socket, buffer }) => {
                let length = Registers::of(task).ok().and_then(|state| state.result());
                if let Some(length) = length {
                    let memory = &process.memory;
                    self.refusals.answer(memory, &socket, buffer, length);
                }
            }
            None => {}
        }
    }
}

/// Lets a task go on.
fn resume(task: Pid, signal: Option<Signal>) -> Result<()> {
    ignore_killed(ptrace::cont(task, signal))
}

fn ignore_killed(done: nix::Result<()>) -> Result<()> {
    match done {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).context("ptrace"),
    }
}
