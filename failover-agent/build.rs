//! Compiles failover-ebpf for the bpf target and leaves the object in `OUT_DIR` for `datapath` to embed.
fn main() {}
