//! Gates and routes after a switch in which netlink has refused a change.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use failover_lab::{TARGET_V4, TARGET_V6, pace, wait_for};

use super::{
    host::{Host, MARGIN, SOON},
    state::{is_settled, recorded_switches, summary},
    subject::Subject,
};

/// How long gates may differ from the routes after a switch in which netlink has refused a change: less than the second after which the
/// agent tries again.
const CONSISTENT: Duration = Duration::from_millis(800);

impl Host {
    /// Whatever comes of a switch in which a call fails: when it is over, the uplink by which the kernel sends new traffic has an open gate.
    /// The agent had recorded so many `switches` before it.
    pub(super) fn gates_follow_routes(&self, agent: &Subject, switches: usize) -> Result<()> {
        let failed = wait_for("the switch is over", SOON, || {
            let failed = agent.injected().is_some();
            // The agent's loop answers between its steps: a switch in which a call has failed before the question is in the answer.
            let status = agent.status()?;
            let over = if failed {
                recorded_switches(&status) > switches
            } else {
                is_settled(&status, Some("cable"))
            };
            ensure!(over, "{}", summary(&status));
            anyhow::Ok(failed)
        })?;
        if !failed {
            return Ok(());
        }
        let over = Instant::now();
        let mut before = None;
        // A route and a gate that are read one after the other may be from before and after a switch. Seen twice in a row they stand.
        wait_for("routes and gates stand", CONSISTENT + MARGIN, || {
            let seen = self.new_traffic(agent)?;
            let stand = before
                .replace(seen.clone())
                .is_some_and(|before| before == seen);
            ensure!(stand, "{seen:?} only once");
            let open = seen.iter().all(|(_, gate)| gate == "open");
            ensure!(open || over.elapsed() > CONSISTENT * pace(), "{seen:?}");
            Ok(open
                .then_some(())
                .with_context(|| format!("gates are not as the routes are: {seen:?}")))
        })?
    }

    /// The interfaces by which the kernel sends new IPv4 and IPv6 traffic, with the gates that are there.
    fn new_traffic(&self, agent: &Subject) -> Result<[(String, String); 2]> {
        let interface = |target: IpAddr| {
            let to = target.to_string();
            let route = ["-j", "route", "get", &to];
            match self.lab.host().namespace().exec_json("ip", &route) {
                Ok(route) => route[0]["dev"].as_str().unwrap_or_default().to_owned(),
                Err(error) => format!("no route: {error:#}"),
            }
        };
        let interfaces = [TARGET_V4, TARGET_V6].map(interface);
        let status = agent.status()?;
        let gate = |interface: &str, family: &str| {
            let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
            let uplink = uplinks.find(|uplink| uplink["name"] == interface);
            let gate = uplink.and_then(|uplink| uplink["families"][family]["gate"].as_str());
            gate.unwrap_or("no gate").to_owned()
        };
        let [v4, v6] = interfaces;
        let gates = (gate(&v4, "ipv4"), gate(&v6, "ipv6"));
        Ok([(v4, gates.0), (v6, gates.1)])
    }
}
