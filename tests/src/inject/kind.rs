//! What is called, and by which errors each kind of call can fail.

use std::{fmt, time::Duration};

use nix::errno::Errno;

/// How long a call hangs.
pub(super) const HANG: Duration = Duration::from_secs(5);

/// A kind of call: what is counted, and what an injection names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// "netlink route RTM_NEWROUTE main v4", "file rename state".
    pub(super) name: String,
    pub(super) class: Class,
}

impl Kind {
    pub(super) fn new(class: Class, name: impl Into<String>) -> Kind {
        Kind {
            name: name.into(),
            class,
        }
    }
}

/// Calls that fail alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Opening what exists.
    Open,
    /// Opening what may be made.
    Create,
    Read,
    Write,
    Sync,
    Rename,
    Unlink,
    MakeDir,
    Mode,
    Lock,
    List,
    Stat,
    /// Opening and reading what the kernel makes up: /proc, /sys.
    Pseudo,
    /// Writing a sysctl.
    SetPseudo,
    /// A pipe, or whatever standard output and error are.
    WriteOut,
    NewRoute,
    NetlinkChange,
    NetlinkDump,
    NetlinkGet,
    SockDestroy,
    NetlinkSend,
    NetlinkReceive,
    Bpf,
    Socket,
    Bind,
    Listen,
    Connect,
    SetOption,
    GetOption,
    Accept,
    SendProbe,
    ReceiveProbe,
    SendUnix,
    ReceiveUnix,
    Ioctl,
    Memory,
    Execute,
    Thread,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call is not made, and this error returned in its stead.
    Error(Errno),
    /// The kernel itself refuses the netlink message, with this error.
    Refusal(Errno),
    /// The call is made five seconds later.
    Hang,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // "ENOSPC", as headers and manuals name it.
            Fault::Error(errno) | Fault::Refusal(errno) => write!(f, "{errno:?}"),
            Fault::Hang => f.write_str("hang"),
        }
    }
}

impl Class {
    /// The faults that calls of this class are known to have: what their manual pages or the kernel's sources name. Errors that tell
    /// something of a state, and would be a lie about it (EEXIST, ENOENT, ESRCH, ENETUNREACH of a route), are not among them.
    pub(super) fn faults(self) -> Vec<Fault> {
        use Errno::{
            EACCES, EADDRINUSE, EAGAIN, EBUSY, ECONNABORTED, ECONNRESET, EHOSTUNREACH, EIO, EMFILE,
            ENETUNREACH, ENOBUFS, ENOLCK, ENOMEM, ENOSPC, EOPNOTSUPP, EPERM, EPIPE, EROFS,
        };
        let (errors, hangs): (&[Errno], bool) = match self {
            Class::Open => (&[EIO, EMFILE], true),
            Class::Create => (&[ENOSPC, EROFS, EIO], true),
            Class::Read | Class::List | Class::Stat => (&[EIO], true),
            Class::Write => (&[ENOSPC, EIO], true),
            Class::Sync => (&[EIO, ENOSPC], true),
            Class::Rename => (&[EIO, ENOSPC, EROFS], true),
            Class::Unlink => (&[EIO, EROFS], true),
            Class::MakeDir => (&[ENOSPC, EROFS], true),
            Class::Mode => (&[EPERM, EROFS], true),
            Class::Lock => (&[ENOLCK], false),
            Class::Pseudo => (&[EMFILE, EIO], false),
            Class::SetPseudo => (&[EACCES, EIO], false),
            Class::WriteOut => (&[EPIPE, ENOSPC], true),
            Class::NewRoute => (&[ENOBUFS, ENOMEM, EPERM], false),
            Class::NetlinkChange => (&[ENOMEM, EPERM], false),
            Class::NetlinkDump => (&[ENOMEM, EBUSY], false),
            Class::NetlinkGet => (&[ENOBUFS], false),
            Class::SockDestroy => (&[EOPNOTSUPP, EPERM], false),
            Class::NetlinkSend => (&[ENOBUFS, ENOMEM], false),
            Class::NetlinkReceive => (&[ENOBUFS, ENOMEM], false),
            Class::Bpf => (&[ENOMEM, EPERM], false),
            Class::Socket => (&[EMFILE, ENOBUFS], false),
            Class::Bind => (&[EADDRINUSE, ENOMEM], false),
            Class::Listen => (&[EADDRINUSE], false),
            Class::Connect => (&[ENETUNREACH, ENOMEM], false),
            Class::SetOption => (&[ENOMEM, EPERM], false),
            Class::GetOption => (&[ENOBUFS], false),
            Class::Accept => (&[EMFILE, ECONNABORTED], false),
            Class::SendProbe => (&[ENOBUFS, ENETUNREACH, EPERM], false),
            Class::ReceiveProbe => (&[ENOMEM, EHOSTUNREACH], false),
            Class::SendUnix => (&[EPIPE, ENOBUFS], false),
            Class::ReceiveUnix => (&[ECONNRESET], false),
            Class::Ioctl => (&[EPERM], false),
            Class::Memory => (&[EMFILE, ENOMEM], false),
            Class::Execute => (&[ENOMEM, EACCES], false),
            Class::Thread => (&[EAGAIN], false),
        };
        let refused = matches!(
            self,
            Class::NewRoute
                | Class::NetlinkChange
                | Class::NetlinkDump
                | Class::NetlinkGet
                | Class::SockDestroy
        );
        let fault = if refused {
            Fault::Refusal
        } else {
            Fault::Error
        };
        let errors = errors.iter().map(|errno| fault(*errno));
        errors.chain(hangs.then_some(Fault::Hang)).collect()
    }
}
