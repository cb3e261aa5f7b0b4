//! Switches while others change routes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{
    super::{
        Family, Settings,
        figure::{Figure, Goal, Measurement, Reference, ReferenceValue},
        sample::Samples,
    },
    Fixture,
    routes::Churn,
};

pub(crate) const CHURN: Family = Family {
    figures: &[
        Figure {
            name: "scale-churn-ms",
            about: "switch by hand with 64 uplinks while `ip -batch` makes 5,000 changes a second to routes of others in the main table, from the order to the confirmed route as the agent records it, minus the median without changes",
            unit: "ms",
            goal: Goal::AtMost(5.0),
        },
        Figure {
            name: "scale-churn-worst-ms",
            about: "the greatest of the same",
            unit: "ms",
            goal: Goal::AtMost(5.0),
        },
    ],
    measure: |settings| Ok(churn(settings)?.into()),
};

/// Changes a second.
const RATE: u32 = 5000;

/// Part of the changes that must really have been made.
const ENOUGH: f64 = 0.9;

fn churn(settings: &Settings) -> Result<[Measurement; 2]> {
    let fixture = Fixture::start(settings, "info")?;
    let mut quiet = Samples::default();
    let mut disturbed = Samples::default();
    let switches = settings.choose(10, 2);
    for _ in 0..settings.choose(5, 1) {
        for _ in 0..switches {
            quiet.push_ms(there_and_back(&fixture)?);
        }
        let churn = Churn::start(&fixture.lab, RATE)?;
        for _ in 0..switches {
            disturbed.push_ms(there_and_back(&fixture)?);
        }
        let rate = churn.stop()?;
        ensure!(
            settings.quick || rate > f64::from(RATE) * ENOUGH,
            "only {rate:.0} changes a second could be made"
        );
    }
    let median = quiet.summary().context("no switches")?.median;
    eprintln!("  median of a switch without changes: {median:.3} ms");
    let (quiet, disturbed) = (quiet.minus(median), disturbed.minus(median));
    let worst = |samples: &Samples| -> Result<Samples> {
        let mut one = Samples::default();
        one.push(samples.percentile(100).context("no samples")?);
        Ok(one)
    };
    Ok([
        Measurement {
            reference: Reference {
                what: "the same without changes",
                value: ReferenceValue::Measured(quiet.clone()),
            },
            samples: disturbed.clone(),
        },
        Measurement {
            reference: Reference {
                what: "the greatest without changes",
                value: ReferenceValue::Measured(worst(&quiet)?),
            },
            samples: worst(&disturbed)?,
        },
    ])
}

/// Makes the second uplink active and the first again; how long the second of these took from the order to the confirmed route.
fn there_and_back(fixture: &Fixture) -> Result<Duration> {
    let [first, second] = [0, 1].map(|rank| fixture.lab.uplinks()[rank].name.as_str());
    fixture.agent.verb(&["switch", second])?;
    fixture.agent.verb(&["switch", first])?;
    let status = fixture.agent.status_json()?;
    let switch = &status["switches"][0];
    ensure!(
        switch["to"] == *first && switch["family"] == "ipv4",
        "another switch is the newest: {switch}"
    );
    let routed = switch["timeline"]["routed_us"].as_u64();
    let routed = routed.with_context(|| format!("a switch without a confirmed route: {switch}"))?;
    Ok(Duration::from_micros(routed))
}
