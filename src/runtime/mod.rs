//! The runtime: worker loop, link watch, launch and shutdown.

pub mod notify;
pub mod propagation;
