//! Uplinks whose interfaces, addresses and gateways come and go: the real agent on a real kernel, with what a DHCP client, a router or
//! an administrator does done by hand.

mod advertised;
mod displaced;
mod duplicate;
mod fixtures;
mod full_table;
mod lease;
mod memory;
mod no_gateway;
mod on_link;
mod overlap;
mod sources;
mod waiting;
