//! Token buckets.

use failover_ebpf::{Bucket, Limits};

use crate::{LIMITS, now_ns};

/// ICMP errors per second and in a burst: the limits of Linux (icmp_msgs_per_sec and icmp_msgs_burst).
const ICMP: Rate = Rate {
    per_second: 1000,
    burst: 50,
};

/// Events: enough for every flow of a busy host in one switch, and no burden in a flood of flows.
const EVENTS: Rate = Rate {
    per_second: 1000,
    burst: 1000,
};

struct Rate {
    per_second: u64,
    burst: u64,
}

/// Takes a token for one ICMP error on an uplink.
#[inline(always)]
pub(crate) fn may_send_icmp(ifindex: u32) -> bool {
    limits(ifindex).is_some_and(|limits| take(&mut limits.icmp, &ICMP))
}

/// Takes a token for one event of an uplink.
#[inline(always)]
pub(crate) fn may_tell(ifindex: u32) -> bool {
    limits(ifindex).is_some_and(|limits| take(&mut limits.events, &EVENTS))
}

#[inline(always)]
fn limits(ifindex: u32) -> Option<&'static mut Limits> {
    // SAFETY: programs on other CPUs may write the same numbers at the same time. Every mixture of them is a state of
    // the bucket; at worst a token is handed out twice.
    LIMITS
        .get_ptr_mut(ifindex)
        .map(|limits| unsafe { &mut *limits })
}

#[inline(always)]
fn take(bucket: &mut Bucket, rate: &Rate) -> bool {
    const SECOND: u64 = 1_000_000_000;
    let now = now_ns();
    // A bucket that was idle for a second is full, whatever it holds; before that nothing overflows.
    let idle = now.saturating_sub(bucket.filled_ns).min(SECOND);
    let added = idle * rate.per_second / SECOND;
    if added > 0 {
        bucket.tokens = (bucket.tokens + added).min(rate.burst);
        bucket.filled_ns = now;
    }
    if bucket.tokens == 0 {
        return false;
    }
    bucket.tokens -= 1;
    true
}
