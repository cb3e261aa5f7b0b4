//! Why something could not be had of the kernel's routing.

use failover_policy::{Family, UplinkSet};
use thiserror::Error;

use super::wire::nexthop::Nexthop;
use crate::{
    failure::Failure,
    netlink::{self, Refused},
};

/// Why something could not be had of the kernel's routing. The variants are the cases that a caller treats differently.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// Netlink itself failed: the kernel may have carried out what it was asked, or not. A fresh socket may help.
    #[error(transparent)]
    Netlink(#[from] anyhow::Error),
    /// The kernel refused a request.
    #[error("{what}: {refused}")]
    Refused {
        /// What that means: `not removed default via …`.
        what: String,
        /// The kernel's answer.
        refused: Refused,
    },
    /// A nexthop object of another program has the number of one of ours.
    #[error("{standing} has the number of {wanted}")]
    NumberTaken {
        /// The other program's.
        standing: Nexthop,
        /// Ours.
        wanted: Nexthop,
    },
    /// A default route of another program stands at a metric where the kernel has listed none.
    #[error("the kernel has a default route with metric {metric}")]
    MetricTaken {
        /// Its metric.
        metric: u32,
    },
    /// None of the uplinks that are to become active leads anywhere.
    #[error("uplinks {uplinks:?} have no egress path for {family}")]
    NoEgressPath {
        /// Those uplinks.
        uplinks: UplinkSet,
        /// The family that they were to carry.
        family: Family,
    },
    /// The kernel has accepted a route, and does not list it.
    #[error("the kernel does not show {route} after accepting it")]
    NotShown {
        /// As `ip route` prints it.
        route: String,
    },
    /// An uplink lacks what its user can give it.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<netlink::Error> for Error {
    fn from(error: netlink::Error) -> Error {
        Error::Netlink(error.into())
    }
}
