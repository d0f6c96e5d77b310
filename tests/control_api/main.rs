//! The control API over its socket: routes, refusals, limits, the socket's file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "../control_support/mod.rs"]
mod control_support;

mod connections;
mod refusals;
mod routes;
mod socket;
