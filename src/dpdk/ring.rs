//! A bounded queue between two threads: DPDK's ring (DPDK Programmer's Guide, "Ring Library") with one producer and one consumer,
//! in elements of 16 bytes. Pushing and popping are per burst, so that the two threads touch each other's cache lines once a burst.

use std::ffi::CString;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrayvec::ArrayVec;

use super::error::{Error, Result};
use super::{Eal, sys};

/// Bytes of one element.
const ELEMENT: usize = 16;

/// The ring, as long as one of its ends lives. What is in it when both are gone is dropped.
struct Ring<T> {
    raw: NonNull<sys::rte_ring>,
    _eal: Eal,
    elements: PhantomData<T>,
}

// SAFETY: the ring is memory that both of its ends may touch from their threads; it holds values of `T`, which go from one thread
// to the other.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: the ends do to it what one producer and one consumer may do at the same time, and nothing else.
unsafe impl<T: Send> Sync for Ring<T> {}

/// The end that pushes. Not `Clone`, and every use takes `&mut`: there is one producer.
pub struct Sender<T>(Arc<Ring<T>>);

/// The end that pops: one consumer, likewise.
pub struct Receiver<T>(Arc<Ring<T>>);

/// A ring for exactly `capacity` elements, at least 1, in memory of the NUMA node `socket` (`None`: any), or of
/// any where that has none for it.
///
/// # Errors
/// When there is no memory for it.
pub fn ring<T: Send>(eal: &Eal, capacity: u32, socket: Option<u32>) -> Result<(Sender<T>, Receiver<T>)> {
    const { assert!(size_of::<T>() == ELEMENT && align_of::<T>() <= ELEMENT) };
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let failed = || {
        Error::Memory(format!(
            "no memory for a queue of {capacity} packets between two workers: raise memory_mib or lower handover_queue in [node]"
        ))
    };
    let name = CString::new(format!("haechi_ring_{number}")).map_err(|_| failed())?;
    let create = |node| {
        // SAFETY: the EAL runs (an `Eal` is held); the name is a C string; -1 is any NUMA node.
        unsafe { sys::hx_ring_create(name.as_ptr(), capacity.max(1), node) }
    };
    let node = socket.and_then(|s| i32::try_from(s).ok()).unwrap_or(-1);
    let mut raw = create(node);
    if raw.is_null() && node >= 0 {
        // DPDK takes a node at its word.
        raw = create(-1);
    }
    let raw = NonNull::new(raw).ok_or_else(failed)?;
    let ring = Arc::new(Ring {
        raw,
        _eal: eal.clone(),
        elements: PhantomData,
    });
    Ok((Sender(Arc::clone(&ring)), Receiver(ring)))
}

impl<T> Sender<T> {
    /// Moves as many elements as there is room for from the front of `burst` into the ring, in order; the others stay. Returns how
    /// many.
    #[inline]
    pub fn push_burst<const N: usize>(&mut self, burst: &mut ArrayVec<T, N>) -> usize {
        let count = burst.len();
        // SAFETY: `count` initialised elements of `ELEMENT` bytes lie there; this is the only producer (`&mut`, not `Clone`).
        let pushed =
            unsafe { sys::hx_ring_push(self.0.raw.as_ptr(), burst.as_ptr().cast(), count as u32) } as usize;
        // SAFETY: the first `pushed` elements have been moved out by their bytes and are the ring's now; the others move down to
        // the front, and the length says so.
        unsafe {
            burst.set_len(0);
            let start = burst.as_mut_ptr();
            std::ptr::copy(start.add(pushed), start, count - pushed);
            burst.set_len(count - pushed);
        }
        pushed
    }
}

impl<T> Receiver<T> {
    /// Moves up to `max` elements, and no more than `burst` has room for, from the ring behind the end of `burst`. Returns how many.
    #[inline]
    pub fn pop_burst<const N: usize>(&mut self, burst: &mut ArrayVec<T, N>, max: usize) -> usize {
        let had = burst.len();
        let count = max.min(burst.remaining_capacity());
        // SAFETY: there is room for `count` elements behind the end; what is popped was pushed whole, once, as a `T`; this is the
        // only consumer.
        unsafe {
            let spare = burst.as_mut_ptr().add(had).cast();
            let popped = sys::hx_ring_pop(self.0.raw.as_ptr(), spare, count as u32) as usize;
            burst.set_len(had + popped);
            popped
        }
    }

    /// How many elements wait, at this moment.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        // SAFETY: reads two counters of a live ring.
        unsafe { sys::hx_ring_count(self.0.raw.as_ptr()) as usize }
    }

    /// Does none wait?
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let mut element = MaybeUninit::<T>::uninit();
        // SAFETY: both ends are gone, so this thread is the only consumer; what is popped was pushed as a `T`, and is dropped once.
        // The ring was made by `hx_ring_create` and is used no more.
        unsafe {
            while sys::hx_ring_pop(self.raw.as_ptr(), element.as_mut_ptr().cast(), 1) == 1 {
                element.assume_init_drop();
            }
            sys::hx_ring_free(self.raw.as_ptr());
        }
    }
}
