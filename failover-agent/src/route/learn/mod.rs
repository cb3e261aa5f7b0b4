//! What is there, before anything is changed and while the agent runs.
//!
//! | file | concern |
//! |---|---|
//! | `survey.rs` | the kernel's interfaces, addresses and routes at one time |
//! | `discover.rs` | the uplinks and their egress paths, learned from a survey |
//! | `egress_path.rs` | how one family leaves by one uplink |
//! | `source.rs` | which address of an interface suits a target |
//! | `lender.rs` | which interfaces are uplinks' under another name, and lend no address |
//! | `slots.rs` | the identity of each uplink: what its table, rules and nexthop objects are numbered by |
//! | `foreign.rs` | the default routes of others |
//! | `learned.rs` | what was learned, remembered over restarts |
//! | `hash_setting.rs` | what the connections of multipath routes are distinguished by |
//! | `lookup.rs` | questions about one packet |
//! | `inspect.rs`, `others.rs` | what the diagnosis wants to know |

pub(crate) mod discover;
pub(crate) mod egress_path;
pub(crate) mod foreign;
pub(crate) mod hash_setting;
pub(crate) mod inspect;
pub(crate) mod learned;
pub(crate) mod lender;
pub(crate) mod lookup;
pub(crate) mod others;
pub(crate) mod slots;
pub(crate) mod source;
pub(crate) mod survey;
