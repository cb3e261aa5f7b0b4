//! The figures as a table for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::{
    figure::{Outcome, ReferenceValue},
    sample::Samples,
};

/// Renders the figures, with a line about each below; ends with a newline.
pub(super) fn render(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["Figure", "Median", "10–90 %", "Reference", "Goal", "Met"]);
    for outcome in outcomes {
        table.add_row(row(outcome));
    }
    for column in 1..=4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = format!("{table}\n");
    for Outcome {
        figure,
        measurement,
        ..
    } in outcomes
    {
        let what = measurement.reference.what;
        let name = figure.name;
        // Writing to a String cannot fail.
        writeln!(text, "\n{name}: {}\n  reference: {what}", figure.about).ok();
    }
    text
}

fn row(outcome: &Outcome) -> [String; 6] {
    let figure = &outcome.figure;
    let unit = figure.unit;
    let (median, spread, met) = match outcome.measurement.samples.summary() {
        Some(summary) => (
            with_unit(summary.median, unit),
            format!("{}–{}", number(summary.low), number(summary.high)),
            figure.goal.is_met_by(summary.median),
        ),
        None => ("-".to_owned(), "-".to_owned(), false),
    };
    [
        figure.name.to_owned(),
        median,
        spread,
        reference(&outcome.measurement.reference.value, unit),
        format!(
            "{} {}",
            figure.goal.sign(),
            with_unit(figure.goal.limit(), unit)
        ),
        if met { "yes" } else { "NO" }.to_owned(),
    ]
}

fn reference(value: &ReferenceValue, unit: &str) -> String {
    match value {
        ReferenceValue::Measured(samples) => samples
            .summary()
            .map_or_else(|| "-".to_owned(), |s| with_unit(s.median, unit)),
        ReferenceValue::Quoted(value) => format!("{} (quoted)", with_unit(*value, unit)),
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    format!("{} {unit}", number(value)).trim_end().to_owned()
}

/// Three significant digits.
fn number(value: f64) -> String {
    let digits: usize = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// How many samples a line of progress tells of.
pub(super) fn progress(name: &str, samples: &Samples, unit: &str) -> String {
    match samples.summary() {
        Some(summary) => format!(
            "  {name}: {} ({} samples)",
            with_unit(summary.median, unit),
            samples.count()
        ),
        None => format!("  {name}: nothing measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::figure::{Figure, Goal, Measurement, Reference},
        *,
    };

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0421, "0.042"),
            (2.346, "2.35"),
            (34.56, "34.6"),
            (3456.0, "3456"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_missed_goal_and_a_quoted_reference_show() {
        let mut samples = Samples::default();
        samples.push(3.0);
        let text = render(&[Outcome {
            figure: Figure {
                name: "outage",
                about: "how long",
                unit: "s",
                goal: Goal::AtMost(2.7),
            },
            measurement: Measurement {
                samples,
                reference: Reference {
                    what: "another",
                    value: ReferenceValue::Quoted(3.5),
                },
            },
            quick: false,
        }]);
        for part in ["3.00 s", "3.50 s (quoted)", "≤ 2.70 s", "NO", "how long"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
