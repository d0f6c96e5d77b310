//! Where the engine's verdicts go: transmit queues on a worker, a list of verdicts in tests and `explain`.

use super::{DropReason, Hops, Mark, Message};
use crate::base::{PortId, SessionIx, WorkerId};

/// By what a packet was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Before any rule: ARP, neighbour discovery, `[transparent]`, a malformed frame, ...
    Layer2,
    /// An established or half-open session.
    Session(SessionIx),
    /// An ICMP error about a packet of a session.
    Related(SessionIx),
    /// The first packet of a session, made now under this index into `Policy::rules`.
    NewSession(SessionIx, u32),
    /// It is another worker's, and nothing was judged here.
    Elsewhere,
    /// No session: the rule that refused it (an index into `Policy::rules`); `None`: the implicit drop, or nothing to
    /// ask the rules about.
    Rule(Option<u32>),
}

/// What a verdict is accompanied by; the worker ignores it, `explain` prints it.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// By what it was judged.
    pub why: Why,
    /// Which packet it is about.
    pub place: Place,
}

/// Which packet a verdict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one at this place in the batch.
    Batch(usize),
    /// The fragment that was held under this number ([`Outputs::hold`]).
    Held(u64),
}

/// Why a packet is offered to the other node of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Its session is that node's.
    Peers,
    /// It has no session here, and cannot open one: that node may know more.
    Unknown,
}

/// Takes every packet of a batch exactly once, in order for each flow; fragments that are held, later.
pub trait Outputs<B> {
    /// `packet` leaves by `to`: unchanged, but for one of a proxied session (`syn_protection`).
    fn forward(&mut self, packet: B, to: PortId, note: Note);
    /// The same for packets in a row that all leave by `to`; `note` says what accompanies the one with this number, from 0.
    #[inline]
    fn forward_run(&mut self, packets: impl Iterator<Item = B>, to: PortId, note: impl Fn(usize) -> Note) {
        for (number, packet) in packets.enumerate() {
            self.forward(packet, to, note(number));
        }
    }
    /// `packet` is dropped.
    fn drop(&mut self, packet: B, reason: DropReason, note: Note);
    /// The fragment at `place` in the batch stays in the engine, under this number, until its datagram is complete or over.
    fn hold(&mut self, number: u64, place: usize) {
        let _ = (number, place);
    }
    /// `packet` is dropped, and the buffer leaves by `to` with the packet that the engine made in answer: a drop and an
    /// [`Outputs::originate`] in one.
    fn answer(&mut self, packet: B, to: PortId, reason: DropReason, note: Note);
    /// `packet`, which came in by `ingress`, is another worker's: it goes to that worker's next batch. Of one engine alone there is
    /// no other.
    fn hand_over(&mut self, packet: B, ingress: PortId, to: WorkerId, hops: Hops, note: Note) {
        let _ = (ingress, to, hops);
        self.drop(packet, DropReason::QueueFull, note);
    }
    /// Puts a message into another worker's queue, at once.
    ///
    /// # Errors
    /// Gives it back when the queue is full, or there is no such worker.
    #[allow(
        clippy::result_large_err,
        reason = "nothing is boxed: a worker allocates nothing"
    )]
    fn tell(&mut self, to: WorkerId, message: Message) -> Result<(), Message> {
        let _ = to;
        Err(message)
    }
    /// Puts a mark behind everything that was handed over to `to` so far, or given to it to be sent. When that has been judged there,
    /// and what came of it sent, [`super::Engine::passed`] is called there. False: not now.
    fn mark(&mut self, to: WorkerId, mark: Mark) -> bool {
        let _ = (to, mark);
        false
    }
    /// An empty buffer for a packet that the engine makes itself; `None`: the pool is empty, and it makes none.
    fn buffer(&mut self) -> Option<B>;
    /// A packet that the engine made (RST, ICMP unreachable) leaves by `to`.
    fn originate(&mut self, packet: B, to: PortId);
    /// `packet`, which came in by `ingress`, goes to the other node of the pair, which judges it
    /// ([`super::Engine::process_redirected`]). Fragments that were held are offered, too, in `process` and in `upkeep`.
    ///
    /// # Errors
    /// Gives it back when the queue is full, or there is no other node: then it is dropped for the reason that it would have been.
    fn offer(&mut self, packet: B, ingress: PortId, what: Offered, note: Note) -> Result<(), B> {
        let _ = (ingress, what, note);
        Err(packet)
    }
    /// `packet`, which the other node of the pair offered, leaves there by its port of the same place as `to`.
    fn give_back(&mut self, packet: B, to: PortId, note: Note) {
        self.forward(packet, to, note);
    }
    /// A packet that the engine made because of one that the other node of the pair offered leaves there by its port of the same place
    /// as `to`.
    fn give_back_made(&mut self, packet: B, to: PortId) {
        self.originate(packet, to);
    }
    /// A fragment that the other node of the pair offered, where it came in by `ingress`, is of a session of that node: it goes back to
    /// be judged there, as [`Hops::SENT_BACK`].
    fn send_back(&mut self, packet: B, ingress: PortId, note: Note) {
        let _ = ingress;
        self.drop(packet, DropReason::NoSession, note);
    }
    /// [`Outputs::forward`] of a fragment that came in here, although it was one from the other node of the pair that made its datagram
    /// complete.
    fn forward_own(&mut self, packet: B, to: PortId, note: Note) {
        self.forward(packet, to, note);
    }
    /// [`Outputs::originate`] likewise.
    fn originate_own(&mut self, packet: B, to: PortId) {
        self.originate(packet, to);
    }
}
