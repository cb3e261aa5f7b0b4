//! The figures at the end.

use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use failover_lab::UdpReport;
use serde::Serialize;

use super::{agent_log::Switch, timeline::milliseconds};

/// Around an interruption this much of the streams is looked at: enough for packets that were on their way, and not so much that a
/// moment in which the machine did something else is taken for a gap of ours.
const MARGIN: Duration = Duration::from_millis(200);

/// What happened to the streams, and how long the agent took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// From the fault on.
    pub failover: Phase,
    /// From the repair on.
    pub failback: Phase,
    /// How the longest gap in the host's stream at the failover splits.
    pub gap_split: GapSplit,
    /// All packets of the two steady streams.
    pub packets: PerStream<Packets>,
    /// Duration of the whole demonstration.
    pub total_ms: f64,
}

/// One switch and what it did to the traffic. All times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// From the fault (or repair) to the decision.
    pub detection_ms: f64,
    /// From the decision to the confirmed route.
    pub decision_to_route_ms: f64,
    /// From the confirmed route until the gates were set; null if they could not be.
    pub gates_ms: Option<f64>,
    /// From the decision to the host's first packet that the new uplink brought an answer to.
    pub decision_to_first_packet_ms: f64,
    /// Longest time without an answer.
    pub longest_gap_ms: PerStream<f64>,
    /// Packets without an answer.
    pub lost: PerStream<usize>,
    /// From the decision until the applications of the old connections were told that they are over; null at the failback, which
    /// leaves none.
    pub old_connection_ended_ms: Option<PerStream<f64>>,
    /// Packets that the old uplink's closed gate cut, by the agent's counters.
    pub cut: u64,
}

/// The same figure of both steady streams.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PerStream<T> {
    /// From the host itself.
    pub host: T,
    /// From the client behind it.
    pub client: T,
}

/// The parts of a gap, in milliseconds and in percent of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GapSplit {
    /// The whole.
    pub gap_ms: f64,
    /// Until the decision fell.
    pub detection_ms: f64,
    /// From the decision until route and gates were done.
    pub switch_ms: f64,
    /// The rest: the last packets before the fault and the first one after the switch on their way.
    pub rest_ms: f64,
    /// `detection_ms` in percent of `gap_ms`.
    pub detection_pct: f64,
    /// `switch_ms` in percent of `gap_ms`.
    pub switch_pct: f64,
}

/// Packets of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Packets {
    /// Sent.
    pub sent: usize,
    /// Answered.
    pub answered: usize,
    /// Not answered.
    pub lost: usize,
}

impl Packets {
    pub(super) fn of(report: &UdpReport) -> Packets {
        Packets {
            sent: report.sent(),
            answered: report.answered(),
            lost: report.lost(),
        }
    }
}

/// What one phase is measured from.
pub(super) struct Measured<'a> {
    pub(super) switch: &'a Switch,
    /// The fault or repair.
    pub(super) cause: Instant,
    /// When packets may have begun to get lost: gaps and losses count around the time from then to the switch.
    pub(super) interrupted: Instant,
    /// When the host's first packet by the new uplink was answered.
    pub(super) first_packet: Instant,
    pub(super) old_ended: Option<PerStream<f64>>,
    pub(super) streams: &'a PerStream<UdpReport>,
    pub(super) cut: u64,
}

impl Measured<'_> {
    pub(super) fn phase(&self) -> Phase {
        let Switch {
            decided,
            routed,
            gated,
            ..
        } = *self.switch;
        let between = |from: Instant, to: Instant| milliseconds(to.saturating_duration_since(from));
        let PerStream { host, client } = self.streams;
        Phase {
            detection_ms: between(self.cause, decided),
            decision_to_route_ms: between(decided, routed),
            gates_ms: gated.map(|gated| between(routed, gated)),
            decision_to_first_packet_ms: between(decided, self.first_packet),
            longest_gap_ms: PerStream {
                host: self.gap(host),
                client: self.gap(client),
            },
            lost: PerStream {
                host: self.lost(host),
                client: self.lost(client),
            },
            old_connection_ended_ms: self.old_ended,
            cut: self.cut,
        }
    }

    fn window(&self) -> (Instant, Instant) {
        let from = self.interrupted.checked_sub(MARGIN);
        let from = from.unwrap_or(self.interrupted);
        (from, self.first_packet + MARGIN)
    }

    fn gap(&self, report: &UdpReport) -> f64 {
        let (from, until) = self.window();
        let gap = report.longest_gap_between(from, until);
        milliseconds(gap.map_or(Duration::ZERO, |gap| gap.duration()))
    }

    fn lost(&self, report: &UdpReport) -> usize {
        let (from, until) = self.window();
        let lost = report
            .records
            .iter()
            .filter(|record| record.echo.is_none() && (from..until).contains(&record.sent));
        lost.count()
    }
}

impl GapSplit {
    pub(super) fn of(phase: &Phase) -> GapSplit {
        let gap_ms = phase.longest_gap_ms.host;
        let switch_ms = phase.decision_to_route_ms + phase.gates_ms.unwrap_or(0.0);
        let percent = |part: f64| (part / gap_ms * 1000.0).round() / 10.0;
        let rest_ms = gap_ms - phase.detection_ms - switch_ms;
        GapSplit {
            gap_ms,
            detection_ms: phase.detection_ms,
            switch_ms: (switch_ms * 1e3).round() / 1e3,
            rest_ms: (rest_ms * 1e3).round() / 1e3,
            detection_pct: percent(phase.detection_ms),
            switch_pct: percent(switch_ms),
        }
    }
}

impl Summary {
    /// The table, without blanks at the ends of its lines.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["", "failover", "failback"]);
        let phases = [&self.failover, &self.failback];
        let mut row = |label: &str, cell: &dyn Fn(&Phase) -> String| {
            let [failover, failback] = phases.map(cell);
            table.add_row([format!("  {label}"), failover, failback]);
        };
        let ms = |value: f64| format!("{value:.1} ms");
        let fine = |value: f64| match value {
            value if value < 1.0 => format!("{:.0} µs", value * 1e3),
            value => format!("{value:.2} ms"),
        };
        row("longest gap in the host's stream", &|phase| {
            ms(phase.longest_gap_ms.host)
        });
        row("longest gap in the client's stream", &|phase| {
            ms(phase.longest_gap_ms.client)
        });
        row("packets lost, host + client", &|phase| {
            format!("{} + {}", phase.lost.host, phase.lost.client)
        });
        row("detection: fault (or repair) to decision", &|phase| {
            ms(phase.detection_ms)
        });
        row("decision to confirmed route", &|phase| {
            fine(phase.decision_to_route_ms)
        });
        row("gates set after the route", &|phase| {
            phase.gates_ms.map_or("failed".to_owned(), fine)
        });
        row("decision to first packet answered", &|phase| {
            fine(phase.decision_to_first_packet_ms)
        });
        row("decision to error, host's idle TCP connection", &|phase| {
            (phase.old_connection_ended_ms).map_or("-".to_owned(), |ended| fine(ended.host))
        });
        row("decision to error, client's TCP connection", &|phase| {
            (phase.old_connection_ended_ms).map_or("-".to_owned(), |ended| fine(ended.client))
        });
        row("packets cut by the closed gate", &|phase| {
            phase.cut.to_string()
        });
        for column in 1..=2 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let table = table.to_string();
        let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
        lines.join("\n")
    }

    pub(super) fn split(&self) -> String {
        let GapSplit {
            gap_ms,
            detection_ms,
            switch_ms,
            rest_ms,
            detection_pct,
            switch_pct,
        } = self.gap_split;
        format!(
            "Of the {gap_ms:.1} ms without an answer, {detection_ms:.1} ms ({detection_pct} %) went by until the probes had proven the\n\
             fault, {switch_ms:.2} ms ({switch_pct} %) with the switch, and {rest_ms:.1} ms with packets on their way. At the failback nothing is\n\
             in a hurry: {:.1} s to prove that cable is good again, all the while over lte.",
            self.failback.detection_ms / 1e3
        )
    }
}
