//! Namespaces for one test: a host under test with its own BPF file system, and a peer at the end of a veth cable.

use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    mem::MaybeUninit,
    net::TcpStream,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use failover_agent::{
    config::AttachMode,
    datapath::{Datapath, Hook, Options, has_tcx},
};
use failover_lab::{Namespace, wait_until};
use nix::{
    fcntl::OFlag,
    libc,
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// `SO_MARK` of probes in the tests.
pub(crate) const MARK: u32 = 0xfa11;

/// The host's side of a test. Namespaces and what is in them end with the thread that holds them, also on panic.
pub(crate) struct Lab {
    /// Directory on a BPF file system that nobody else sees.
    pub(crate) bpf: PathBuf,
    _dir: tempfile::TempDir,
}

/// Runs `test` in a network and mount namespace of its own. Needs root.
pub(crate) fn lab(test: impl FnOnce(&Lab) + Send) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
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
        Ok(())
    };
    Namespace::unnamed().unwrap().run(run).unwrap();
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

    /// Another datapath on the same interfaces: another program's programs, by TCX. A second one by clsact would replace the first.
    pub(crate) fn open_other(&self) -> Datapath {
        let bpf_dir = self.bpf.with_file_name("other");
        Datapath::open(&Options {
            bpf_dir,
            ..self.options(AttachMode::Tcx)
        })
        .unwrap()
    }
}

/// How programs can be attached on this kernel, and what an attachment says then: by TCX since Linux 6.6.
pub(crate) fn modes() -> Vec<(AttachMode, Hook)> {
    let clsact = (AttachMode::Clsact, Hook::ClsactOwned);
    if has_tcx() {
        vec![(AttachMode::Tcx, Hook::Tcx), clsact]
    } else {
        vec![clsact]
    }
}

/// A second network namespace.
pub(crate) struct Peer(Namespace);

impl Peer {
    /// Makes `uplink` on the host (10.0.0.1/24, 2001:db8::1/64) and its other end `far` (.2, ::2) in the peer.
    pub(crate) fn connect() -> Peer {
        let peer = Peer(Namespace::unnamed().unwrap());
        peer.cable();
        peer
    }

    /// Makes `lan` on the host (10.1.0.1/24, 2001:db8:1::1/64), which becomes a router, and its other end `near` (.2,
    /// ::2) in a client.
    pub(crate) fn client() -> Peer {
        let client = Peer(Namespace::unnamed().unwrap());
        sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        sh(&format!(
            "ip link add lan type veth peer name near netns {} && ip addr add 10.1.0.1/24 dev lan \
             && ip addr add 2001:db8:1::1/64 dev lan nodad && ip link set lan up",
            client.namespace()
        ));
        client.run(|| {
            sh(
                "ip addr add 10.1.0.2/24 dev near && ip addr add 2001:db8:1::2/64 dev near nodad \
                && ip link set near up && ip route add default via 10.1.0.1 \
                && ip -6 route add default via 2001:db8:1::1",
            );
        });
        client
    }

    /// Lays the cable; again, if its host's end was deleted.
    pub(crate) fn cable(&self) {
        sh(&format!(
            "ip link add uplink type veth peer name far netns {}",
            self.namespace()
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

    /// What `ip link` takes after `netns`.
    pub(crate) fn namespace(&self) -> &str {
        self.0.name()
    }

    /// Runs `job` in the peer's namespace.
    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        self.0.run(|| Ok(job())).unwrap()
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

/// Has the kernel finish checksums before packets leave by an interface, as `ethtool -K INTERFACE tx off` does.
pub(crate) fn finish_checksums(interface: &str) {
    nix::ioctl_write_ptr_bad!(ethtool, 0x8946, [u8; 40]);
    // include/uapi/linux/ethtool.h: ETHTOOL_STXCSUM, off.
    let value = [0x17_u32, 0];
    let mut request = [0; 40];
    request[..interface.len()].copy_from_slice(interface.as_bytes());
    request[16..24].copy_from_slice(&(&raw const value).expose_provenance().to_ne_bytes());
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // SAFETY: the request is a whole `struct ifreq`, and points to a whole `struct ethtool_value`.
    unsafe { ethtool(socket.as_raw_fd(), &raw const request) }.unwrap();
}

/// An interface as a packet socket sees it: what arrives before the ingress hook, what leaves behind the egress hook.
pub(crate) struct Wire(Socket);

impl Wire {
    /// On an interface of the namespace that this thread is in.
    pub(crate) fn open(interface: &str) -> Wire {
        let everything = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        let protocol = Protocol::from(i32::from(everything));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
        let link = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap(),
            sll_protocol: everything,
            sll_ifindex: if_nametoindex(interface).unwrap().try_into().unwrap(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the storage is big enough for every address, and its length is that of this one.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, length| {
                storage.cast::<libc::sockaddr_ll>().write(link);
                length.write(size_of::<libc::sockaddr_ll>().try_into().unwrap());
                Ok(())
            })
        }
        .unwrap();
        socket.bind(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        Wire(socket)
    }

    /// All frames since the last call, each with whether it was leaving.
    pub(crate) fn frames(&self) -> Vec<(bool, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); 1 << 17];
        while let Ok((length, from)) = self.0.recv_from(&mut buffer) {
            // SAFETY: so much has been received; a packet socket's senders are such addresses.
            let (data, link) = unsafe {
                let data = std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length);
                (data, *from.as_ptr().cast::<libc::sockaddr_ll>())
            };
            frames.push((link.sll_pkttype == libc::PACKET_OUTGOING, data.to_vec()));
        }
        frames
    }

    /// Sends a frame, past the routing tables.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.0.send(frame).unwrap();
    }
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
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, Duration::from_secs(20), condition).unwrap();
}

/// What `bpftool -j` says.
pub(crate) fn bpftool(arguments: &str, path: &Path) -> serde_json::Value {
    serde_json::from_str(&sh(&format!("bpftool -j {arguments} {}", path.display()))).unwrap()
}
