//! The status as text: within 100 columns, with units, the active uplink marked.

#[cfg(test)]
mod tests;

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use failover_ebpf::Gate;
use failover_policy::{Family, Health};

use super::status::{Conflict, Counters, FamilyState, Log, Status, Switch};

/// Columns that every terminal has; longer names and addresses are wrapped.
const WIDTH: u16 = 100;

/// Renders `status`; ends with a newline.
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    for line in header(status) {
        text.push_str(&line);
        text.push('\n');
    }
    // Writing to a String cannot fail, so the results can be ignored.
    write!(text, "\n{}\n", trimmed(&health_table(status))).ok();
    write!(text, "\n{}\n", trimmed(&traffic_table(status))).ok();
    if !status.switches.is_empty() {
        write!(text, "\nSwitches, newest first\n").ok();
        for switch in &status.switches {
            writeln!(text, "  {}", switch_line(switch)).ok();
        }
    }
    let obstacles = status.uplinks.iter().filter_map(|uplink| {
        let reason = uplink.programs.reason.as_ref()?;
        Some(wrapped(&format!(
            "{}: no programs on {}, so nothing is cut on it: {reason}",
            uplink.name, uplink.interface
        )))
    });
    let foreign = status.foreign_defaults.iter();
    let foreign =
        foreign.map(|foreign| wrapped(&format!("Foreign default route: {}", foreign.words())));
    let conflicts = status.conflicts.iter();
    let conflicts = conflicts.map(|conflict| conflict_lines(conflict, status.at));
    for lines in obstacles.chain(foreign).chain(conflicts) {
        text.push('\n');
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

fn conflict_lines(conflict: &Conflict, now: SystemTime) -> Vec<String> {
    wrapped(&format!(
        "Route conflict: {} {} ({}), restored {} times in {}; remedy: {}",
        conflict.contender,
        conflict.what,
        conflict.family,
        conflict.repairs,
        rough(now.duration_since(conflict.since).unwrap_or_default()),
        conflict.remedy,
    ))
}

/// The text, wrapped to the width of a terminal.
fn wrapped(words: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH.into() => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("  {word}")),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn header(status: &Status) -> Vec<String> {
    let agent = &status.agent;
    let mut lines = vec![format!(
        "failover-agent {}, process {}, up for {}",
        agent.version,
        agent.pid,
        rough(Duration::from_secs(agent.uptime_s))
    )];
    for family in Family::ALL {
        let mut states = status
            .uplinks
            .iter()
            .filter_map(|uplink| uplink.families.get(family))
            .peekable();
        if states.peek().is_none() {
            continue;
        }
        let active = status.uplinks.iter().filter_map(|uplink| {
            let state = uplink.families.get(family)?;
            state
                .active
                .then_some((uplink.name.as_str(), state.manual_override))
        });
        let active = match active.collect::<Vec<_>>().as_slice() {
            [] => "no active uplink".to_owned(),
            [(name, true)] => format!("active uplink {name}, manual override"),
            [(name, false)] => format!("active uplink {name}"),
            group => {
                let names: Vec<&str> = group.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                // The table below marks the members, too.
                match names.len() <= usize::from(WIDTH) / 2 {
                    true => format!("active uplinks {names}"),
                    false => format!("{} active uplinks", group.len()),
                }
            }
        };
        let note = if states.all(|state| state.health == Health::Down) {
            "; all uplinks are Down, nothing changes until one is Up"
        } else {
            ""
        };
        lines.push(format!("{family}: {active}{note}"));
    }
    let Log { lost, left_out } = status.log;
    if lost + left_out > 0 {
        lines.push(format!(
            "The log lacks {lost} lines that could not be written, and {left_out} above the budget"
        ));
    }
    if status.lease.remaining_ms == Some(0) {
        lines.push("The lease is past: every gate counts as open".to_owned());
    }
    lines
}

fn health_table(status: &Status) -> Table {
    let mut table = table(&[
        "", "Uplink", "Family", "Health", "For", "RTT", "Loss", "Gate", "Gateway",
    ]);
    for uplink in &status.uplinks {
        let name = if uplink.metered {
            format!("{} (metered)", uplink.name)
        } else {
            uplink.name.clone()
        };
        for family in Family::ALL {
            if let Some(state) = uplink.families.get(family) {
                table.add_row(health_row(&name, family, state, uplink.drill_s, status.at));
            }
        }
        if uplink.families == Default::default() {
            table.add_row([
                "",
                &name,
                "-",
                "no address or no egress path",
                "",
                "",
                "",
                "",
                "",
            ]);
        }
    }
    align_right(&mut table, &[4, 5, 6]);
    table
}

fn health_row(
    name: &str,
    family: Family,
    state: &FamilyState,
    drill_s: Option<f64>,
    now: SystemTime,
) -> [String; 9] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    [
        if state.active { "*" } else { "" }.to_owned(),
        name.to_owned(),
        family.to_string(),
        match drill_s {
            Some(_) => format!("{} (drill)", state.health),
            None => state.health.to_string(),
        },
        rough(now.duration_since(state.since).unwrap_or_default()),
        or_dash(state.rtt_ms.map(|rtt| format!("{rtt:.1} ms"))),
        or_dash(state.loss_pct.map(|loss| format!("{loss:.0} %"))),
        match (state.gate, state.draining_s) {
            (Gate::Open, Some(left)) => format!("drains {}", rough(span(left))),
            (Gate::Open, None) => "open".to_owned(),
            (Gate::Closed, _) => "closed".to_owned(),
        },
        or_dash(state.gateway.map(|gateway| gateway.to_string())),
    ]
}

fn traffic_table(status: &Status) -> Table {
    let mut table = table(&[
        "",
        "Uplink",
        "Interface",
        "Sent (packets / bytes)",
        "Received",
        "Cut",
        "Probes",
        "Last received",
    ]);
    for uplink in &status.uplinks {
        table.add_row(traffic_row(
            &uplink.name,
            &uplink.interface,
            &uplink.counters,
        ));
    }
    align_right(&mut table, &[3, 4, 5, 6, 7]);
    table
}

fn traffic_row(name: &str, interface: &str, counters: &Counters) -> [String; 8] {
    let volume = |number, size| format!("{number} / {}", bytes(size));
    [
        String::new(),
        name.to_owned(),
        interface.to_owned(),
        volume(counters.tx_packets, counters.tx_bytes),
        volume(counters.rx_packets, counters.rx_bytes),
        volume(counters.cut_packets, counters.cut_bytes),
        counters.probes_passed.to_string(),
        match counters.last_rx_ms_ago {
            Some(ago) => format!("{} ago", rough(Duration::from_millis(ago))),
            None => "never".to_owned(),
        },
    ]
}

fn switch_line(switch: &Switch) -> String {
    let at = humantime::format_rfc3339_millis(switch.at.max(SystemTime::UNIX_EPOCH));
    let from = match &switch.from {
        Some(from) => format!("{from} -> "),
        None => String::new(),
    };
    let result = match (switch.timeline.routed_us, switch.timeline.gated_us) {
        (Some(routed), Some(gated)) if switch.confirmed => {
            format!("routed after {routed} us, gated after {gated} us")
        }
        (Some(routed), None) if switch.confirmed => format!("routed after {routed} us"),
        _ => "not confirmed, nothing was cut".to_owned(),
    };
    let ended = [
        (switch.sockets_ended, "sockets ended"),
        (switch.flows_deleted, "tracked flows deleted"),
    ]
    .into_iter()
    .filter_map(|(number, what)| {
        let number = number.filter(|number| *number > 0)?;
        Some(format!("\n                            {number} {what}"))
    });
    format!(
        "{at}  {} {} {from}{}: {result}{}",
        switch.family,
        switch.cause,
        switch.to,
        ended.collect::<String>()
    )
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH);
    table.set_header(header.iter().copied());
    table
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The table without trailing blanks.
fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// Seconds, as the status has them, as a duration.
fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// A duration in its two greatest units.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Bytes in a decimal unit.
fn bytes(number: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    match UNITS.iter().find(|(size, _)| number >= *size) {
        // Tenths are cut off, not rounded: 999,999 bytes are not 1000.0 kB.
        Some((size, unit)) => format!("{}.{} {unit}", number / size, number % size * 10 / size),
        None => format!("{number} B"),
    }
}
