//! Which node of a pair leads: two election machines over a network that a script, or a seed, breaks.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "ha_election/matrix.rs"]
mod matrix;
#[path = "ha_election/network.rs"]
mod network;
#[path = "ha_election/pair.rs"]
mod pair;
