//! System calls: which ones stop the process, and what each of them is.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::{OwnedFd, RawFd},
        unix::{ffi::OsStrExt as _, fs::FileExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{libc, unistd::Pid};
use socket2::Type;

use super::{
    bpf,
    kind::{Class, Kind},
    netlink::{self, Message},
    places::Places,
    registers::Registers,
    sockets::{self, Socket, Sockets},
};

/// The calls that stop.
pub(super) const TRACED: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_creat,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_chown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_flock,
    libc::SYS_getdents64,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_socket,
    libc::SYS_pipe2,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_ioctl,
    libc::SYS_bpf,
    libc::SYS_memfd_create,
    libc::SYS_execve,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_fork,
    libc::SYS_vfork,
];

/// A call that is about to be made.
#[derive(Debug)]
pub(super) enum Call {
    /// Plumbing, or the loader's.
    Unwatched,
    Plain(Kind),
    /// On a netlink socket.
    Send {
        whole: Kind,
        socket: String,
        messages: Vec<Message>,
    },
    /// On a netlink socket.
    Receive {
        kind: Kind,
        socket: String,
        buffer: u64,
    },
}

/// The process that makes it.
pub(super) struct Context<'a> {
    pub(super) pid: Pid,
    pub(super) process: &'a OwnedFd,
    pub(super) memory: &'a File,
    pub(super) places: &'a Places,
}

pub(super) fn decode(registers: &Registers, context: &Context, sockets: &mut Sockets) -> Call {
    let mut decoder = Decoder { context, sockets };
    let call = decoder.decode(registers.number(), registers.arguments());
    call.unwrap_or(Call::Unwatched)
}

struct Decoder<'a> {
    context: &'a Context<'a>,
    sockets: &'a mut Sockets,
}

/// The low half of an argument: what the kernel takes of an `int`.
fn int(argument: u64) -> i32 {
    let bytes = argument.to_le_bytes();
    i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl Decoder<'_> {
    fn decode(&mut self, number: libc::c_long, a: [u64; 6]) -> Option<Call> {
        let at_cwd = libc::AT_FDCWD;
        match number {
            libc::SYS_open => self.open(at_cwd, a[0], int(a[1])),
            libc::SYS_creat => self.open(at_cwd, a[0], libc::O_CREAT | libc::O_WRONLY),
            libc::SYS_openat => self.open(int(a[0]), a[1], int(a[2])),
            libc::SYS_read | libc::SYS_pread64 => self.read(int(a[0]), a[1]),
            libc::SYS_readv | libc::SYS_recvmsg => {
                let buffer = self.first_buffer(number == libc::SYS_recvmsg, a[1])?.0;
                self.read(int(a[0]), buffer)
            }
            libc::SYS_recvfrom => self.read(int(a[0]), a[1]),
            libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_sendto => {
                self.write(int(a[0]), a[1], a[2])
            }
            libc::SYS_writev | libc::SYS_sendmsg => {
                let (buffer, length) = self.first_buffer(number == libc::SYS_sendmsg, a[1])?;
                self.write(int(a[0]), buffer, length)
            }
            libc::SYS_fsync | libc::SYS_fdatasync => self.by_file(Class::Sync, "fsync", int(a[0])),
            libc::SYS_ftruncate => self.by_file(Class::Write, "truncate", int(a[0])),
            libc::SYS_fchmod => self.by_file(Class::Mode, "chmod", int(a[0])),
            libc::SYS_fchown => self.by_file(Class::Mode, "chown", int(a[0])),
            libc::SYS_flock => self.by_file(Class::Lock, "lock", int(a[0])),
            libc::SYS_getdents64 => self.by_file(Class::List, "list", int(a[0])),
            libc::SYS_fstatfs => self.by_file(Class::Stat, "statfs", int(a[0])),
            libc::SYS_rename => self.by_path(Class::Rename, "rename", at_cwd, a[0]),
            libc::SYS_renameat | libc::SYS_renameat2 => {
                self.by_path(Class::Rename, "rename", int(a[0]), a[1])
            }
            libc::SYS_link => self.by_path(Class::Rename, "link", at_cwd, a[0]),
            libc::SYS_linkat => self.by_path(Class::Rename, "link", int(a[0]), a[1]),
            libc::SYS_unlink => self.by_path(Class::Unlink, "unlink", at_cwd, a[0]),
            libc::SYS_rmdir => self.by_path(Class::Unlink, "rmdir", at_cwd, a[0]),
            libc::SYS_unlinkat if int(a[2]) & libc::AT_REMOVEDIR != 0 => {
                self.by_path(Class::Unlink, "rmdir", int(a[0]), a[1])
            }
            libc::SYS_unlinkat => self.by_path(Class::Unlink, "unlink", int(a[0]), a[1]),
            libc::SYS_mkdir => self.by_path(Class::MakeDir, "mkdir", at_cwd, a[0]),
            libc::SYS_mkdirat => self.by_path(Class::MakeDir, "mkdir", int(a[0]), a[1]),
            libc::SYS_chmod => self.by_path(Class::Mode, "chmod", at_cwd, a[0]),
            libc::SYS_fchmodat => self.by_path(Class::Mode, "chmod", int(a[0]), a[1]),
            libc::SYS_chown => self.by_path(Class::Mode, "chown", at_cwd, a[0]),
            libc::SYS_fchownat => self.by_path(Class::Mode, "chown", int(a[0]), a[1]),
            libc::SYS_stat | libc::SYS_lstat | libc::SYS_access | libc::SYS_statfs => {
                self.by_path(Class::Stat, "stat", at_cwd, a[0])
            }
            libc::SYS_readlink => self.by_path(Class::Stat, "readlink", at_cwd, a[0]),
            libc::SYS_readlinkat => self.by_path(Class::Stat, "readlink", int(a[0]), a[1]),
            libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_faccessat | libc::SYS_faccessat2 => {
                self.by_path(Class::Stat, "stat", int(a[0]), a[1])
            }
            libc::SYS_socket => Some(socket_made(a)),
            libc::SYS_bind => self.by_socket(Class::Bind, "bind", int(a[0])),
            libc::SYS_listen => self.by_socket(Class::Listen, "listen", int(a[0])),
            libc::SYS_connect => self.by_socket(Class::Connect, "connect", int(a[0])),
            libc::SYS_accept4 => self.by_socket(Class::Accept, "accept", int(a[0])),
            libc::SYS_setsockopt => self.by_socket(Class::SetOption, "setsockopt", int(a[0])),
            libc::SYS_getsockopt => self.by_socket(Class::GetOption, "getsockopt", int(a[0])),
            libc::SYS_ioctl => self.ioctl(int(a[0]), a[1]),
            libc::SYS_bpf => bpf::kind(self.context, int(a[0]), a[1]).map(Call::Plain),
            libc::SYS_memfd_create => plain(Class::Memory, "memfd_create"),
            libc::SYS_pipe2 => plain(Class::Memory, "pipe"),
            libc::SYS_execve => plain(Class::Execute, "execve"),
            // Threads too: glibc's pthread_create and posix_spawn, and std's fork.
            libc::SYS_clone | libc::SYS_clone3 | libc::SYS_fork | libc::SYS_vfork => {
                plain(Class::Thread, "clone")
            }
            _ => None,
        }
    }

    fn open(&self, dir: RawFd, path: u64, flags: i32) -> Option<Call> {
        let class = if flags & libc::O_CREAT != 0 {
            Class::Create
        } else {
            Class::Open
        };
        let what = if class == Class::Create {
            "create"
        } else {
            "open"
        };
        self.by_path(class, what, dir, path)
    }

    fn read(&mut self, descriptor: RawFd, buffer: u64) -> Option<Call> {
        let link = self.link(descriptor)?;
        if !link.starts_with("socket:") {
            return self.file(Class::Read, "read", &link);
        }
        let kind = match self.sockets.get(self.context.process, descriptor, &link)? {
            Socket::Netlink(protocol) => {
                return Some(Call::Receive {
                    kind: Kind::new(Class::NetlinkReceive, format!("receive netlink {protocol}")),
                    socket: link,
                    buffer,
                });
            }
            Socket::Pair => return None,
            Socket::Unix => Kind::new(Class::ReceiveUnix, "receive unix"),
            Socket::Network(what) => Kind::new(Class::ReceiveProbe, format!("receive {what}")),
        };
        Some(Call::Plain(kind))
    }

    fn write(&mut self, descriptor: RawFd, buffer: u64, length: u64) -> Option<Call> {
        let link = self.link(descriptor)?;
        if (1..=2).contains(&descriptor) && !link.starts_with("socket:") {
            let which = ["output", "error"][usize::from(descriptor == 2)];
            return plain(Class::WriteOut, format!("write standard {which}"));
        }
        if !link.starts_with("socket:") {
            return self.file(Class::Write, "write", &link);
        }
        let kind = match self.sockets.get(self.context.process, descriptor, &link)? {
            Socket::Netlink(protocol) => {
                let mut bytes = vec![0; usize::try_from(length).ok()?];
                self.context.memory.read_exact_at(&mut bytes, buffer).ok()?;
                return Some(Call::Send {
                    whole: Kind::new(Class::NetlinkSend, format!("send netlink {protocol}")),
                    socket: link,
                    messages: netlink::messages(protocol, &bytes, buffer),
                });
            }
            Socket::Pair => return None,
            Socket::Unix => Kind::new(Class::SendUnix, "send unix"),
            Socket::Network(what) => Kind::new(Class::SendProbe, format!("send {what}")),
        };
        Some(Call::Plain(kind))
    }

    fn by_socket(&mut self, class: Class, what: &str, descriptor: RawFd) -> Option<Call> {
        let link = self.link(descriptor)?;
        let socket = self.sockets.get(self.context.process, descriptor, &link)?;
        let socket = match socket {
            Socket::Netlink(protocol) => format!("netlink {protocol}"),
            // Not named yet, when it is about to be bound.
            Socket::Unix | Socket::Pair => "unix".to_owned(),
            Socket::Network(what) => what,
        };
        plain(class, format!("{what} {socket}"))
    }

    fn ioctl(&self, descriptor: RawFd, request: u64) -> Option<Call> {
        // Only those of interfaces (linux/sockios.h); the others ask whether something is a terminal.
        if !self.link(descriptor)?.starts_with("socket:") {
            return None;
        }
        plain(Class::Ioctl, format!("ioctl {request:#x}"))
    }

    fn by_file(&self, class: Class, what: &str, descriptor: RawFd) -> Option<Call> {
        self.file(class, what, &self.link(descriptor)?)
    }

    fn by_path(&self, class: Class, what: &str, dir: RawFd, path: u64) -> Option<Call> {
        let mut bytes = vec![0; libc::PATH_MAX.unsigned_abs() as usize];
        let length = self.context.memory.read_at(&mut bytes, path).ok()?;
        let path = bytes[..length].split(|byte| *byte == 0).next()?;
        let path = Path::new(OsStr::from_bytes(path));
        if path.is_absolute() {
            return self.file(class, what, &path.to_string_lossy());
        }
        let dir = match dir {
            libc::AT_FDCWD => fs::read_link(self.proc("cwd")).ok()?,
            dir => PathBuf::from(self.link(dir)?),
        };
        self.file(class, what, &dir.join(path).to_string_lossy())
    }

    /// A call on what a path or a descriptor's link names.
    fn file(&self, class: Class, what: &str, link: &str) -> Option<Call> {
        if ["pipe:", "anon_inode:", "socket:"]
            .iter()
            .any(|plumbing| link.starts_with(plumbing))
        {
            return None;
        }
        let place = self.context.places.name(Path::new(link))?;
        let made_up = ["sysctl", "proc", "sys", "cgroup"].contains(&place.as_str());
        let class = match class {
            Class::Write | Class::Create if made_up => Class::SetPseudo,
            _ if made_up => Class::Pseudo,
            class => class,
        };
        plain(class, format!("file {what} {place}"))
    }

    fn link(&self, descriptor: RawFd) -> Option<String> {
        let link = fs::read_link(self.proc(&format!("fd/{descriptor}"))).ok()?;
        Some(link.to_string_lossy().into_owned())
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.context.pid)
    }

    /// Address and length of the first part: of an `iovec`, or of a `msghdr` that has one at 16.
    fn first_buffer(&self, in_message: bool, address: u64) -> Option<(u64, u64)> {
        let parts = if in_message {
            self.word(address + 16)?
        } else {
            address
        };
        Some((self.word(parts)?, self.word(parts + 8)?))
    }

    fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.context
            .memory
            .read_exact_at(&mut bytes, address)
            .ok()?;
        Some(u64::from_ne_bytes(bytes))
    }
}

fn plain(class: Class, name: impl Into<String>) -> Option<Call> {
    Some(Call::Plain(Kind::new(class, name)))
}

fn socket_made(a: [u64; 6]) -> Call {
    // Without the flags that are given with the type.
    let kind = Type::from(int(a[1]) & 0xf);
    let what = match sockets::of(int(a[0]), kind, int(a[2])) {
        Socket::Netlink(protocol) => format!("netlink {protocol}"),
        Socket::Unix | Socket::Pair => "unix".to_owned(),
        Socket::Network(what) => what,
    };
    Call::Plain(Kind::new(Class::Socket, format!("socket {what}")))
}
