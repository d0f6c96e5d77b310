//! Which packets of a burst belong to other workers (ARCHITECTURE.md, invariants 2 and 3): between parsing and the session table each
//! packet's owner is looked at, and what is not this worker's is handed over instead of judged.

use std::sync::Arc;

use super::batch::{Batch, Hops};
use super::process::{Act, FlowPacket, Parsed, Scratch, Sight};
use super::redirect::Redirects;
use super::{DropReason, Engine, Note, Outputs, Place, Why};
use crate::base::{PortId, WorkerId};
use crate::flow::HashSeed;
use crate::flow::owner::{BucketTable, OwnerFunction, Side, Tuple};
use crate::flow::proof::{Event, Kind, Kinds, Proof, RssState, Trust};
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
            PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo | PacketKind::Icmp | PacketKind::OtherIp => {
                self.hash(port, &Tuple::of(meta))
            }
            // The flow's packets that it tells of go the other way.
            PacketKind::IcmpError => {
                let embedded = parse_embedded(meta, frame)?;
                self.hash(port, &Tuple::of(&embedded.meta).reverse())
            }
            PacketKind::Fragment => self.hash_of_datagram(port, meta, frame),
            _ => return None,
        };
        Some(self.buckets.owner(hash))
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
    me: WorkerId,
    placement: Arc<Placement>,
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
        let owner = self.placement.owner(port, meta, frame);
        owner.filter(|owner| *owner != self.me)
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
        let here = owner == self.me;
        if let Some(proof) = self.proofs.get_mut(port.index()) {
            let event = proof.check(kind, device, hash, here);
            // That one kind more is believed is nothing to tell, and must not hide what is.
            if !matches!(event, Event::Nothing | Event::KindProven(_)) {
                self.events[port.index()] = Some(event);
                self.news = true;
                self.disproved |= matches!(event, Event::Mismatch(_));
            }
        }
        (!here).then_some(owner)
    }

    #[inline(never)]
    fn astray(&mut self, meta: &PacketMeta) -> Option<WorkerId> {
        let kind = Kind::of(meta)?;
        let proof = self.proofs.get(meta.ingress.index())?;
        // What is believed no longer was when the packets of this batch were placed.
        if !(proof.believes(kind) || self.disproved) {
            return None;
        }
        let owner = self.other_by_tuple(meta.ingress, &Tuple::of(meta));
        if owner.is_some() {
            // The device's own hash was on the packet, and says nothing of why: the queue is what is wrong.
            let hash = self.placement.hash(meta.ingress, &Tuple::of(meta));
            self.check_hash(meta.ingress, kind, Some(hash), hash);
        }
        owner
    }

    /// So many packets from a receive queue of `port`, of those that were seen, are on their owner's queue without another look:
    /// nearly all of them, where a port is proven.
    #[inline(always)]
    fn believed(&mut self, sights: &[Sight], port: PortId) -> usize {
        let Some(proof) = self.proofs.get_mut(port.index()) else {
            return 0;
        };
        let believed = proof.believed();
        if believed.is_empty() {
            return 0;
        }
        let is_believed =
            |sight: &&Sight| (sight.ingress == port) & (u16::from(sight.kinds) & believed.bits() != 0);
        let quiet = usize::from(proof.quiet());
        let run = sights.iter().take(quiet).take_while(is_believed).count();
        proof.skip(run as u16);
        run
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
        self.redirects = Redirects::new((self.table.capacity() / 16).max(64) as usize, HashSeed::random());
        let ports = placement.sides.len();
        self.crew = Some(Crew {
            me,
            placement,
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

    fn proof_mut(&mut self, port: PortId) -> Option<&mut Proof> {
        self.crew.as_mut()?.proofs.get_mut(port.index())
    }
}

/// Finds the packets that are not this worker's, and notes in their sights whose they are.
#[inline(never)]
pub(super) fn steer_all<B: PacketBuf>(crew: &mut Crew, scratch: &mut Scratch, batch: &Batch<B>) {
    let (packets, ingress) = batch.parts();
    let hops = batch.hops();
    crew.disproved = false;
    scratch.hops[..hops.len()].copy_from_slice(hops);
    let mut place = 0;
    while place < packets.len() {
        if batch.is_fresh() {
            place += crew.believed(&scratch.sights[place..packets.len()], ingress[place]);
        }
        if let (Some(packet), Some(port)) = (packets.get(place), ingress.get(place)) {
            if let Some(owner) = steer(crew, scratch, place, packet, *port) {
                scratch.sights[place].set_elsewhere(owner);
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
            (Trust::Here, _) => None,
            (Trust::Check, Some(kind)) => crew.check(port, kind, &tuple, packet.rx_hash()),
            _ => crew.other_by_tuple(port, &tuple),
        };
    }
    if hops.is_of_datagram() {
        return None;
    }
    let meta = &scratch.metas[place];
    match crew.trust_of(port, hops, || Kind::of(meta)) {
        (Trust::Here, _) => None,
        (Trust::Check, Some(kind)) => crew.check(port, kind, &Tuple::of(meta), packet.rx_hash()),
        _ => crew.other(port, meta, packet.bytes()),
    }
}

impl Act<'_> {
    /// Whose a packet without a session is that was believed to be on its owner's queue, if another worker's. So no session is ever made
    /// on the wrong worker, whatever a device does: what it says is believed of packets that find their session, and of no others.
    #[inline]
    pub(super) fn astray(&mut self, flow: &FlowPacket<'_>) -> Option<WorkerId> {
        let crew = self.crew.as_mut()?;
        crew.astray(flow.meta).or_else(|| self.redirects.find(flow.key))
    }

    /// The same of a SYN that would be answered without a session.
    #[inline]
    pub(super) fn is_astray(&mut self, meta: &PacketMeta) -> bool {
        self.crew.as_mut().is_some_and(|crew| crew.astray(meta).is_some())
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
