//! Bindings to libdpdk (feature `dpdk`): pkg-config, bindgen and one C shim.

fn main() {}
