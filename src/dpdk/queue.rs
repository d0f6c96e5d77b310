//! One receive or transmit queue, in the hands of one worker.

use std::{
    cell::Cell,
    marker::PhantomData,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrayvec::ArrayVec;

use super::{
    mbuf::{Burst, MAX_BURST, Mbuf},
    port::{Interrupt, Open},
    sys,
    wake::Announcer,
};

/// A queue's counters: written by its owner alone, read by anybody. A cache line of their own (and its neighbour that the
/// prefetcher pulls along), so that reading them slows no other worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct QueueCounters {
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Frames in several buffers, or whose VLAN tag could not be put back.
    pub(super) unusable: AtomicU64,
}

/// Adds to a counter that this thread alone writes: a load and a store, no locked instruction.
#[inline(always)]
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(amount),
        Ordering::Relaxed,
    );
}

/// A receive queue of a started port. `Send`, so that it can be given to its worker; not `Sync`, and every use takes
/// `&mut`: DPDK's queues know no lock, and one thread alone may poll each. It keeps its port open and started.
pub struct RxQueue {
    port: u16,
    queue: u16,
    interrupt: Option<Interrupt>,
    counters: Arc<QueueCounters>,
    open: Arc<Open>,
    one_owner: PhantomData<Cell<()>>,
}

/// A transmit queue of a started port. `Send` and not `Sync`, like [`RxQueue`].
pub struct TxQueue {
    port: u16,
    queue: u16,
    counters: Arc<QueueCounters>,
    _open: Arc<Open>,
    one_owner: PhantomData<Cell<()>>,
}

impl RxQueue {
    /// For a started port, once for each of its queues.
    pub(super) fn new(
        port: u16,
        queue: u16,
        interrupt: Option<Interrupt>,
        counters: Arc<QueueCounters>,
        open: Arc<Open>,
    ) -> Self {
        Self {
            port,
            queue,
            interrupt,
            counters,
            open,
            one_owner: PhantomData,
        }
    }

    /// On what the queue announces packets, if its port was set up for that ([`super::PortSetup::rx_interrupts`]) and can.
    #[must_use]
    pub fn announcer(&self) -> Option<Announcer> {
        self.interrupt.map(|interrupt| interrupt.announcer)
    }

    /// Has the queue's interrupt, if it has one, tell of packets from now on; look into the queue once more before you
    /// sleep. False: it cannot tell now, sleep by the clock.
    pub fn arm(&mut self) -> bool {
        self.interrupt
            .is_none_or(|interrupt| interrupt.arm(&self.open, self.queue))
    }

    /// Has it be silent again, while the queue is polled.
    pub fn disarm(&mut self) {
        if let Some(interrupt) = self.interrupt {
            interrupt.disarm(&self.open, self.queue);
        }
    }

    /// Receives up to `max` packets, [`MAX_BURST`] at most, and no more than `burst` has room for, and appends them. Every packet is one whole
    /// contiguous frame with its VLAN tags in place.
    #[inline]
    pub fn rx_burst<const N: usize>(&mut self, burst: &mut ArrayVec<Mbuf, N>, max: usize) -> usize {
        let had = burst.len();
        let count = max.min(MAX_BURST).min(burst.remaining_capacity());
        // SAFETY: the port is started as long as this handle lives (`Open`), the queue is one of its, and `&mut self` of a
        // handle that is not `Sync` makes this the only poller. The burst has room for `count` pointers behind its end, and
        // `Mbuf` is a transparent pointer. Drivers give out whole, unshared packets (checked below for chains).
        let got = unsafe {
            let spare = burst.as_mut_ptr().add(had).cast();
            let got = usize::from(sys::hx_rx_burst(self.port, self.queue, spare, count as u16));
            burst.set_len(had + got);
            got
        };
        if got == 0 {
            return 0;
        }
        let mut bytes = 0;
        // It ends at the first odd one: gathering the fields of eight packets into vectors takes longer than this.
        let odd = burst[had..].iter().any(|packet| {
            bytes += packet.len() as u64;
            packet.is_odd()
        });
        if odd {
            bytes = burst[had..].iter().map(|packet| packet.len() as u64).sum();
        }
        add(&self.counters.packets, got as u64);
        add(&self.counters.bytes, bytes);
        if odd {
            self.repair(burst, had);
        }
        burst.len() - had
    }

    /// Puts VLAN tags back that the device took out, and drops chained packets.
    #[cold]
    fn repair<const N: usize>(&self, burst: &mut ArrayVec<Mbuf, N>, from: usize) {
        let mut fresh: ArrayVec<Mbuf, MAX_BURST> = burst.drain(from..).collect();
        for mut packet in fresh.drain(..) {
            let stripped = packet.is_stripped();
            // SAFETY: a whole packet that `packet` owns.
            if packet.segments() == 1 && (!stripped || unsafe { sys::hx_vlan_restore(packet.as_raw()) }) {
                burst.push(packet);
            } else {
                add(&self.counters.unusable, 1);
            }
        }
    }

    /// Frames that arrived in several buffers and were dropped for that, since the start.
    #[must_use]
    pub fn chained_drops(&self) -> u64 {
        self.counters.unusable.load(Ordering::Relaxed)
    }

    /// The queue's number.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }
}

impl TxQueue {
    /// For a started port, once for each of its queues.
    pub(super) fn new(port: u16, queue: u16, counters: Arc<QueueCounters>, open: Arc<Open>) -> Self {
        Self {
            port,
            queue,
            counters,
            _open: open,
            one_owner: PhantomData,
        }
    }

    /// Sends from the front of `burst` and returns how many packets went. What the queue had no room for stays in
    /// `burst`, in order.
    #[inline]
    pub fn tx_burst(&mut self, burst: &mut Burst) -> usize {
        let count = burst.len();
        if count == 0 {
            return 0;
        }
        let all: u64 = burst.iter().map(|packet| packet.len() as u64).sum();
        // SAFETY: as in `rx_burst` for port, queue and sole owner. The driver owns the first `sent` packets from now on:
        // they are taken out of the burst without being dropped, the rest moves to the front.
        let sent = unsafe {
            let packets = burst.as_mut_ptr();
            let sent = usize::from(sys::hx_tx_burst(
                self.port,
                self.queue,
                packets.cast(),
                count as u16,
            ))
            .min(count);
            std::ptr::copy(packets.add(sent), packets, count - sent);
            burst.set_len(count - sent);
            sent
        };
        let left: u64 = burst.iter().map(|packet| packet.len() as u64).sum();
        add(&self.counters.packets, sent as u64);
        add(&self.counters.bytes, all - left);
        sent
    }

    /// Has the driver put back the buffers of packets that have left; otherwise it does so when it next sends. For idle
    /// moments.
    pub fn reap(&mut self) {
        // SAFETY: as in `tx_burst`; no packet is handed over.
        unsafe {
            if sys::rte_eth_tx_done_cleanup(self.port, self.queue, 0) < 0 {
                // Drivers without that operation reap at the start of a burst, be it empty (net_af_xdp).
                sys::hx_tx_burst(self.port, self.queue, NonNull::dangling().as_ptr(), 0);
            }
        }
    }

    /// The queue's number.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }
}
