//! systemd-networkd, without a bus: nobody has to talk to it.

use anyhow::Result;

use super::{Daemon, System};

/// Starts it with a DHCP client on each of the interfaces.
pub(super) fn start(system: &System, interfaces: &[(&str, u32)]) -> Result<Daemon> {
    for (interface, metric) in interfaces {
        // It asks for the times to renew (options 58 and 59) only when told to.
        let settings = format!(
            "[Match]\n\
             Name={interface}\n\
             [Network]\n\
             DHCP=ipv4\n\
             IPv6AcceptRA=no\n\
             KeepConfiguration=no\n\
             [DHCPv4]\n\
             RouteMetric={metric}\n\
             RequestOptions=58 59\n"
        );
        // Readable for the user as whom it goes on.
        let file = format!("/etc/systemd/network/{interface}.network");
        system.write_for_all(&file, &settings)?;
    }
    system.start("systemd-networkd", &[])
}
