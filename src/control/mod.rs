//! Control: the API server, its client the command line, apply and explain.
//!
//! [`node::Node`] is what a running node offers; the runtime implements it, [`api`] serves it over HTTP on a Unix
//! socket, and the command line ([`cli`]) is a client of that.

pub mod api;
pub mod apply;
pub mod bind;
pub mod cli;
pub mod client;
pub mod doctor;
pub mod eventlog;
pub mod explain;
pub mod filter;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod rules;
pub mod table;
pub mod view;

pub use filter::SessionFilter;
pub use node::{Node, NodeError};

/// Where a node listens for its operators, unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/haechi/haechi.sock";
