//! The realm of a record: a boot of the kernel and a network namespace in it.

use std::{fs, os::unix::fs::MetadataExt as _};

use nix::{
    errno::Errno,
    getsockopt_impl, libc,
    sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt::GetStruct},
};
use serde::{Deserialize, Serialize};

/// Changes at every boot, and only then (`random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The calling thread's network namespace.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// `SO_NETNS_COOKIE` of `socket(7)`, Linux 5.14.
#[derive(Clone, Copy)]
struct NamespaceCookie;

getsockopt_impl!(
    NamespaceCookie,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64,
    GetStruct<u64>
);

/// The realm in which a record is valid. A field is `None` if it could not be found out. A record that lacks a field is valid nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Realm {
    /// The kernel's boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) boot_id: Option<String>,
    /// The network namespace, unique for as long as the kernel is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) network_namespace: Option<String>,
}

impl Realm {
    /// The calling thread's realm.
    pub(super) fn here() -> Realm {
        let mut here = Realm::default();
        here.complete();
        here
    }

    /// Finds out what is still unknown; the kernel refuses when descriptors or memory are short.
    pub(super) fn complete(&mut self) {
        if self.boot_id.is_none() {
            let boot_id = fs::read_to_string(BOOT_ID).ok();
            self.boot_id = boot_id.map(|id| id.trim().to_owned());
        }
        if self.network_namespace.is_none() {
            self.network_namespace = namespace();
        }
    }

    /// Whether a record of the realm `self` is valid in `here`.
    pub(super) fn counts_in(&self, here: &Realm) -> Counts {
        let boot = (
            &self.boot_id,
            &here.boot_id,
            "it is from another boot",
            "this boot's identity",
        );
        let namespace = (
            &self.network_namespace,
            &here.network_namespace,
            "it belongs to another network namespace",
            "this network namespace's identity",
        );
        for (its, ours, foreign, unknown) in [boot, namespace] {
            match (its, ours) {
                (Some(_), None) => return Counts::Unknown(unknown),
                (Some(its), Some(ours)) if its == ours => {}
                _ => return Counts::No(foreign),
            }
        }
        Counts::Yes
    }
}

/// Whether a record is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    Yes,
    /// It is not, and why.
    No(&'static str),
    /// Undecided, because this could not be found out.
    Unknown(&'static str),
}

/// The kernel counts cookies up and never assigns one twice. Older kernels only have the namespace's inode, which another namespace may get
/// once this one is gone.
fn namespace() -> Option<String> {
    let any = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    match getsockopt(&any.ok()?, NamespaceCookie) {
        Ok(cookie) => Some(format!("cookie {cookie}")),
        Err(Errno::ENOPROTOOPT) => {
            let inode = fs::metadata(NAMESPACE).ok()?.ino();
            Some(format!("inode {inode}"))
        }
        // Falling back to the inode would look like another namespace.
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_in_its_boot_and_namespace_only() {
        let here = Realm::here();
        assert_eq!(here, Realm::here());
        assert_eq!(here.counts_in(&here), Counts::Yes);
        let cookie = here.network_namespace.clone().unwrap();
        assert!(cookie.starts_with("cookie "), "{cookie}");
        let another_boot = Counts::No("it is from another boot");
        for unknown in [
            Realm::default(),
            Realm {
                boot_id: None,
                ..here.clone()
            },
        ] {
            assert_eq!(unknown.counts_in(&here), another_boot);
            assert_eq!(unknown.counts_in(&unknown), another_boot);
            let undecided = Counts::Unknown("this boot's identity");
            assert_eq!(here.counts_in(&unknown), undecided);
            let mut known = unknown;
            known.complete();
            assert_eq!(known, here);
        }
        let elsewhere = Realm {
            network_namespace: Some("cookie 0".to_owned()),
            ..here.clone()
        };
        let foreign = Counts::No("it belongs to another network namespace");
        assert_eq!(elsewhere.counts_in(&here), foreign);
    }
}
