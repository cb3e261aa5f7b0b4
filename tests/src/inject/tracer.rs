//! Starting a process that is followed by ptrace, and ending it.
//!
//! ptrace belongs to threads: the one that starts the process is the only one that may speak to it, so each process has a thread of its
//! own here. Waiting is restricted to that thread's tracees (`__WNOTHREAD`): other laboratories of this process have theirs.

use std::{
    collections::BTreeSet,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    process::Command,
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use failover_lab::lock;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{calls, follow::Tracer, places::Places, sys, watch::Watch};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(Signal),
}

/// What the tracer's thread tells, and is told.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// How the process has ended.
    pub(super) exit: Option<Exit>,
    /// The process, and all that it has started, as long as they live.
    pub(super) processes: BTreeSet<Pid>,
    /// They are to be killed.
    pub(super) abandoned: bool,
}

/// A process that is followed; killed when dropped, with all that it has started.
#[derive(Debug)]
pub(super) struct Traced {
    pid: Pid,
    life: Arc<Mutex<Life>>,
    thread: Option<JoinHandle<()>>,
}

impl Traced {
    /// Starts `command`.
    ///
    /// # Errors
    /// When it cannot be started or followed.
    pub(super) fn start(mut command: Command, watch: Arc<Watch>, places: Places) -> Result<Traced> {
        let life = Arc::new(Mutex::new(Life::default()));
        let (hello, said) = io::pipe()?;
        let (waits, go) = io::pipe()?;
        sys::trace_from_exec(&mut command, calls::TRACED, said, waits)?;
        let (started, pid) = mpsc::channel();
        let shared = life.clone();
        let thread = thread::Builder::new().name("tracer".to_owned());
        let thread = thread.spawn(move || {
            let mut tracer = match seize(hello, go, watch, places, shared) {
                Ok(tracer) => tracer,
                Err(error) => {
                    started.send(Err(error)).ok();
                    return;
                }
            };
            // Without a receiver the thread that started this is gone; the process is killed below then.
            started.send(Ok(tracer.leader())).ok();
            if let Err(error) = tracer.follow() {
                eprintln!("a traced process is given up: {error:#}");
                kill(tracer.leader(), Signal::SIGKILL).ok();
            }
        })?;
        // Returns when the program has begun. The tracer alone waits for its end.
        let spawned = command.spawn();
        // With it goes the pipe in which a process that was never made would have said hello.
        drop(command);
        spawned.context("cannot start the program")?;
        Ok(Traced {
            pid: pid.recv().context("the tracer has ended")??,
            life,
            thread: Some(thread),
        })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// How it has ended; `None` while it runs.
    pub(super) fn exit(&self) -> Option<Exit> {
        lock(&self.life).exit
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).with_context(|| format!("cannot send {signal}"))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        {
            let mut life = lock(&self.life);
            life.abandoned = true;
            for process in &life.processes {
                // It may end by itself just now.
                kill(*process, Signal::SIGKILL).ok();
            }
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("a tracer has panicked");
        }
    }
}

/// Waits for the process that is about to be started, takes hold of it, and lets it go on.
fn seize(
    mut hello: PipeReader,
    mut go: PipeWriter,
    watch: Arc<Watch>,
    places: Places,
    life: Arc<Mutex<Life>>,
) -> Result<Tracer> {
    let mut number = [0; 4];
    hello
        .read_exact(&mut number)
        .context("the program was not started")?;
    let leader = Pid::from_raw(i32::from_ne_bytes(number));
    let tracer = Tracer::seize(leader, watch, places, life);
    if tracer.is_err() {
        // It would wait for ever.
        kill(leader, Signal::SIGKILL).ok();
    }
    go.write_all(&[0])?;
    tracer
}
