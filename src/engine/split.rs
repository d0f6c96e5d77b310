//! Datagrams whose fragments take different ways, of a node that is one of a pair.

use super::defer::{DEFERRED, Deferred, leave};
use super::fragments::{Hold, Release};
use super::process::{Act, port_policy};
use super::{Note, Outputs, Place, Why};
use crate::base::SessionIx;
use crate::flow::fragments::Complete;
use crate::packet::PacketBuf;

impl Act<'_> {
    /// [`Act::defer`] of a datagram in pieces: all of them wait, or none.
    #[cold]
    pub(super) fn defer_datagram<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        complete: Complete,
        ix: SessionIx,
        why: Why,
        hold: &mut Hold<B>,
        release: &mut Release<'_, O>,
    ) {
        let count = hold.store.count(&complete) as usize;
        let fits = hold.deferred.len() + count <= DEFERRED;
        let passes = if fits {
            self.counters.deferred += count as u64;
            self.table.set_awaited(ix, true);
            Ok(())
        } else {
            self.waits_in_vain(ix, count as u64)
        };
        let session = self.table.name_of(ix);
        let (deferred, counters, policy, now) =
            (&mut hold.deferred, &mut *self.counters, self.policy, self.now);
        hold.store.take(complete, |piece| {
            let place = release.place_of(piece.number);
            let waits = Deferred {
                packet: piece.packet,
                number: piece.number,
                egress: port_policy(policy, piece.ingress).peer,
                session,
                since: now,
            };
            if !fits {
                return leave(counters, waits, Note { why, place }, passes, release.out);
            }
            if let Place::Batch(place) = place {
                release.out.hold(piece.number, place);
            }
            deferred.push_back(waits);
        });
    }
}
