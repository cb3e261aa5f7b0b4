//! What a program is told of each switch, and what it can do then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use failover_lab::{Lab, Scenario, UplinkSpec, wait_until};
use failover_tests::fixtures::{SOON, json::wait_active, script, wait_for_file};
use nix::sys::signal::Signal;

use super::fixtures::{PATIENT, is_there, said, start, wait_gone};

/// Leaves the environment, and what the kernel says of the process and its files.
const REPORT: &str = r#"
files=$(find /proc/$$/fd -mindepth 1 ! -name '[012]' -printf '%l ' || :)
[ "$FAMILY" = ipv4 ] && route=$(ip -4 route show default | head -n 1) || route=$(ip -6 route show default | head -n 1)
{
    env
    echo "route=$route"
    echo "stdin=$(readlink /proc/$$/fd/0)"
    echo "files=$files"
    grep -E '^Sig(Blk|Ign):' /proc/self/status
    echo "group=$(cut -d ' ' -f 5 /proc/$$/stat) process=$$"
} > $DIR/written
mv $DIR/written $DIR/$FAMILY-$REASON
echo "$FAMILY $REASON $PREVIOUS-$UPLINK" >> $DIR/told
"#;

/// In `fdinfo`: the file is closed when another program takes over (asm-generic/fcntl.h).
const O_CLOEXEC: u32 = 0o2_000_000;

/// The words that begin with `key` and an equals sign, by key.
fn variables(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines();
    lines.filter_map(|line| line.split_once('=')).collect()
}

/// A mask of signals in a process's status.
fn mask(status: &str, name: &str) -> Result<u64> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let mask = lines.find(|(key, _)| *key == name);
    let (_, mask) = mask.with_context(|| format!("no {name} in {status}"))?;
    // Those beyond 31 are the C library's own.
    Ok(u64::from_str_radix(mask.trim(), 16)? & 0x7fff_ffff)
}

/// The open files that this process passes on to those that it starts.
fn inherited_files() -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        let entry = entry?;
        // Others are opened and closed at the same time.
        let Ok(info) = fs::read_to_string(entry.path()) else {
            continue;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.context("no flags")?.trim(), 8)?;
        let link = fs::read_link(Path::new("/proc/self/fd").join(entry.file_name()));
        if let (Ok(link), 0) = (link, flags & O_CLOEXEC) {
            files.insert(link.to_string_lossy().into_owned());
        }
    }
    Ok(files)
}

#[test]
#[ignore = "needs root"]
fn each_switch_is_told_once_it_is_carried_out() -> Scenario {
    let uplinks = [UplinkSpec::veth("cable"), UplinkSpec::tun("lte")];
    let lab = Lab::builder().uplinks(uplinks).build()?;
    let program = script(&lab, "on-switch", REPORT)?;
    let agent = start(&lab, &[&program.to_string_lossy()], PATIENT)?;
    let told = |count| wait_for_file(&lab, "told", |text| text.lines().count() == count);
    told(2)?;
    let fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    told(4)?;
    fault.repair()?;
    wait_active(&agent, "cable")?;
    told(6)?;
    agent.verb(&["switch", "lte"])?;
    let lines = told(8)?;
    assert_eq!(
        lines.lines().collect::<Vec<_>>(),
        [
            "ipv4 start-up -cable",
            "ipv6 follow -cable",
            "ipv4 failover cable-lte",
            "ipv6 follow cable-lte",
            "ipv4 failback lte-cable",
            "ipv6 follow lte-cable",
            "ipv4 manual cable-lte",
            "ipv6 follow cable-lte",
        ]
    );

    let cable = lab.uplink("cable").addresses();
    let text = wait_for_file(&lab, "ipv4-start-up", |text| !text.is_empty())?;
    let told = variables(&text);
    let gateway = cable.gateway_v4.to_string();
    for (key, value) in [
        ("UPLINK", "cable"),
        ("INTERFACE", "cable"),
        ("GATEWAY", gateway.as_str()),
        ("PREVIOUS", ""),
        ("REASON", "start-up"),
        ("FAMILY", "ipv4"),
        ("PWD", "/"),
        ("stdin", "/dev/null"),
    ] {
        assert_eq!(told.get(key), Some(&value), "{key}: {text}");
    }
    // Nothing else of the agent's environment, which has more.
    assert!(told.contains_key("PATH"), "{text}");
    assert!(!told.contains_key("RUST_LOG"), "{text}");
    // No signal but those that whoever runs these tests has blocked or ignored.
    let own = fs::read_to_string("/proc/self/status")?;
    for (signals, but) in [("SigBlk", 0), ("SigIgn", 1 << (Signal::SIGPIPE as u32 - 1))] {
        let ours = mask(&text, signals)? & !(mask(&own, signals)? & !but);
        assert_eq!(ours, 0, "{signals}: {text}");
    }
    // Nor a file of the agent's: only the shell's pipe and script, and what everything gets that is started here.
    let inherited = inherited_files()?;
    let files = told.get("files").context("no files")?.split_whitespace();
    let leaked: BTreeSet<&str> = files
        .filter(|file| *file != program.to_string_lossy() && !inherited.contains(*file))
        .collect();
    assert!(leaked.len() <= 1, "{leaked:?}");
    assert!(
        leaked.iter().all(|file| file.starts_with("pipe:")),
        "{leaked:?}"
    );
    let (_, group) = text.split_once("\ngroup=").context("no group")?;
    let (group, process) = group.trim().split_once(" process=").context("no process")?;
    assert_eq!(group, process);

    let text = wait_for_file(&lab, "ipv4-failover", |text| !text.is_empty())?;
    let told = variables(&text);
    assert_eq!(told.get("GATEWAY"), Some(&""), "{text}");
    let route = told.get("route").context("no route")?;
    assert!(route.contains("dev lte"), "{text}");
    let text = wait_for_file(&lab, "ipv6-follow", |text| !text.is_empty())?;
    assert!(variables(&text).contains_key("route"), "{text}");
    Ok(())
}

/// Runs a service that listens on the active uplink's address alone, as some do, and has to be restarted after each switch. A
/// daemon has a session of its own, or it would be ended with the program that has started it.
const RESTART: &str = r#"
[ "$FAMILY" = ipv4 ] || exit 0
if [ -s $DIR/pid ]; then kill $(cat $DIR/pid); fi
rm -f $DIR/pid
address=$(ip -4 -o address show dev $INTERFACE | awk '{ sub("/.*", "", $4); print $4 }')
setsid perl -MSocket -e '
    socket(my $s, PF_INET, SOCK_STREAM, 0) or die $!;
    setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1) or die $!;
    bind($s, sockaddr_in(8080, inet_aton($ARGV[0]))) && listen($s, 5) or die $!;
    open(my $f, ">", "$ARGV[1]/pid.new") or die $!; print $f $$; close $f;
    rename("$ARGV[1]/pid.new", "$ARGV[1]/pid") or die $!;
    while (accept(my $c, $s)) { close $c }
' $address $DIR < /dev/null > /dev/null 2>&1 &
while ! [ -s $DIR/pid ]; do sleep 0.01; done
echo "service on $address"
"#;

#[test]
#[ignore = "needs root"]
fn a_service_is_restarted_on_the_new_uplink() -> Scenario {
    let lab = Lab::builder().build()?;
    let program = script(&lab, "on-switch", RESTART)?;
    let serves = |address: IpAddr| {
        let address = SocketAddr::new(address, 8080);
        let connect = || {
            Ok(TcpStream::connect_timeout(
                &address,
                Duration::from_secs(1),
            )?)
        };
        lab.host().namespace().run(connect).is_ok()
    };
    let (cable, lte) = (lab.uplink("cable").host_v4(), lab.uplink("lte").host_v4());
    let mut agent = start(&lab, &[&program.to_string_lossy()], PATIENT)?;
    wait_until("the service is on cable", SOON, || serves(cable))?;
    assert!(!serves(lte));
    let first = wait_for_file(&lab, "pid", |pid| !pid.is_empty())?;

    let _fault = lab.uplink("cable").blackhole()?;
    wait_active(&agent, "lte")?;
    wait_until("the service is on lte", SOON, || serves(lte))?;
    assert!(!serves(cable));
    wait_gone(&first)?;
    let line = format!("hooks.on_switch: service on {lte}");
    wait_until("what it says is logged", SOON, || {
        said(&agent.log()).contains(&line)
    })?;

    // What it has started outlives it, and the agent.
    agent.signal(Signal::SIGTERM)?;
    assert!(agent.wait_exit(SOON)?.success());
    let second = wait_for_file(&lab, "pid", |pid| !pid.is_empty())?;
    assert!(is_there(&second));
    assert!(serves(lte));
    Ok(())
}
