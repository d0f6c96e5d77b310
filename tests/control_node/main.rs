//! What the control API does with a real engine behind it: sessions, kill, apply, explain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "../control_support/mod.rs"]
mod control_support;

mod apply;
mod busy;
mod explain;
mod sessions;
