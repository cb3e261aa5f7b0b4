//! Bad files and flags: exit code, place and cure.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

/// What is wrong before two good uplinks: the text (`|` ends a line), the exit code, and the beginning of the message.
#[rustfmt::skip]
const BAD_HEADS: &[(&str, u8, &str)] = &[
    // Syntax.
    ("[probe", 11, "FILE:1:7: unclosed table"),
    ("[probe]|fall = ", 11, "FILE:2:8: "),
    ("[probe]|fall = 1|fall = 2", 11, "FILE:3:1: duplicate key"),
    // Keys.
    ("[prob]", 11, "FILE:1:2: unknown key `prob` in the file: did you mean `probe`?"),
    ("[probe]|intervall = \"1s\"", 11, "FILE:2:1: unknown key `intervall` in [probe]: did you mean `interval`?"),
    ("[probe]|fall = 1|  timout = \"1s\"", 11, "FILE:3:3: unknown key `timout` in [probe]: did you mean `timeout`?"),
    ("[route]|active-metric = 1", 11, "FILE:2:1: unknown key `active-metric` in [route]: did you mean `active_metric`?"),
    ("interval = \"1s\"", 11, "FILE:1:1: unknown key `interval` in the file: it belongs in [probe]"),
    ("[cutoff]|zebra = 1", 11, "FILE:2:1: unknown key `zebra` in [cutoff]: valid keys are mode, failover, failback, drain, lease, allow, allow_marks"),
    // Of several, the first in the file.
    ("[probe]|zz = 1|aa = 1", 11, "FILE:2:1: unknown key `zz`"),
    // Types.
    ("probe = 1", 11, "FILE:1:9: `probe` must be a table [probe]: begin it with a line [probe]"),
    ("[probe]|interval = 1", 11, "FILE:2:12: `interval` must be a duration, not an integer: write for example interval = \"1s\""),
    ("[probe]|fall = \"3\"", 11, "FILE:2:8: `fall` must be a whole number, not a string: write for example fall = 1"),
    ("[probe]|fall = 3.0", 11, "FILE:2:8: `fall` must be a whole number, not a float"),
    ("[probe]|targets = \"1.1.1.1\"", 11, "FILE:2:11: `targets` must be a list of addresses, not a string: write for example targets = [\"1.1.1.1\"]"),
    ("[probe]|targets = [\"1.1.1.1\", 8]", 11, "FILE:2:23: `targets` must be a list of addresses, not an integer"),
    ("[cutoff]|mode = true", 11, "FILE:2:8: `mode` must be a word, not a boolean: write for example mode = \"reset\""),
    // Ranges.
    ("[probe]|interval = \"0s\"", 11, "FILE:2:12: `interval` = 0s is out of range: choose a value in the range 10ms to 1h"),
    ("[probe]|interval = \"61m\"", 11, "FILE:2:12: `interval` = 61m is out of range"),
    ("[probe]|interval = \"1\"", 11, "FILE:2:12: `interval` = \"1\" is not a duration"),
    ("[probe]|interval = \"-1s\"", 11, "FILE:2:12: `interval` = \"-1s\" is not a duration"),
    ("[probe]|timeout = \"0ms\"", 11, "FILE:2:11: `timeout` = 0ms is out of range"),
    ("[probe]|interval = \"10ms\"|timeout = \"2s\"", 11, "FILE:3:11: timeout (2s) is more than 100 times the interval (10ms)"),
    ("[probe]|interval = \"10ms\"|targets = [\"::1:1\"]|timeout = \"1001ms\"", 11, "FILE:4:11: timeout"),
    ("[probe]|fall = 0", 11, "FILE:2:8: `fall` = 0 is out of range: choose a value in the range 1 to 1000"),
    ("[probe]|rise = 0", 11, "FILE:2:8: `rise` = 0 is out of range"),
    ("[probe]|rise = -1", 11, "FILE:2:8: `rise` = -1 is out of range"),
    ("[probe]|quorum = 0", 11, "FILE:2:10: `quorum` = 0 is out of range"),
    ("[probe]|quorum = 4", 11, "FILE:2:10: quorum is 4 but uplink `eth0` has only 3 IPv4 target(s): choose a quorum of up to 3"),
    ("[probe]|quorum = 2|targets = [\"1.1.1.1\", \"8.8.8.8\", \"2001:db8::1\"]", 11, "FILE:2:10: quorum is 2 but uplink `eth0` has only 1 IPv6 target(s)"),
    ("[probe]|hold = \"2days\"", 11, "FILE:2:8: `hold` = 2days is out of range"),
    ("[route]|active_metric = 0", 11, "FILE:2:17: `active_metric` = 0 is out of range"),
    ("[route]|active_metric = 5000", 11, "FILE:2:17: active_metric (5000) is not less than standby_metric (5000)"),
    ("[route]|standby_metric = 80", 11, "FILE:2:18: active_metric (80) is not less than standby_metric (80)"),
    ("[route]|standby_metric = 4294967296", 11, "FILE:2:18: `standby_metric` = 4294967296 is out of range"),
    ("[route]|protocol = 4", 11, "FILE:2:12: `protocol` = 4 belongs to `static`"),
    ("[route]|protocol = 0", 11, "FILE:2:12: `protocol` = 0 belongs to `unspec`"),
    ("[route]|protocol = 18", 11, "FILE:2:12: `protocol` = 18 belongs to `keepalived`"),
    ("[route]|protocol = 256", 11, "FILE:2:12: `protocol` = 256 is out of range"),
    ("[route]|table = 254", 11, "FILE:2:9: the tables 254 to 255 include some of the kernel's own (253 to 255)"),
    ("[route]|table = 252", 11, "FILE:2:9: the tables 252 to 253 include"),
    ("[route]|table = 0", 11, "FILE:2:9: `table` = 0 is out of range"),
    ("[route]|rule_priority = 32766", 11, "FILE:2:17: `rule_priority` = 32766 is out of range"),
    ("[route]|mark = 0", 11, "FILE:2:8: `mark` = 0 is out of range"),
    ("[cutoff]|mode = \"on\"", 11, "FILE:2:8: `mode` = \"on\" is unknown: choose one of: reset, drop, off"),
    ("[cutoff]|failover = \"on\"", 11, "FILE:2:12: `failover` = \"on\" is unknown: choose one of: reset, drop, off"),
    ("[cutoff]|failback = false", 11, "FILE:2:12: `failback` must be a word, not a boolean: write for example failback = \"reset\""),
    ("[cutoff]|drain = \"25h\"", 11, "FILE:2:9: `drain` = 25h is out of range: choose a value in the range 0s to 1day"),
    ("[cutoff]|allow = \"192.0.2.0/24\"", 11, "FILE:2:9: `allow` must be a list of networks, not a string: write for example allow = [\"192.0.2.0/24\"]"),
    ("[cutoff]|allow = [\"192.0.2.0/24\", 1]", 11, "FILE:2:26: `allow` must be a list of networks, not an integer"),
    ("[cutoff]|allow_marks = 1", 11, "FILE:2:15: `allow_marks` must be a list of marks, not an integer: write for example allow_marks = [0x1a]"),
    ("[cutoff]|allow_marks = [\"0x1\"]", 11, "FILE:2:16: `allow_marks` must be a whole number, not a string"),
    ("[cutoff]|allow_marks = [1, 0]", 11, "FILE:2:19: `allow_marks` = 0 is out of range: choose a value in the range up to 8"),
    ("[cutoff]|allow_marks = [0x1_0000_0000]", 11, "FILE:2:16: `allow_marks` = 4294967296 is out of range"),
    ("[cutoff]|allow_marks = [16, 0x10]", 11, "FILE:2:20: the same stands in `allow_marks` twice"),
    ("[cutoff]|allow_marks = [1, 2, 3, 4, 5, 6, 7, 8, 9]", 11, "FILE:2:15: `allow_marks` has 9 values: name up to 8"),
    ("[cutoff]|lease = \"999ms\"", 11, "FILE:2:9: `lease` = 999ms is out of range: choose a value in the range 1s to 1h"),
    ("[datapath]|attach = \"xdp\"", 11, "FILE:2:10: `attach` = \"xdp\" is unknown: choose one of: auto, tcx, clsact"),
    ("[dirs]|run = \"run\"", 11, "FILE:2:7: `run` = \"run\" is not the absolute path of a directory"),
    ("[dirs]|state = \"/\"", 11, "FILE:2:9: `state` = \"/\" is not the absolute path of a directory below /"),
    ("[route]|on_down = \"drop\"", 11, "FILE:2:11: `on_down` = \"drop\" is unknown: choose one of: demote, withdraw"),
    ("[hooks]|on_switch = \"/bin/true\"", 11, "FILE:2:13: `on_switch` must be a list: a program and its arguments, not a string"),
    ("[hooks]|on_switch = [\"true\"]", 11, "FILE:2:13: `on_switch` runs `true`, which is not an absolute path"),
    ("[hooks]|on_switch = [\"/bin/true\", 1]", 11, "FILE:2:27: `on_switch` must be a list of strings, not an integer"),
    ("[hooks]|timeout = \"0s\"", 11, "FILE:2:11: `timeout` = 0s is out of range"),
    // Addresses.
    ("[probe]|targets = []", 11, "FILE:2:11: uplink `eth0` has 0 targets: name 1 to 32 addresses to probe"),
    ("[probe]|targets = [\"1.1.1.1\",| \"1.1.1.300\"]", 16, "FILE:3:2: `1.1.1.300` is not an IPv4 or IPv6 address: write it like 1.1.1.1"),
    ("[probe]|targets = [\"1.1\\n.1\"]", 16, "FILE:2:12: `1.1\\n.1` is not an IPv4 or IPv6 address"),
    ("[cutoff]|mode = \"\\u001b[2J\"", 11, "FILE:2:8: `mode` = \"\\u{1b}[2J\" is unknown"),
    ("[cutoff]|allow = [\"modem.lan\"]", 16, "FILE:2:10: `modem.lan` is not an IPv4 or IPv6 network: write it like 192.0.2.0/24"),
    ("[cutoff]|allow = [\"192.0.2.0/33\"]", 16, "FILE:2:10: `192.0.2.0/33` is not an IPv4 or IPv6 network: give a prefix length of 1 to 32"),
    ("[cutoff]|allow = [\"2001:db8::/-1\"]", 16, "FILE:2:10: `2001:db8::/-1` is not an IPv4 or IPv6 network: give a prefix length of 1 to 128"),
    ("[cutoff]|allow = [\"0.0.0.0/0\"]", 16, "FILE:2:10: `0.0.0.0/0` is not a network that can be allowed: everything would pass: write mode = \"off\""),
    ("[cutoff]|allow = [\"192.0.2.1/24\"]", 16, "FILE:2:10: `192.0.2.1/24` is not a network: it has host bits: write 192.0.2.0/24"),
    ("[cutoff]|allow = [\"2001:db8::1/32\"]", 16, "FILE:2:10: `2001:db8::1/32` is not a network: it has host bits: write 2001:db8::/32"),
    ("[cutoff]|allow = [\"192.0.2.1\", \"192.0.2.1/32\"]", 11, "FILE:2:23: the same stands in `allow` twice"),
    ("[probe]|targets = [\"dns.google\"]", 16, "FILE:2:12: `dns.google` is not an IPv4 or IPv6 address"),
    ("[probe]|targets = [\"tcp://192.0.2.1:443\"]", 16, "FILE:2:12: `tcp://192.0.2.1:443` is not an IPv4 or IPv6 address: tcp:// targets are not supported yet, use an address"),
    ("[probe]|targets = [\"dns://9.9.9.9/example.org\"]", 16, "FILE:2:12: `dns://9.9.9.9/example.org` is not an IPv4 or IPv6 address: dns:// targets are not"),
    ("[probe]|targets = [\"https://example.org\"]", 16, "FILE:2:12: `https://example.org` is not an IPv4 or IPv6 address: https:// targets are not"),
    ("[probe]|targets = [\"127.0.0.1\"]", 16, "FILE:2:12: `127.0.0.1` is not an address that can be probed: it is this host's own"),
    ("[probe]|targets = [\"255.255.255.255\"]", 16, "FILE:2:12: `255.255.255.255` is not an address that can be probed: it is the broadcast"),
    ("[probe]|targets = [\"ff02::1\"]", 16, "FILE:2:12: `ff02::1` is not an address that can be probed: it is a multicast"),
    ("[probe]|targets = [\"fe80::1\"]", 16, "FILE:2:12: `fe80::1` is not an address that can be probed: it is link-local"),
    ("[probe]|targets = [\"1.1.1.1\", \"1.1.1.1\"]", 11, "FILE:2:23: target 1.1.1.1 stands there twice"),
];

/// What is wrong in the whole file.
#[rustfmt::skip]
const BAD_FILES: &[(&str, u8, &str)] = &[
    ("", 14, "FILE:1:1: at least 2 uplinks are needed, configured: 0: add another"),
    ("|[[uplink]]|interface = \"eth0\"", 14, "FILE:3:13: at least 2 uplinks are needed, configured: 1: add another"),
    ("[[uplink]]|interface = \"eth0\"|[[uplink]]|interface = \"eth0\"", 13, "FILE:4:13: interface `eth0` is already an uplink"),
    ("[[uplink]]|interface = \"eth0\"|name = \"b\"|[[uplink]]|interface = \"eth1\"|name = \"b\"", 11, "FILE:6:8: another uplink is already called `b`"),
    ("[[uplink]]|interface = \"eth0\"|name = \"eth1\"|[[uplink]]|interface = \"eth1\"", 11, "FILE:5:13: another uplink is already called `eth1`"),
    ("[uplink]|interface = \"eth0\"", 11, "FILE:1:1: `uplink` must be a table [[uplink]]: begin it with a line [[uplink]]"),
    ("[[uplinks]]|interface = \"eth0\"", 11, "FILE:1:3: unknown key `uplinks` in the file: did you mean `uplink`?"),
    ("|[[uplink]]|name = \"a\"", 11, "FILE:2:1: this [[uplink]] has no interface: add for example interface = \"eth0\""),
    ("[[uplink]]|interface = \"eth0\"|gatway = \"auto\"", 11, "FILE:3:1: unknown key `gatway` in [[uplink]]: did you mean `gateway`?"),
    ("[[uplink]]|interface = \"eth0\"|quorun = 1", 11, "FILE:3:1: unknown key `quorun` in [[uplink]]: did you mean `quorum`?"),
    ("[[uplink]]|interface = \"eth0\"|protocol = 1", 11, "FILE:3:1: unknown key `protocol` in [[uplink]]: it belongs in [route]"),
    ("[[uplink]]|interface = \"eth0\"|weight = 2|[[uplink]]|interface = \"eth1\"", 11, "FILE:3:10: uplink `eth0` has a weight, but no other uplink has its rank 0"),
    ("[[uplink]]|interface = \"eth0\"|metric = 10|[[uplink]]|interface = \"eth1\"|rank = 0", 11, "FILE:3:10: uplinks `eth0` and `eth1` are in one balance group (rank 0) but have different metrics"),
    ("[[uplink]]|interface = \"eth0\"|metric = 10|[[uplink]]|interface = \"eth1\"|metric = 10", 11, "FILE:6:10: uplinks `eth0` and `eth1` have the same metric 10 but not the same rank"),
    ("[[uplink]]|interface = \"eth0\"|metric = 5000|[[uplink]]|interface = \"eth1\"", 11, "FILE:3:10: metric 5000 of uplink `eth0` is not less than standby_metric (5000)"),
    ("[[uplink]]|interface = 3", 11, "FILE:2:13: `interface` must be an interface name, not an integer"),
    ("[[uplink]]|interface = \"eth 0\"", 11, "FILE:2:13: `eth 0` cannot be the name of an interface"),
    ("[[uplink]]|interface = \"wan,1\"", 11, "FILE:2:13: `wan,1` has a comma, which separates interfaces in the variables of hooks: rename it (ip link set dev wan,1 name NAME)"),
    ("[[uplink]]|interface = \"lo\"", 11, "FILE:2:13: `lo` leads nowhere"),
    ("[[uplink]]|interface = \"eth0\"|name = \"auto\"", 11, "FILE:3:8: `auto` cannot be the name of an uplink"),
    ("[[uplink]]|interface = \"eth0\"|name = \"dsl,old\"", 11, "FILE:3:8: `dsl,old` cannot be the name of an uplink: write 1 to 32 characters without blanks and commas"),
    ("[[uplink]]|interface = \"auto\"|[[uplink]]|interface = \"eth1\"", 11, "FILE:2:13: `auto` cannot be the name of an uplink as well: give this one a name of its own"),
    ("[[uplink]]|interface = \"eth0\"|name = \"my line\"", 11, "FILE:3:8: `my line` cannot be"),
    ("[[uplink]]|interface = \"eth0\"|metered = \"yes\"", 11, "FILE:3:11: `metered` must be true or false, not a string"),
    ("[[uplink]]|interface = \"eth0\"|drain = 30", 11, "FILE:3:9: `drain` must be a duration, not an integer"),
    ("[[uplink]]|interface = \"eth0\"|inbound = \"drop\"", 11, "FILE:3:11: `inbound` = \"drop\" is unknown: choose one of: keep, cut"),
    ("[[uplink]]|interface = \"eth0\"|gateway = \"none at all\"", 16, "FILE:3:11: `none at all` is not an IPv4 address: write an address like 192.0.2.1, auto or none"),
    ("[[uplink]]|interface = \"eth0\"|gateway = \"fe80::1\"", 16, "FILE:3:11: `fe80::1` is not an IPv4 address: write gateway6 = \"fe80::1\" instead"),
    ("[[uplink]]|interface = \"eth0\"|gateway6 = \"192.0.2.1\"", 16, "FILE:3:12: `192.0.2.1` is not an IPv6 address: write gateway = \"192.0.2.1\" instead"),
    ("[[uplink]]|interface = \"eth0\"|source = 7", 11, "FILE:3:10: `source` must be an address, not an integer: write for example source = \"192.0.2.7\""),
    ("[[uplink]]|interface = \"eth0\"|source = \"auto\"", 16, "FILE:3:10: `auto` is not an IPv4 address of this host: write an address of the uplink's interface like 192.0.2.7, or leave `source` out"),
    ("[[uplink]]|interface = \"eth0\"|source = \"2001:db8::7\"", 16, "FILE:3:10: `2001:db8::7` is not an IPv4 address of this host"),
    ("[[uplink]]|interface = \"eth0\"|source6 = \"192.0.2.7\"", 16, "FILE:3:11: `192.0.2.7` is not an IPv6 address of this host: write an address of the uplink's interface like 2001:db8::7"),
    ("[[uplink]]|interface = \"eth0\"|source6 = \"fe80::7\"", 16, "FILE:3:11: `fe80::7` is not an IPv6 address of this host: it is link-local"),
    ("[[uplink]]|interface = \"eth0\"|source6 = \"ff02::1\"", 16, "FILE:3:11: `ff02::1` is not an IPv6 address of this host: it is a multicast address"),
    ("[[uplink]]|interface = \"eth0\"|source = \"127.0.0.1\"", 16, "FILE:3:10: `127.0.0.1` is not an IPv4 address of this host: it is this host's own address"),
    ("[[uplink]]|interface = \"eth0\"|gateway = \"0.0.0.0\"", 16, "FILE:3:11: `0.0.0.0` is not the address of a gateway: it is the unspecified address"),
    ("# ä|[[uplink]]|\"ünknown\" = 1", 11, "FILE:3:1: unknown key `ünknown`"),
    ("uplink = [{ name = \"ä\", x = 1 }]", 11, "FILE:1:25: unknown key `x`"),
];

#[test]
fn bad_files_are_refused_with_place_and_cure() {
    let heads = BAD_HEADS
        .iter()
        .map(|(head, code, start)| (format!("{head}|{TWO_UPLINKS}"), code, start));
    let files = BAD_FILES
        .iter()
        .map(|(text, code, start)| ((*text).to_owned(), code, start));
    let mut wrong = String::new();
    for (text, code, start) in heads.chain(files) {
        let text = text.replace('|', "\n");
        let (found_code, found) = from_text(&text).expect_err(&text);
        assert!(!found.contains('\n'), "{found}");
        if found_code != *code || !found.starts_with(start) {
            writeln!(
                wrong,
                "{text}\n  wanted {code} {start}\n  found  {found_code} {found}\n"
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn bad_flags_are_refused_with_flag_and_cure() {
    let two = "--uplink eth0 --uplink eth1";
    let cases = [
        (
            "--uplink eth0",
            14,
            "--uplink eth0: at least 2 uplinks are needed, configured: 1",
        ),
        (
            "--uplink eth0 --uplink eth0",
            13,
            "--uplink eth0: interface `eth0` is already an uplink",
        ),
        (
            "--uplink eth0,gatway=auto",
            11,
            "--uplink eth0: unknown option `gatway`: did you mean `gateway`?",
        ),
        (
            "--uplink eth0,x",
            11,
            "--uplink eth0: unknown option `x`: valid options are gateway, gateway6, source, source6, name, metered",
        ),
        (
            "--uplink eth0,gateway=1.2.3",
            16,
            "--uplink eth0: `1.2.3` is not an IPv4 address",
        ),
        (
            "--uplink eth0,name=",
            11,
            "--uplink eth0: `` cannot be the name of an uplink",
        ),
        (
            "--uplink eth0,metered=yes",
            11,
            "--uplink eth0: `metered` must be true or false, not `yes`",
        ),
        (
            "--uplink ,name=x",
            11,
            "--uplink: `` cannot be the name of an interface",
        ),
        (
            &format!("{two} --interval 0s"),
            11,
            "--interval: `interval` = 0s is out of range",
        ),
        (
            &format!("{two} --fall x"),
            11,
            "--fall: `fall` must be a whole number, not `x`",
        ),
        (
            &format!("{two} --target nobody"),
            16,
            "--target: `nobody` is not an IPv4 or IPv6 address",
        ),
        (
            &format!("{two} --target 1.1.1.1 --quorum 2"),
            11,
            "--quorum: quorum is 2 but uplink `eth0` has only 1 IPv4 target(s)",
        ),
        (
            &format!("{two} --active-metric 5000"),
            11,
            "--active-metric: active_metric (5000) is not less than standby_metric (5000)",
        ),
        (
            &format!("{two} --cutoff on"),
            11,
            "--cutoff: `mode` = \"on\" is unknown: choose one of: reset, drop, off",
        ),
        (
            &format!("{two} --run-dir /{}", "x".repeat(90)),
            11,
            "--run-dir: `run` = ",
        ),
    ];
    for (line, code, start) in cases {
        let failure = from_line(line).expect_err(line);
        assert_eq!(failure.exit_code(), code, "{failure}");
        assert!(failure.to_string().starts_with(start), "{failure}");
    }
}

#[test]
fn too_many_uplinks_are_refused() {
    let uplinks = |count| -> String {
        (0..count)
            .map(|number| format!("[[uplink]]\ninterface = \"eth{number}\"\n"))
            .collect()
    };
    assert_eq!(from_text(&uplinks(64)).unwrap().uplinks.len(), 64);
    let (code, text) = from_text(&uplinks(65)).unwrap_err();
    assert_eq!(code, 11);
    assert_eq!(
        text,
        "FILE:130:13: there are 65 uplinks: configure up to 64"
    );
}

#[test]
fn unreadable_files_are_named() {
    for path in ["/nonexistent/config.toml", "/", "/dev/zero"] {
        let failure = Config::from_file(Path::new(path)).unwrap_err();
        assert_eq!(failure.exit_code(), 10);
        assert!(
            failure
                .to_string()
                .starts_with(&format!("cannot read {path}: ")),
            "{failure}"
        );
    }
}

proptest! {
    /// Whatever a typing error makes of a file, it is read or refused, in one line and with a place.
    #[test]
    fn mangled_files_are_read_or_refused(at in 0.0..1.0f64, len in 0..4usize, new in "\\PC{0,4}|[\\[\\]\"\n=.#0-9-]{0,3}") {
        let good = format!("[probe]\ntargets = [\"192.0.2.1\"] # ä\nfall = 0x3\n[route]\nmark = 1_0\n{TWO_UPLINKS}");
        let mut chars: Vec<char> = good.chars().collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a position in a short text")]
        let start = (at * chars.len() as f64) as usize;
        let end = (start + len).min(chars.len());
        chars.splice(start..end, new.chars());
        let text: String = chars.into_iter().collect();
        if let Err((_, message)) = from_text(&text) {
            prop_assert!(message.starts_with("FILE:"), "{}", message);
            prop_assert!(!message.contains('\n'), "{}", message);
        }
    }
}
