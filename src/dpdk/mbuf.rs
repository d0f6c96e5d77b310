//! A packet buffer.

use std::ptr::NonNull;

use arrayvec::ArrayVec;

use super::sys;
use crate::packet::{PacketBuf, RxChecksum, buffer::FrameTooLong};

/// Packets that one burst holds at most.
pub const MAX_BURST: usize = 64;

/// A burst of packets.
pub type Burst = ArrayVec<Mbuf, MAX_BURST>;

/// What the `port` field of haechi's own packets says. Anything but `RTE_MBUF_PORT_INVALID`: that marks buffers which a
/// driver took from the pool itself (see [`super::mempool`]).
const OWN_PORT: u16 = u16::MAX - 1;

/// [`RxChecksum`]'s bits are those of `ol_flags`, moved by so many.
const CHECKSUM_SHIFT: u32 = 3;
const _: () = assert!(
    (RxChecksum::IP_GOOD as u64) << CHECKSUM_SHIFT == sys::HX_RX_IP_CKSUM_GOOD
        && (RxChecksum::IP_BAD as u64) << CHECKSUM_SHIFT == sys::HX_RX_IP_CKSUM_BAD
        && (RxChecksum::L4_GOOD as u64) << CHECKSUM_SHIFT == sys::HX_RX_L4_CKSUM_GOOD
        && (RxChecksum::L4_BAD as u64) << CHECKSUM_SHIFT == sys::HX_RX_L4_CKSUM_BAD
);

/// One frame in one mbuf. It owns the mbuf: dropping it puts the mbuf back into its pool, so it can neither leak nor be
/// freed twice. Bursts are better freed by [`free_burst`].
///
/// The mbuf is one contiguous buffer (`nb_segs` 1, no `next`), is not shared (reference count 1), and its data lies
/// within its buffer: receive queues and pools hand out no others.
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: an mbuf is plain memory in a pool that all threads share; whoever owns the `Mbuf` alone reads and writes it,
// and returning it to its pool is thread-safe (multi-producer ring, caches by lcore id).
unsafe impl Send for Mbuf {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// Takes over an mbuf that was just allocated, and marks it as haechi's own.
    ///
    /// # Safety
    /// The caller owns `raw`, a whole packet in one segment, and uses it no more.
    pub(super) unsafe fn adopt(raw: NonNull<sys::rte_mbuf>) -> Self {
        let mut mbuf = Self(raw);
        // SAFETY: within the mbuf, which this `Mbuf` owns.
        unsafe { mbuf.field::<u16>(sys::HX_MBUF_PORT).write(OWN_PORT) };
        mbuf
    }

    /// A field of the mbuf, by its offset in the headers that the shim was compiled with.
    #[inline(always)]
    fn field<T>(&mut self, offset: u32) -> *mut T {
        // SAFETY: the offsets of `shim.h` lie within the mbuf, and are those of fields of type `T` at every use here.
        unsafe { self.0.as_ptr().byte_add(offset as usize).cast() }
    }

    /// A field's value.
    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: as in `field`; the fields are plain integers and pointers, always initialised in a pool's mbuf.
        unsafe { self.0.as_ptr().byte_add(offset as usize).cast::<T>().read() }
    }

    /// The frame's length in bytes.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.read::<u16>(sys::HX_MBUF_DATA_LEN))
    }

    /// Has the frame no byte (as a fresh buffer)?
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    fn data(&self) -> *mut u8 {
        let buffer: *mut u8 = self.read(sys::HX_MBUF_BUF_ADDR);
        // SAFETY: the data starts within the buffer (see the type's invariant).
        unsafe { buffer.add(usize::from(self.read::<u16>(sys::HX_MBUF_DATA_OFF))) }
    }

    #[inline(always)]
    pub(super) fn ol_flags(&self) -> u64 {
        self.read(sys::HX_MBUF_OL_FLAGS)
    }

    /// The hash that the device computed for RSS; `None`: it computed none.
    #[inline(always)]
    #[must_use]
    pub fn rss_hash(&self) -> Option<u32> {
        (self.ol_flags() & sys::HX_RX_RSS_HASH != 0).then(|| self.read(sys::HX_MBUF_RSS_HASH))
    }

    #[inline(always)]
    pub(super) fn segments(&self) -> u16 {
        self.read(sys::HX_MBUF_NB_SEGS)
    }

    /// Did the device take its VLAN tag out?
    #[inline(always)]
    pub(super) fn is_stripped(&self) -> bool {
        self.ol_flags() & (sys::HX_RX_VLAN_STRIPPED | sys::HX_RX_QINQ_STRIPPED) != 0
    }

    /// Is it anything but a whole frame in one buffer?
    #[inline(always)]
    pub(super) fn is_odd(&self) -> bool {
        self.segments() != 1 || self.is_stripped()
    }

    pub(super) fn as_raw(&mut self) -> *mut sys::rte_mbuf {
        self.0.as_ptr()
    }
}

impl PacketBuf for Mbuf {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes from `data` on lie within the buffer (the type's invariant), which nobody
        // writes while it is borrowed.
        unsafe { std::slice::from_raw_parts(self.data(), self.len()) }
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.data(), self.len()) }
    }

    #[inline(always)]
    fn rx_hash(&self) -> Option<u32> {
        self.rss_hash()
    }

    #[inline(always)]
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::from_bits((self.ol_flags() >> CHECKSUM_SHIFT) as u32)
    }

    fn try_fill(&mut self, frame: &[u8]) -> Result<(), FrameTooLong> {
        let room: u16 = self.read(sys::HX_MBUF_BUF_LEN);
        // The headroom stays free, as in a received frame: drivers that copy into their own rings use it.
        let start = (sys::HX_HEADROOM as u16).min(room);
        if frame.len() > usize::from(room - start) {
            return Err(FrameTooLong);
        }
        let buffer: *mut u8 = self.read(sys::HX_MBUF_BUF_ADDR);
        // SAFETY: `start + frame.len()` was checked against the buffer's length; `frame` cannot overlap the buffer, which
        // `&mut self` alone reaches. The lengths that are written fit `u16` because the buffer's does.
        unsafe {
            std::ptr::copy_nonoverlapping(frame.as_ptr(), buffer.add(usize::from(start)), frame.len());
            self.field::<u16>(sys::HX_MBUF_DATA_OFF).write(start);
            self.field::<u16>(sys::HX_MBUF_DATA_LEN).write(frame.len() as u16);
            self.field::<u32>(sys::HX_MBUF_PKT_LEN).write(frame.len() as u32);
            // What the device said was about the frame that was here before.
            self.field::<u64>(sys::HX_MBUF_OL_FLAGS).write(0);
        }
        Ok(())
    }

    #[inline(always)]
    fn try_resize(&mut self, len: usize) -> Result<(), FrameTooLong> {
        let room: u16 = self.read(sys::HX_MBUF_BUF_LEN);
        let start: u16 = self.read(sys::HX_MBUF_DATA_OFF);
        if len > usize::from(room.saturating_sub(start)) {
            return Err(FrameTooLong);
        }
        // SAFETY: the frame ends within the buffer, as was just checked, so its length fits `u16`; every byte of a pool's
        // memory is initialised. What the device said was about the frame that was here before.
        unsafe {
            self.field::<u16>(sys::HX_MBUF_DATA_LEN).write(len as u16);
            self.field::<u32>(sys::HX_MBUF_PKT_LEN).write(len as u32);
            self.field::<u64>(sys::HX_MBUF_OL_FLAGS).write(0);
        }
        Ok(())
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: owned, and gone after this.
        unsafe { sys::hx_mbuf_free(self.0.as_ptr()) };
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mbuf").field("bytes", &self.bytes()).finish()
    }
}

/// Puts all packets of a burst back into their pools at once; the burst is then empty.
#[inline]
pub fn free_burst<const N: usize>(burst: &mut ArrayVec<Mbuf, N>) {
    let count = burst.len() as u32;
    if count == 0 {
        return;
    }
    // SAFETY: shrinking; the packets beyond the end are owned by this function now, and freed exactly once. `Mbuf` is
    // a transparent pointer to an mbuf.
    unsafe {
        burst.set_len(0);
        sys::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), count);
    }
}

const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut sys::rte_mbuf>());
