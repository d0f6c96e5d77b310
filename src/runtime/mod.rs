//! The runtime: what makes an engine, a configuration and DPDK ports into a running node.
//!
//! - [`worker`]: the loop of a poll-mode worker; [`slots`]: its ports; [`idle`]: how it waits; [`threads`]: where it runs;
//!   [`mesh`]: the queues between workers
//! - [`command`]: the queues between control threads and a worker; `jobs`: commands that take several turns; [`stats`]: what it publishes
//! - [`ports`]: the node's ports; [`links`]: their kernel interfaces; [`propagation`]: what a lost link does to the other
//!   port of its pair; [`keeper`]: the thread that watches all of it and puts ports back that were gone
//! - [`rss`]: the node's choice of method, keys and table, and what became of it at each port
//! - [`lock`]: what control threads share; [`node`]: what the control API sees; `policy`: what is compiled for
//!   workers; [`launch`]: start, service, stop; [`totals`]: the last words; [`notify`], [`watchdog`]: systemd

pub mod command;
pub mod crossway;
pub mod idle;
mod jobs;
pub mod keeper;
pub mod launch;
pub mod links;
mod load;
pub mod lock;
pub mod mesh;
pub mod node;
pub mod notify;
pub mod pair;
mod policy;
pub mod ports;
pub mod propagation;
pub mod rebalance;
pub mod rss;
pub mod slots;
pub mod stats;
pub mod threads;
pub mod totals;
pub mod watchdog;
pub mod worker;
