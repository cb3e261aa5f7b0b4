//! Which notifications wake the agent: a classic BPF program (`linux/filter.h`) on the observer's socket.
//!
//! The kernel sends each notification in a datagram of its own. It begins with `struct nlmsghdr` (16 bytes), behind which come
//! `struct rtmsg`, `struct ifaddrmsg`, `struct tcmsg`, `struct ndmsg`, `struct fib_rule_hdr` or `struct nhmsg`.

use std::collections::BTreeSet;

use nix::libc::{
    NUD_FAILED, RT_TABLE_MAIN, RTA_GATEWAY, RTA_OIF, RTM_DELADDR, RTM_DELLINK, RTM_DELQDISC,
    RTM_DELROUTE, RTM_DELRULE, RTM_DELTFILTER, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH,
    RTM_NEWROUTE, RTN_UNICAST, RTPROT_KERNEL,
};
use socket2::SockFilter;

use crate::{
    classic_bpf::{
        COPY_TO_X, FIND_ATTRIBUTE, JUMP, JUMP_IF_EQUAL, LOAD_8, LOAD_8_BEHIND_X, LOAD_16, LOAD_32,
        LOAD_32_BEHIND_X, LOAD_NUMBER, LOAD_X, RETURN,
    },
    route::wire::nexthop::RTM_DELNEXTHOP,
};

/// `include/uapi/linux/fib_rules.h`.
const FRA_PROTOCOL: u32 = 21;
/// `include/uapi/linux/rtnetlink.h`; libc has it for glibc only.
const RTA_VIA: u32 = 18;

/// Offset of `nlmsg_type`.
const TYPE: u32 = 4;
/// Offset of `nlmsg_pid`.
const PORT: u32 = 12;
/// Offset of `rtm_dst_len`.
const DESTINATION_LENGTH: u32 = 17;
/// Offset of `rtm_table`.
const ROUTE_TABLE: u32 = 20;
/// Offset of `rtm_protocol`.
const ROUTE_PROTOCOL: u32 = 21;
/// Offset of `rtm_type`.
const ROUTE_KIND: u32 = 23;
/// Offset of `nh_protocol`.
const NEXTHOP_PROTOCOL: u32 = 18;
/// Offset of `ifa_index`, of `ndm_ifindex` and of `tcm_ifindex`.
const IFINDEX: u32 = 20;
/// Offset of `ndm_state`.
const STATE: u32 = 24;
/// Where the attributes of a rule and of a route begin, behind `struct fib_rule_hdr` and `struct rtmsg`.
const ATTRIBUTES: u32 = 28;
/// Size of `struct nlattr`.
const ATTRIBUTE_HEADER: u32 = 4;

/// Where a jump leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Route,
    InMain,
    Unicast,
    NoGateway,
    OnLink,
    Rule,
    Nexthop,
    Neighbour,
    OfUplink,
    Index,
    Accept,
    Drop,
}

enum Step {
    Do(u16, u32),
    /// If A is this number.
    Jump(u32, Place),
    Go(Place),
    Mark(Place),
}

/// Accepts what is not ours (`own_port`), and of that: links; addresses, failed neighbours, lost qdiscs and filters of the interfaces `uplinks`, and the main
/// table's routes by these without a gateway, by which a gateway may be reached; default routes, and every route, lost rule and lost
/// nexthop object that bears our `protocol`. What the kernel itself routes to a link comes and goes with an address.
pub(crate) fn program(own_port: u32, protocol: u8, uplinks: &BTreeSet<u32>) -> Vec<SockFilter> {
    use Place::{
        Accept, Drop, InMain, Index, Neighbour, Nexthop, NoGateway, OfUplink, OnLink, Route, Rule,
        Unicast,
    };
    use Step::{Do, Go, Jump, Mark};

    // Loads take the bytes for big-endian numbers, netlink's are in the host's order.
    let host_16 = |number: u16| u32::from(u16::from_be_bytes(number.to_ne_bytes()));
    let host_32 = |number: u32| u32::from_be_bytes(number.to_ne_bytes());

    let mut steps = vec![Do(LOAD_32, PORT), Jump(host_32(own_port), Drop)];
    steps.push(Do(LOAD_16, TYPE));
    steps.extend(
        [
            (RTM_NEWLINK, Accept),
            (RTM_DELLINK, Accept),
            (RTM_NEWADDR, OfUplink),
            (RTM_DELADDR, OfUplink),
            (RTM_DELQDISC, OfUplink),
            (RTM_DELTFILTER, OfUplink),
            (RTM_NEWNEIGH, Neighbour),
            (RTM_NEWROUTE, Route),
            (RTM_DELROUTE, Route),
            (RTM_DELRULE, Rule),
            (RTM_DELNEXTHOP, Nexthop),
        ]
        .map(|(kind, place)| Jump(host_16(kind), place)),
    );
    steps.extend([
        Do(RETURN, 0),
        Mark(Route),
        Do(LOAD_8, DESTINATION_LENGTH),
        Jump(0, Accept),
        Do(LOAD_8, ROUTE_PROTOCOL),
        Jump(u32::from(protocol), Accept),
        Jump(u32::from(RTPROT_KERNEL), Drop),
        Do(LOAD_8, ROUTE_TABLE),
        Jump(u32::from(RT_TABLE_MAIN), InMain),
        Do(RETURN, 0),
        Mark(InMain),
        Do(LOAD_8, ROUTE_KIND),
        Jump(u32::from(RTN_UNICAST), Unicast),
        Do(RETURN, 0),
        Mark(Unicast),
        Do(LOAD_NUMBER, ATTRIBUTES),
        Do(LOAD_X, u32::from(RTA_GATEWAY)),
        Do(LOAD_8, FIND_ATTRIBUTE),
        Jump(0, NoGateway),
        Do(RETURN, 0),
        Mark(NoGateway),
        Do(LOAD_NUMBER, ATTRIBUTES),
        Do(LOAD_X, RTA_VIA),
        Do(LOAD_8, FIND_ATTRIBUTE),
        Jump(0, OnLink),
        Do(RETURN, 0),
        Mark(OnLink),
        Do(LOAD_NUMBER, ATTRIBUTES),
        Do(LOAD_X, u32::from(RTA_OIF)),
        Do(LOAD_8, FIND_ATTRIBUTE),
        Jump(0, Drop),
        Do(COPY_TO_X, 0),
        Do(LOAD_32_BEHIND_X, ATTRIBUTE_HEADER),
        Go(Index),
        Mark(Rule),
        Do(LOAD_NUMBER, ATTRIBUTES),
        Do(LOAD_X, FRA_PROTOCOL),
        Do(LOAD_8, FIND_ATTRIBUTE),
        Jump(0, Drop),
        Do(COPY_TO_X, 0),
        Do(LOAD_8_BEHIND_X, ATTRIBUTE_HEADER),
        Jump(u32::from(protocol), Accept),
        Do(RETURN, 0),
        Mark(Nexthop),
        Do(LOAD_8, NEXTHOP_PROTOCOL),
        Jump(u32::from(protocol), Accept),
        Do(RETURN, 0),
        Mark(Neighbour),
        Do(LOAD_16, STATE),
        Jump(host_16(NUD_FAILED), OfUplink),
        Do(RETURN, 0),
        Mark(OfUplink),
        Do(LOAD_32, IFINDEX),
        Mark(Index),
    ]);
    steps.extend(
        uplinks
            .iter()
            .map(|ifindex| Jump(host_32(*ifindex), Accept)),
    );
    steps.extend([
        Mark(Drop),
        Do(RETURN, 0),
        Mark(Accept),
        Do(RETURN, u32::MAX),
    ]);
    assemble(&steps)
}

/// Turns places into distances. A jump counts the instructions between it and its place.
fn assemble(steps: &[Step]) -> Vec<SockFilter> {
    let instructions = |steps: &[Step]| {
        let marks = steps.iter().filter(|step| matches!(step, Step::Mark(_)));
        steps.len() - marks.count()
    };
    let mut program = Vec::with_capacity(steps.len());
    for (position, step) in steps.iter().enumerate() {
        let distance = |place: Place| {
            let behind = &steps[position + 1..];
            let distance = behind
                .iter()
                .take_while(|step| !matches!(step, Step::Mark(mark) if *mark == place))
                .count();
            // A test makes sure that every distance fits.
            u8::try_from(instructions(&behind[..distance])).unwrap_or(u8::MAX)
        };
        match *step {
            Step::Do(code, operand) => program.push(SockFilter::new(code, 0, 0, operand)),
            Step::Jump(number, place) => {
                program.push(SockFilter::new(JUMP_IF_EQUAL, distance(place), 0, number));
            }
            Step::Go(place) => {
                program.push(SockFilter::new(JUMP, 0, 0, distance(place).into()));
            }
            Step::Mark(_) => {}
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distance_fits_into_a_jump() {
        let most = u32::try_from(failover_ebpf::MAX_UPLINKS).unwrap();
        let program = program(4711, 136, &(1..=most).collect());
        // No jump is longer than the program.
        assert!(program.len() <= usize::from(u8::MAX), "{}", program.len());
    }
}
