//! The datapath in the kernel: verdicts by test_run, and programs on interfaces in network namespaces.

mod lab;
mod packets;
mod verdicts;
