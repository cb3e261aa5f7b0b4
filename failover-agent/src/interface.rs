//! Interface names and indexes.

use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nametoindex},
};

/// How often the kernel is asked again when its answer is unusable.
const ATTEMPTS: usize = 3;

/// The name of an interface in the network namespace of the calling thread. `None` if no interface has this index, or its name is not
/// UTF-8.
pub(crate) fn name(ifindex: u32) -> Option<String> {
    // nix (up to 0.31) takes the C function's null pointer for success and returns an empty name.
    let name = if_indextoname(ifindex).ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

/// The index of an interface in the network namespace of the calling thread; `None` if no interface has this name.
pub(crate) fn index(name: &str) -> Option<u32> {
    (0..ATTEMPTS).find_map(|_| match if_nametoindex(name) {
        Ok(index) => Some(Some(index)),
        Err(Errno::ENODEV | Errno::ENXIO) => Some(None),
        Err(_) => None,
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_that_is_not_there_has_no_name() {
        assert_eq!(name(1).as_deref(), Some("lo"));
        assert_eq!(name(u32::MAX >> 1), None);
        assert_eq!(index("lo"), Some(1));
        assert_eq!(index("none-of-this"), None);
    }
}
