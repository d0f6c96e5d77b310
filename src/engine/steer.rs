//! Which packets of a burst belong to other workers (ARCHITECTURE.md, invariants 2 and 3): between parsing and the session table each
//! packet's owner is looked at, and what is not this worker's is handed over instead of judged.

use super::batch::{Batch, Hops};
use super::process::{Act, Parsed, Scratch};
use super::{DropReason, Engine, Note, Outputs, Place, Why};
use crate::base::{PortId, WorkerId};
use crate::flow::owner::{BucketTable, OwnerFunction, Side, Tuple};
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
    pub(super) me: WorkerId,
    pub(super) placement: std::sync::Arc<Placement>,
}

impl Crew {
    /// Who else a packet belongs to.
    pub(super) fn other(&self, owner: Option<WorkerId>) -> Option<WorkerId> {
        owner.filter(|owner| *owner != self.me)
    }
}

impl<B> Engine<B> {
    /// From now on this engine is that of worker `me`, one of several, and judges its own packets alone.
    pub fn join(&mut self, me: WorkerId, placement: std::sync::Arc<Placement>) {
        self.crew = Some(Crew { me, placement });
    }
}

/// Finds the packets that are not this worker's, and notes in their sights whose they are.
#[inline(never)]
pub(super) fn steer_all<B: PacketBuf>(crew: &Crew, scratch: &mut Scratch, batch: &Batch<B>) {
    let (packets, ingress) = batch.parts();
    let hops = batch.hops();
    scratch.hops[..hops.len()].copy_from_slice(hops);
    for (place, (packet, port)) in packets.iter().zip(ingress).enumerate() {
        let sight = &mut scratch.sights[place];
        let owner = match sight.parsed {
            Parsed::Straight | Parsed::Plain => {
                let tuple = Tuple::of_key(&sight.key, sight.direction);
                let hash = crew.placement.hash(*port, &tuple);
                Some(crew.placement.buckets.owner(hash))
            }
            Parsed::Layer2 | Parsed::Flow | Parsed::Elsewhere if hops[place].is_of_datagram() => None,
            Parsed::Layer2 | Parsed::Flow | Parsed::Elsewhere => {
                crew.placement.owner(*port, &scratch.metas[place], packet.bytes())
            }
        };
        if let Some(owner) = crew.other(owner) {
            sight.set_elsewhere(owner);
        }
    }
}

impl Act<'_> {
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
