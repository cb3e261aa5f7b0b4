//! The laboratory does what it says: its links, each fault, each client, captures, guards, and that nothing stays behind.
//!
//! No agent takes part: where a test needs a failover it changes the route itself.

mod faults;
mod links;
mod processes;
mod traffic;

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use failover_lab::{Lab, wait_until};

const SOON: Duration = Duration::from_secs(10);
/// Long enough for an answer on this machine, short enough to wait for its absence.
const PING: Duration = Duration::from_millis(300);

/// Whether the target answers when asked by this uplink.
fn answers(lab: &Lab, uplink: &str, target: IpAddr) -> bool {
    // An error, such as no route, is no answer either.
    matches!(lab.host().ping_by(uplink, target, PING), Ok(Some(_)))
}

/// Waits, since carrier changes reach the routes a moment later and the first packet may wait for ARP.
fn soon_answers(lab: &Lab, uplink: &str, target: IpAddr) -> Result<()> {
    wait_until(&format!("{target} answers by {uplink}"), SOON, || {
        answers(lab, uplink, target)
    })
}

/// Makes an uplink the best one, as a user who swaps metrics would.
fn prefer(lab: &Lab, uplink: &str) -> Result<()> {
    let gateway = lab.uplink(uplink).addresses().gateway_v4;
    lab.host().namespace().ip_batch(&format!(
        "route replace default via {gateway} dev {uplink} metric 5"
    ))
}
