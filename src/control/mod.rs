//! Control: the API server, its client the command line, apply and explain.
//!
//! [`node::Node`] is what a running node offers; the runtime implements it, [`api`] serves it over HTTP on a Unix
//! socket, and the command line ([`cli`]) is a client of that.

pub mod filter;
pub mod node;

pub use filter::SessionFilter;
pub use node::{Node, NodeError};
