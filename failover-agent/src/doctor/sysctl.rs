//! Names of kernel settings.

use failover_policy::Family;

/// The name of an interface's kernel setting for `sysctl`: with slashes where the interface name has dots.
pub(super) fn sysctl_key(family: Family, interface: &str, name: &str) -> String {
    let protocol = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    if interface.contains('.') {
        format!("net/{protocol}/conf/{interface}/{name}")
    } else {
        format!("net.{protocol}.conf.{interface}.{name}")
    }
}
