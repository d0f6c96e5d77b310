//! Packets that go to the other node of an HA pair to be judged, where each path may cross another node (ARCHITECTURE.md,
//! "Asymmetric paths"): what is offered and within which budget, and how packets of the other node are judged here.

use super::pair::Pair;
use super::process::{Act, Verdict};
use super::rate::TokenBucket;
use super::sight::{Parsed, Scratch};
use super::{Batch, DropReason, Engine, Hops, Mark, Message, Note, Offered, Outputs, Place, Why};
use crate::base::{Nanos, PortId, SessionIx, WorkerId};
use crate::packet::PacketBuf;

/// Bytes that stand for one packet of the budget: of larger ones fewer are offered.
const BYTES: u32 = 512;

/// Packets and bytes a second.
struct Budget {
    packets: TokenBucket,
    bytes: TokenBucket,
}

impl Budget {
    fn new(rate: u32) -> Self {
        Self {
            packets: TokenBucket::new(rate, Nanos(0)),
            bytes: TokenBucket::new(rate.saturating_mul(BYTES), Nanos(0)),
        }
    }

    fn set_rate(&mut self, rate: u32) {
        self.packets.set_rate(rate);
        self.bytes.set_rate(rate.saturating_mul(BYTES));
    }

    const fn take(&mut self, bytes: u32) {
        self.packets.take(1);
        self.bytes.take(bytes);
    }
}

/// What a worker knows of offers.
pub(super) struct Offers {
    rate: u32,
    all: Budget,
    /// Half of it is for sessions that the other node is known to have, whatever else comes.
    unknown: Budget,
    /// The packet at hand is judged as if there were no other node: that has no room for it.
    shut: bool,
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            rate: 0,
            all: Budget::new(0),
            unknown: Budget::new(0),
            shut: false,
        }
    }
}

impl Offers {
    fn set_rate(&mut self, rate: u32) {
        if self.rate == 0 {
            // The first one.
            (self.all, self.unknown) = (Budget::new(rate), Budget::new(rate / 2));
        }
        self.all.set_rate(rate);
        self.unknown.set_rate(rate / 2);
        self.rate = rate;
    }

    /// Is there what so many offers cost?
    fn has(&mut self, now: Nanos, what: Offered, packets: u32, bytes: u32) -> bool {
        let of = |budget: &mut Budget| budget.packets.has(now, packets) && budget.bytes.has(now, bytes);
        of(&mut self.all) && (what == Offered::Peers || of(&mut self.unknown))
    }

    /// Takes what an offer costs. False: there is not so much.
    pub(super) fn try_take(&mut self, now: Nanos, what: Offered, bytes: u32) -> bool {
        if !self.has(now, what, 1, bytes) {
            return false;
        }
        self.all.take(bytes);
        if what == Offered::Unknown {
            self.unknown.take(bytes);
        }
        true
    }
}

/// What becomes of the other node's packets goes back there.
struct Returning<'a, O> {
    out: &'a mut O,
    /// Packets that passed.
    passed: u64,
}

impl<B, O: Outputs<B>> Outputs<B> for Returning<'_, O> {
    fn forward(&mut self, packet: B, to: PortId, note: Note) {
        self.passed += 1;
        self.out.give_back(packet, to, note);
    }
    fn drop(&mut self, packet: B, reason: DropReason, note: Note) {
        self.out.drop(packet, reason, note);
    }
    fn hold(&mut self, number: u64, place: usize) {
        self.out.hold(number, place);
    }
    fn answer(&mut self, packet: B, to: PortId, _: DropReason, _: Note) {
        self.out.give_back_made(packet, to);
    }
    fn hand_over(&mut self, packet: B, ingress: PortId, to: WorkerId, hops: Hops, note: Note) {
        self.out.hand_over(packet, ingress, to, hops, note);
    }
    #[allow(
        clippy::result_large_err,
        reason = "nothing is boxed: a worker allocates nothing"
    )]
    fn tell(&mut self, to: WorkerId, message: Message) -> Result<(), Message> {
        self.out.tell(to, message)
    }
    fn mark(&mut self, to: WorkerId, mark: Mark) -> bool {
        self.out.mark(to, mark)
    }
    fn buffer(&mut self) -> Option<B> {
        self.out.buffer()
    }
    fn originate(&mut self, packet: B, to: PortId) {
        self.out.give_back_made(packet, to);
    }
    fn offer(&mut self, packet: B, ingress: PortId, what: Offered, note: Note) -> Result<(), B> {
        self.out.offer(packet, ingress, what, note)
    }
    fn give_back(&mut self, packet: B, to: PortId, note: Note) {
        self.out.give_back(packet, to, note);
    }
    fn give_back_made(&mut self, packet: B, to: PortId) {
        self.out.give_back_made(packet, to);
    }
    fn send_back(&mut self, packet: B, ingress: PortId, note: Note) {
        self.out.send_back(packet, ingress, note);
    }
    fn forward_own(&mut self, packet: B, to: PortId, note: Note) {
        self.out.forward_own(packet, to, note);
    }
    fn originate_own(&mut self, packet: B, to: PortId) {
        self.out.originate_own(packet, to);
    }
}

impl<B> Engine<B> {
    /// From now on this worker offers so many packets a second to the other node at most, and 512 times as many bytes; of packets whose
    /// session it does not know half as many. 0: none.
    pub fn set_redirect(&mut self, rate_per_worker: u32) {
        if let Some(pair) = &mut self.pair {
            pair.offers.set_rate(rate_per_worker);
        }
    }
}

impl<B: PacketBuf> Engine<B> {
    /// [`Engine::process`] for packets that the other node offered, all of which have [`Hops::FROM_PEER`]: each is judged as if it had
    /// come in here, but opens no session, and what passes and what is made in answer goes back ([`Outputs::give_back`],
    /// [`Outputs::give_back_made`]).
    pub fn process_redirected<O: Outputs<B>>(&mut self, now: Nanos, batch: &mut Batch<B>, out: &mut O) {
        let fresh = batch
            .hops()
            .iter()
            .filter(|hops| hops.count() == 0 && !hops.is_of_datagram());
        self.counters.redirected_in += fresh.count() as u64;
        self.judge_redirected(now, batch, out);
    }

    /// The same of packets that were counted before.
    pub(super) fn judge_redirected<O: Outputs<B>>(&mut self, now: Nanos, batch: &mut Batch<B>, out: &mut O) {
        // What passes leaves by the other node.
        let mut out = Returning { out, passed: 0 };
        self.process(now, batch, &mut out);
        self.counters.forwarded -= out.passed;
        self.counters.given_back += out.passed;
    }
}

impl Act<'_> {
    /// Is what this node would refuse of a flow without a session offered to the other one?
    pub(super) fn may_offer(&self, hops: Hops) -> bool {
        let open = |pair: &&mut Pair| pair.offers.rate > 0 && !pair.offers.shut;
        self.pair.as_ref().is_some_and(open)
            && !hops.is_from_peer()
            && !hops.is_sent_back()
            && self.table.is_shared()
    }

    /// What becomes of a packet of a session of the other node; `None`: it is this node's. It crosses once: what that node has offered,
    /// or sent back, is not offered to it.
    #[cold]
    pub(super) fn of_peer(&self, ix: SessionIx, hops: Hops) -> Option<Verdict> {
        if !self.table.is_shared() || !self.table.is_peers(ix) {
            return None;
        }
        let why = Why::Session(ix);
        Some(if hops.is_from_peer() || hops.is_sent_back() {
            Verdict::Drop(DropReason::NoSession, why)
        } else {
            Verdict::Offer(Offered::Peers, why)
        })
    }

    /// Offers the packet at `place` of the batch.
    ///
    /// # Errors
    /// The packet, and what becomes of it instead: there is no room for it.
    #[cold]
    #[inline(never)]
    pub(super) fn offer<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        scratch: &Scratch,
        place: usize,
        packet: B,
        (what, why): (Offered, Why),
        out: &mut O,
    ) -> Result<(), (B, Verdict)> {
        let ingress = scratch.sights[place].ingress;
        let note = Note {
            why,
            place: Place::Batch(place),
        };
        self.try_offer(packet, ingress, what, note, out)
            .map_err(|packet| {
                let verdict = match what {
                    Offered::Peers => Verdict::Drop(DropReason::RedirectLimit, why),
                    Offered::Unknown => self.without_peer(|act| {
                        let frame = packet.bytes();
                        if scratch.sights[place].parsed == Parsed::Flow {
                            act.flow(&scratch.flow(place, frame), &scratch.matches)
                        } else {
                            act.related(&scratch.metas[place], frame, scratch.hops[place])
                        }
                    }),
                };
                (packet, verdict)
            })
    }

    /// Judges a packet once more, now without the other node: nothing was counted for it yet.
    pub(super) fn without_peer(&mut self, judge: impl FnOnce(&mut Self) -> Verdict) -> Verdict {
        self.shut_offers(true);
        let verdict = judge(self);
        self.shut_offers(false);
        verdict
    }

    fn shut_offers(&mut self, shut: bool) {
        if let Some(pair) = &mut self.pair {
            pair.offers.shut = shut;
        }
    }

    /// Is there what it costs to offer so many packets?
    pub(super) fn can_offer(&mut self, what: Offered, packets: u32, bytes: u32) -> bool {
        let now = self.now;
        let has = |pair: &mut &mut Pair| pair.offers.has(now, what, packets, bytes);
        self.pair.as_mut().is_some_and(has)
    }

    /// Offers a packet, if the budget allows.
    ///
    /// # Errors
    /// Gives it back.
    pub(super) fn try_offer<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        packet: B,
        ingress: PortId,
        what: Offered,
        note: Note,
        out: &mut O,
    ) -> Result<(), B> {
        let bytes = packet.bytes().len() as u32;
        let now = self.now;
        let may = |pair: &mut &mut Pair| pair.offers.try_take(now, what, bytes);
        if !self.pair.as_mut().is_some_and(may) {
            return Err(packet);
        }
        out.offer(packet, ingress, what, note)?;
        self.counters.redirected_out += 1;
        Ok(())
    }
}
