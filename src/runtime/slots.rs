//! A worker's ports: the queues that it owns, and the packets that wait for transmission.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::stats::PortCounts;
use crate::base::{Nanos, PortId};
use crate::dpdk::mbuf::{Burst, free_burst};
use crate::dpdk::{MAX_BURST, Mbuf, Mempool, RxQueue, TxQueue};
use crate::engine::{DropReason, Note, Outputs};
use crate::packet::PacketBuf;
use crate::packet::view::link_header;

/// What control threads tell workers about a port, by relaxed atomics.
#[derive(Debug)]
pub struct PortFlags {
    link_up: AtomicBool,
    sleep_bound_ns: AtomicU64,
}

impl Default for PortFlags {
    fn default() -> Self {
        Self {
            link_up: AtomicBool::new(true),
            sleep_bound_ns: AtomicU64::new(0),
        }
    }
}

impl PortFlags {
    /// Has the port a link? Packets to one that has none are dropped.
    #[inline]
    #[must_use]
    pub fn link_up(&self) -> bool {
        self.link_up.load(Ordering::Relaxed)
    }

    /// How long its worker may sleep by the clock: half the time in which the receive ring fills at link speed.
    #[must_use]
    pub fn sleep_bound(&self) -> Nanos {
        Nanos(self.sleep_bound_ns.load(Ordering::Relaxed))
    }

    /// Says how long.
    pub fn set_sleep_bound(&self, bound: Nanos) {
        self.sleep_bound_ns.store(bound.0, Ordering::Relaxed);
    }

    /// Says whether it has.
    pub fn set_link_up(&self, up: bool) {
        self.link_up.store(up, Ordering::Relaxed);
    }
}

/// A port's queues on their way to or from the worker that owns them.
pub struct PortQueues {
    /// The receive queue; `None`: another worker polls this port.
    pub rx: Option<RxQueue>,
    /// The transmit queue.
    pub tx: TxQueue,
    /// The longest IP packet that the port sends, in bytes.
    pub mtu: usize,
    /// The receive ring fills while nobody polls. (Some virtual devices make their packets when they are polled.)
    pub ring_fills: bool,
    /// Sockets whose readability announces packets, where the port has such.
    pub wake_fds: Vec<std::os::fd::RawFd>,
}

/// One port on a worker.
pub(super) struct Slot {
    pub(super) queues: Option<Box<PortQueues>>,
    pub(super) flags: Arc<PortFlags>,
    pub(super) counts: PortCounts,
    /// The longest IP packet that the port sends, in bytes; without queues none is too long.
    mtu: usize,
    waiting: Burst,
    /// Which packets of `waiting` the engine made, by place.
    made: u64,
}

impl Slot {
    /// The port's queues come to this worker.
    pub(super) fn give(&mut self, queues: Box<PortQueues>) {
        self.mtu = queues.mtu;
        self.queues = Some(queues);
    }

    /// The port's queues leave this worker.
    pub(super) fn take(&mut self) -> Option<Box<PortQueues>> {
        self.mtu = NO_MTU;
        self.queues.take()
    }
}

/// An Ethernet header without tags, in bytes.
const ETHERNET: usize = 14;
/// Of a port without queues: more than any packet, and a header fits in front of it.
const NO_MTU: usize = usize::MAX / 2;

/// Times that a full transmit queue is tried again before packets are dropped: enough for a device to take the
/// descriptors of a burst, short enough not to starve the receive rings.
const TX_RETRIES: usize = 8;

const _: () = assert!(MAX_BURST <= 64, "`Slot::made` has a bit for each place");

/// Where the engine's verdicts go on a worker.
pub(super) struct WorkerOutputs {
    pub(super) slots: Box<[Slot]>,
    /// A port flushes when so many packets wait.
    burst: usize,
    dropped: Burst,
    /// Packets that the engine makes come from here.
    pool: Mempool,
    /// Packets that the engine forwarded or made and that could not be sent.
    pub(super) tx_drops: [u64; DropReason::COUNT],
    pub(super) tx_packets: u64,
    pub(super) forwarded: u64,
    pub(super) originated: u64,
}

impl WorkerOutputs {
    pub(super) fn new(flags: &[Arc<PortFlags>], burst: usize, pool: Mempool) -> Self {
        let slot = |flags: &Arc<PortFlags>| Slot {
            queues: None,
            flags: Arc::clone(flags),
            counts: PortCounts::default(),
            mtu: NO_MTU,
            waiting: ArrayVec::new(),
            made: 0,
        };
        Self {
            slots: flags.iter().map(slot).collect(),
            burst: burst.clamp(1, MAX_BURST),
            dropped: ArrayVec::new(),
            pool,
            tx_drops: [0; DropReason::COUNT],
            tx_packets: 0,
            forwarded: 0,
            originated: 0,
        }
    }

    /// Packets that wait for transmission or to be freed.
    pub(super) fn held(&self) -> u64 {
        // Packets in `dropped` are counted as drops already.
        self.slots.iter().map(|s| s.waiting.len() as u64).sum()
    }

    /// Sends what waits and frees what was dropped.
    #[inline]
    pub(super) fn flush(&mut self) {
        for port in 0..self.slots.len() {
            if !self.slots[port].waiting.is_empty() {
                self.flush_port(port);
            }
        }
        free_burst(&mut self.dropped);
    }

    /// Has drivers put back the buffers of packets that have left.
    #[cold]
    pub(super) fn reap(&mut self) {
        for slot in &mut self.slots {
            match &mut slot.queues {
                Some(queues) if slot.counts.tx_packets > 0 => queues.tx.reap(),
                _ => {}
            }
        }
    }

    #[inline(never)]
    fn flush_port(&mut self, port: usize) {
        let Some(slot) = self.slots.get_mut(port) else {
            return;
        };
        let in_service = slot.flags.link_up();
        let reason = match &mut slot.queues {
            Some(queues) if in_service => {
                let mut sent = 0;
                for _ in 0..=TX_RETRIES {
                    sent += queues.tx.tx_burst(&mut slot.waiting);
                    if slot.waiting.is_empty() {
                        break;
                    }
                }
                let sent_mask = if sent >= 64 { u64::MAX } else { (1 << sent) - 1 };
                slot.counts.tx_packets += sent as u64;
                self.tx_packets += sent as u64;
                self.forwarded += sent as u64 - u64::from((slot.made & sent_mask).count_ones());
                DropReason::TxFull
            }
            _ => DropReason::LinkDown,
        };
        let unsent = slot.waiting.len() as u64;
        if unsent > 0 {
            slot.counts.tx_dropped += unsent;
            self.tx_drops[reason.index()] += unsent;
            free_burst(&mut slot.waiting);
        }
        slot.made = 0;
    }

    #[inline(always)]
    fn push(&mut self, packet: Mbuf, to: PortId, made: bool) {
        let Some(slot) = self.slots.get_mut(to.index()) else {
            self.tx_drops[DropReason::LinkDown.index()] += 1;
            self.free(packet);
            return;
        };
        if packet.len() > slot.mtu + ETHERNET && packet.len() > slot.mtu + link_header(packet.bytes()) {
            slot.counts.tx_dropped += 1;
            self.tx_drops[DropReason::FrameTooLong.index()] += 1;
            self.free(packet);
            return;
        }
        slot.made |= u64::from(made) << slot.waiting.len();
        // There is room: a buffer is flushed before it is full.
        slot.waiting.push(packet);
        if slot.waiting.len() >= self.burst {
            self.flush_port(to.index());
        }
    }

    #[cold]
    fn free(&mut self, packet: Mbuf) {
        self.dropped.push(packet);
        if self.dropped.is_full() {
            free_burst(&mut self.dropped);
        }
    }
}

impl Outputs<Mbuf> for WorkerOutputs {
    #[inline(always)]
    fn forward(&mut self, packet: Mbuf, to: PortId, _note: Note) {
        self.push(packet, to, false);
    }

    #[inline]
    fn drop(&mut self, packet: Mbuf, _reason: DropReason, _note: Note) {
        // The engine counts what it drops.
        self.free(packet);
    }

    fn buffer(&mut self) -> Option<Mbuf> {
        self.pool.alloc()
    }

    fn originate(&mut self, packet: Mbuf, to: PortId) {
        self.originated += 1;
        self.push(packet, to, true);
    }
}
