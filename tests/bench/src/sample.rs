//! Repeated measurements of one quantity. Pure.

use std::time::Duration;

/// Measurements of one quantity, all in the same unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds one in milliseconds.
    pub(super) fn push_ms(&mut self, value: Duration) {
        self.push(value.as_secs_f64() * 1e3);
    }

    /// Adds one in microseconds.
    pub(super) fn push_us(&mut self, value: Duration) {
        self.push(value.as_secs_f64() * 1e6);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The least of them that at least `percent` of all do not exceed; `None` when there are no samples.
    pub(super) fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        (!sorted.is_empty()).then(|| nearest_rank(&sorted, percent))
    }

    /// All of them, less this.
    pub(super) fn minus(&self, value: f64) -> Samples {
        Samples(self.0.iter().map(|sample| sample - value).collect())
    }

    /// Median and spread; `None` when there are no samples.
    pub(super) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Summary {
            median,
            low: nearest_rank(&sorted, 10),
            high: nearest_rank(&sorted, 90),
            samples: sorted.len(),
        })
    }
}

/// The smallest sample that at least `percent` of all samples do not exceed.
fn nearest_rank(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted[rank.max(1) - 1]
}

/// What is told of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    /// Half of the samples are below, half above.
    pub(super) median: f64,
    /// 10th percentile; of fewer than 11 samples the least.
    pub(super) low: f64,
    /// 90th percentile; of fewer than 10 samples the greatest.
    pub(super) high: f64,
    /// Number of samples.
    pub(super) samples: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: &[f64]) -> Option<Summary> {
        let mut samples = Samples::default();
        values.iter().for_each(|value| samples.push(*value));
        samples.summary()
    }

    #[test]
    fn no_samples_have_no_summary() {
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn the_spread_of_few_samples_is_from_the_least_to_the_greatest() {
        let expected = Summary {
            median: 4.0,
            low: 1.0,
            high: 7.0,
            samples: 7,
        };
        assert_eq!(
            summary(&[7.0, 1.0, 4.0, 3.0, 5.0, 2.0, 6.0]),
            Some(expected)
        );
    }

    #[test]
    fn the_spread_of_many_samples_leaves_out_a_tenth_at_each_end() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let expected = Summary {
            median: 50.5,
            low: 10.0,
            high: 90.0,
            samples: 100,
        };
        assert_eq!(summary(&values), Some(expected));
    }

    #[test]
    fn percentiles_are_samples() {
        assert_eq!(Samples::default().percentile(99), None);
        let samples = Samples((1..=200).rev().map(f64::from).collect());
        assert_eq!(samples.percentile(99), Some(198.0));
        assert_eq!(samples.percentile(100), Some(200.0));
        assert_eq!(samples.minus(150.0).percentile(99), Some(48.0));
    }

    #[test]
    fn durations_are_converted() {
        let mut samples = Samples::default();
        samples.push_ms(Duration::from_micros(1500));
        samples.push_us(Duration::from_micros(1500));
        assert_eq!(samples, Samples(vec![1.5, 1500.0]));
    }
}
