//! Members whose interface or carrier goes.

use anyhow::Result;
use failover_lab::{Fault, Lab, Scenario, TARGET_V4, TARGET_V6, Uplink};
use failover_policy::Family;

use super::{
    fixtures::{SOON, ensure_alive, ensure_never_without_route, history, start, two, wait_active},
    flows::{Flows, connect_by},
};

#[test]
#[ignore = "needs root"]
fn a_member_that_is_unplugged_joins_when_it_is_back() -> Scenario {
    leaves_and_joins(Uplink::unplug)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_member_that_loses_its_carrier_joins_when_it_is_back() -> Scenario {
    leaves_and_joins(Uplink::carrier_down)?;
    Ok(())
}

fn leaves_and_joins(pull: impl Fn(&Uplink) -> Result<Fault>) -> Result<()> {
    let lab = Lab::builder()
        .uplinks(["cable", "dsl", "lte"])
        .lan()
        .build()?;
    let agent = start(&lab, &two(&lab), "cable,dsl")?;
    let (host, client) = (lab.host(), lab.client());
    let steady = host.udp_stream(TARGET_V4).start()?;
    let staying = [
        connect_by(&lab, host, TARGET_V4, "cable")?,
        connect_by(&lab, host, TARGET_V6, "cable")?,
        connect_by(&lab, client, TARGET_V4, "cable")?,
    ];
    let leaving = [
        connect_by(&lab, host, TARGET_V4, "dsl")?,
        connect_by(&lab, client, TARGET_V4, "dsl")?,
    ];
    let mut flows = Flows::open(client, TARGET_V4, 40)?.only(&["cable"]);

    let fault = pull(lab.uplink("dsl"))?;
    wait_active(&lab, &agent, "cable")?;
    for connection in &leaving {
        connection.wait_ended(SOON)?;
    }
    ensure_alive(&staying)?;
    flows.ensure_put()?;
    fault.repair()?;
    wait_active(&lab, &agent, "cable,dsl")?;
    ensure_alive(&staying)?;
    flows.ensure_put()?;
    for target in [TARGET_V4, TARGET_V6] {
        Flows::open(client, target, 60)?.only(&["cable", "dsl"]);
    }
    let expected = ["start-up cable,dsl", "failover cable", "failback cable,dsl"];
    assert_eq!(history(&agent, Family::V4), expected);
    ensure_never_without_route(steady)
}
