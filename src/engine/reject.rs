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
    if let Some(buffer) = make(counters, rejects, now, meta, packet, scratch, out) {
        out.originate(buffer, meta.ingress);
    }
}

/// Makes it; `None`: there is none, or none now.
#[cold]
pub(super) fn make<B: PacketBuf, O: Outputs<B>>(
    counters: &mut Counters,
    rejects: &mut TokenBucket,
    now: Nanos,
    meta: &PacketMeta,
    packet: &B,
    scratch: &mut [u8; MAX_ANSWER],
    out: &mut O,
) -> Option<B> {
    let len = refusal(meta, packet.bytes(), scratch)?;
    if !rejects.try_take(now) {
        counters.rejects_suppressed += 1;
        return None;
    }
    // An empty pool, or a buffer that is too small: dropping it gives it back to its pool.
    let filled = out.buffer().and_then(|mut buffer| {
        buffer.try_fill(&scratch[..len]).ok()?;
        Some(buffer)
    });
    match filled {
        Some(_) => counters.originated += 1,
        None => counters.rejects_suppressed += 1,
    }
    filled
}
