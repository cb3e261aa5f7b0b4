//! The daemons run on a machine of their own: nothing of this one is read, changed or left behind.

use std::{fs, path::Path};

use anyhow::Result;
use failover_lab::{
    Lab, Scenario, UplinkSpec,
    daemon::{ClientKind, DhcpClient, DhcpServer, Lease, System},
    wait_until,
};
use failover_policy::Family;
use failover_tests::fixtures::SOON;
use nix::unistd::gethostname;

use super::fixtures::wait_for_routes;

#[test]
#[ignore = "needs root"]
fn a_daemon_touches_nothing_of_this_machine_and_ends_with_the_laboratory() -> Scenario {
    let machine = || -> Result<_> {
        let files = ["/etc/resolv.conf", "/etc/hostname", "/etc/machine-id"];
        let contents = files.map(|file| fs::read(file).ok());
        let leases = ["/var/lib/dhcp", "/run/dhclient.pid"].map(|path| names(Path::new(path)));
        Ok((contents, leases, gethostname()?))
    };
    let before = machine()?;
    let bare = UplinkSpec::veth("cable").without_ipv4();
    let lab = Lab::builder()
        .uplinks([bare, UplinkSpec::veth("lte")])
        .build()?;
    let lease = Lease::usual(lab.uplink("cable"));
    let server = DhcpServer::start(lab.uplink("cable"), lease)?;
    let system = System::new(lab.host().namespace())?;
    let client = DhcpClient::start(ClientKind::Dhclient, &system, &[("cable", 10)])?;
    let lte = lab.uplink("lte").addresses().gateway_v4;
    wait_for_routes(
        &lab,
        Family::V4,
        &[],
        &[
            format!("cable {} 10", lease.gateway),
            format!("lte {lte} 5001"),
        ],
    )?;

    // It keeps its leases in there.
    let address = lease.address.to_string();
    wait_until("the lease is in the system's file", SOON, || {
        let leases = system.read("/var/lib/dhcp/dhclient.leases");
        leases.is_ok_and(|leases| leases.contains(&address))
    })?;
    assert_eq!(system.run(|| Ok(gethostname()?))?, "laboratory");
    assert_eq!(machine()?, before);

    let daemon = server.daemon().pid();
    assert!(Path::new(&format!("/proc/{daemon}")).exists());
    drop((client, server, lab));
    wait_until("the daemons have ended", SOON, || {
        !Path::new(&format!("/proc/{daemon}")).exists()
    })?;
    assert_eq!(machine()?, before);
    Ok(())
}

/// What is in a directory, sorted.
fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    names.sort();
    names
}
