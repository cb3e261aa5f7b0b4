//! A system call in the registers of x86_64: the only place that depends on the architecture.

use nix::{errno::Errno, libc, sys::ptrace, unistd::Pid};

/// A stopped task's registers.
#[derive(Debug)]
pub(super) struct Registers(libc::user_regs_struct);

impl Registers {
    pub(super) fn of(task: Pid) -> nix::Result<Registers> {
        ptrace::getregs(task).map(Registers)
    }

    pub(super) fn set(&self, task: Pid) -> nix::Result<()> {
        ptrace::setregs(task, self.0)
    }

    /// Number of the system call that is about to be made.
    pub(super) fn number(&self) -> libc::c_long {
        self.0.orig_rax.cast_signed()
    }

    /// Its arguments.
    pub(super) fn arguments(&self) -> [u64; 6] {
        let regs = &self.0;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]
    }

    /// What a call that has just returned gave, unless that is an error.
    pub(super) fn result(&self) -> Option<usize> {
        usize::try_from(self.0.rax.cast_signed()).ok()
    }

    /// Has the kernel make no call, and return this error.
    pub(super) fn refuse(&mut self, errno: Errno) {
        self.0.orig_rax = u64::MAX;
        self.0.rax = i64::from(-(errno as i32)).cast_unsigned();
    }
}
