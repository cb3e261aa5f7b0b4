//! What is there, before anything is changed and while the agent runs.
//!
//! | file | concern |
//! |---|---|
//! | `survey.rs` | the kernel's interfaces, addresses and routes at one time |
//! | `discover.rs` | the uplinks and their egress paths, learned from a survey |
//! | `egress_path.rs` | how one family leaves by one uplink |
//! | `source.rs` | which address of an interface suits a target |
//! | `lender.rs` | which interfaces are uplinks' under another name, and lend no address |
//! | `learned.rs` | what was learned, remembered over restarts |
//! | `lookup.rs` | questions about one packet |
//! | `inspect.rs`, `others.rs` | what the diagnosis wants to know |

pub(crate) mod discover;
pub(crate) mod egress_path;
pub(crate) mod inspect;
pub(crate) mod learned;
pub(crate) mod lender;
pub(crate) mod lookup;
pub(crate) mod others;
pub(crate) mod source;
pub(crate) mod survey;
