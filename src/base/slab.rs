//! Fixed memory: a slice that is allocated once, on the heap (tests, tools) or in huge pages that DPDK owns.

use std::ops::{Deref, DerefMut};

/// A fixed array of `T`. Take the slice once a batch (`&mut *slab`), not once an access: the match is then free.
pub enum Slab<T: 'static> {
    /// From the global allocator.
    Heap(Box<[T]>),
    /// From memory that lives as long as the process (huge pages mapped by `dpdk::memory`).
    Static(&'static mut [T]),
}

impl<T: Default> Slab<T> {
    /// `len` default elements from the global allocator.
    #[must_use]
    pub fn heap(len: usize) -> Self {
        Self::Heap(std::iter::repeat_with(T::default).take(len).collect())
    }
}

impl<T> Deref for Slab<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::Heap(b) => b,
            Self::Static(s) => s,
        }
    }
}

impl<T> DerefMut for Slab<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Heap(b) => b,
            Self::Static(s) => s,
        }
    }
}

/// Where tables get their memory. `dpdk::memory::HugePages` is the other implementation.
pub trait Memory {
    /// `len` default elements, allocated and touched now so that no page fault comes later.
    ///
    /// # Errors
    /// When the memory is not there; the text names the amount and the fix.
    fn slab<T: Default + Copy + 'static>(&self, len: usize) -> Result<Slab<T>, MemoryError>;
}

/// Memory that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MemoryError(pub String);

/// The global allocator as a source of tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapMemory;

impl Memory for HeapMemory {
    fn slab<T: Default + Copy + 'static>(&self, len: usize) -> Result<Slab<T>, MemoryError> {
        Ok(Slab::heap(len))
    }
}
