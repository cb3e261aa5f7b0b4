//! A target on an uplink's own link proves nothing.

use failover_lab::{Lab, Scenario};
use failover_tests::fixtures::json::{uplink, wait_health};

use super::fixtures::*;

#[test]
#[ignore = "needs root"]
fn a_target_that_comes_to_lie_on_the_link_counts_for_nothing() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = lab.start_agent(&config(&lab))?;
    wait_ready(&agent, "cable", &["lte"])?;
    // A lease whose network has the target in it. Its router is there, and what is beyond it is not.
    let provider = lab.uplink("lte").provider();
    provider.ip_batch("address add 192.0.2.1/24 dev customer")?;
    ip(&lab, "address add 192.0.2.77/24 dev lte")?;
    let words = ["WARN", "lte", "192.0.2.1", "own link", "beyond the gateway"];
    wait_words(&agent, &words)?;
    wait_health(&agent, "lte", "Blind")?;
    assert_eq!(uplink(&agent.status_json()?, "cable")["health"], "Up");
    ip(&lab, "address del 192.0.2.77/24 dev lte")?;
    provider.ip_batch("address del 192.0.2.1/24 dev customer")?;
    wait_ready(&agent, "cable", &["lte"])?;
    let warnings = agent.log();
    let warnings = warnings
        .iter()
        .filter(|line| line.text.contains("own link"));
    assert_eq!(warnings.count(), 1);
    Ok(())
}
