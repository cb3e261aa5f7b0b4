//! Namespaces for one test: a host under test with its own BPF file system, and a peer at the end of a veth cable.

use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    net::TcpStream,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, Instant},
};

use failover_agent::{
    config::AttachMode,
    datapath::{Datapath, Options},
};
use nix::{
    fcntl::OFlag,
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
    unistd::{Uid, gettid},
};

/// `SO_MARK` of probes in the tests.
pub(crate) const MARK: u32 = 0xfa11;

/// The host's side of a test. Namespaces and what is in them end with the thread that holds them, also on panic.
pub(crate) struct Lab {
    /// Directory on a BPF file system that nobody else sees.
    pub(crate) bpf: PathBuf,
    _dir: tempfile::TempDir,
}

/// Runs `test` in a network and mount namespace of its own. Without root it only says so.
pub(crate) fn lab(test: impl FnOnce(&Lab) + Send) {
    if !Uid::effective().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let dir = tempfile::tempdir().unwrap();
        mount(
            Some("bpf"),
            dir.path(),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        sh("ip link set lo up");
        test(&Lab {
            bpf: dir.path().join("agent"),
            _dir: dir,
        });
    };
    thread::scope(|scope| {
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Lab {
    pub(crate) fn options(&self, attach: AttachMode) -> Options {
        Options {
            bpf_dir: self.bpf.clone(),
            attach,
            probe_mark: MARK,
        }
    }

    /// Opens the datapath, or opens it again.
    pub(crate) fn open(&self, attach: AttachMode) -> Datapath {
        Datapath::open(&self.options(attach)).unwrap()
    }

    /// Another datapath on the same interfaces: someone else's programs.
    pub(crate) fn open_other(&self) -> Datapath {
        let bpf_dir = self.bpf.with_file_name("other");
        Datapath::open(&Options {
            bpf_dir,
            ..self.options(AttachMode::Tcx)
        })
        .unwrap()
    }
}

/// A second network namespace, entered by a thread of its own.
pub(crate) struct Peer {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
    thread: i32,
}

impl Peer {
    /// Makes `uplink` on the host (10.0.0.1/24, 2001:db8::1/64) and its other end `far` (.2, ::2) in the peer.
    pub(crate) fn connect() -> Peer {
        let (jobs, inbox) = channel::<Box<dyn FnOnce() + Send>>();
        let (ready, is_ready) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(gettid().as_raw()).unwrap();
            inbox.into_iter().for_each(|job| job());
        });
        let peer = Peer {
            jobs,
            thread: is_ready.recv().unwrap(),
        };
        peer.cable();
        peer
    }

    /// Lays the cable; again, if its host's end was deleted.
    pub(crate) fn cable(&self) {
        sh(&format!(
            "ip link add uplink type veth peer name far netns {}",
            self.thread
        ));
        sh(
            "ip addr add 10.0.0.1/24 dev uplink && ip addr add 2001:db8::1/64 dev uplink nodad && ip link set uplink up",
        );
        self.run(|| {
            sh("ip addr add 10.0.0.2/24 dev far && ip addr add 2001:db8::2/64 dev far nodad && ip link set far up");
        });
        // Neighbours are resolved before anything is counted. A refusal is an answer too.
        until("the peer answers", || {
            ["10.0.0.2:9", "[2001:db8::2]:9"]
                .into_iter()
                .all(is_refused)
        });
    }

    /// Runs `job` in the peer's namespace.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        self.jobs
            .send(Box::new(move || done.send(job()).unwrap()))
            .unwrap();
        result.recv().unwrap()
    }
}

/// Makes `uplink` with nothing at its other end, and down: only packets of test_run meet it.
pub(crate) fn quiet_uplink() -> u32 {
    sh("ip link add uplink type veth peer name far");
    uplink()
}

/// Makes `uplink` (10.0.0.1/24) a tun interface, a link without a link-layer header; what leaves by it is read from
/// the file, without waiting.
pub(crate) fn tun_uplink() -> File {
    nix::ioctl_write_ptr_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<i32>()),
        [u8; 40]
    );
    // include/uapi/linux/if.h and if_tun.h: a `struct ifreq` with a name and IFF_TUN | IFF_NO_PI.
    let mut request = [0; 40];
    request[..6].copy_from_slice(b"uplink");
    request[16..18].copy_from_slice(&0x1001_u16.to_ne_bytes());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: the request is a whole `struct ifreq`.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }.unwrap();
    sh("ip addr add 10.0.0.1/24 dev uplink && ip link set uplink up");
    file
}

/// Index of the host's end of the cable.
pub(crate) fn uplink() -> u32 {
    if_nametoindex("uplink").unwrap()
}

/// Runs a shell command, which must succeed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_refused(address: &str) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Waits for a condition, for 20 seconds at most.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What `bpftool -j` says.
pub(crate) fn bpftool(arguments: &str, path: &Path) -> serde_json::Value {
    serde_json::from_str(&sh(&format!("bpftool -j {arguments} {}", path.display()))).unwrap()
}
