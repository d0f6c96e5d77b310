//! Two peers with a model of sessions at each end, over a network that a seed or a script breaks.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "ha_peer/cases.rs"]
mod cases;
#[path = "ha_peer/faults.rs"]
mod faults;
#[path = "support/ha_model.rs"]
mod ha_model;
#[path = "support/ha_net.rs"]
mod ha_net;
