//! The datapath in the kernel: verdicts by test_run, and programs on interfaces in network namespaces.

mod cut;
mod lab;
mod lifecycle;
mod packets;
mod verdicts;
