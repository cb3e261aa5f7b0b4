//! The numbers of what is ours in the kernel: an uplink's identity, beyond the base that the configuration gives.

use std::ops::Range;

use failover_ebpf::MAX_UPLINKS;
use failover_policy::UplinkId;

use crate::config::RouteConfig;

/// Rule priorities for each uplink.
const RULES_PER_UPLINK: u32 = 3;
/// From an uplink's first nexthop object to its second.
const TWIN: u32 = number(MAX_UPLINKS);
/// From `route.table` to the group of nexthop objects.
const GROUP: u32 = 2 * TWIN;

/// Number of an uplink's own routing table.
pub(crate) fn uplink_table(config: &RouteConfig, uplink: UplinkId) -> u32 {
    config.table + number(uplink.0)
}

/// Priorities of our rules.
pub(crate) fn rule_priorities(config: &RouteConfig) -> Range<u32> {
    config.rule_priority..config.rule_priority + RULES_PER_UPLINK * number(MAX_UPLINKS)
}

/// Number of the group of nexthop objects.
pub(crate) fn group_id(config: &RouteConfig) -> u32 {
    config.table + GROUP
}

/// Numbers of an uplink's nexthop objects.
pub(crate) fn member_ids(config: &RouteConfig, uplink: UplinkId) -> [u32; 2] {
    let slot = number(uplink.0);
    [config.table + slot, config.table + TWIN + slot]
}

/// An uplink's identity or position, or the number of uplinks, in netlink messages.
#[expect(
    clippy::cast_possible_truncation,
    reason = "there are at most MAX_UPLINKS (64) uplinks"
)]
pub(crate) const fn number(uplinks: usize) -> u32 {
    uplinks as u32
}
