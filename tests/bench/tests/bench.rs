//! The benchmark works: names, JSON and errors. Not how good its figures are.

use std::{
    collections::BTreeSet,
    process::{Command, Output},
};

use anyhow::{Context, Result};
use serde_json::Value;

fn bench(arguments: &[&str]) -> Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_failover-bench"))
        .args(arguments)
        .output()
        .context("failover-bench does not start")
}

#[test]
#[ignore = "needs root"]
fn figures_come_as_json_beside_their_references() -> Result<()> {
    let names = ["egress-open-ns", "gate-change-us"];
    let output = bench(&[&["--json", "--quick"], &names[..]].concat())?;
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{progress}");
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    let object = figures.as_object().context("not an object")?;
    assert_eq!(object.keys().collect::<Vec<_>>(), names);
    for (name, figure) in object {
        assert!(progress.contains(name), "{progress}");
        for key in ["value", "reference", "goal"] {
            let number = figure[key].as_f64();
            assert!(
                number.is_some_and(|number| number > 0.0),
                "{name}: {key}: {figure}"
            );
        }
        for key in ["spread", "reference_spread"] {
            let spread: [f64; 2] = serde_json::from_value(figure[key].clone())?;
            assert!(spread[0] <= spread[1], "{name}: {key}: {figure}");
        }
        let met = figure["value"].as_f64() <= figure["goal"].as_f64();
        assert_eq!(figure["met"], met, "{name}: {figure}");
        assert_eq!(figure["goal_sign"], "<=", "{name}: {figure}");
        assert_eq!(figure["reference_measured"], true, "{name}: {figure}");
        assert_eq!(figure["quick"], true, "{name}: {figure}");
        for key in ["unit", "about", "reference_what"] {
            assert!(figure[key].is_string(), "{name}: {key}: {figure}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_figures_of_many_uplinks_can_be_measured() -> Result<()> {
    let names = [
        "scale-cpu",
        "scale-detection-ms",
        "scale-jitter-ms",
        "scale-churn-ms",
        "scale-churn-worst-ms",
        "scale-resync-ms",
        "scale-resync-mib",
    ];
    let output = bench(&[&["--json", "--quick"], &names[..]].concat())?;
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{progress}");
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    let object = figures.as_object().context("not an object")?;
    let measured: BTreeSet<_> = object.keys().map(String::as_str).collect();
    assert_eq!(measured, names.into());
    let value = |name: &str| figures[name]["value"].as_f64().context("no value");
    // What cannot be nothing, however busy the machine is.
    for name in ["scale-cpu", "scale-detection-ms", "scale-resync-ms"] {
        assert!(value(name)? > 0.0, "{figures}");
    }
    assert!(
        value("scale-jitter-ms")? >= value("scale-detection-ms")?,
        "{figures}"
    );
    assert!(
        value("scale-churn-worst-ms")? >= value("scale-churn-ms")?,
        "{figures}"
    );
    Ok(())
}

#[test]
fn the_list_names_each_figure_on_a_line() -> Result<()> {
    let output = bench(&["--list"])?;
    assert!(output.status.success());
    let list = String::from_utf8(output.stdout)?;
    for name in [
        "egress-open-ns",
        "decision-ms",
        "outage-1s",
        "idle-rss",
        "scale-cpu",
    ] {
        let lines = list.lines().filter(|line| line.starts_with(name));
        assert_eq!(lines.count(), 1, "{list}");
    }
    Ok(())
}

#[test]
fn an_unknown_figure_is_refused_with_the_known_ones() -> Result<()> {
    let output = bench(&["--quick", "gate-change-us", "gate-change-ms"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr)?;
    for part in ["`gate-change-ms`", "gate-change-us", "outage-100ms"] {
        assert!(error.contains(part), "{error}");
    }
    Ok(())
}
