//! Two nodes of a pair under a manual clock: real engines, several workers each, and the real protocol with the real dispatch and
//! members between them, over a network that a seed breaks, with clients that talk through whoever leads. What has to hold whatever
//! happens is looked at after every step (`sim/world.rs`).
//!
//! `HAECHI_SIM_SEEDS=20000 cargo test --no-default-features --test sim` runs that many seeds; `HAECHI_SIM_SEED=17` that one alone, with
//! what happened in it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "support/ha_net.rs"]
mod ha_net;
#[path = "support/ha_v2.rs"]
mod ha_v2;

#[path = "sim/fault.rs"]
mod fault;
#[path = "sim/found.rs"]
mod found;
#[path = "sim/middle.rs"]
mod middle;
#[path = "sim/node.rs"]
mod node;
#[path = "sim/policy.rs"]
mod policy;
#[path = "sim/talk.rs"]
mod talk;
#[path = "sim/tally.rs"]
mod tally;
#[path = "sim/world.rs"]
mod world;

use fault::Fault;
use tally::Tally;
use world::{Outcome, run};

/// Seeds of the suite.
const SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn whatever_happens_the_invariants_hold() {
    if let Some(seed) = number("HAECHI_SIM_SEED") {
        let outcome = run(seed, None, true);
        println!("{}", outcome.tally);
        assert_eq!(outcome.violation, None, "seed {seed}");
        return;
    }
    let seeds = number("HAECHI_SIM_SEEDS").unwrap_or(SEEDS);
    let mut tally = Tally::default();
    let mut broken = vec![];
    for seed in 0..seeds {
        let Outcome {
            violation, tally: of, ..
        } = run(seed, None, false);
        tally.add(&of);
        if let Some(violation) = violation {
            println!("seed {seed}: {violation}");
            broken.push(seed);
        }
    }
    println!("{seeds} seeds\n{tally}");
    assert!(broken.is_empty(), "HAECHI_SIM_SEED=n replays them: {broken:?}");
    if seeds >= SEEDS {
        assert_eq!(tally.missing(), Vec::<&str>::new(), "never happened");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..8 {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_ne!(first.trace, run(seed + 1, None, false).trace);
    }
}

/// A simulator that catches nothing proves nothing.
#[test]
fn each_fault_is_caught() {
    let mut missed = vec![];
    for fault in Fault::ALL {
        let caught = (0..SEEDS).find_map(|seed| {
            let violation = run(seed, Some(fault), false).violation?;
            Some((seed, violation))
        });
        match caught {
            Some((seed, violation)) => {
                println!("{fault:?}: by seed {seed}, after {} seeds: {violation}", seed + 1);
            }
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
