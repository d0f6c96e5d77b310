//! Fragments: held until their datagram is complete, then judged once, as the whole packet, and all forwarded as they came or
//! all dropped.
//!
//! That everything is held, and not only what comes before the first fragment, has three reasons: an overlap never reaches the far
//! end, the L4 checksum can be verified, and the TCP tracker sees the whole segment.
//!
//! With several workers a fragment goes to the worker of the hash of its addresses, protocol and identification first
//! ([`super::steer`]); from there the whole datagram goes on to its flow's owner, which looks at its pieces in the same way: they come
//! one behind the other, and are complete at once.

use std::collections::VecDeque;

use super::defer::Deferred;
use super::process::{Act, FlowPacket, Verdict, port_policy};
use super::rate::TokenBucket;
use super::sight::Scratch;
use super::syn::{Proxy, Rewrite};
use super::{Counters, DropReason, Engine, Hops, Note, Outputs, Place, Why, reject};
use crate::base::{Nanos, PortId, WorkerId};
use crate::flow::fragments::{Complete, Course, Extent, Gone, Offered};
use crate::flow::{Candidate, FlowKey, FragmentKey, Fragments, HashSeed};
use crate::packet::parse::{FragmentField, Malformed, fragment_field, parse_into, parse_reassembled};
use crate::packet::{PacketBuf, PacketKind, PacketMeta};
use crate::policy::{FragmentLimits, SessionScope};

/// A fragment on hold.
pub(super) struct Held<B> {
    pub(super) packet: B,
    /// Of all fragments that were ever held, which one it is.
    pub(super) number: u64,
    pub(super) ingress: PortId,
    pub(super) hops: Hops,
    /// Where its part of the datagram lies in the frame, in bytes.
    at: u16,
    len: u16,
}

impl<B: PacketBuf> Held<B> {
    fn part(&self) -> &[u8] {
        let at = usize::from(self.at);
        let part = self.packet.bytes().get(at..at + usize::from(self.len));
        part.unwrap_or_default()
    }
}

/// A packet whose session is still on its way here ([`super::moving`]).
pub(super) struct Waiting<B> {
    pub(super) packet: B,
    pub(super) ingress: PortId,
    pub(super) hops: Hops,
}

/// The packets that one engine holds: fragments, and those that wait for their sessions.
pub(super) struct Hold<B> {
    pub(super) store: Fragments<Held<B>>,
    pub(super) waiting: VecDeque<Waiting<B>>,
    /// Of `waiting`, at most.
    room: usize,
    /// First packets of sessions that the other node of a pair is to know first ([`super::defer`]).
    pub(super) deferred: VecDeque<Deferred<B>>,
    /// Fragments and first packets taken in so far: the next one's number.
    number: u64,
}

impl<B> Hold<B> {
    pub(super) fn new(limits: FragmentLimits, seed: HashSeed) -> Self {
        Self {
            store: Fragments::new(limits.max_datagrams, limits.max_held, seed),
            waiting: VecDeque::new(),
            room: 0,
            deferred: VecDeque::new(),
            number: 0,
        }
    }

    /// Makes room for packets that wait.
    pub(super) fn reserve_waiting(&mut self, room: usize) {
        self.waiting.reserve_exact(room);
        self.room = room;
    }

    /// The number of the next packet that is held.
    pub(super) const fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number - 1
    }

    /// Has a packet wait.
    ///
    /// # Errors
    /// Gives it back when there is no room.
    pub(super) fn wait(&mut self, waiting: Waiting<B>) -> Result<(), B> {
        if self.waiting.len() >= self.room {
            return Err(waiting.packet);
        }
        self.waiting.push_back(waiting);
        Ok(())
    }

    pub(super) fn held(&self) -> u64 {
        u64::from(self.store.held())
    }
}

impl<B: PacketBuf> Hold<B> {
    /// Ends datagrams that were not complete in time. True: there are more than `budget` allows.
    pub(super) fn expire(
        &mut self,
        now: Nanos,
        timeout: Nanos,
        budget: u32,
        counters: &mut Counters,
        out: &mut impl Outputs<B>,
    ) -> bool {
        self.store.expire(now, timeout, budget, |piece, why| {
            drop_held(counters, out, piece, why);
        })
    }
}

impl<B: PacketBuf> Engine<B> {
    /// Packets in the engine: fragments that wait for the others of their datagrams, and those that wait for their sessions, or for the
    /// other node to know these.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.fragments.held() + (self.fragments.waiting.len() + self.fragments.deferred.len()) as u64
    }

    /// Of those, the fragments that wait for others.
    #[must_use]
    pub fn fragments_held(&self) -> u64 {
        self.fragments.held()
    }

    /// Drops all packets that are held, fragments as if their time was over: the node stops.
    pub fn drop_fragments<O: Outputs<B>>(&mut self, out: &mut O) {
        self.drop_waiting(out);
        self.drop_deferred(out);
        let counters = &mut self.counters;
        self.fragments
            .store
            .clear(|piece| drop_held(counters, out, piece, Gone::TimedOut));
    }
}

/// The reason that a fragment is dropped for.
const fn reason(why: Gone) -> DropReason {
    match why {
        Gone::Overlap => DropReason::FragmentOverlap,
        Gone::End => DropReason::Malformed,
        Gone::Excess => DropReason::FragmentExcess,
        Gone::Evicted => DropReason::FragmentEvicted,
        Gone::TimedOut => DropReason::FragmentTimeout,
    }
}

fn drop_for<B, O: Outputs<B>>(counters: &mut Counters, out: &mut O, packet: B, why: Gone, place: Place) {
    let reason = reason(why);
    if why == Gone::End {
        counters.malformed[Malformed::FragmentEnd as usize] += 1;
    }
    counters.drops[reason.index()] += 1;
    let why = Why::Layer2;
    out.drop(packet, reason, Note { why, place });
}

fn drop_held<B, O: Outputs<B>>(counters: &mut Counters, out: &mut O, piece: Held<B>, why: Gone) {
    drop_for(counters, out, piece.packet, why, Place::Held(piece.number));
}

impl Act<'_> {
    /// A fragment, whose metadata are in `scratch`.
    #[cold]
    pub(super) fn fragment<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        scratch: &mut Scratch,
        place: usize,
        packet: B,
        hold: &mut Hold<B>,
        out: &mut O,
        rejects: &mut TokenBucket,
    ) {
        let meta = &scratch.metas[place];
        let field = fragment_field(meta, packet.bytes()).unwrap_or(FragmentField {
            id: 0,
            offset: 0,
            more: false,
        });
        let key = self.fragment_key(meta, field.id);
        let extent = Extent {
            start: field.offset,
            // The parser has checked that it does not end behind what a datagram can have.
            end: field.offset.saturating_add(meta.l4_len),
            more: field.more,
        };
        let number = hold.next_number();
        let hops = scratch.hops[place];
        self.counters.fragments += u64::from(!hops.is_of_datagram());
        let mut piece = Held {
            packet,
            number,
            ingress: meta.ingress,
            hops,
            at: meta.l4_offset,
            len: meta.l4_len,
        };
        let here = Place::Batch(place);
        let shared = self.table.is_shared();
        let offered = loop {
            let counters = &mut *self.counters;
            let offered = hold.store.offer(
                self.now,
                &key,
                extent,
                piece,
                |a, b| a.part() == b.part(),
                |piece, why| drop_held(counters, out, piece, why),
            );
            match offered {
                // The other node is gone, or says that the datagram is this one's; or the first piece comes from there, where nobody
                // knew more.
                Offered::Passes(back, Course::Peer(known))
                    if !shared
                        || hops.is_sent_back()
                        || (hops.is_from_peer() && extent.start == 0 && !known) =>
                {
                    hold.store.reclaim(&key);
                    piece = back;
                }
                offered => break offered,
            }
        };
        match offered {
            Offered::Held => {
                out.hold(number, place);
                if shared && extent.start == 0 {
                    self.first_is_here(&key, hold, out);
                }
            }
            Offered::Complete(complete) => {
                // Of a datagram that another worker has seen whole that one has counted it.
                self.counters.fragments_reassembled += u64::from(hops.meets_here());
                let mut release = Release {
                    out,
                    last: number,
                    place,
                };
                self.complete(scratch, complete, hold, &mut release, rejects);
            }
            Offered::Passes(piece, course) => self.passes(piece, course, here, out),
            Offered::Duplicate(piece) => {
                self.counters.drops[DropReason::FragmentDuplicate.index()] += 1;
                let why = Why::Layer2;
                out.drop(
                    piece.packet,
                    DropReason::FragmentDuplicate,
                    Note { why, place: here },
                );
            }
            Offered::Refused(piece, why) => drop_for(self.counters, out, piece.packet, why, here),
        }
    }

    /// Which datagram a fragment is of. Its other pieces come in by the same port, or where sessions do not belong to a pair by
    /// a port of the same zone.
    fn fragment_key(&self, meta: &PacketMeta, id: u32) -> FragmentKey {
        let transparent = &self.policy.transparent;
        let port = port_policy(self.policy, meta.ingress);
        let is_v4 = meta.has(PacketMeta::IPV4);
        FragmentKey {
            source: meta.source,
            destination: meta.destination,
            id,
            domain: transparent.domain(port.pair, meta.vlan),
            side: match transparent.session_scope {
                SessionScope::Node => port.zone.0,
                _ => meta.ingress.0,
            },
            protocol: if is_v4 { meta.protocol } else { 0 },
        }
    }

    /// All fragments of a datagram are there: one verdict for all of them.
    fn complete<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        scratch: &mut Scratch,
        complete: Complete,
        hold: &mut Hold<B>,
        release: &mut Release<'_, O>,
        rejects: &mut TokenBucket,
    ) {
        let store = &hold.store;
        let count = u64::from(store.count(&complete));
        let Some(first) = store.first(&complete) else {
            return;
        };
        let whole = self.whole_datagram(store, &complete, first);
        if let Some((owner, redirected)) = self.owner_of_datagram(first, &whole) {
            hold.store.take(complete, |piece| {
                let place = release.place_of(piece.number);
                let hops = piece.hops.of_datagram();
                let hops = if redirected { hops.redirected() } else { hops };
                let way = (piece.ingress, owner, hops);
                self.elsewhere(piece.packet, way, place, release.out);
            });
            return;
        }
        if self.datagram_waits(first, &whole) {
            self.datagram_into_waiting(complete, hold, release);
            return;
        }
        let first_is_own = !first.hops.is_from_peer();
        // (Where some of it have come back already, neither node knows more.)
        let has_come_back = store
            .pieces(&complete)
            .any(|(_, piece)| piece.hops.is_sent_back());
        let goes_back = self.goes_back(&whole, first.packet.bytes(), first.hops);
        let mut verdict = match goes_back.filter(|_| !has_come_back) {
            Some(what) => Verdict::Offer(what, Why::Layer2),
            None => self.judge_datagram(&whole, first),
        };
        if let Verdict::Offer(what, why) = verdict {
            if !first_is_own || what == super::Offered::Peers || self.has_room_for(hold, &complete) {
                hold.store.take(complete, |piece| {
                    let place = release.place_of(piece.number);
                    self.cross(piece, what, why, place, release.out);
                });
                return;
            }
            verdict = self.without_peer(|act| act.judge_datagram(&whole, first));
        }
        if let Verdict::Defer(ix, _) = verdict {
            return self.defer_datagram(complete, ix, verdict.why(), hold, release);
        }
        if whole.kind == PacketKind::Malformed {
            // One of them is counted.
            let detail = usize::from(whole.detail).min(Malformed::ALL.len() - 1);
            self.counters.malformed[detail] += count - 1;
        }
        let rewrite = self.rewrite_of(verdict, &whole, &first.packet);
        let first_number = first.number;
        let reason = match verdict {
            Verdict::Forward(_) => None,
            Verdict::Proxy(..) if rewrite.is_some() => None,
            // No handshake is proxied in pieces, and no header. (And whose it is was looked at.)
            Verdict::Proxy(..) | Verdict::Elsewhere(_) | Verdict::Redirect(_) => Some(DropReason::SynProxied),
            // Looked at before.
            Verdict::Defer(..) | Verdict::Offer(..) => Some(DropReason::RedirectLimit),
            Verdict::Drop(reason, _) => Some(reason),
            Verdict::Reject(..) => {
                // An ICMP error quotes the first fragment.
                let mut refused = whole;
                if refused.kind != PacketKind::Tcp {
                    let chain = whole.l4_offset - first.at;
                    refused.l4_len = first.len - chain;
                }
                let (now, answer) = (self.now, &mut scratch.answer);
                let (packet, out) = (&first.packet, &mut *release.out);
                let made = reject::make(self.counters, rejects, now, &refused, packet, answer, out);
                match made {
                    Some(made) if first_is_own => out.originate_own(made, whole.ingress),
                    Some(made) => out.give_back_made(made, whole.ingress),
                    None => {}
                }
                Some(DropReason::Policy)
            }
        };
        let (policy, counters) = (self.policy, &mut *self.counters);
        let mut why = verdict.why();
        hold.store.take(complete, |mut piece| {
            if let Some(rewrite) = rewrite.filter(|_| piece.number == first_number) {
                rewrite.frame(piece.packet.bytes_mut(), &whole);
            }
            let place = release.place_of(piece.number);
            let note = Note { why, place };
            let to = port_policy(policy, piece.ingress).peer;
            match reason {
                // Each leaves by the node that it came in at.
                None if piece.hops.is_from_peer() => {
                    counters.given_back += 1;
                    release.out.give_back(piece.packet, to, note);
                }
                None => {
                    counters.forwarded += 1;
                    release.out.forward_own(piece.packet, to, note);
                }
                Some(reason) => {
                    counters.drops[reason.index()] += 1;
                    release.out.drop(piece.packet, reason, note);
                }
            }
            // The rest of the packet that opened a session belongs to it.
            if let Why::NewSession(session, _) = why {
                why = Why::Session(session);
            }
        });
    }

    /// What a proxied session's datagram needs, if its first piece has the whole TCP header.
    fn rewrite_of<B: PacketBuf>(&self, verdict: Verdict, whole: &PacketMeta, first: &B) -> Option<Rewrite> {
        let Verdict::Proxy(Proxy::Carry(ix, sender), _) = verdict else {
            return None;
        };
        let header = usize::from(whole.l4_offset) + usize::from(whole.detail);
        (header <= first.bytes().len()).then(|| self.rewrite(ix, sender))
    }

    /// Whose a datagram is that is not this worker's; true: because of a redirect entry.
    fn owner_of_datagram<B: PacketBuf>(
        &self,
        first: &Held<B>,
        whole: &PacketMeta,
    ) -> Option<(WorkerId, bool)> {
        let crew = self.crew.as_ref()?;
        let owner = if first.hops.is_of_datagram() {
            None
        } else {
            crew.other(first.ingress, whole, first.packet.bytes())
        };
        let redirect = || Some((self.redirect_of_datagram(whole)?, true));
        owner.map(|owner| (owner, false)).or_else(redirect)
    }

    /// Where the session of a datagram of this worker's is, if it is away.
    fn redirect_of_datagram(&self, whole: &PacketMeta) -> Option<WorkerId> {
        if self.redirects.is_empty() {
            return None;
        }
        let pair = port_policy(self.policy, whole.ingress).pair;
        let (key, _) = FlowKey::of(whole, self.policy.transparent.domain(pair, whole.vlan));
        let is_here = self.table.find(&key, self.table.hash(&key)).is_some();
        self.redirects.find(&key).filter(|_| !is_here)
    }

    /// Is the session of a datagram still on its way here?
    fn datagram_waits<B: PacketBuf>(&self, first: &Held<B>, whole: &PacketMeta) -> bool {
        let Some(crew) = self.crew.as_ref().filter(|_| !first.hops.is_redirected()) else {
            return false;
        };
        let hash = crew
            .placement
            .flow_hash(first.ingress, whole, first.packet.bytes());
        hash.is_some_and(|hash| crew.moving.waits(hash))
    }

    /// All pieces wait, to come together once more; without room for all of them they are dropped.
    #[cold]
    fn datagram_into_waiting<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        complete: Complete,
        hold: &mut Hold<B>,
        release: &mut Release<'_, O>,
    ) {
        let count = hold.store.count(&complete) as usize;
        let fits = hold.waiting.len() + count <= hold.room;
        let (waiting, counters) = (&mut hold.waiting, &mut self.counters);
        hold.store.take(complete, |piece| {
            if fits {
                waiting.push_back(Waiting {
                    packet: piece.packet,
                    ingress: piece.ingress,
                    hops: piece.hops.of_datagram(),
                });
                return;
            }
            counters.drops[DropReason::QueueFull.index()] += 1;
            let place = release.place_of(piece.number);
            let why = Why::Elsewhere;
            release
                .out
                .drop(piece.packet, DropReason::QueueFull, Note { why, place });
        });
    }

    /// What the datagram is, as one packet.
    fn whole_datagram<B: PacketBuf>(
        &self,
        store: &Fragments<Held<B>>,
        complete: &Complete,
        first: &Held<B>,
    ) -> PacketMeta {
        let frame = first.packet.bytes();
        let mut meta = PacketMeta::default();
        // Again, and under the policy of now.
        parse_into(frame, first.packet.rx_checksum(), self.options, &mut meta);
        meta.ingress = first.ingress;
        if meta.kind != PacketKind::Fragment {
            return meta;
        }
        let pieces = store
            .pieces(complete)
            .map(|(extent, piece)| (extent.start, piece.part()));
        let verify = self.options.verify_l4;
        parse_reassembled(&meta, frame, store.total(complete), pieces, verify)
    }

    /// What becomes of it.
    pub(super) fn judge_datagram<B: PacketBuf>(&mut self, whole: &PacketMeta, first: &Held<B>) -> Verdict {
        let frame = first.packet.bytes();
        match whole.kind {
            PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo | PacketKind::Icmp | PacketKind::OtherIp => {
                let pair = port_policy(self.policy, whole.ingress).pair;
                let (key, direction) = FlowKey::of(whole, self.policy.transparent.domain(pair, whole.vlan));
                let flow = FlowPacket {
                    meta: whole,
                    frame,
                    key: &key,
                    hash: self.table.hash(&key),
                    direction,
                    candidate: Candidate::NONE,
                    question: 0,
                    // Whose it is was looked at.
                    hops: first.hops.of_datagram(),
                };
                if first.hops.is_of_datagram() && self.is_in_vain(&flow) {
                    return Verdict::Drop(DropReason::HandoverLoop, Why::Elsewhere);
                }
                self.alone(&flow)
            }
            PacketKind::IcmpError => self.related(whole, frame, first.hops),
            _ => self.layer2(whole),
        }
    }

    /// Was a datagram handed over for a session that has ended here meanwhile, and is another worker's otherwise? It opens none.
    fn is_in_vain(&self, flow: &FlowPacket<'_>) -> bool {
        let crew = self.crew.as_ref();
        crew.is_some_and(|crew| crew.kept_in_vain(flow).is_some())
            && self.table.find(flow.key, flow.hash).is_none()
    }

    /// A packet of a flow that no stage has looked at before.
    fn alone(&mut self, flow: &FlowPacket<'_>) -> Verdict {
        match self.table.find(flow.key, flow.hash) {
            Some(ix) => self.session(flow, ix),
            None => {
                let answer = self.ask(&super::first::question(flow.meta, self.policy));
                self.first(flow, answer)
            }
        }
    }
}

/// Where a complete datagram's pieces go.
pub(super) struct Release<'a, O> {
    pub(super) out: &'a mut O,
    /// The number of the piece that made it complete, and its place in the batch. The others were held before.
    last: u64,
    place: usize,
}

impl<O> Release<'_, O> {
    pub(super) fn place_of(&self, number: u64) -> Place {
        if number == self.last {
            Place::Batch(self.place)
        } else {
            Place::Held(number)
        }
    }
}
