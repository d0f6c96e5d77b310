//! The DPDK layer on virtual devices: each scenario is a process of its own (the EAL starts once a process) in a network
//! namespace of its own, which goes with the process, however that ends. Needs root and libdpdk.
#![cfg(feature = "dpdk")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod acl;
mod harness;
#[path = "../support/hugepages.rs"]
mod hugepages;
mod interfaces;
mod interrupts;
mod packets;
#[path = "../support/policies.rs"]
#[allow(dead_code, reason = "the oracle of the configuration has tests of its own")]
mod policies;
mod refusals;
mod rss;
#[path = "../support/rssdev.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod rssdev;
