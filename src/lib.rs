//! haechi: a stateful firewall appliance on DPDK.
//!
//! The crate is a library and a thin binary. Modules import only from modules above them in this list, so that the
//! packet engine builds and tests on a machine without DPDK (`--no-default-features`):
//!
//! - [`base`]: ids, time, prefetch and SIMD helpers, fixed memory
//! - [`packet`]: one-pass parser, header views, checksums, packet builders
//! - [`flow`]: flow key, session table, TCP tracker, timers
//! - [`policy`]: rules, zones, sets, classifiers: compiled and immutable
//! - [`engine`]: `process()`: the stages in order, verdicts and reasons
//! - [`ha`]: the protocol between the two nodes of an HA pair
//! - [`config`]: the configuration file, its validation, and its compilation to a policy
//! - `dpdk`: safe bindings to DPDK (feature `dpdk`)
//! - [`control`]: control API, command line, apply
//! - `runtime`: worker loop, link watch, launch and shutdown (feature `dpdk`)

pub mod base;
pub mod config;
pub mod control;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod engine;
pub mod flow;
pub mod ha;
pub mod packet;
pub mod policy;
#[cfg(feature = "dpdk")]
pub mod runtime;
