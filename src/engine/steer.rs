//! Which packets of a burst belong to other workers (ARCHITECTURE.md, invariants 2 and 3): between parsing and the session table each
//! packet's owner is looked at, and what is not this worker's is handed over instead of judged.

use std::sync::Arc;

use super::batch::{Batch, Hops};
use super::fragments::{Hold, Waiting};
use super::moving::{self, Moving};
use super::process::{Act, FlowPacket, Verdict};
use super::redirect::Redirects;
use super::sight::{Parsed, Scratch, Sight};
use super::{DropReason, Engine, Note, Outputs, Place, Why};
use crate::base::{PortId, SessionIx, WorkerId};
use crate::flow::owner::{BucketTable, OwnerFunction, Side, Tuple};
use crate::flow::proof::{Event, Kind, Kinds, Proof, RssState, Trust};
use crate::flow::{Direction, FlowKey, HashSeed, Image, Session, SessionTable};
use crate::packet::parse::{fragment_field, parse_embedded};
use crate::packet::{PacketBuf, PacketKind, PacketMeta};

/// Where flows belong on a node of several workers; the same for all of them.
#[derive(Clone, Debug)]
pub struct Placement {
    /// What is hashed, and how.
    pub function: OwnerFunction,
    /// Who owns which hash.
    pub buckets: BucketTable,
    /// The side that each port is on.
    pub sides: Box<[Side]>,
}

impl Placement {
    fn side(&self, port: PortId) -> Side {
        self.sides.get(port.index()).copied().unwrap_or_default()
    }

    /// The hash of a packet that came in by `port`.
    #[inline]
    #[must_use]
    pub fn hash(&self, port: PortId, tuple: &Tuple) -> u32 {
        self.function.hash(self.side(port), tuple)
    }

    /// The worker that a packet belongs to which came in by `port`; `None`: any worker's.
    #[must_use]
    pub fn owner(&self, port: PortId, meta: &PacketMeta, frame: &[u8]) -> Option<WorkerId> {
        let hash = match meta.kind {
            PacketKind::Fragment => self.hash_of_datagram(port, meta, frame),
            _ => self.flow_hash(port, meta, frame)?,
        };
        Some(self.buckets.owner(hash))
    }

    /// The hash of the flow that a packet belongs to; `None`: it belongs to none, or is a fragment, which does not say.
    pub(super) fn flow_hash(&self, port: PortId, meta: &PacketMeta, frame: &[u8]) -> Option<u32> {
        match meta.kind {
            PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo | PacketKind::Icmp | PacketKind::OtherIp => {
                Some(self.hash(port, &Tuple::of(meta)))
            }
            // The flow's packets that it tells of go the other way.
            PacketKind::IcmpError => {
                let embedded = parse_embedded(meta, frame)?;
                Some(self.hash(port, &Tuple::of(&embedded.meta).reverse()))
            }
            _ => None,
        }
    }

    /// The worker of a session of the other node of an HA pair.
    #[must_use]
    pub fn owner_of_image(&self, image: &Image) -> WorkerId {
        let tuple = Tuple::of_key(&image.key, image.opener);
        self.buckets.owner(self.hash(image.ingress, &tuple))
    }

    /// The workers of a flow of which nothing else is known: by the method of two keys it is another one if the low end is on the side of
    /// the pair's first port than if it is on the other; by the others both are the same.
    #[must_use]
    pub fn owners_of_key(&self, key: &FlowKey) -> [WorkerId; 2] {
        let pair = (key.domain >> 24) as u16;
        let tuple = Tuple::of_key(key, Direction::LowToHigh);
        [2 * pair, 2 * pair + 1].map(|port| self.buckets.owner(self.hash(PortId(port), &tuple)))
    }

    /// The hash of a session's flow.
    pub(super) fn hash_of_session(&self, session: &Session) -> u32 {
        self.hash(session.ingress, &Tuple::of_key(&session.key, session.opener))
    }

    /// Pieces of one datagram meet on one worker, those of different datagrams between two hosts on different ones.
    fn hash_of_datagram(&self, port: PortId, meta: &PacketMeta, frame: &[u8]) -> u32 {
        let id = fragment_field(meta, frame).map_or(0, |field| field.id);
        // IPv6's pieces but the first need not say the protocol.
        let protocol = if meta.has(PacketMeta::IPV4) {
            meta.protocol
        } else {
            0
        };
        let addresses = self.hash(port, &Tuple::of(meta));
        // Knuth's multiplier: the low bits, which choose the bucket, shall depend on all of them.
        (addresses ^ id ^ (u32::from(protocol) << 16)).wrapping_mul(0x9e37_79b1) >> 16
    }
}

/// What an engine knows of the other workers.
pub(super) struct Crew {
    pub(super) me: WorkerId,
    pub(super) placement: Arc<Placement>,
    /// The table of the start: by it devices place packets, and the pieces of a datagram meet. A move changes neither: pieces that
    /// wait for others cannot go, and what a device brings to a bucket's old worker is handed over.
    home: Box<BucketTable>,
    /// A bucket has moved: a device that is believed brings what is in it to its old worker.
    moved: bool,
    /// The move of buckets that is under way, if one is.
    pub(super) moving: Moving,
    /// How far the receive queues that this worker polls are believed, by port.
    proofs: Box<[Proof]>,
    /// What packets proved and disproved since it was last asked for: the newest of each port.
    events: Box<[Option<Event>]>,
    news: bool,
    /// A packet of this batch disproved what others of it were placed by.
    disproved: bool,
}

impl Crew {
    /// Who else a packet belongs to.
    pub(super) fn other(&self, port: PortId, meta: &PacketMeta, frame: &[u8]) -> Option<WorkerId> {
        let owner = if meta.kind == PacketKind::Fragment {
            let hash = self.placement.hash_of_datagram(port, meta, frame);
            self.home.owner(hash)
        } else {
            let hash = self.placement.flow_hash(port, meta, frame)?;
            self.placement.buckets.owner(hash)
        };
        (owner != self.me).then_some(owner)
    }

    /// A session ended of which another worker has a redirect entry. False: it cannot be told.
    #[cold]
    pub(super) fn away_ended(&mut self, session: &Session) -> bool {
        let hash = self.placement.hash_of_session(session);
        self.moving.away_ended(&session.key, hash)
    }

    /// Is a packet kept that was handed over although it is another worker's? It belongs to a session that is away, or was handed
    /// over before its bucket went.
    #[cold]
    fn keeps(&mut self, hops: Hops, key: &FlowKey, hash: u32, table: &SessionTable) -> bool {
        if self.moving.is_older(hash) {
            self.moving.kept = true;
            return true;
        }
        if self.moving.has_away() && hops.is_redirected() {
            let found = table.find(key, table.hash(key));
            if found.is_some_and(|ix| table.get(ix).is_away()) {
                self.moving.kept = true;
                return true;
            }
        }
        if hops.next().is_none() {
            // Whoever handed it over has an entry that leads nowhere, and will hear of it.
            let _ = self.moving.note(key, hash, false);
        }
        false
    }

    /// Who else a packet belongs to of which nothing is believed.
    #[inline]
    fn other_by_tuple(&self, port: PortId, tuple: &Tuple) -> Option<WorkerId> {
        let owner = self.placement.buckets.owner(self.placement.hash(port, tuple));
        (owner != self.me).then_some(owner)
    }

    /// The same of a packet that says something about its queue.
    #[inline(never)]
    fn check(&mut self, port: PortId, kind: Kind, tuple: &Tuple, device: Option<u32>) -> Option<WorkerId> {
        let hash = self.placement.hash(port, tuple);
        self.check_hash(port, kind, device, hash)
    }

    fn check_hash(&mut self, port: PortId, kind: Kind, device: Option<u32>, hash: u32) -> Option<WorkerId> {
        let owner = self.placement.buckets.owner(hash);
        let here = self.home.owner(hash) == self.me;
        if let Some(proof) = self.proofs.get_mut(port.index()) {
            let event = proof.check(kind, device, hash, here);
            // That one kind more is believed is nothing to tell, and must not hide what is.
            if !matches!(event, Event::Nothing | Event::KindProven(_)) {
                self.events[port.index()] = Some(event);
                self.news = true;
                self.disproved |= matches!(event, Event::Mismatch(_));
            }
        }
        (owner != self.me).then_some(owner)
    }

    /// Whose a packet is that was kept for a session that is here no more.
    #[cold]
    pub(super) fn kept_in_vain(&self, flow: &FlowPacket<'_>) -> Option<WorkerId> {
        let hash = self.placement.hash(flow.meta.ingress, &Tuple::of(flow.meta));
        let owner = self.placement.buckets.owner(hash);
        (owner != self.me && !self.moving.is_older(hash)).then_some(owner)
    }

    #[inline(never)]
    fn astray(&mut self, meta: &PacketMeta) -> Option<WorkerId> {
        let kind = Kind::of(meta)?;
        let proof = self.proofs.get(meta.ingress.index())?;
        // What is believed no longer was when the packets of this batch were placed.
        if !(proof.believes(kind) || self.disproved) {
            return None;
        }
        let hash = self.placement.hash(meta.ingress, &Tuple::of(meta));
        if self.placement.buckets.owner(hash) == self.me {
            return None;
        }
        // The device's own hash was on the packet, and says nothing of why: the queue is what is wrong.
        self.check_hash(meta.ingress, kind, Some(hash), hash)
    }

    /// A batch begins. Returns how its packets came.
    #[inline(always)]
    fn begin<'a, B>(&mut self, scratch: &mut Scratch, batch: &'a Batch<B>) -> &'a [Hops] {
        let hops = batch.hops();
        scratch.hops[..hops.len()].copy_from_slice(hops);
        self.disproved = false;
        self.moving.kept = false;
        hops
    }

    /// So many packets from a receive queue of `port`, of those that were seen, are on their owner's queue without another look:
    /// nearly all of them, where a port is proven.
    #[inline(always)]
    fn believed(&mut self, sights: &[Sight], port: PortId) -> usize {
        let Some(proof) = self.proofs.get_mut(port.index()) else {
            return 0;
        };
        let believed = proof.believed();
        if believed.is_empty() || self.moved {
            return 0;
        }
        let is_believed =
            |sight: &&Sight| (sight.ingress == port) & (u16::from(sight.kinds) & believed.bits() != 0);
        let quiet = usize::from(proof.quiet());
        let run = sights.iter().take(quiet).take_while(is_believed).count();
        proof.skip(run as u16);
        run
    }

    /// From now on flows belong where this says.
    pub(super) fn place_by(&mut self, placement: Arc<Placement>) -> Arc<Placement> {
        self.moved = placement.buckets.workers != self.home.workers;
        std::mem::replace(&mut self.placement, placement)
    }

    /// Who else a packet belongs to that is believed to be on the queue which its device's table says. A hash that is believed is the
    /// owner function's.
    #[inline(always)]
    fn other_by_device(&self, hash: Option<u32>) -> Option<WorkerId> {
        let owner = self.placement.buckets.owner(hash.filter(|_| self.moved)?);
        (owner != self.me).then_some(owner)
    }

    /// What to do with a packet of this kind: what was handed over says nothing of a queue.
    #[inline(always)]
    fn trust_of(
        &mut self,
        port: PortId,
        hops: Hops,
        kind: impl FnOnce() -> Option<Kind>,
    ) -> (Trust, Option<Kind>) {
        match self.proofs.get_mut(port.index()) {
            Some(proof) if hops == Hops::NONE => {
                let kind = kind();
                (proof.trust(kind), kind)
            }
            _ => (Trust::Software, None),
        }
    }
}

impl<B> Engine<B> {
    /// From now on this engine is that of worker `me`, one of several, and judges its own packets alone.
    pub fn join(&mut self, me: WorkerId, placement: Arc<Placement>) {
        let redirects = (self.table.capacity() / 16).max(64) as usize;
        self.redirects = Redirects::new(redirects, HashSeed::random());
        self.fragments.reserve_waiting(moving::WAITING);
        let ports = placement.sides.len();
        self.crew = Some(Crew {
            me,
            home: Box::new(placement.buckets.clone()),
            moved: false,
            placement,
            moving: Moving::new(redirects),
            proofs: vec![Proof::default(); ports].into(),
            events: vec![None; ports].into(),
            news: false,
            disproved: false,
        });
    }

    /// The receive queue of `port` that this worker polls was set up: its device says that it hashes these kinds of packets.
    pub fn claims(&mut self, port: PortId, claimed: Kinds) {
        if let Some(proof) = self.proof_mut(port) {
            *proof = Proof::new(claimed);
        }
    }

    /// Packets on another queue of `port` disproved what its device says.
    pub fn distrust(&mut self, port: PortId) {
        if let Some(proof) = self.proof_mut(port) {
            // (Asked for with every burst.)
            if proof.state() != RssState::Mismatch {
                proof.distrust();
            }
        }
    }

    /// How far the queue of `port` is believed; with one worker there is nothing to believe.
    #[must_use]
    pub fn rss_state(&self, port: PortId) -> RssState {
        let proof = self.crew.as_ref().and_then(|crew| crew.proofs.get(port.index()));
        proof.map_or(RssState::Software, Proof::state)
    }

    /// Did packets prove or disprove something since this was last asked?
    #[inline]
    #[must_use]
    pub fn has_rss_news(&self) -> bool {
        self.crew.as_ref().is_some_and(|crew| crew.news)
    }

    /// The newest of what packets proved or disproved of a port since this was last asked for.
    pub fn next_rss_event(&mut self) -> Option<(PortId, Event)> {
        let crew = self.crew.as_mut()?;
        for (port, event) in (0..).map(PortId).zip(crew.events.iter_mut()) {
            if let Some(event) = event.take() {
                return Some((port, event));
            }
        }
        crew.news = false;
        None
    }

    /// The key of SYN cookies, the same for all workers of a node: a client's answer may come to another one, if its bucket has
    /// moved meanwhile.
    pub fn share_cookies(&mut self, seed: HashSeed) {
        self.syn.share(seed);
    }

    /// Is this the worker?
    pub(super) fn is_me(&self, worker: WorkerId) -> bool {
        self.crew.as_ref().is_some_and(|crew| crew.me == worker)
    }

    fn proof_mut(&mut self, port: PortId) -> Option<&mut Proof> {
        self.crew.as_mut()?.proofs.get_mut(port.index())
    }
}

/// Finds the packets that are not this worker's, and notes in their sights whose they are.
#[inline(never)]
pub(super) fn steer_all<B: PacketBuf>(
    crew: &mut Crew,
    scratch: &mut Scratch,
    batch: &Batch<B>,
    table: &SessionTable,
) {
    let (packets, ingress) = batch.parts();
    let hops = crew.begin(scratch, batch);
    let mut place = 0;
    while place < packets.len() {
        if batch.is_fresh() {
            place += crew.believed(&scratch.sights[place..packets.len()], ingress[place]);
        }
        if let (Some(packet), Some(port)) = (packets.get(place), ingress.get(place)) {
            if let Some(owner) = steer(crew, scratch, place, packet, *port) {
                if hops[place] == Hops::NONE || !crew.keeps_packet(scratch, place, *port, packet, table) {
                    scratch.sights[place].set_elsewhere(owner);
                }
            }
        }
        place += 1;
    }
}

/// Whose one packet is, if another worker's.
#[inline(always)]
fn steer<B: PacketBuf>(
    crew: &mut Crew,
    scratch: &Scratch,
    place: usize,
    packet: &B,
    port: PortId,
) -> Option<WorkerId> {
    let (sight, hops) = (&scratch.sights[place], scratch.hops[place]);
    if matches!(sight.parsed, Parsed::Straight | Parsed::Plain) {
        let tuple = Tuple::of_key(&sight.key, sight.direction);
        return match crew.trust_of(port, hops, || Kinds::of_lane(sight.kinds)) {
            (Trust::Here, _) => crew.other_by_device(packet.rx_hash()),
            (Trust::Check, Some(kind)) => crew.check(port, kind, &tuple, packet.rx_hash()),
            _ => crew.other_by_tuple(port, &tuple),
        };
    }
    if hops.is_of_datagram() {
        return None;
    }
    let meta = &scratch.metas[place];
    match crew.trust_of(port, hops, || Kind::of(meta)) {
        (Trust::Here, _) => crew.other_by_device(packet.rx_hash()),
        (Trust::Check, Some(kind)) => crew.check(port, kind, &Tuple::of(meta), packet.rx_hash()),
        _ => crew.other(port, meta, packet.bytes()),
    }
}

impl Crew {
    /// [`Crew::keeps`] of the packet at `place`.
    #[cold]
    fn keeps_packet<B: PacketBuf>(
        &mut self,
        scratch: &Scratch,
        place: usize,
        port: PortId,
        packet: &B,
        table: &SessionTable,
    ) -> bool {
        let (sight, hops) = (&scratch.sights[place], scratch.hops[place]);
        if sight.parsed >= Parsed::Flow {
            let hash = self
                .placement
                .hash(port, &Tuple::of_key(&sight.key, sight.direction));
            return self.keeps(hops, &sight.key, hash, table);
        }
        let meta = &scratch.metas[place];
        if meta.kind != PacketKind::IcmpError {
            return false;
        }
        // (An error of a tagged packet, or of one from another pair, is about no flow of this key: that one is unrelated anywhere.)
        let hash = self.placement.flow_hash(port, meta, packet.bytes());
        hash.is_some_and(|hash| self.moving.is_older(hash))
            || (hops.is_redirected() && self.moving.has_away())
    }

    /// Whose a packet is while buckets move.
    fn place_of(
        &mut self,
        scratch: &Scratch,
        place: usize,
        (port, frame): (PortId, &[u8]),
        table: &SessionTable,
    ) -> Whose {
        let (sight, hops) = (&scratch.sights[place], scratch.hops[place]);
        let meta = &scratch.metas[place];
        let is_flow = sight.parsed >= Parsed::Flow;
        let hash = if is_flow {
            let tuple = Tuple::of_key(&sight.key, sight.direction);
            Some(self.placement.hash(port, &tuple))
        } else {
            self.placement.flow_hash(port, meta, frame)
        };
        let Some(hash) = hash else {
            return self.other(port, meta, frame).map_or(Whose::Mine, Whose::Other);
        };
        let owner = self.placement.buckets.owner(hash);
        if owner == self.me {
            // Who had it before has sent it here, where the session was already: it is ahead of all that waits.
            let waits = self.moving.waits(hash) && !hops.is_redirected();
            return if waits { Whose::Waits } else { Whose::Mine };
        }
        let kept = hops != Hops::NONE
            && if is_flow {
                self.keeps(hops, &sight.key, hash, table)
            } else {
                self.moving.is_older(hash) || (hops.is_redirected() && self.moving.has_away())
            };
        if kept { Whose::Mine } else { Whose::Other(owner) }
    }
}

/// Whose a packet is.
enum Whose {
    Mine,
    Waits,
    Other(WorkerId),
}

/// [`steer_all`] for a worker that gives or gets buckets now: software places everything.
#[inline(never)]
pub(super) fn steer_moving<B: PacketBuf>(
    crew: &mut Crew,
    scratch: &mut Scratch,
    batch: &Batch<B>,
    table: &SessionTable,
) {
    let (packets, ingress) = batch.parts();
    let hops = crew.begin(scratch, batch);
    for (place, (packet, port)) in packets.iter().zip(ingress).enumerate() {
        if hops[place].is_of_datagram() && scratch.sights[place].parsed < Parsed::Straight {
            continue;
        }
        match crew.place_of(scratch, place, (*port, packet.bytes()), table) {
            Whose::Mine => {}
            Whose::Waits => scratch.sights[place].set_waits(),
            Whose::Other(owner) => scratch.sights[place].set_elsewhere(owner),
        }
    }
}

impl Act<'_> {
    /// Whose a packet without a session is that was believed to be on its owner's queue, if another worker's. So no session is ever made
    /// on the wrong worker, whatever a device does: what it says is believed of packets that find their session, and of no others.
    #[inline]
    pub(super) fn astray(&mut self, flow: &FlowPacket<'_>) -> Option<Verdict> {
        let crew = self.crew.as_mut()?;
        let owner = if flow.hops == Hops::NONE {
            crew.astray(flow.meta)
        } else if crew.moving.kept {
            crew.kept_in_vain(flow)
        } else {
            None
        };
        let redirect = || self.redirects.find(flow.key).map(Verdict::Redirect);
        owner.map(Verdict::Elsewhere).or_else(redirect)
    }

    /// The same of a SYN that would be answered without a session.
    #[inline]
    pub(super) fn is_astray(&mut self, meta: &PacketMeta, key: &FlowKey, hops: Hops) -> bool {
        let Some(crew) = &mut self.crew else {
            return false;
        };
        if hops != Hops::NONE {
            // The long way knows.
            return crew.moving.kept || self.redirects.find(key).is_some();
        }
        crew.astray(meta).is_some() || self.redirects.find(key).is_some()
    }

    /// The owner of the flow of a session that is away.
    #[cold]
    pub(super) fn owner_of_away(&self, ix: SessionIx) -> Option<WorkerId> {
        let crew = self.crew.as_ref()?;
        let hash = crew.placement.hash_of_session(self.table.get(ix));
        let owner = crew.placement.buckets.owner(hash);
        (owner != crew.me).then_some(owner)
    }

    /// A session that was away ended for another one of its flow, which is away, too.
    #[cold]
    pub(super) fn stays_away(&mut self, flow: &FlowPacket<'_>) {
        let (Some(crew), Some(ix)) = (&mut self.crew, self.table.find(flow.key, flow.hash)) else {
            return;
        };
        let session = self.table.get_mut(ix);
        session.flags |= Session::AWAY;
        let hash = crew.placement.hash_of_session(session);
        if !crew.moving.away_begins(flow.key, hash) {
            self.counters.redirects_full += 1;
        }
    }

    /// A packet has come back from where a redirect entry sent it.
    #[cold]
    pub(super) fn leads_nowhere(&mut self, meta: &PacketMeta, key: &FlowKey) {
        if let Some(crew) = &mut self.crew {
            let hash = crew.placement.hash(meta.ingress, &Tuple::of(meta));
            // Without room for it the next packet will say so.
            let _ = crew.moving.note(key, hash, false);
        }
    }

    /// A packet of a bucket whose sessions are on their way here waits for them.
    #[cold]
    pub(super) fn wait<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        packet: B,
        ingress: PortId,
        hops: Hops,
        place: Place,
        hold: &mut Hold<B>,
        out: &mut O,
    ) {
        let waiting = Waiting {
            packet,
            ingress,
            hops,
        };
        if let Err(packet) = hold.wait(waiting) {
            self.counters.drops[DropReason::QueueFull.index()] += 1;
            let why = Why::Elsewhere;
            out.drop(packet, DropReason::QueueFull, Note { why, place });
        }
    }

    /// Hands a packet to its owner; too often handed over already, it is dropped.
    pub(super) fn elsewhere<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        packet: B,
        (ingress, to, hops): (PortId, WorkerId, Hops),
        place: Place,
        out: &mut O,
    ) {
        let note = Note {
            why: Why::Elsewhere,
            place,
        };
        match hops.next() {
            Some(hops) => {
                self.counters.handed_over += 1;
                out.hand_over(packet, ingress, to, hops, note);
            }
            None => {
                self.counters.drops[DropReason::HandoverLoop.index()] += 1;
                out.drop(packet, DropReason::HandoverLoop, note);
            }
        }
    }
}
