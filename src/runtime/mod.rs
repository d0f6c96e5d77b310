//! The runtime: what makes an engine, a configuration and DPDK ports into a running node.
//!
//! - [`worker`]: the loop of a poll-mode worker; [`slots`]: its ports; [`idle`]: how it waits
//! - [`command`]: the queues between control threads and a worker; [`stats`]: what it publishes
//! - [`propagation`]: what a lost link does to the other port of its pair
//! - [`notify`]: readiness for systemd

pub mod command;
pub mod idle;
pub mod notify;
pub mod propagation;
pub mod slots;
pub mod stats;
pub mod worker;
