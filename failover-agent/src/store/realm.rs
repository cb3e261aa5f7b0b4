//! Whose records these are: a boot of the kernel and a network namespace in it.

use std::{fs, os::unix::fs::MetadataExt as _};

use nix::{
    getsockopt_impl, libc,
    sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt::GetStruct},
};
use serde::{Deserialize, Serialize};

/// Changes at every boot, and only then (`random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// That of the calling thread.
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

/// What a record is valid in. A field that could not be found out is None, and agrees with nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Realm {
    /// The kernel's boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) boot_id: Option<String>,
    /// The network namespace, for as long as the kernel is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) network_namespace: Option<String>,
}

impl Realm {
    /// That of the calling thread.
    pub(super) fn here() -> Realm {
        let boot_id = fs::read_to_string(BOOT_ID).ok();
        Realm {
            boot_id: boot_id.map(|id| id.trim().to_owned()),
            network_namespace: namespace(),
        }
    }

    /// Why a record of `self` does not count in `here`; None if it does.
    pub(super) fn foreign_to(&self, here: &Realm) -> Option<&'static str> {
        if self.boot_id.is_none() || self.boot_id != here.boot_id {
            return Some("it is from another boot");
        }
        let namespace = &self.network_namespace;
        (namespace.is_none() || *namespace != here.network_namespace)
            .then_some("it belongs to another network namespace")
    }
}

/// The kernel counts cookies up and never gives one twice. The namespace's inode, which older kernels have to do with, may be
/// another namespace's as soon as this one is gone.
fn namespace() -> Option<String> {
    let cookie = || {
        let any = socket(
            AddressFamily::Unix,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        );
        getsockopt(&any.ok()?, NamespaceCookie).ok()
    };
    if let Some(cookie) = cookie() {
        return Some(format!("cookie {cookie}"));
    }
    let inode = fs::metadata(NAMESPACE).ok()?.ino();
    Some(format!("inode {inode}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_in_its_boot_and_namespace_only() {
        let here = Realm::here();
        assert_eq!(here, Realm::here());
        assert_eq!(here.foreign_to(&here), None);
        let cookie = here.network_namespace.clone().unwrap();
        assert!(cookie.starts_with("cookie "), "{cookie}");
        for unknown in [
            Realm::default(),
            Realm {
                boot_id: None,
                ..here.clone()
            },
        ] {
            assert_eq!(unknown.foreign_to(&here), Some("it is from another boot"));
            assert_eq!(
                unknown.foreign_to(&unknown),
                Some("it is from another boot")
            );
        }
        let elsewhere = Realm {
            network_namespace: Some("cookie 0".to_owned()),
            ..here.clone()
        };
        let why = elsewhere.foreign_to(&here);
        assert_eq!(why, Some("it belongs to another network namespace"));
    }
}
