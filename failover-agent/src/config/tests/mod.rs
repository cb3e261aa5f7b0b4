//! Good files and flags; `bad` has the bad ones, `document` compares with the documentation.

mod bad;
mod document;

use super::*;
use crate::cli::{Cli, Verb};
use clap::Parser as _;

const TWO_UPLINKS: &str = "[[uplink]]\ninterface = \"eth0\"\n[[uplink]]\ninterface = \"eth1\"\n";

/// Reads `text` as a file; its name in errors is replaced by `FILE`.
fn from_text(text: &str) -> Result<Config, (u8, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    Config::from_file(&path).map_err(|failure| {
        let text = failure.to_string();
        (
            failure.exit_code(),
            text.replace(&path.display().to_string(), "FILE"),
        )
    })
}

fn from_line(line: &str) -> Result<Config, Failure> {
    let words = ["failover-agent", "run"]
        .into_iter()
        .chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).unwrap();
    let Verb::Run(args) = cli.verb else {
        panic!("not run")
    };
    Config::from_args(&args, &cli.global.dirs)
}

/// Without the places, which differ between a file and flags.
fn placeless(mut config: Config) -> Config {
    for uplink in &mut config.uplinks {
        uplink.place.clear();
    }
    config
}

#[test]
fn defaults_are_those_of_the_design() {
    let design = r#"
[probe]
targets  = ["1.1.1.1", "8.8.8.8", "9.9.9.9"]
interval = "1s"
timeout  = "1s"
fall     = 3
rise     = 4
quorum   = 1
hold     = "0s"
[route]
active_metric  = 80
standby_metric = 5000
protocol       = 136
table          = 13600
rule_priority  = 13600
mark           = 0xfa11
[cutoff]
mode  = "reset"
drain = "0s"
lease = "3s"
allow = []
allow_marks = []
[datapath]
attach = "auto"
[dirs]
run   = "/run/failover-agent"
bpf   = "/sys/fs/bpf/failover-agent"
state = "/var/lib/failover-agent"
[[uplink]]
interface = "eth0"
name      = "eth0"
gateway   = "auto"
gateway6  = "auto"
metered   = false
drain     = "0s"
inbound   = "keep"
[[uplink]]
interface = "eth1"
"#;
    let written = from_text(design).unwrap();
    let default = from_text(TWO_UPLINKS).unwrap();
    assert_eq!(placeless(written), placeless(default.clone()));
    assert_eq!(default.uplinks[0].probe, ProbeConfig::default());
    assert_eq!(default.route, RouteConfig::default());
    assert_eq!(default.cutoff, CutoffConfig::default());
    assert_eq!(default.datapath, DatapathConfig::default());
    assert_eq!(default.hooks, HooksConfig::default());
    assert_eq!(default.dirs, Dirs::default());
}

#[test]
fn each_listed_default_is_the_one_in_use() {
    let default = placeless(from_text(TWO_UPLINKS).unwrap());
    let mut checked = 0;
    for section in schema::SECTIONS {
        for key in section.keys {
            let [_, _, _, value, _] = key.row();
            let Some(value) = value.strip_prefix('`').and_then(|v| v.strip_suffix('`')) else {
                continue;
            };
            let line = format!("{} = {value}\n", key.name());
            let text = if section.name == "uplink" {
                TWO_UPLINKS.replacen("[[uplink]]\n", &format!("[[uplink]]\n{line}"), 1)
            } else {
                format!("{}\n{line}{TWO_UPLINKS}", section.header)
            };
            assert_eq!(placeless(from_text(&text).unwrap()), default, "{text}");
            checked += 1;
        }
    }
    assert_eq!(checked, 31);
}

#[test]
fn uplinks_are_sorted_by_rank_then_by_position() {
    let text = "[[uplink]]\ninterface = \"lte\"\nrank = 7\n[[uplink]]\ninterface = \"dsl\"\n\
        [[uplink]]\ninterface = \"cable\"\nrank = 1\nweight = 3\nmetric = 10\n[[uplink]]\ninterface = \"fibre\"\nrank = 0\n";
    let text = text.replace("\"dsl\"\n", "\"dsl\"\nmetric = 10\n");
    let config = from_text(&text).unwrap();
    let uplinks = config.uplinks.iter();
    let ranks: Vec<_> = uplinks
        .map(|uplink| {
            (
                uplink.interface.as_str(),
                uplink.rank,
                uplink.weight,
                uplink.metric,
            )
        })
        .collect();
    let expected = [
        ("fibre", 0, 1, None),
        ("dsl", 1, 1, Some(10)),
        ("cable", 1, 3, Some(10)),
        ("lte", 7, 1, None),
    ];
    assert_eq!(ranks, expected);
}

#[test]
fn an_uplink_may_set_every_probe_key_again() {
    let text = r#"
[probe]
targets = ["192.0.2.1", "192.0.2.2"]
interval = "100ms"
[[uplink]]
interface = "eth0"
[[uplink]]
interface = "ppp0"
name = "lte"
gateway = "none"
gateway6 = "fe80::1"
source = "192.0.2.77"
source6 = "2001:db8::77"
metered = true
targets = ["192.0.2.9", "2001:db8::1"]
interval = "30s"
timeout = "2s"
fall = 1
rise = 2
quorum = 1
hold = "1m 30s"
"#;
    let config = from_text(text).unwrap();
    let first = &config.uplinks[0].probe;
    assert_eq!(first.interval, Duration::from_millis(100));
    assert_eq!(first.targets.len(), 2);
    assert_eq!(first.fall, 3);
    let lte = &config.uplinks[1];
    assert_eq!(lte.name, "lte");
    assert_eq!(lte.gateway, Gateway::None);
    assert_eq!(lte.gateway6, Gateway::Address("fe80::1".parse().unwrap()));
    assert_eq!(lte.source, Some("192.0.2.77".parse().unwrap()));
    assert_eq!(lte.source6, Some("2001:db8::77".parse().unwrap()));
    assert_eq!(config.uplinks[0].source, None);
    assert!(lte.metered);
    assert!(lte.place.ends_with("config.toml:8:13"), "{}", lte.place);
    let expected = ProbeConfig {
        targets: vec!["192.0.2.9".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(2),
        fall: 1,
        rise: 2,
        quorum: 1,
        hold: Duration::from_secs(90),
    };
    assert_eq!(lte.probe, expected);
}

#[test]
fn cutoff_has_a_mode_for_each_kind_of_switch_and_each_uplink_its_drain() {
    let text = r#"
[cutoff]
mode = "drop"
failback = "off"
drain = "30s"
allow = ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]
allow_marks = [7, 0xffffffff]
[[uplink]]
interface = "eth0"
[[uplink]]
interface = "wwan0"
drain = "1s"
inbound = "cut"
"#;
    let config = from_text(text).unwrap();
    let cutoff = &config.cutoff;
    assert_eq!(cutoff.mode_for(Cause::Failback), CutoffMode::Off);
    for cause in [Cause::Failover, Cause::Startup, Cause::Manual] {
        assert_eq!(cutoff.mode_for(cause), CutoffMode::Drop);
    }
    let allow = ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"];
    let allow = allow.map(|net| net.parse().unwrap());
    assert_eq!(cutoff.allow, allow);
    assert_eq!(cutoff.allow_marks, [7, u32::MAX]);
    let drains = config.uplinks.iter().map(|uplink| uplink.drain.as_secs());
    assert_eq!(drains.collect::<Vec<_>>(), [30, 1]);
    let inbound = config.uplinks.iter().map(|uplink| uplink.inbound);
    assert_eq!(inbound.collect::<Vec<_>>(), [Inbound::Keep, Inbound::Cut]);

    let printed = config.to_string();
    assert_eq!(
        placeless(from_text(&printed).unwrap()),
        placeless(config),
        "{printed}"
    );
}

#[test]
fn flags_mean_the_same_as_the_file() {
    let file = r#"
[probe]
targets = ["192.0.2.53", "2001:db8::53"]
interval = "500ms"
timeout = "2s"
fall = 2
rise = 5
quorum = 1
hold = "1m"
[route]
active_metric = 7
standby_metric = 8
[cutoff]
mode = "off"
[dirs]
run = "/run/second"
[[uplink]]
interface = "eth0"
gateway = "192.0.2.1"
gateway6 = "fe80::1"
source = "192.0.2.7"
source6 = "2001:db8::7"
name = "cable"
[[uplink]]
interface = "ppp0"
gateway = "none"
metered = true
"#;
    let flags = "--uplink eth0,gateway=192.0.2.1,gateway6=fe80::1,source=192.0.2.7,source6=2001:db8::7,name=cable \
        --uplink ppp0,gateway=none,metered --target 192.0.2.53 --target 2001:db8::53 --interval 500ms --timeout 2s \
        --fall 2 --rise 5 --quorum 1 --hold 1m --active-metric 7 --standby-metric 8 --cutoff off --run-dir /run/second";
    let from_flags = from_line(flags).unwrap();
    assert_eq!(from_flags.uplinks[1].place, "--uplink ppp0");
    assert_eq!(placeless(from_flags), placeless(from_text(file).unwrap()));

    let plain = from_line("--uplink eth0 --uplink eth1").unwrap();
    assert_eq!(placeless(plain), placeless(from_text(TWO_UPLINKS).unwrap()));
}

#[test]
fn directory_flags_override_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(
        &path,
        format!("[dirs]\nrun = \"/a\"\nbpf = \"/b\"\n{TWO_UPLINKS}"),
    )
    .unwrap();
    let line = format!(
        "--config {} --bpf-dir /c --state-dir relative",
        path.display()
    );
    let dirs = from_line(&line).unwrap().dirs;
    let here = std::env::current_dir().unwrap();
    assert_eq!(dirs.run, Path::new("/a"));
    assert_eq!(dirs.bpf, Path::new("/c"));
    assert_eq!(dirs.state, here.join("relative"));
}

#[test]
fn a_printed_configuration_reads_as_the_same() {
    let lines = [
        "--uplink eth0 --uplink eth1",
        "--uplink eth0,name=\"\\ü --uplink ppp0,gateway=none,gateway6=fe80::1,source6=2001:db8::7,metered --target 2001:db8::1 \
         --interval 1500ms --hold 90s --cutoff off --run-dir /tmp/\"quoted\"",
    ];
    for line in lines {
        let config = from_line(line).unwrap();
        let printed = config.to_string();
        let again = from_text(&printed).unwrap();
        assert_eq!(placeless(again), placeless(config), "{printed}");
    }
    let printed = from_text(TWO_UPLINKS).unwrap().to_string();
    assert!(printed.contains("interval = \"1s\"\n"), "{printed}");
    assert!(printed.contains("mark = 0xfa11\n"), "{printed}");
}

#[test]
fn nearest_finds_typing_errors_only() {
    let words = ["interval", "timeout", "fall", "rise"];
    assert_eq!(nearest("Intervall", words), Some("interval"));
    assert_eq!(nearest("tiemout", words), Some("timeout"));
    assert_eq!(nearest("fal", words), Some("fall"));
    assert_eq!(nearest("wall", words), Some("fall"));
    assert_eq!(nearest("", words), None);
    assert_eq!(nearest("retries", words), None);
}
