//! Which notifications wake the agent: a classic BPF program (`linux/filter.h`) on the observer's socket.
//!
//! The kernel sends each notification in a datagram of its own. It begins with `struct nlmsghdr` (16 bytes), behind which come
//! `struct rtmsg`, `struct ifaddrmsg`, `struct tcmsg`, `struct ndmsg`, `struct fib_rule_hdr` or `struct nhmsg`.

use std::collections::BTreeSet;

use socket2::SockFilter;

use crate::route::wire::nexthop::RTM_DELNEXTHOP;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
pub(crate) const RTM_NEWNEIGH: u16 = 28;
pub(crate) const RTM_DELRULE: u16 = 33;
pub(crate) const RTM_DELQDISC: u16 = 37;
pub(crate) const RTM_DELTFILTER: u16 = 45;

/// `NUD_FAILED`.
const FAILED: u16 = 0x20;
/// `FRA_PROTOCOL`.
const RULE_PROTOCOL: u32 = 21;
/// `RTA_OIF`, `RTA_GATEWAY`, `RTA_VIA`.
const ROUTE_OIF: u32 = 4;
const ROUTE_GATEWAY: u32 = 5;
const ROUTE_VIA: u32 = 18;
/// `RTPROT_KERNEL`.
const BY_KERNEL: u32 = 2;
/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;
/// `RTN_UNICAST`.
const UNICAST: u32 = 1;

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

// BPF_LD, BPF_LDX, BPF_JMP, BPF_MISC and BPF_RET with their modes.
const LOAD_32: u16 = 0x20;
const LOAD_16: u16 = 0x28;
const LOAD_8: u16 = 0x30;
const LOAD_8_BEHIND_X: u16 = 0x50;
const LOAD_32_BEHIND_X: u16 = 0x40;
const LOAD_NUMBER: u16 = 0x00;
const LOAD_X: u16 = 0x01;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const COPY_TO_X: u16 = 0x07;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_NLATTR`: finds attribute X among those from offset A on; A becomes its offset, or 0.
const FIND_ATTRIBUTE: u32 = 0xffff_f000 + 12;

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
        Jump(BY_KERNEL, Drop),
        Do(LOAD_8, ROUTE_TABLE),
        Jump(MAIN, InMain),
        Do(RETURN, 0),
        Mark(InMain),
        Do(LOAD_8, ROUTE_KIND),
        Jump(UNICAST, Unicast),
        Do(RETURN, 0),
        Mark(Unicast),
        Do(LOAD_NUMBER, ATTRIBUTES),
        Do(LOAD_X, ROUTE_GATEWAY),
        Do(LOAD_8, FIND_ATTRIBUTE),
        Jump(0, NoGateway),
        Do(RETURN, 0),
        Mark(NoGateway),
        Do(LOAD_NUMBER, ATTRIBUTES),
        Do(LOAD_X, ROUTE_VIA),
        Do(LOAD_8, FIND_ATTRIBUTE),
        Jump(0, OnLink),
        Do(RETURN, 0),
        Mark(OnLink),
        Do(LOAD_NUMBER, ATTRIBUTES),
        Do(LOAD_X, ROUTE_OIF),
        Do(LOAD_8, FIND_ATTRIBUTE),
        Jump(0, Drop),
        Do(COPY_TO_X, 0),
        Do(LOAD_32_BEHIND_X, ATTRIBUTE_HEADER),
        Go(Index),
        Mark(Rule),
        Do(LOAD_NUMBER, ATTRIBUTES),
        Do(LOAD_X, RULE_PROTOCOL),
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
        Jump(host_16(FAILED), OfUplink),
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
