//! What a figure is, and what became of it. Pure.

use serde_json::{Value, json};

use super::sample::Samples;

/// One figure of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    /// Its name: short and stable.
    pub(super) name: &'static str,
    /// What is measured, in one line.
    pub(super) about: &'static str,
    /// Unit of value, reference and goal; empty for a ratio.
    pub(super) unit: &'static str,
    /// What the median must not exceed, or must reach.
    pub(super) goal: Goal,
}

/// What is asked of a median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Goal {
    /// The limit.
    pub(super) fn limit(self) -> f64 {
        match self {
            Goal::AtMost(limit) | Goal::AtLeast(limit) => limit,
        }
    }

    /// Whether `value` meets it.
    pub(super) fn is_met_by(self, value: f64) -> bool {
        match self {
            Goal::AtMost(limit) => value <= limit,
            Goal::AtLeast(limit) => value >= limit,
        }
    }

    /// The sign before the limit.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Goal::AtMost(_) => "≤",
            Goal::AtLeast(_) => "≥",
        }
    }
}

/// What a figure is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reference {
    /// What it is, in one line.
    pub(super) what: &'static str,
    /// Its value.
    pub(super) value: ReferenceValue,
}

/// Where a reference's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ReferenceValue {
    /// This run, side by side with the figure.
    Measured(Samples),
    /// An earlier measurement that this run cannot repeat.
    Quoted(f64),
}

impl ReferenceValue {
    /// Its median, or the quoted number.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            ReferenceValue::Measured(samples) => Some(samples.summary()?.median),
            ReferenceValue::Quoted(value) => Some(*value),
        }
    }
}

/// A figure's samples and its reference.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measurement {
    /// The agent's.
    pub(super) samples: Samples,
    /// What they are compared with.
    pub(super) reference: Reference,
}

/// A measured figure, ready to be shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// Which one.
    pub(super) figure: Figure,
    /// What was measured.
    pub(super) measurement: Measurement,
    /// Fewer repeats than the figure needs.
    pub(super) quick: bool,
}

impl Outcome {
    /// What `--json` prints of it; `None` when nothing was measured.
    pub(super) fn to_json(&self) -> Option<Value> {
        let Figure {
            about, unit, goal, ..
        } = self.figure;
        let value = self.measurement.samples.summary()?;
        let reference = &self.measurement.reference;
        let measured = match &reference.value {
            ReferenceValue::Measured(samples) => samples.summary(),
            ReferenceValue::Quoted(_) => None,
        };
        Some(json!({
            "value": round(value.median),
            "unit": unit,
            "spread": [round(value.low), round(value.high)],
            "samples": value.samples,
            "reference": round(reference.value.number()?),
            "reference_what": reference.what,
            "reference_measured": measured.is_some(),
            "reference_spread": measured.map(|summary| [round(summary.low), round(summary.high)]),
            "reference_samples": measured.map(|summary| summary.samples),
            "goal": goal.limit(),
            "goal_sign": match goal {
                Goal::AtMost(_) => "<=",
                Goal::AtLeast(_) => ">=",
            },
            "met": goal.is_met_by(value.median),
            "about": about,
            "quick": self.quick,
        }))
    }
}

/// To four significant digits, which is more than any figure deserves.
fn round(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        values.iter().for_each(|value| samples.push(*value));
        samples
    }

    fn outcome(goal: Goal, values: &[f64], reference: ReferenceValue) -> Outcome {
        Outcome {
            figure: Figure {
                name: "x",
                about: "something",
                unit: "ms",
                goal,
            },
            measurement: Measurement {
                samples: samples(values),
                reference: Reference {
                    what: "something else",
                    value: reference,
                },
            },
            quick: false,
        }
    }

    #[test]
    fn the_median_is_held_against_the_goal() {
        let reference = || ReferenceValue::Quoted(3.0);
        for (goal, met) in [
            (Goal::AtMost(2.0), true),
            (Goal::AtMost(1.9), false),
            (Goal::AtLeast(2.0), true),
            (Goal::AtLeast(2.1), false),
        ] {
            let json = outcome(goal, &[1.0, 2.0, 9.0], reference()).to_json();
            assert_eq!(json.unwrap()["met"], met, "{goal:?}");
        }
    }

    #[test]
    fn a_quoted_reference_is_told_from_a_measured_one() {
        let quoted = outcome(Goal::AtMost(1.0), &[1.0], ReferenceValue::Quoted(3.5));
        let quoted = quoted.to_json().unwrap();
        assert_eq!(quoted["reference"], 3.5);
        assert_eq!(quoted["reference_measured"], false);
        assert!(quoted["reference_spread"].is_null());

        let measured = ReferenceValue::Measured(samples(&[1.0, 2.0, 3.0]));
        let measured = outcome(Goal::AtMost(1.0), &[1.0], measured);
        let measured = measured.to_json().unwrap();
        assert_eq!(measured["reference"], 2.0);
        assert_eq!(measured["reference_measured"], true);
        assert_eq!(measured["reference_spread"], json!([1.0, 3.0]));
    }

    #[test]
    fn nothing_measured_is_no_value() {
        let reference = ReferenceValue::Quoted(1.0);
        assert_eq!(outcome(Goal::AtMost(1.0), &[], reference).to_json(), None);
    }

    #[test]
    fn numbers_keep_four_digits() {
        assert_eq!(round(0.123_456), 0.1235);
        assert_eq!(round(12_345_678.0), 12_350_000.0);
        assert_eq!(round(0.0), 0.0);
    }
}
