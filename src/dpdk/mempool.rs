//! A pool of packet buffers. Ports make their own (see [`super::Port::configure`]); [`Mempool`] is for packets that haechi
//! makes itself.

use super::{Eal, Mbuf, error::Result};
use arrayvec::ArrayVec;

/// How many of a pool's buffers are where. Exact while no packet moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferUse {
    /// Buffers in all.
    pub size: u32,
    /// Buffers out of the pool: in the driver's rings, in flight, held by haechi.
    pub in_use: u32,
}

/// A pool of mbufs, each with room for one whole frame. Clones share it.
#[derive(Clone)]
pub struct Mempool {
    #[allow(dead_code, reason = "filled with the body")]
    eal: Eal,
}

impl Mempool {
    /// `packet_buffers` mbufs for frames of IP packets of up to `mtu` bytes with two VLAN tags. `name` is for error
    /// messages; the pool's name in DPDK is derived from it.
    ///
    /// # Errors
    /// [`super::Error::Memory`] that names the memory needed and the fix.
    pub fn create(eal: &Eal, name: &str, packet_buffers: u32, mtu: u16) -> Result<Self> {
        let _ = (name, packet_buffers, mtu);
        Ok(Self { eal: eal.clone() })
    }

    /// One empty buffer; `None`: the pool is empty.
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        None
    }

    /// Appends `count` empty buffers to `burst`: all or none (`false`).
    pub fn alloc_bulk<const N: usize>(&self, burst: &mut ArrayVec<Mbuf, N>, count: usize) -> bool {
        let _ = (burst, count);
        false
    }

    /// Buffers in the pool, those in the cores' caches included. Exact while no packet moves.
    #[must_use]
    pub fn available(&self) -> u32 {
        0
    }

    /// Buffers out of the pool: in receive rings, in flight, held by haechi. Exact while no packet moves.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        0
    }

    /// Buffers in all.
    #[must_use]
    pub fn size(&self) -> u32 {
        0
    }

    /// The longest frame that one buffer holds, in bytes.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        0
    }
}
