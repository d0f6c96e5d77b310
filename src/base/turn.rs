//! The order of a worker's turn (ARCHITECTURE.md, invariant 3), apart from what its steps do: the runtime's workers turn by it, and so
//! does the model of three workers that `tests/mesh_model.rs` checks in every order of their steps.
//!
//! What it guarantees: a worker that judges a packet knows every message that was told before any packet left which that packet
//! answers. Whoever judges the first one tells before that one leaves, so the message is in its receiver's queue then; the answer comes
//! in by a receive queue or from another worker after that; and the messages that wait are counted after the last packet of the batch
//! was taken, and all of these are taken before the batch is judged.

use super::Nanos;

/// The steps of a turn.
pub trait Steps {
    /// Takes packets from the receive queues into the batch. Returns how many. Where the batch has no room: [`judge`] first.
    fn receive(&mut self, now: Nanos) -> usize;
    /// The same of what other workers handed over.
    fn take_over(&mut self, now: Nanos) -> usize;
    /// How many messages of other workers wait.
    fn messages(&self) -> usize;
    /// Takes the oldest of them.
    fn take_message(&mut self, now: Nanos);
    /// Judges the batch: packets that are forwarded wait to be sent, or are sent.
    fn process(&mut self, now: Nanos);
    /// Sends what waits.
    fn flush(&mut self);
}

/// A turn. Returns how many packets came.
#[inline(always)]
pub fn turn(steps: &mut impl Steps, now: Nanos) -> usize {
    let received = steps.receive(now);
    let taken = steps.take_over(now);
    if received + taken > 0 {
        judge(steps, now);
        steps.flush();
    } else {
        drain(steps, now);
    }
    received + taken
}

/// Judges what is in the batch. Messages that these packets may depend on are here by now, and are taken first.
#[inline(always)]
pub fn judge(steps: &mut impl Steps, now: Nanos) {
    drain(steps, now);
    steps.process(now);
}

/// Takes the messages that packets may depend on which are here by now.
#[inline(always)]
pub fn drain(steps: &mut impl Steps, now: Nanos) {
    // What comes while they are drained belongs to packets that are not here yet.
    for _ in 0..steps.messages() {
        steps.take_message(now);
    }
}
