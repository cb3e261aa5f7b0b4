//! NetworkManager, with a message bus of its own.

use std::{fmt::Write, time::Duration};

use anyhow::Result;

use super::{Daemon, System};
use crate::wait::wait_for;

/// How long the bus may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

const SOCKET: &str = "/run/dbus/system_bus_socket";

/// A bus on which root, the only user here, may do everything (dbus-daemon(1)).
const BUS: &str = "\
<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"
 \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context=\"default\">
    <allow user=\"*\"/>
    <allow own=\"*\"/>
    <allow send_destination=\"*\" eavesdrop=\"true\"/>
    <allow eavesdrop=\"true\"/>
  </policy>
</busconfig>
";

/// Only the profiles that are written here, and no name service. Of devices, only those named after the last line are its own.
const SETTINGS: &str = "\
[main]
plugins=keyfile
dhcp=internal
dns=none
no-auto-default=*
auth-polkit=false
[keyfile]
unmanaged-devices=*";

/// A running NetworkManager; ended when dropped.
#[derive(Debug)]
pub struct NetworkManager {
    system: System,
    /// First, so that it ends before the bus does.
    _manager: Daemon,
    _bus: Daemon,
}

impl NetworkManager {
    /// Starts it with a profile named after each of the interfaces, which asks for a lease and gives the default route this metric.
    ///
    /// # Errors
    /// When it or the bus does not start.
    pub fn start(system: &System, interfaces: &[(&str, u32)]) -> Result<NetworkManager> {
        system.write("/etc/dbus-1/laboratory.conf", BUS)?;
        let mut settings = SETTINGS.to_owned();
        for (interface, metric) in interfaces {
            write!(settings, ",except:interface-name:{interface}")?;
            let profile = format!(
                "[connection]\n\
                 id={interface}\n\
                 type=ethernet\n\
                 interface-name={interface}\n\
                 [ipv4]\n\
                 method=auto\n\
                 route-metric={metric}\n\
                 [ipv6]\n\
                 method=ignore\n"
            );
            let file = format!("/etc/NetworkManager/system-connections/{interface}.nmconnection");
            system.write(&file, &profile)?;
        }
        settings.push('\n');
        system.write("/etc/NetworkManager/NetworkManager.conf", &settings)?;
        let bus = system.start(
            "dbus-daemon",
            &[
                "--config-file=/etc/dbus-1/laboratory.conf",
                "--nofork",
                "--nopidfile",
            ],
        )?;
        wait_for("the message bus listens", PATIENCE, || {
            system.run(|| Ok(std::os::unix::net::UnixStream::connect(SOCKET).map(drop)?))
        })?;
        let manager = system.start("NetworkManager", &["--no-daemon", "--log-level=INFO"])?;
        Ok(NetworkManager {
            system: system.clone(),
            _manager: manager,
            _bus: bus,
        })
    }

    /// Has it configure an interface again from its profile, as `nmcli device reapply` does.
    ///
    /// # Errors
    /// When it refuses.
    pub fn reapply(&self, interface: &str) -> Result<()> {
        self.system
            .exec("nmcli", &["device", "reapply", interface])
            .map(drop)
    }
}
