//! Datagrams whose fragments take different ways across the nodes of a pair that both forward. They meet on the node that has their
//! session, on the worker that has it, and each leaves by the node that it came in at:
//!
//! - The first fragment says whose the session is. If that is the other node, it and all others of its datagram are offered there at once.
//! - Fragments without a first one are offered after [`RIPE`], and held there as if they had come in there: the first one may be there.
//!   So are those of a first one that could not open a session here.
//! - What was offered is sent back if its first fragment was, too, and it is of no session of this node's: the node where it came in decides.
//!   It is held there, and never offered again: every fragment crosses once each way at most.
//!
//! A datagram is lost whose fragments wait on both nodes for that long, with none of them the first.
//!
//! On a node of several workers the pieces of such a datagram go on to their flow's owner as soon as the first one is there, and not
//! when all are: that worker alone knows whose the session is.

use super::defer::{DEFERRED, Deferred, leave};
use super::first::question;
use super::fragments::{Held, Hold, Release};
use super::process::{Act, port_policy};
use super::{DropReason, Engine, Hops, Note, Offered, Outputs, Place, Why};
use crate::base::{Nanos, SessionIx};
use crate::flow::fragments::{Complete, Course, Partial};
use crate::flow::{FlowKey, FragmentKey};
use crate::packet::parse::{ParseOptions, parse_embedded, parse_first_fragment, parse_into};
use crate::packet::{PacketBuf, PacketKind, PacketMeta};
use crate::policy::VlanMode;

/// How long fragments wait for their first one before they are offered to the other node: much longer than packets of a sender overtake each
/// other by on their ways, and much shorter than its patience.
const RIPE: Nanos = Nanos(5_000_000);

/// Whose a session is.
enum Whose {
    Own,
    Peers,
    Nobodys,
    /// There can be none.
    NoFlow,
}

impl<B: PacketBuf> Engine<B> {
    /// Offers fragments that have waited for others long enough, of `budget` datagrams at most.
    #[cold]
    pub(super) fn offer_ripe<O: Outputs<B>>(&mut self, now: Nanos, budget: u32, out: &mut O) {
        if !self.table.is_shared() || !self.forwards() {
            return;
        }
        let options = ParseOptions {
            verify_l4: false,
            look_into_vlan: self.policy.transparent.vlan == VlanMode::Inspect,
        };
        let (mut act, rest) = self.act(now, options);
        for _ in 0..budget {
            let Some(partial) = rest.hold.store.next_ripe(now, RIPE) else {
                return;
            };
            act.decide(partial, true, rest.hold, out);
        }
    }
}

impl Act<'_> {
    /// The first fragment of a datagram has come that is not complete.
    #[cold]
    pub(super) fn first_is_here<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        key: &FragmentKey,
        hold: &mut Hold<B>,
        out: &mut O,
    ) {
        if let Some(partial) = hold.store.partial(key) {
            self.decide(partial, false, hold, out);
        }
    }

    /// Where an incomplete datagram is put together; what is here of it goes there.
    fn decide<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        partial: Partial,
        ripe: bool,
        hold: &mut Hold<B>,
        out: &mut O,
    ) {
        let course = match hold.store.first_of(&partial) {
            Some(first) => self.course(first, ripe),
            None => Course::Peer(false),
        };
        let stays = match course {
            Course::Here => true,
            Course::Worker(_) | Course::Peer(true) => false,
            Course::Peer(false) => !self.leaves(hold, &partial),
        };
        if !stays {
            hold.store.redirect(partial, course, |piece| {
                let place = Place::Held(piece.number);
                self.passes(piece, course, place, out);
            });
        }
    }

    /// Are fragments of which nothing is known offered? Not if some of them have crossed already; and if there is no room for all of them
    /// they wait on.
    fn leaves<B: PacketBuf>(&mut self, hold: &Hold<B>, partial: &Partial) -> bool {
        let (mut count, mut bytes) = (0, 0);
        for piece in hold.store.pieces_of(partial) {
            if !self.may_offer(piece.hops) {
                return false;
            }
            count += 1;
            bytes += piece.packet.bytes().len() as u32;
        }
        self.can_offer(Offered::Unknown, count, bytes)
    }

    /// Where the datagram of this first fragment is put together.
    fn course<B: PacketBuf>(&self, first: &Held<B>, ripe: bool) -> Course {
        let frame = first.packet.bytes();
        let mut meta = PacketMeta::default();
        parse_into(frame, first.packet.rx_checksum(), self.options, &mut meta);
        meta.ingress = first.ingress;
        let Some(whole) = parse_first_fragment(&meta, frame) else {
            return Course::Here;
        };
        if let Some(crew) = self.crew.as_ref().filter(|_| !first.hops.is_of_datagram()) {
            if let Some(owner) = crew.other(first.ingress, &whole, frame) {
                return Course::Worker(owner);
            }
        }
        match self.whose(&whole, frame) {
            Whose::Peers => Course::Peer(true),
            Whose::Nobodys if ripe && !self.could_open(&whole) => Course::Peer(false),
            Whose::Nobodys | Whose::Own | Whose::NoFlow => Course::Here,
        }
    }

    /// Whose the session is that a datagram belongs to.
    fn whose(&self, whole: &PacketMeta, frame: &[u8]) -> Whose {
        let of = match whole.kind {
            PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo | PacketKind::Icmp | PacketKind::OtherIp => {
                *whole
            }
            PacketKind::IcmpError => match parse_embedded(whole, frame) {
                Some(embedded) => embedded.meta,
                None => return Whose::NoFlow,
            },
            _ => return Whose::NoFlow,
        };
        let pair = port_policy(self.policy, whole.ingress).pair;
        let (key, _) = FlowKey::of(&of, self.policy.transparent.domain(pair, whole.vlan));
        match self.table.find(&key, self.table.hash(&key)) {
            None => Whose::Nobodys,
            Some(ix) if self.table.is_peers(ix) => Whose::Peers,
            Some(_) => Whose::Own,
        }
    }

    /// Could a packet open a session, as far as the rules are concerned? (Of one with a source that cannot be nobody else is to decide.)
    fn could_open(&self, meta: &PacketMeta) -> bool {
        let answer = self.ask(&question(meta, self.policy));
        meta.kind != PacketKind::IcmpError && (self.is_spoofed(meta) || self.opens(meta, answer))
    }

    /// A fragment goes where its datagram is put together.
    #[cold]
    pub(super) fn passes<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        piece: Held<B>,
        course: Course,
        place: Place,
        out: &mut O,
    ) {
        match course {
            Course::Worker(owner) => {
                let way = (piece.ingress, owner, piece.hops.early());
                self.elsewhere(piece.packet, way, place, out);
            }
            Course::Peer(true) => self.cross(piece, Offered::Peers, Why::Layer2, place, out),
            Course::Peer(false) | Course::Here => {
                self.cross(piece, Offered::Unknown, Why::Layer2, place, out);
            }
        }
    }

    /// Does a complete datagram go back to the other node, where its first fragment came in? It does if it is not of a session of this node's:
    /// then that one decides.
    pub(super) fn goes_back(&self, whole: &PacketMeta, frame: &[u8], first: Hops) -> Option<Offered> {
        if !first.is_from_peer() {
            return None;
        }
        match self.whose(whole, frame) {
            Whose::Peers => Some(Offered::Peers),
            Whose::Nobodys => Some(Offered::Unknown),
            Whose::Own | Whose::NoFlow => None,
        }
    }

    /// Is there room to offer those of a datagram that came in here?
    pub(super) fn has_room_for<B: PacketBuf>(&mut self, hold: &Hold<B>, complete: &Complete) -> bool {
        let (mut count, mut bytes) = (0, 0);
        for (_, piece) in hold.store.pieces(complete) {
            if !piece.hops.is_from_peer() {
                count += 1;
                bytes += piece.packet.bytes().len() as u32;
            }
        }
        self.can_offer(Offered::Unknown, count, bytes)
    }

    /// A fragment goes to the other node, or back there.
    pub(super) fn cross<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        piece: Held<B>,
        what: Offered,
        why: Why,
        place: Place,
        out: &mut O,
    ) {
        let note = Note { why, place };
        if piece.hops.is_from_peer() {
            self.counters.sent_back += 1;
            return out.send_back(piece.packet, piece.ingress, note);
        }
        let (packet, reason) = if piece.hops.is_sent_back() {
            (piece.packet, DropReason::NoSession)
        } else {
            match self.try_offer(piece.packet, piece.ingress, what, note, out) {
                Ok(()) => return,
                Err(packet) => (packet, DropReason::RedirectLimit),
            }
        };
        self.counters.drops[reason.index()] += 1;
        out.drop(packet, reason, note);
    }

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
                is_from_peer: piece.hops.is_from_peer(),
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
