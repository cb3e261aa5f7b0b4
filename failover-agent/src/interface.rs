//! Interfaces by their indices.

use nix::net::if_::if_indextoname;

/// The name of an interface in the network namespace of the calling thread; None if there is none with this index, or its name
/// is not UTF-8.
pub(crate) fn name(ifindex: u32) -> Option<String> {
    // nix (up to 0.31) takes the C function's null pointer for success, and returns an empty name.
    let name = if_indextoname(ifindex).ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_that_is_not_there_has_no_name() {
        assert_eq!(name(1).as_deref(), Some("lo"));
        assert_eq!(name(u32::MAX >> 1), None);
    }
}
