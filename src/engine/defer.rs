//! Rules with `defer`: the first packet of a session leaves once the other node of the pair knows the session. So whichever node an answer
//! comes to, or is left, knows it.

use super::fragments::Hold;
use super::process::{Act, port_policy};
use super::{Counters, DropReason, EndReason, Engine, Note, Outputs, Place, Why};
use crate::base::{Nanos, PortId, SessionIx};
use crate::packet::PacketBuf;

/// Packets that wait on one worker at most; one more is treated as one whose time is over.
pub const DEFERRED: usize = 256;

/// A packet that waits.
pub(super) struct Deferred<B> {
    pub(super) packet: B,
    /// Its number among those that are held.
    pub(super) number: u64,
    /// The port that it leaves by.
    pub(super) egress: PortId,
    /// Its session ([`crate::flow::SessionTable::name_of`]).
    pub(super) session: u64,
    pub(super) since: Nanos,
    /// A fragment that came in at the other node, and leaves there.
    pub(super) is_from_peer: bool,
}

/// How long packets wait, and what becomes of them then.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    timeout: Nanos,
    opens: bool,
}

impl Patience {
    /// Until something else is said: `defer_timeout` and `defer_fail` of a configuration that does not say.
    pub(super) const DEFAULT: Self = Self {
        timeout: Nanos(50_000_000),
        opens: true,
    };
}

impl<B> Engine<B> {
    /// How long first packets wait at most (`defer_timeout`), and whether they leave then (`defer_fail = "open"`).
    pub fn set_defer(&mut self, timeout: Nanos, opens: bool) {
        if let Some(pair) = &mut self.pair {
            pair.patience = Patience { timeout, opens };
        }
    }

    /// Do first packets wait to be [`Engine::told`], or for their time to be over?
    #[inline]
    #[must_use]
    pub fn has_deferred(&self) -> bool {
        !self.fragments.deferred.is_empty()
    }

    /// Does a packet wait for this session, of which [`Engine::next_change`] has just said the name, to be [`Engine::told`]?
    #[must_use]
    pub fn is_awaited(&self, name: u64) -> bool {
        self.has_deferred() && self.table.named(name).is_some_and(|ix| self.table.is_awaited(ix))
    }

    /// The other node knows the session that was told by this name: what waited for that leaves; and what has waited too long waits no more.
    pub fn told<O: Outputs<B>>(&mut self, now: Nanos, name: u64, out: &mut O) {
        let session = self.table.named(name);
        if let Some(ix) = session {
            self.table.set_awaited(ix, false);
        }
        let deferred = &mut self.fragments.deferred;
        while let Some(place) = deferred.iter().position(|deferred| deferred.session == name) {
            if let Some(deferred) = deferred.remove(place) {
                let passes = session.map(|_| ()).ok_or(DropReason::NoSession);
                let note = note(&deferred, session);
                leave(&mut self.counters, deferred, note, passes, out);
            }
        }
        self.end_waits(now, out);
    }

    /// Ends the wait of packets whose time is over, and of all of them if nobody is told of sessions any more.
    pub(super) fn end_waits<O: Outputs<B>>(&mut self, now: Nanos, out: &mut O) {
        let Some(patience) = self.pair.as_ref().map(|pair| pair.patience) else {
            return;
        };
        let tells = self.table.tells();
        let is_over = |deferred: &Deferred<B>| !tells || now.since(deferred.since) >= patience.timeout;
        while self.fragments.deferred.front().is_some_and(is_over) {
            let Some(deferred) = self.fragments.deferred.pop_front() else {
                return;
            };
            let session = self.table.named(deferred.session);
            self.counters.deferred_late += u64::from(tells);
            let passes = match session {
                None => Err(DropReason::NoSession),
                Some(ix) => {
                    self.table.set_awaited(ix, false);
                    if tells && !patience.opens {
                        self.end(now, ix, EndReason::Deferred, None);
                        Err(DropReason::Deferred)
                    } else {
                        Ok(())
                    }
                }
            };
            let note = note(&deferred, session);
            leave(&mut self.counters, deferred, note, passes, out);
        }
    }

    /// Drops what waits: the node stops.
    pub(super) fn drop_deferred<O: Outputs<B>>(&mut self, out: &mut O) {
        while let Some(deferred) = self.fragments.deferred.pop_front() {
            let note = note(&deferred, None);
            leave(&mut self.counters, deferred, note, Err(DropReason::Deferred), out);
        }
    }
}

/// Of a packet that has waited for a session to be known.
const fn note<B>(deferred: &Deferred<B>, session: Option<SessionIx>) -> Note {
    Note {
        why: match session {
            Some(ix) => Why::Session(ix),
            None => Why::Rule(None),
        },
        place: Place::Held(deferred.number),
    }
}

/// A packet waits no more.
pub(super) fn leave<B, O: Outputs<B>>(
    counters: &mut Counters,
    deferred: Deferred<B>,
    note: Note,
    passes: Result<(), DropReason>,
    out: &mut O,
) {
    match passes {
        Ok(()) if deferred.is_from_peer => {
            counters.given_back += 1;
            out.give_back(deferred.packet, deferred.egress, note);
        }
        Ok(()) => {
            counters.forwarded += 1;
            out.forward_own(deferred.packet, deferred.egress, note);
        }
        Err(reason) => {
            counters.drops[reason.index()] += 1;
            out.drop(deferred.packet, reason, note);
        }
    }
}

impl Act<'_> {
    /// A packet that came in by `ingress` has opened the session `ix`, by a rule with `defer`.
    #[cold]
    pub(super) fn defer<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        packet: B,
        (ix, ingress): (SessionIx, PortId),
        note: Note,
        hold: &mut Hold<B>,
        out: &mut O,
    ) {
        let egress = port_policy(self.policy, ingress).peer;
        if let (true, Place::Batch(place)) = (hold.deferred.len() < DEFERRED, note.place) {
            let number = hold.next_number();
            out.hold(number, place);
            self.counters.deferred += 1;
            self.table.set_awaited(ix, true);
            hold.deferred.push_back(Deferred {
                packet,
                number,
                egress,
                session: self.table.name_of(ix),
                since: self.now,
                is_from_peer: false,
            });
            return;
        }
        let passes = self.waits_in_vain(ix, 1);
        let waited = Deferred {
            packet,
            number: 0,
            egress,
            session: 0,
            since: self.now,
            is_from_peer: false,
        };
        leave(self.counters, waited, note, passes, out);
    }

    /// The first packet of a session, in so many pieces, finds no room to wait.
    pub(super) fn waits_in_vain(&mut self, ix: SessionIx, pieces: u64) -> Result<(), DropReason> {
        self.counters.deferred_late += pieces;
        if self.pair.as_ref().is_some_and(|pair| pair.patience.opens) {
            return Ok(());
        }
        self.end(ix, EndReason::Deferred);
        Err(DropReason::Deferred)
    }
}
