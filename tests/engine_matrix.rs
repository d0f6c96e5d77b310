//! The whole engine under a manual clock: rules by packets by states, and the whole change of state each time.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "support/both.rs"]
mod both;
#[path = "support/checked.rs"]
mod checked;
#[path = "support/crew.rs"]
mod crew;
#[path = "support/frames.rs"]
mod frames;
#[path = "support/node.rs"]
mod node;

#[path = "engine/active/mod.rs"]
mod active;
#[path = "engine/antispoof.rs"]
mod antispoof;
#[path = "engine/apply.rs"]
mod apply;
#[path = "engine/bursts.rs"]
mod bursts;
#[path = "engine/crew.rs"]
mod crew_of_workers;
#[path = "engine/domains.rs"]
mod domains;
#[path = "engine/fragments/mod.rs"]
mod fragments;
#[path = "engine/garbage.rs"]
mod garbage;
#[path = "engine/icmp.rs"]
mod icmp;
#[path = "engine/layer2.rs"]
mod layer2;
#[path = "engine/leases.rs"]
mod leases;
#[path = "engine/limits.rs"]
mod limits;
#[path = "engine/loans.rs"]
mod loans;
#[path = "engine/log.rs"]
mod log;
#[path = "engine/martians.rs"]
mod martians;
#[path = "engine/pair.rs"]
mod pair;
#[path = "engine/pressure.rs"]
mod pressure;
#[path = "engine/rebalance.rs"]
mod rebalance;
#[path = "engine/rebalance_limits.rs"]
mod rebalance_limits;
#[path = "engine/reject.rs"]
mod reject;
#[path = "engine/related.rs"]
mod related;
#[path = "engine/rules.rs"]
mod rules;
#[path = "engine/states.rs"]
mod states;
#[path = "engine/syn/mod.rs"]
mod syn;
#[path = "engine/syn_model.rs"]
mod syn_model;
#[path = "support/tcp.rs"]
mod tcp;
#[path = "engine/timeout_reset.rs"]
mod timeout_reset;
#[path = "engine/timeouts.rs"]
mod timeouts;
#[path = "engine/windows.rs"]
mod windows;
