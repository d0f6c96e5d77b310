//! Answers to refused packets, within `reject_rate`.

use super::rate::TokenBucket;
use super::{Counters, Outputs};
use crate::base::Nanos;
use crate::packet::build::{MAX_ANSWER, refusal};
use crate::packet::{PacketBuf, PacketMeta};

/// Makes the answer to a refused packet and sends it out of the port that the packet came in by: in layer 2 it looks as
/// if the refused destination itself had sent it.
#[cold]
pub(super) fn answer<B: PacketBuf, O: Outputs<B>>(
    counters: &mut Counters,
    rejects: &mut TokenBucket,
    now: Nanos,
    meta: &PacketMeta,
    packet: &B,
    scratch: &mut [u8; MAX_ANSWER],
    out: &mut O,
) {
    let Some(len) = refusal(meta, packet.bytes(), scratch) else {
        return;
    };
    if !rejects.try_take(now) {
        counters.rejects_suppressed += 1;
        return;
    }
    // An empty pool, or a buffer that is too small: dropping it gives it back to its pool.
    let Some(mut buffer) = out.buffer() else {
        counters.rejects_suppressed += 1;
        return;
    };
    if buffer.try_fill(&scratch[..len]).is_err() {
        counters.rejects_suppressed += 1;
        return;
    }
    counters.originated += 1;
    out.originate(buffer, meta.ingress);
}
