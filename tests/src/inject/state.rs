//! What the agent's status says of its uplinks.

use std::fmt::Write as _;

use serde_json::Value;

/// The states of all uplinks in all families that are in use, with the uplinks' names.
pub(super) fn states(status: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let uplinks = status["uplinks"].as_array().into_iter().flatten();
    uplinks.flat_map(|uplink| {
        let families = ["ipv4", "ipv6"].map(|family| &uplink["families"][family]);
        let used = families.into_iter().filter(|state| !state.is_null());
        used.map(|state| (&uplink["name"], state))
    })
}

/// How many switches the agent has recorded, confirmed or not.
pub(super) fn recorded_switches(status: &Value) -> usize {
    status["switches"].as_array().map_or(0, Vec::len)
}

/// Whether an uplink is active in both families, Up and with an open gate, the gates of all others are closed, and `broken` is not
/// active.
pub(super) fn is_settled(status: &Value, broken: Option<&str>) -> bool {
    let both = ["ipv4", "ipv6"].iter().all(|family| {
        let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
        uplinks.any(|uplink| uplink["families"][family]["active"] == true)
    });
    both && states(status).all(|(name, state)| {
        if state["active"] == true {
            state["gate"] == "open" && state["health"] == "Up" && broken != name.as_str()
        } else {
            state["gate"] == "closed"
        }
    })
}

/// A status in one line, for an error.
pub(super) fn summary(status: &Value) -> String {
    let mut text = format!("active {}", status["active"]);
    for uplink in status["uplinks"].as_array().into_iter().flatten() {
        for family in ["ipv4", "ipv6"] {
            let state = &uplink["families"][family];
            if !state.is_null() {
                // Writing to a String cannot fail.
                write!(
                    text,
                    "; {} {family} {} {}{}",
                    uplink["name"],
                    state["health"],
                    state["gate"],
                    if state["active"] == true {
                        " active"
                    } else {
                        ""
                    }
                )
                .ok();
            }
        }
    }
    text
}
