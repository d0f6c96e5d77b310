//! Pools of packet buffers. Ports make their own (see [`super::Port::configure`]); [`Mempool`] is for packets that haechi
//! makes itself.

use std::{
    ffi::{CString, c_void},
    ptr::NonNull,
};

use arrayvec::ArrayVec;

use super::{
    Eal, Mbuf,
    error::{Error, Result},
    host, sys,
};

/// How many of a pool's buffers are where. Exact while no packet moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferUse {
    /// Buffers in all.
    pub size: u32,
    /// Buffers out of the pool: in the driver's rings, in flight, held by haechi.
    pub in_use: u32,
}

/// Ethernet header and two VLAN tags: what a frame has beyond its IP packet, in bytes.
pub(super) const FRAME_OVERHEAD: usize = 14 + 2 * 4;

/// How the buffers of a pool lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As DPDK likes it, and every core keeps some at hand.
    Cached,
    /// One to a page, without gaps and caches: for AF_XDP, whose buffers also may have to be found again after a close.
    Pages,
}

/// A mempool in EAL memory. It is never freed but by the EAL's clean-up, so the pointer stays good as long as an `Eal`
/// lives.
#[derive(Debug)]
pub(super) struct Pool {
    raw: NonNull<sys::rte_mempool>,
    /// Bytes of one buffer behind the headroom.
    pub(super) room: u16,
    pub(super) size: u32,
    pub(super) layout: Layout,
    /// The NUMA node that it was to be on; -1: any.
    pub(super) node: i32,
}

// SAFETY: mempools are made for use by many threads (a locked stack or a ring, a cache for each lcore id).
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// The page of [`Layout::Pages`]: what the kernel's AF_XDP takes a page for on x86 and most others. Bytes.
    pub(super) const PAGE: u32 = 4096;
    /// The room of a buffer of [`Layout::Pages`].
    pub(super) const PAGE_ROOM: u16 =
        (Self::PAGE - sys::HX_POOL_HEADER - sys::HX_MBUF_SIZE - sys::HX_HEADROOM) as u16;

    /// The bytes that one buffer of a pool takes in memory, all in.
    fn object_size(room: u16) -> u32 {
        let element = sys::HX_MBUF_SIZE + sys::HX_HEADROOM + u32::from(room);
        // SAFETY: computes; a null pointer for the details is allowed.
        unsafe { sys::rte_mempool_calc_obj_size(element, 0, std::ptr::null_mut()) }
    }

    /// A pool of `size` buffers; `whose` is for the error message. `room` is [`Self::PAGE_ROOM`] where a page is the layout. `node`: the
    /// NUMA node that it should be on, -1: any; where that has no memory for it, any.
    pub(super) fn create(
        eal: &Eal,
        number: u32,
        whose: &str,
        size: u32,
        (room, layout): (u16, Layout),
        node: i32,
    ) -> Result<Self> {
        if size == 0 {
            return Err(Error::Memory(format!(
                "{whose}: packet_buffers is 0: a port needs packet buffers, 65535 is the default"
            )));
        }
        let too_little = || Self::too_little(eal, whose, size, room, layout);
        let name = CString::new(format!("haechi_{number}")).map_err(|_| too_little())?;
        let raw = match layout {
            Layout::Cached => {
                // rte_mempool_create: at most the maximum, and 1.5 caches must fit the pool.
                let cache = (size / 4).min(sys::HX_CACHE_MAX / 2) & !7;
                let data_room = (sys::HX_HEADROOM as u16)
                    .checked_add(room)
                    .ok_or_else(too_little)?;
                let create = |node| {
                    // SAFETY: the EAL runs (an `Eal` is held); the name is a C string; -1 is any NUMA node.
                    unsafe { sys::hx_pool_create(name.as_ptr(), size, cache, data_room, node) }
                };
                let near = create(node);
                if near.is_null() && node >= 0 {
                    create(-1)
                } else {
                    near
                }
            }
            // SAFETY: as above.
            Layout::Pages => unsafe { sys::hx_page_pool_create(name.as_ptr(), size, Self::PAGE) },
        };
        let raw = NonNull::new(raw).ok_or_else(too_little)?;
        Ok(Self {
            raw,
            room,
            size,
            layout,
            node,
        })
    }

    fn too_little(eal: &Eal, whose: &str, size: u32, room: u16, layout: Layout) -> Error {
        let object = match layout {
            Layout::Cached => Self::object_size(room),
            Layout::Pages => Self::PAGE,
        };
        let bytes = u64::from(size) * u64::from(object);
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        let what = format!("{size} packet buffers of {object} bytes take {mib} MiB");
        let config = eal.config();
        if config.hugepages {
            // One page more: the pool's memory is in one piece.
            return Error::Memory(format!("{whose}: {}", host::too_few_huge_pages(mib + 2, &what)));
        }
        Error::Memory(format!(
            "{whose}: {what}, more than is left of memory_mib = {}: raise memory_mib or lower packet_buffers in [node]",
            config.memory_mib
        ))
    }

    pub(super) fn raw(&self) -> *mut sys::rte_mempool {
        self.raw.as_ptr()
    }

    pub(super) fn usage(&self) -> BufferUse {
        // SAFETY: the pool lives as long as the EAL; only counts are read.
        let in_use = unsafe { sys::rte_mempool_in_use_count(self.raw()) };
        BufferUse {
            size: self.size,
            in_use,
        }
    }

    /// Puts buffers back that a driver took and did not give back when it closed (net_af_xdp leaves those of its fill ring
    /// behind); returns how many there were.
    ///
    /// Such a buffer is out of the pool, and its `port` is still `RTE_MBUF_PORT_INVALID`, as the allocation left it:
    /// drivers set it on reception, and [`Mbuf::adopt`] does for haechi's own. So a buffer that anybody still holds as an
    /// [`Mbuf`], or that waits in another port's transmit ring, is never taken for lost.
    ///
    /// # Safety
    /// The port that drew from this pool is closed and no other draws from it, so that nobody allocates meanwhile. The
    /// pool has no caches (their contents could not be told from lost buffers).
    pub(super) unsafe fn reclaim_lost(&self) -> u32 {
        extern "C" fn collect(
            _: *mut sys::rte_mempool,
            all: *mut c_void,
            object: *mut c_void,
            _: std::ffi::c_uint,
        ) {
            // SAFETY: `all` is the vector below.
            unsafe { (*all.cast::<Vec<*mut c_void>>()).push(object) };
        }
        debug_assert_eq!(self.layout, Layout::Pages);
        let mut all: Vec<*mut c_void> = Vec::with_capacity(self.size as usize);
        let mut inside = vec![std::ptr::null_mut(); self.size as usize];
        // SAFETY: the callback gets the pointer to `all`, which outlives the walk; `inside` has room for all objects.
        let got = unsafe {
            sys::rte_mempool_obj_iter(self.raw(), Some(collect), (&raw mut all).cast());
            sys::hx_pool_take(self.raw(), inside.as_mut_ptr(), self.size)
        };
        inside.truncate(got as usize);
        let known: std::collections::HashSet<_> = inside.iter().copied().collect();
        let mut lost: Vec<_> = all
            .into_iter()
            .filter(|object| {
                // SAFETY: every object of the pool is an mbuf; whoever else holds it may write the field (a `u16`) only
                // from one valid port to another, so a torn or stale value is not "invalid" either.
                let port = unsafe {
                    object
                        .byte_add(sys::HX_MBUF_PORT as usize)
                        .cast::<u16>()
                        .read_volatile()
                };
                !known.contains(object) && u32::from(port) == sys::HX_PORT_INVALID
            })
            .collect();
        // SAFETY: all of these are the pool's, and out of it.
        unsafe {
            sys::hx_pool_give(self.raw(), inside.as_mut_ptr(), got);
            sys::hx_pool_give(self.raw(), lost.as_mut_ptr(), lost.len() as u32);
        }
        lost.len() as u32
    }
}

/// A pool of mbufs for packets that haechi makes itself, each with room for one whole frame. Clones share it.
#[derive(Clone)]
pub struct Mempool {
    pool: std::sync::Arc<Pool>,
    _eal: Eal,
}

impl Mempool {
    /// `packet_buffers` mbufs for frames of IP packets of up to `mtu` bytes with two VLAN tags. `name` is for error
    /// messages.
    ///
    /// # Errors
    /// [`Error::Memory`] that names the memory needed and the fix.
    pub fn create(eal: &Eal, name: &str, packet_buffers: u32, mtu: u16) -> Result<Self> {
        let room = round_up(usize::from(mtu) + FRAME_OVERHEAD, 64);
        let room = u16::try_from(room)
            .map_err(|_| Error::Unsupported(format!("{name}: an MTU of {mtu} is too much: at most 65000")))?;
        let mut control = eal.control();
        control.pools_made += 1;
        let pool = Pool::create(
            eal,
            control.pools_made,
            name,
            packet_buffers,
            (room, Layout::Cached),
            // All workers take from it.
            -1,
        )?;
        drop(control);
        Ok(Self {
            pool: std::sync::Arc::new(pool),
            _eal: eal.clone(),
        })
    }

    /// One empty buffer; `None`: the pool is empty.
    #[must_use]
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives; the mbuf that comes back is fresh, whole and owned by nobody else.
        unsafe { NonNull::new(sys::hx_mbuf_alloc(self.pool.raw())).map(|raw| Mbuf::adopt(raw)) }
    }

    /// Appends `count` empty buffers to `burst`: all or none (`false`: the pool has not so many, or `burst` no room).
    pub fn alloc_bulk<const N: usize>(&self, burst: &mut ArrayVec<Mbuf, N>, count: usize) -> bool {
        if count > burst.remaining_capacity() {
            return false;
        }
        let mut raw: ArrayVec<*mut sys::rte_mbuf, N> = ArrayVec::new();
        // SAFETY: the array has room for `count` pointers; on success all of them are written.
        unsafe {
            if !sys::hx_mbuf_alloc_bulk(self.pool.raw(), raw.as_mut_ptr(), count as u32) {
                return false;
            }
            raw.set_len(count);
        }
        burst.extend(raw.into_iter().filter_map(NonNull::new).map(|raw| {
            // SAFETY: each is a fresh mbuf that nobody else owns.
            unsafe { Mbuf::adopt(raw) }
        }));
        true
    }

    /// How many buffers there are, and how many of them are out.
    #[must_use]
    pub fn usage(&self) -> BufferUse {
        self.pool.usage()
    }

    /// Buffers in the pool, those in the cores' caches included. Exact while no packet moves.
    #[must_use]
    pub fn available(&self) -> u32 {
        let usage = self.usage();
        usage.size - usage.in_use
    }

    /// Buffers out of the pool. Exact while no packet moves.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.usage().in_use
    }

    /// Buffers in all.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.pool.size
    }

    /// The longest frame that one buffer holds, in bytes.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        usize::from(self.pool.room)
    }
}

pub(super) const fn round_up(value: usize, to: usize) -> usize {
    value.div_ceil(to) * to
}
