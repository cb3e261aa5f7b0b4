//! A [`Config`] prints as an equivalent file: the output of `check`.

use std::{fmt, path::Path, time::Duration};

use super::{
    AttachMode, Config, CutoffConfig, CutoffMode, Dirs, Gateway, HooksConfig, Inbound, OnDown,
    ProbeConfig, RouteConfig, UplinkConfig,
};

impl fmt::Display for Config {
    /// A complete TOML file: every value is there, defaults too, and each uplink has its own probe keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            uplinks,
            route,
            cutoff,
            datapath,
            hooks,
            dirs,
        } = self;
        write_route(f, route)?;
        write_cutoff(f, cutoff)?;
        writeln!(f, "\n[datapath]")?;
        writeln!(f, "attach = \"{}\"", datapath.attach)?;
        write_hooks(f, hooks)?;
        write_dirs(f, dirs)?;
        uplinks
            .iter()
            .try_for_each(|uplink| write_uplink(f, uplink))
    }
}

impl fmt::Display for CutoffMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CutoffMode::Reset => "reset",
            CutoffMode::Drop => "drop",
            CutoffMode::Off => "off",
        })
    }
}

impl fmt::Display for OnDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnDown::Demote => "demote",
            OnDown::Withdraw => "withdraw",
        })
    }
}

impl fmt::Display for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Inbound::Keep => "keep",
            Inbound::Cut => "cut",
        })
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AttachMode::Auto => "auto",
            AttachMode::Tcx => "tcx",
            AttachMode::Clsact => "clsact",
        })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gateway::Auto => f.write_str("auto"),
            Gateway::Address(address) => address.fmt(f),
            Gateway::None => f.write_str("none"),
        }
    }
}

fn write_route(f: &mut fmt::Formatter<'_>, route: &RouteConfig) -> fmt::Result {
    let RouteConfig {
        active_metric,
        standby_metric,
        protocol,
        table,
        rule_priority,
        mark,
        on_down,
    } = route;
    writeln!(f, "[route]")?;
    writeln!(f, "active_metric = {active_metric}")?;
    writeln!(f, "standby_metric = {standby_metric}")?;
    writeln!(f, "protocol = {protocol}")?;
    writeln!(f, "table = {table}")?;
    writeln!(f, "rule_priority = {rule_priority}")?;
    writeln!(f, "mark = {mark:#x}")?;
    writeln!(f, "on_down = \"{on_down}\"")
}

/// Without the common `drain`: each uplink has its own.
fn write_cutoff(f: &mut fmt::Formatter<'_>, cutoff: &CutoffConfig) -> fmt::Result {
    let CutoffConfig {
        mode,
        failover,
        failback,
        lease,
        allow,
        allow_marks,
    } = cutoff;
    let allow = allow.iter().map(|net| format!("\"{net}\""));
    let marks = allow_marks.iter().map(|mark| format!("{mark:#x}"));
    writeln!(f, "\n[cutoff]")?;
    writeln!(f, "mode = \"{mode}\"")?;
    if let Some(mode) = failover {
        writeln!(f, "failover = \"{mode}\"")?;
    }
    if let Some(mode) = failback {
        writeln!(f, "failback = \"{mode}\"")?;
    }
    writeln!(f, "lease = {}", duration(*lease))?;
    writeln!(f, "allow = [{}]", allow.collect::<Vec<_>>().join(", "))?;
    writeln!(
        f,
        "allow_marks = [{}]",
        marks.collect::<Vec<_>>().join(", ")
    )
}

fn write_hooks(f: &mut fmt::Formatter<'_>, hooks: &HooksConfig) -> fmt::Result {
    let HooksConfig { on_switch, timeout } = hooks;
    writeln!(f, "\n[hooks]")?;
    writeln!(f, "on_switch = {}", command(on_switch))?;
    writeln!(f, "timeout = {}", duration(*timeout))
}

fn write_dirs(f: &mut fmt::Formatter<'_>, dirs: &Dirs) -> fmt::Result {
    let Dirs { run, bpf, state } = dirs;
    writeln!(f, "\n[dirs]")?;
    writeln!(f, "run = {}", path(run))?;
    writeln!(f, "bpf = {}", path(bpf))?;
    writeln!(f, "state = {}", path(state))
}

fn write_uplink(f: &mut fmt::Formatter<'_>, uplink: &UplinkConfig) -> fmt::Result {
    let UplinkConfig {
        interface,
        name,
        gateway,
        gateway6,
        source,
        source6,
        metered,
        drain,
        inbound,
        rank,
        weight,
        metric,
        recover,
        recover_interval,
        probe,
        place: _,
    } = uplink;
    writeln!(f, "\n[[uplink]]")?;
    writeln!(f, "interface = {}", quoted(interface))?;
    writeln!(f, "name = {}", quoted(name))?;
    writeln!(f, "gateway = \"{gateway}\"")?;
    writeln!(f, "gateway6 = \"{gateway6}\"")?;
    for (key, source) in [("source", source), ("source6", source6)] {
        if let Some(source) = source {
            writeln!(f, "{key} = \"{source}\"")?;
        }
    }
    writeln!(f, "metered = {metered}")?;
    writeln!(f, "drain = {}", duration(*drain))?;
    writeln!(f, "inbound = \"{inbound}\"")?;
    writeln!(f, "rank = {rank}")?;
    // Outside of a balance group a weight is refused.
    if *weight != 1 {
        writeln!(f, "weight = {weight}")?;
    }
    if let Some(metric) = metric {
        writeln!(f, "metric = {metric}")?;
    }
    writeln!(f, "recover = {}", command(recover))?;
    writeln!(f, "recover_interval = {}", duration(*recover_interval))?;
    let ProbeConfig {
        targets,
        interval,
        timeout,
        fall,
        rise,
        quorum,
        hold,
    } = probe;
    let targets: Vec<String> = targets
        .iter()
        .map(|target| format!("\"{target}\""))
        .collect();
    writeln!(f, "targets = [{}]", targets.join(", "))?;
    writeln!(f, "interval = {}", duration(*interval))?;
    writeln!(f, "timeout = {}", duration(*timeout))?;
    writeln!(f, "fall = {fall}")?;
    writeln!(f, "rise = {rise}")?;
    writeln!(f, "quorum = {quorum}")?;
    writeln!(f, "hold = {}", duration(*hold))
}

fn duration(duration: Duration) -> String {
    format!("\"{}\"", humantime::format_duration(duration))
}

fn command(words: &[String]) -> String {
    let words = words.iter().map(|word| quoted(word));
    format!("[{}]", words.collect::<Vec<_>>().join(", "))
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A TOML basic string: quotes, backslashes and control characters escaped (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
