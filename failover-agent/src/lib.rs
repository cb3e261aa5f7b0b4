//! failover-agent keeps a Linux host or router online over several uplinks: it probes all of them at once, decides with hysteresis, swaps
//! default-route metrics by netlink, and cuts what is left on the others with TC eBPF programs.
//!
//! One idea carries the whole program: **a pure machine decides, thin edges act.**
//!
//! ```text
//!              facts                                decisions
//! probe    echo replies, losses ──┐              ┌──> route     main table: metrics, make before break
//! route    carrier, addresses,    │   ┌────────┐ │              own tables and rules
//!          routes of others     ──┼──>│ policy │─┼──> datapath  gates in BPF maps
//! control  commands, requests     ──┤   │ (pure) │ ├──> cutoff    tracked flows, idle sockets
//! clock    the time             ──┘   └────────┘ ├──> probe     a round out of turn
//!                                                ├──> hook      the user's programs
//!                                                └──> log, control::status
//!                    Input                Action
//!                 └──────────── agent: the one select! loop ───────────┘
//! ```
//!
//! | module | what lives there |
//! |---|---|
//!  [`cli`], [`verbs`], `output`, [`logging`] | the command line, what each verb does, what it prints, log lines |
//!  [`config`], [`failure`] | TOML and flags become one validated configuration; every error names the place and the cure |
//! | [`failover_policy`] | health, election, machine: pure |
//!  [`probe`] | edge: ICMP echo, one prober per uplink and family |
//! | [`route`] | edge: discovery, tables and rules, the switch, displaced routes, netlink notifications |
//! | [`datapath`] | edge: the eBPF programs and their maps; the only place that knows aya |
//! | [`cutoff`] | edge: local sockets and tracked flows that no packet reaches |
//! | [`conflict`] | other programs that change our routes and rules: who, how often, the remedy |
//! | [`control`] | edge: lock, unix socket, status model, events |
//!  [`hook`] | edge: the user's programs (hooks, recovery) |
//!  [`store`] | edge: files that outlive the process, written by a process of their own |
//! | [`doctor`] | diagnosis: facts about the host, checks, cures |
//! | [`agent`], [`clock`] | the loop that connects them, and its time |
//!  `aside` | threads for work that would hold up the loop |
//!
//! # Invariants
//!
//! 1. [`failover_policy`] imports no tokio, aya, rtnetlink, clock or file. Time is a parameter; its types are plain data and `PartialEq`.
//!    (It has no dependencies, and a test reads its sources.)
//! 2. Never worse: the agent never switches to, nor cuts anything in favour of, an uplink that is not proven Up just now. If all
//!    are Down, nothing changes. (Property tests.)
//! 3. Make before break: the new route stands and is confirmed before the old one is demoted or anything is cut. There is no
//!    instant without a default route. (Namespace tests poll for one.)
//! 4. Order of a switch: the new uplink's gate opens, new route in, old route demoted, the other gates close (after the
//!    drain, if a working uplink was left for a more preferred one). Each step's result is checked and its time recorded.
//! 5. Own only what is ours: our routes and nexthop objects bear our protocol number, our rules our priority range and
//!    protocol, our pins our directory. Stopping restores what was displaced; `reset` removes every trace even after a kill -9.
//! 6. A dead agent harms nothing: gates stand open once the lease is past, routes stay as they were.
//! 7. The programs return `TCX_NEXT` on pass, so that others' programs run too; they never touch a packet that they let pass.
//! 8. No `unwrap` outside tests (a lint); `unsafe` only in failover-ebpf and in one named file per edge that needs it.
//! 9. The reader of the log never holds up the agent, even if it stops reading; a clean-up goes on after each error and reports them all.
//! 10. Nothing that outsiders send grows memory or the log without a bound that is counted and shown.
//!
//! `docs/architecture.md` in the repository says more.

pub mod agent;
mod aside;
mod classic_bpf;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conflict;
pub mod control;
pub mod cutoff;
pub mod datapath;
pub mod doctor;
pub mod failure;
pub mod hook;
mod interface;
pub mod logging;
mod netlink;
mod output;
pub mod probe;
pub mod route;
pub mod store;
pub mod verbs;
