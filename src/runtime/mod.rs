//! The runtime: worker loop, link watch, launch and shutdown.
