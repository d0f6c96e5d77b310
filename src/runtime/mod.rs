//! The runtime: worker loop, link watch, launch and shutdown.

pub mod idle;
pub mod notify;
pub mod propagation;
pub mod stats;
