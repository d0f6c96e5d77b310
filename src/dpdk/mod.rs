//! Safe bindings to DPDK: the only place with `unsafe` and C.
//!
//! - [`acl`]: the classifier over `rte_acl`
//! - [`eal`]: the environment: started once, from a typed configuration; cleaned up when its last user is gone
//! - [`memory`]: fixed tables in huge pages
//! - [`mempool`], [`mbuf`]: packet buffers that cannot leak, be freed twice or be chained
//! - [`port`]: a network port: probe, configure, start, link, statistics, close
//! - [`queue`]: one receive or transmit queue in the hands of one worker
//! - [`ring`]: a bounded queue between two threads
//! - [`thread`], [`tsc`]: what a worker thread needs besides
//!
//! Ownership, in one picture: every [`queue`] handle keeps its [`port::Port`] alive, every port keeps its mempools, and all of
//! them keep the [`eal::Eal`]. So nothing that a worker can still touch is ever closed or unmapped.
#![allow(unsafe_code, reason = "calls into DPDK; each block says why it is sound")]

pub mod acl;
pub mod eal;
pub mod error;
mod host;
mod log;
pub mod mbuf;
pub mod memory;
pub mod mempool;
pub mod port;
pub mod queue;
pub mod ring;
mod sys;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod tsc;
pub mod wake;

pub use acl::{AclClassifier, LINEAR_RULES};
pub use eal::{Eal, EalConfig};
pub use error::Error;
pub use mbuf::{Burst, MAX_BURST, Mbuf};
pub use memory::HugePages;
pub use mempool::Mempool;
pub use port::{Device, Link, Port, PortInfo, PortSetup, PortStats, RssAbilities, RssError, RssSetup};
pub use queue::{RxQueue, TxQueue};
