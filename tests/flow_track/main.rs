//! Connection tracking: every state with every kind of segment from either end, whole conversations, and two endpoints
//! on a lossy path.
#![allow(clippy::unwrap_used, reason = "tests")]

mod connection;
mod conversations;
mod endpoints;
mod matrix;
mod model;
mod resets;
mod sessions;
mod windows;
