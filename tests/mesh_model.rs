//! Models of what the workers of a node do to each other, checked in every order of their steps that the memory model allows (loom):
//! no answer overtakes the message that it depends on (ARCHITECTURE.md, invariant 3), and no wake-up of a sleeping worker is lost.
//!
//! What is checked is the code that runs: the order of a turn is `base::turn`, the handshake of sleeping and waking is
//! `base::doorbell`, and the workers judge with the engine itself. Modelled are the queues between them, by what their sources do to
//! memory. Every model is also run with something in the wrong order, and has to find it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]
#![allow(
    clippy::disallowed_types,
    reason = "a pool of engines between the orders of a model"
)]

#[path = "support/crew.rs"]
mod crew;
#[path = "mesh_model/doorbell.rs"]
mod doorbell;
#[path = "mesh_model/overtaking.rs"]
mod overtaking;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Checks `model` in every order with at most so many preemptions of a thread (`None`: in every order at all). Returns in how many.
fn check(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) -> usize {
    let orders = Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check({
        let orders = Arc::clone(&orders);
        move || {
            orders.fetch_add(1, Ordering::Relaxed);
            model();
        }
    });
    orders.load(Ordering::Relaxed)
}

/// The message of the failure that `model` has to end with.
fn failure(model: impl FnOnce() -> usize) -> String {
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(model));
    let why = ended.expect_err("the model found nothing");
    let text = why.downcast_ref::<String>().cloned();
    text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .expect("a failure's text")
}
