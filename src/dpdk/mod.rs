//! Safe bindings to DPDK: the only place with `unsafe` and C.
