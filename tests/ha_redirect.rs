//! Packets that cross between active-active nodes, as far as the protocol and the queues carry them: whole or in parts, bounded, refused
//! beyond what is allowed, and never in the way of heartbeats and updates.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "ha_redirect/dispatch.rs"]
mod dispatch;
#[path = "support/frames.rs"]
mod frames;
#[path = "ha_redirect/inbox.rs"]
mod inbox;
#[path = "ha_redirect/link.rs"]
mod link;
#[path = "ha_redirect/peers.rs"]
mod peers;
