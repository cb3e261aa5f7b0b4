//! Whatever is wrong before the start: one line with a cure, an exit code of its own, and nothing is changed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use failover_lab::{Lab, Scenario, UplinkSpec, agent_path};

use super::fixtures::{Everything, Outcome, TIMEOUT, run, start};

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// Checks that `outcome` is a documented refusal: this exit code, and one line on standard error with all of these parts.
fn ensure_refused(what: &str, outcome: &Outcome, code: u8, parts: &[&str]) {
    assert_eq!(outcome.code, Some(code.into()), "{what}: {outcome:?}");
    assert!(
        DOCUMENT
            .lines()
            .any(|line| line.starts_with(&format!("| {code} | "))),
        "exit code {code} is not documented"
    );
    assert_eq!(outcome.stdout, "", "{what}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{what}: {outcome:?}");
    assert!(
        outcome.stderr.starts_with("failover-agent: "),
        "{what}: {outcome:?}"
    );
    // The system's words are part of the message, and not told again as its cause.
    let system = outcome.stderr.matches("(os error").count();
    assert!(system <= 1, "{what}: {outcome:?}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "{what}, {part}: {outcome:?}");
    }
}

/// Cable and lte can be used; sat has an address but no default route to learn a gateway from.
fn lab() -> Result<Lab> {
    Lab::builder()
        .uplinks([
            UplinkSpec::veth("cable"),
            UplinkSpec::veth("lte"),
            UplinkSpec::veth("sat").without_default_routes(),
        ])
        .build()
}

const CABLE: &str = "[[uplink]]|interface = \"cable\"|";
const LTE: &str = "[[uplink]]|interface = \"lte\"|";

/// Exit codes of what `run` waits for: no interface, no gateway, no address.
const WAITED_FOR: [u8; 3] = [12, 15, 17];

/// What is wrong: the file (`|` ends a line; CABLE and LTE are whole tables), exit code, parts of the message.
#[rustfmt::skip]
const FILES: &[(&str, u8, &[&str])] = &[
    // Syntax, keys, types, values.
    ("[probe|CABLE LTE", 11, &["agent.toml:1:7: "]),
    ("[probe]|intervall = \"1s\"|CABLE LTE", 11, &["agent.toml:2:1: unknown key `intervall`", "did you mean `interval`?"]),
    ("CABLE gatway = \"auto\"|LTE", 11, &["agent.toml:3:1: unknown key `gatway`", "did you mean `gateway`?"]),
    ("[probe]|fall = \"3\"|CABLE LTE", 11, &["agent.toml:2:8: `fall` must be a whole number, not a string", "write for example fall = "]),
    ("[probe]|interval = \"0s\"|CABLE LTE", 11, &["agent.toml:2:12: `interval` = 0s is out of range", "10ms to 1h"]),
    ("[probe]|quorum = 4|CABLE LTE", 11, &["agent.toml:2:10: quorum is 4", "choose a quorum of up to 3"]),
    ("[route]|active_metric = 6000|CABLE LTE", 11, &["agent.toml:2:17: active_metric (6000) is not less than standby_metric (5000)"]),
    ("[cutoff]|mode = \"sever\"|CABLE LTE", 11, &["agent.toml:2:8: `mode` = \"sever\" is unknown", "drop, off"]),
    // Uplinks.
    ("CABLE [[uplink]]|interface = \"lti\"", 12, &["agent.toml:4:13: no interface `lti` here", "did you mean `lte`?"]),
    ("CABLE [[uplink]]|interface = \"wwan0\"", 12, &["agent.toml:4:13: no interface `wwan0` here", "cable", "lte", "sat"]),
    ("CABLE CABLE", 13, &["agent.toml:4:13: interface `cable` is already an uplink", "once"]),
    ("CABLE", 14, &["agent.toml:2:13: at least 2 uplinks are needed, configured: 1", "add another [[uplink]]"]),
    ("", 14, &["configured: 0"]),
    ("CABLE [[uplink]]|interface = \"sat\"", 15, &["uplink `sat`: no IPv4 gateway found for sat", "gateway = "]),
    ("[probe]|targets = [\"1.1.1.300\"]|CABLE LTE", 16, &["agent.toml:2:12: `1.1.1.300` is not an IPv4 or IPv6 address", "write it like 1.1.1.1"]),
    ("CABLE gateway = \"10.64.1\"|LTE", 16, &["agent.toml:3:11: `10.64.1` is not an IPv4 address"]),
    ("[probe]|targets = [\"1.1.1.1\", \"10.64.2.9\"]|CABLE LTE", 30, &["uplink `lte`: target 10.64.2.9 is on lte's own network 10.64.2.0/24", "beyond the gateway"]),
    ("CABLE targets = [\"10.99.0.1\"]|gateway = \"10.99.0.1\"|LTE", 18, &["gateway 10.99.0.1"]),
    ("CABLE LTE gateway = \"10.99.0.1\"", 18, &["gateway 10.99.0.1 is not on a network of lte (10.64.2.0/24)", "\"auto\""]),
];

#[test]
#[ignore = "needs root"]
fn bad_files_are_refused_before_anything_is_changed() -> Scenario {
    let lab = lab()?;
    let before = Everything::of(&lab)?;
    for (text, code, parts) in FILES {
        let text = text
            .replace("CABLE ", CABLE)
            .replace("CABLE", CABLE)
            .replace("LTE ", LTE)
            .replace("LTE", LTE)
            .replace('|', "\n");
        let path = lab.write_config(&text)?;
        for verb in ["check", "run"] {
            if verb == "run" && WAITED_FOR.contains(code) {
                continue;
            }
            let outcome = run(&lab, &[verb, "--config", &path.to_string_lossy()])?;
            ensure_refused(&text, &outcome, *code, parts);
            before.ensure_same(&Everything::of(&lab)?)?;
        }
    }
    let missing = lab.agent_dirs().scratch.join("no-such.toml");
    let missing = missing.to_string_lossy();
    for path in [&*missing, "/proc/1/mem", "/"] {
        let outcome = run(&lab, &["run", "--config", path])?;
        ensure_refused(path, &outcome, 10, &[path, "--config"]);
    }
    before.ensure_same(&Everything::of(&lab)?)?;
    Ok(())
}

/// The same by flags: arguments, exit code, parts of the message.
#[rustfmt::skip]
const FLAGS: &[(&str, u8, &[&str])] = &[
    ("--uplink cable --uplink cable", 13, &["--uplink cable"]),
    ("--uplink cable", 14, &["another [[uplink]] or --uplink"]),
    ("--uplink cable --uplink lte --target 10.64.1.1", 30, &["uplink `cable`: target 10.64.1.1", "10.64.1.0/24"]),
    ("--uplink cable --uplink lte --target somewhere", 16, &["--target", "`somewhere`"]),
    ("--uplink cable --uplink lte --fall 0", 11, &["--fall"]),
];

#[test]
#[ignore = "needs root"]
fn bad_flags_are_refused_before_anything_is_changed() -> Scenario {
    let lab = lab()?;
    let before = Everything::of(&lab)?;
    for (flags, code, parts) in FLAGS {
        let arguments: Vec<_> = ["run"].into_iter().chain(flags.split(' ')).collect();
        ensure_refused(flags, &run(&lab, &arguments)?, *code, parts);
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_host_that_is_not_ready_is_left_as_it_is() -> Scenario {
    let lab = lab()?;
    let host = lab.host().namespace();

    host.ip_batch("address del 10.64.2.2/24 dev lte")?;
    let before = Everything::of(&lab)?;
    let address = ["uplink `lte`: lte has no IPv4 address", "DHCP"];
    let path = lab.write_config(&[CABLE, LTE].concat().replace('|', "\n"))?;
    let check = ["check", "--config", &path.to_string_lossy()];
    ensure_refused("no address", &run(&lab, &check)?, 17, &address);
    // Of a file for another host, it does not matter.
    let file_only = run(&lab, &[&check[..], &["--file-only"]].concat())?;
    assert_eq!(file_only.code, Some(0), "{file_only:?}");
    before.ensure_same(&Everything::of(&lab)?)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_second_agent_on_the_same_directory_is_refused() -> Scenario {
    let lab = lab()?;
    lab.host()
        .namespace()
        .ip_batch("route add default via 10.64.3.1 dev sat metric 900")?;
    let agent = start(&lab)?;
    let before = Everything::of(&lab)?;
    let path = lab.write_config(&lab.agent_config().quick())?;
    let outcome = run(&lab, &["run", "--config", &path.to_string_lossy()])?;
    let pid = format!("process {}", agent.pid());
    let run_dir = lab.agent_dirs().run.to_string_lossy();
    ensure_refused("a second one", &outcome, 21, &[&pid, &run_dir, "--run-dir"]);
    before.ensure_same(&Everything::of(&lab)?)?;
    agent.status_json()?;
    Ok(())
}

/// Runs a copy of the agent that everybody may execute in the host, behind `wrapper`, with these directories.
fn run_by(lab: &Lab, wrapper: &[&str], directories: [&str; 3]) -> Result<Outcome> {
    let public = tempfile::tempdir()?;
    fs::set_permissions(public.path(), fs::Permissions::from_mode(0o755))?;
    let agent = public.path().join("failover-agent");
    // By another process: whatever this one has open for writing, another test's child may inherit, and then nobody can execute it.
    let copied = Command::new("cp").arg(agent_path()?).arg(&agent).status()?;
    ensure!(copied.success(), "cp: {copied}");
    let [run, bpf, state] = directories;
    let mut command: Vec<&str> = wrapper.to_vec();
    let agent = agent.to_string_lossy();
    command.push(&agent);
    let output = lab
        .host()
        .namespace()
        .command("timeout")
        .args(TIMEOUT)
        .args(&command)
        .args(["run", "--uplink", "cable", "--uplink", "lte"])
        .args(["--run-dir", run, "--bpf-dir", bpf, "--state-dir", state])
        .stdin(Stdio::null())
        .output()?;
    Ok(output.into())
}

#[test]
#[ignore = "needs root"]
fn missing_privileges_are_named() -> Scenario {
    let lab = lab()?;
    let dirs = lab.agent_dirs();
    let texts = [&dirs.run, &dirs.bpf, &dirs.state].map(|dir| dir.to_string_lossy());
    let directories = texts.each_ref().map(|text| &**text);
    let before = Everything::of(&lab)?;
    for (drop, missing) in [
        ("-net_admin", "missing capability CAP_NET_ADMIN:"),
        ("-net_raw", "missing capability CAP_NET_RAW:"),
        ("-bpf,-sys_admin", "missing capability CAP_BPF:"),
        ("-perfmon,-sys_admin", "missing capability CAP_PERFMON:"),
        (
            "-net_raw,-net_admin",
            "missing capability CAP_NET_ADMIN CAP_NET_RAW:",
        ),
        (
            "-all",
            "missing capability CAP_BPF CAP_NET_ADMIN CAP_NET_RAW CAP_PERFMON:",
        ),
    ] {
        let bounding = format!("--bounding-set={drop}");
        let wrapper = ["setpriv", "--inh-caps=-all", &bounding];
        let outcome = run_by(&lab, &wrapper, directories)?;
        ensure_refused(drop, &outcome, 19, &[missing, "run as root, or grant it"]);
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let outcome = run_by(&lab, &nobody, directories)?;
    let all = "CAP_BPF CAP_NET_ADMIN CAP_NET_RAW CAP_PERFMON";
    ensure_refused("not root", &outcome, 19, &[all, "run as root"]);
    before.ensure_same(&Everything::of(&lab)?)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn missing_directories_are_named_and_none_is_made() -> Scenario {
    let lab = lab()?;
    let before = Everything::of(&lab)?;
    let scratch = lab.agent_dirs().scratch.to_string_lossy().into_owned();
    let [run, bpf, state] =
        ["new-run", "bpf/new", "new-state"].map(|dir| format!("{scratch}/{dir}"));

    let outside = format!("{scratch}/new-bpf/agent");
    let outcome = run_by(&lab, &["env"], [&run, &outside, &state])?;
    let cure = format!("mount -t bpf bpf {scratch}/new-bpf");
    ensure_refused("no BPF file system", &outcome, 20, &[&cure]);

    let outcome = run_by(&lab, &["env"], ["/proc/failover-agent", &bpf, &state])?;
    ensure_refused(
        "run directory",
        &outcome,
        25,
        &["/proc/failover-agent", "--run-dir"],
    );

    // Found out after the run directory was made.
    lab.host()
        .namespace()
        .ip_batch("address add 1.1.1.2/24 dev cable")?;
    let outcome = run_by(&lab, &["env"], [&run, &bpf, &state])?;
    ensure_refused("target", &outcome, 30, &["1.1.1.1", "cable"]);
    for dir in [&run, &bpf, &state, &format!("{scratch}/new-bpf")] {
        assert!(!fs::exists(dir)?, "{dir} was made");
    }
    assert_eq!(lab.host().snapshot()?.lines_with("tcx "), [""; 0]);
    assert!(before.kernel().lines_with("rule ").len() == 3);
    Ok(())
}
