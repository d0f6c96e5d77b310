//! A burst of packets on its way into the engine.

use arrayvec::ArrayVec;

use crate::base::PortId;

/// The most packets that one call of `process` takes.
pub const MAX_BATCH: usize = 64;

/// How a packet came to its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops(u8);

impl Hops {
    /// From a receive queue.
    pub const NONE: Self = Self(0);
    /// A packet is handed over so often at most (invariant 3).
    pub const MAX: u8 = 2;
    const DATAGRAM: u8 = 0x80;
    const REDIRECTED: u8 = 0x40;
    const OF_PEER: u8 = 0x20;
    const BACK: u8 = 0x10;
    const EARLY: u8 = 0x08;
    const FLAGS: u8 = Self::DATAGRAM | Self::REDIRECTED | Self::OF_PEER | Self::BACK | Self::EARLY;
    /// The other node of the pair offered it ([`super::Offered`]): what becomes of it goes back there.
    pub const FROM_PEER: Self = Self(Self::OF_PEER);
    /// A fragment that this node offered to the other one of the pair, where it turned out to be of a session of this node's
    /// ([`super::Outputs::send_back`]). It is judged by [`super::Engine::process`], and never offered again.
    pub const SENT_BACK: Self = Self(Self::BACK);

    /// How often it was handed over.
    #[inline]
    #[must_use]
    pub const fn count(self) -> u8 {
        self.0 & !Self::FLAGS
    }

    /// Once more; `None`: that would be too often.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        if self.count() < Self::MAX {
            Some(Self(self.0 + 1))
        } else {
            None
        }
    }

    /// A piece of a datagram that a worker has seen whole. Now that its ports are known its owner is looked for from the beginning: the
    /// way to where the pieces met does not count.
    #[must_use]
    pub const fn of_datagram(self) -> Self {
        if self.is_of_datagram() {
            self
        } else {
            Self(Self::DATAGRAM | (self.0 & (Self::OF_PEER | Self::BACK)))
        }
    }

    /// [`Hops::of_datagram`] of a datagram that is put together by the worker that it goes to: its first piece said whose it is.
    #[must_use]
    pub(super) const fn early(self) -> Self {
        Self(self.of_datagram().0 | Self::EARLY)
    }

    /// Is it put together, and counted, by this worker?
    #[must_use]
    pub(super) const fn meets_here(self) -> bool {
        !self.is_of_datagram() || self.0 & Self::EARLY != 0
    }

    /// Did the other node of the pair offer it?
    #[inline]
    #[must_use]
    pub const fn is_from_peer(self) -> bool {
        self.0 & Self::OF_PEER != 0
    }

    /// The same of a packet that came in at this node.
    #[must_use]
    pub(super) const fn as_own(self) -> Self {
        Self(self.0 & !Self::OF_PEER)
    }

    /// Has it come back from the other node of the pair?
    #[inline]
    #[must_use]
    pub const fn is_sent_back(self) -> bool {
        self.0 & Self::BACK != 0
    }

    /// The flow's owner has an entry that says where the session is ([`super::Message::Redirect`]).
    #[must_use]
    pub const fn redirected(self) -> Self {
        Self(self.0 | Self::REDIRECTED)
    }

    /// Was it handed over because of such an entry?
    #[inline]
    #[must_use]
    pub const fn is_redirected(self) -> bool {
        self.0 & Self::REDIRECTED != 0
    }

    /// Is it one? Then it is this worker's, although it has no ports to tell by.
    #[inline]
    #[must_use]
    pub const fn is_of_datagram(self) -> bool {
        self.0 & Self::DATAGRAM != 0
    }
}

/// Packets in the order of their arrival, each with the port that it came in by.
pub struct Batch<B> {
    packets: ArrayVec<B, MAX_BATCH>,
    ingress: [PortId; MAX_BATCH],
    hops: [Hops; MAX_BATCH],
    /// None of them came from another worker.
    fresh: bool,
}

impl<B> Default for Batch<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Batch<B> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            packets: ArrayVec::new(),
            ingress: [PortId(0); MAX_BATCH],
            hops: [Hops::NONE; MAX_BATCH],
            fresh: true,
        }
    }

    /// How many packets it holds.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// How many more it takes.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        self.packets.remaining_capacity()
    }

    /// Does it hold none?
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// Gives the packet back when the batch is full.
    #[inline]
    pub fn try_push(&mut self, packet: B, ingress: PortId) -> Result<(), B> {
        self.try_push_handed(packet, ingress, Hops::NONE)
    }

    /// Adds a packet that other workers had before.
    ///
    /// # Errors
    /// Gives the packet back when the batch is full.
    #[inline]
    pub fn try_push_handed(&mut self, packet: B, ingress: PortId, hops: Hops) -> Result<(), B> {
        let place = self.packets.len();
        self.packets.try_push(packet).map_err(|e| e.element())?;
        self.ingress[place] = ingress;
        self.hops[place] = hops;
        self.fresh &= hops == Hops::NONE;
        Ok(())
    }

    /// Lets `receive` append packets that all came in by one port: what a receive queue's burst is handed.
    #[inline]
    pub fn receive_with(
        &mut self,
        ingress: PortId,
        receive: impl FnOnce(&mut ArrayVec<B, MAX_BATCH>),
    ) -> usize {
        let before = self.packets.len();
        receive(&mut self.packets);
        let after = self.packets.len();
        for port in self.ingress.iter_mut().take(after).skip(before) {
            *port = ingress;
        }
        for hops in self.hops.iter_mut().take(after).skip(before) {
            *hops = Hops::NONE;
        }
        after.saturating_sub(before)
    }

    /// The packets, with their ports.
    #[inline]
    #[must_use]
    pub fn parts(&self) -> (&[B], &[PortId]) {
        (&self.packets, &self.ingress[..self.packets.len()])
    }

    /// How the packets came to this worker.
    #[inline]
    pub(super) fn hops(&self) -> &[Hops] {
        &self.hops[..self.packets.len()]
    }

    /// Did all packets come from receive queues?
    #[inline]
    #[must_use]
    pub(super) const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Takes all packets out, in order; those that are not taken yet can be looked at.
    #[inline]
    pub fn take(&mut self) -> arrayvec::IntoIter<B, MAX_BATCH> {
        self.fresh = true;
        std::mem::take(&mut self.packets).into_iter()
    }
}
