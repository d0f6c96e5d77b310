//! A worker's ports: the queues that it owns, and the packets that wait for transmission.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::crossway::{Arrived, Crossway};
use super::idle::{Idle, Polled};
use super::mesh::{Handed, Mesh, What};
use super::rss::PortRss;
use super::stats::PortCounts;
use crate::base::{Nanos, PortId, WorkerId};
use crate::dpdk::mbuf::{Burst, free_burst};
use crate::dpdk::wake::Announcer;
use crate::dpdk::{MAX_BURST, Mbuf, Mempool, RxQueue, TxQueue};
use crate::engine::{DropReason, Hops, Mark, Message, Note, Offered, Outputs};
use crate::ha::Crossing;
use crate::packet::PacketBuf;
use crate::packet::view::link_header;

/// What control threads tell workers about a port, by relaxed atomics.
#[derive(Debug)]
pub struct PortFlags {
    link_up: AtomicBool,
    silent: AtomicBool,
    sleep_bound_ns: AtomicU64,
    /// How far the device's placing of packets is believed.
    pub rss: PortRss,
}

impl Default for PortFlags {
    fn default() -> Self {
        Self {
            link_up: AtomicBool::new(true),
            silent: AtomicBool::new(false),
            // Until something is known of the port.
            sleep_bound_ns: AtomicU64::new(Idle::LONGEST_SLEEP.0),
            rss: PortRss::default(),
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

    /// Its packets were to wake a worker and did not: it sleeps by the clock.
    #[must_use]
    pub fn silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Says whether it is so.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
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
    /// The transmit queue; `None`: another worker sends for this one.
    pub tx: Option<TxQueue>,
    /// Who that is; meaningful without a transmit queue.
    pub sender: WorkerId,
    /// The longest IP packet that the port sends, in bytes.
    pub mtu: usize,
    /// The receive ring fills while nobody polls. (Some virtual devices make their packets when they are polled.)
    pub ring_fills: bool,
    /// On what packets announce themselves while nobody polls, where the port can.
    pub announcers: Vec<Announcer>,
}

/// One port on a worker.
pub(super) struct Slot {
    pub(super) queues: Option<Box<PortQueues>>,
    /// The port's packets can wake the worker.
    announces: bool,
    /// It was armed, and could not be: this sleep is by the clock.
    mute: bool,
    /// How often in a row packets came and did not wake the worker.
    unheard: u8,
    /// Packets received before the last sleep, if they were to end it.
    before: Option<u64>,
    pub(super) flags: Arc<PortFlags>,
    pub(super) counts: PortCounts,
    /// The longest IP packet that the port sends, in bytes; without queues none is too long.
    mtu: usize,
    /// Who sends for this worker, if it cannot itself.
    sender: Option<WorkerId>,
    waiting: Burst,
    /// Which packets of `waiting` the engine made, by place.
    made: u64,
}

impl Slot {
    /// The port's queues come to this worker. `announces`: it waits for their packets when it sleeps.
    pub(super) fn give(&mut self, queues: Box<PortQueues>, announces: bool) {
        self.mtu = queues.mtu;
        self.sender = queues.tx.is_none().then_some(queues.sender);
        self.announces = announces;
        self.unheard = 0;
        self.queues = Some(queues);
    }

    /// The worker goes to sleep, and the port is to wake it if it can.
    pub(super) fn listen(&mut self) {
        self.before = (self.announces && !self.mute).then_some(self.counts.rx_packets);
    }

    /// The worker has slept, was `woken` or not, and has looked into the queue. Packets that are there although nothing woke
    /// it came in this moment, or their announcement was lost; if that goes on, the port is not relied upon any more.
    pub(super) fn heard(&mut self, woken: bool) {
        if self
            .before
            .take()
            .is_none_or(|before| before == self.counts.rx_packets)
        {
            return;
        }
        self.unheard = if woken { 0 } else { self.unheard + 1 };
        if self.unheard >= UNHEARD {
            self.announces = false;
            self.flags.set_silent(true);
        }
    }

    /// What counts of the port for how long the worker may sleep; `None`: it does not poll the port.
    pub(super) fn polled(&self) -> Option<Polled> {
        let queues = self.queues.as_ref().filter(|queues| queues.rx.is_some())?;
        Some(Polled {
            announces: self.announces && !self.mute,
            link_up: self.flags.link_up(),
            ring: queues.ring_fills.then(|| self.flags.sleep_bound()),
        })
    }

    /// Has the port's packets wake the worker, where they can.
    pub(super) fn arm(&mut self) {
        let rx = self.queues.as_mut().and_then(|queues| queues.rx.as_mut());
        if let (true, Some(rx)) = (self.announces, rx) {
            self.mute = !rx.arm();
        }
    }

    /// Has them be silent while the port is polled.
    pub(super) fn disarm(&mut self) {
        let rx = self.queues.as_mut().and_then(|queues| queues.rx.as_mut());
        if let (true, Some(rx)) = (self.announces, rx) {
            rx.disarm();
            self.mute = false;
        }
    }

    /// The port's queues leave this worker.
    pub(super) fn take(&mut self) -> Option<Box<PortQueues>> {
        self.mtu = NO_MTU;
        self.sender = None;
        self.announces = false;
        self.queues.take()
    }
}

/// An Ethernet header without tags, in bytes.
const ETHERNET: usize = 14;
/// Of a port without queues: more than any packet, and a header fits in front of it.
const NO_MTU: usize = usize::MAX / 2;

/// So often in a row a port's packets may fail to wake the worker. That one comes in the few microseconds between the end of
/// a sleep and the look into the queue is an accident; so many do not, not even from a sender who keeps time with the sleeps.
const UNHEARD: u8 = 32;

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
    /// The other workers, if there are any.
    pub(super) mesh: Option<Mesh>,
    /// The other node, of one that is one of a pair.
    pub(super) crossway: Option<Crossway>,
    /// Packets that other workers took: to judge, and to send.
    pub(super) handed_over: u64,
    pub(super) relayed: u64,
}

impl WorkerOutputs {
    pub(super) fn new(
        flags: &[Arc<PortFlags>],
        burst: usize,
        pool: Mempool,
        mesh: Option<Mesh>,
        crossway: Option<Crossway>,
    ) -> Self {
        let slot = |flags: &Arc<PortFlags>| Slot {
            queues: None,
            announces: false,
            mute: false,
            unheard: 0,
            before: None,
            flags: Arc::clone(flags),
            counts: PortCounts::default(),
            mtu: NO_MTU,
            sender: None,
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
            mesh,
            crossway,
            handed_over: 0,
            relayed: 0,
        }
    }

    /// Packets that wait for transmission or to be freed.
    pub(super) fn held(&self) -> u64 {
        // Packets in `dropped` are counted as drops already.
        let ports: u64 = self.slots.iter().map(|s| s.waiting.len() as u64).sum();
        ports + self.mesh.as_ref().map_or(0, |mesh| mesh.waiting() as u64)
    }

    /// Sends what waits and frees what was dropped.
    #[inline]
    pub(super) fn flush(&mut self) {
        for port in 0..self.slots.len() {
            if !self.slots[port].waiting.is_empty() {
                self.flush_port(port);
            }
        }
        if self.mesh.is_some() {
            self.flush_mesh();
        }
        if let Some(crossway) = &mut self.crossway {
            crossway.announce();
        }
        free_burst(&mut self.dropped);
    }

    /// Has drivers put back the buffers of packets that have left.
    #[cold]
    pub(super) fn reap(&mut self) {
        for slot in &mut self.slots {
            match &mut slot.queues {
                Some(queues) if slot.counts.tx_packets > 0 => {
                    if let Some(tx) = &mut queues.tx {
                        tx.reap();
                    }
                }
                _ => {}
            }
        }
    }

    #[inline(never)]
    fn flush_port(&mut self, port: usize) {
        let Some(slot) = self.slots.get_mut(port) else {
            return;
        };
        if let Some(sender) = slot.sender {
            self.relay_port(port, sender);
            return;
        }
        let in_service = slot.flags.link_up();
        let tx = slot.queues.as_mut().and_then(|queues| queues.tx.as_mut());
        let reason = match tx {
            Some(tx) if in_service => {
                let mut sent = 0;
                for _ in 0..=TX_RETRIES {
                    sent += tx.tx_burst(&mut slot.waiting);
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

    /// What waits for a port for which this worker has no transmit queue goes to one that has.
    #[cold]
    fn relay_port(&mut self, port: usize, sender: WorkerId) {
        let Some(slot) = self.slots.get_mut(port) else {
            return;
        };
        let made = std::mem::take(&mut slot.made);
        let waiting = std::mem::take(&mut slot.waiting);
        for (place, packet) in waiting.into_iter().enumerate() {
            let what = if made >> place & 1 == 1 {
                What::SendMade
            } else {
                What::Send
            };
            self.give(sender, Handed::new(packet, PortId(port as u16), Hops::NONE, what));
        }
    }

    /// Puts a packet on its way to another worker.
    #[inline]
    fn give(&mut self, to: WorkerId, handed: Handed) {
        let Some(mesh) = &mut self.mesh else {
            self.refuse(handed.packet);
            return;
        };
        match mesh.push(to, handed) {
            Ok(false) => {}
            Ok(true) => self.flush_way(to),
            Err(handed) => self.refuse(handed.packet),
        }
    }

    #[inline(never)]
    fn flush_mesh(&mut self) {
        let workers = self.mesh.as_ref().map_or(0, Mesh::workers);
        for worker in 0..workers {
            self.flush_way(WorkerId(worker));
        }
    }

    fn flush_way(&mut self, to: WorkerId) {
        let Some(mesh) = &mut self.mesh else {
            return;
        };
        let relayed = mesh.relayed_in(to);
        let mut refused = Burst::new();
        let (mut lost, mut lost_relayed) = (0, 0);
        let taken = mesh.flush(to, |handed| {
            lost += 1;
            lost_relayed += u64::from(handed.what != What::Judge);
            refused.push(handed.packet);
        });
        let relayed = relayed - lost_relayed;
        self.relayed += relayed;
        self.handed_over += taken as u64 - relayed;
        self.tx_drops[DropReason::QueueFull.index()] += lost;
        free_burst(&mut refused);
    }

    #[cold]
    fn refuse(&mut self, packet: Mbuf) {
        self.tx_drops[DropReason::QueueFull.index()] += 1;
        self.free(packet);
    }

    /// The next packet of the other node's that is to be judged, and whether it is one of this node's own that has come back; those that
    /// are to be sent are. The first word: something came.
    #[cold]
    pub(super) fn take_crossed(&mut self, forwards: bool) -> Option<Option<(Mbuf, PortId, bool)>> {
        Some(match self.crossway.as_mut()?.take()? {
            Arrived::Judge(packet, port) => Some((packet, port, false)),
            Arrived::JudgeAgain(packet, port) => Some((packet, port, true)),
            Arrived::Send(packet, to, made) if forwards => {
                self.push(packet, to, made);
                None
            }
            Arrived::Send(packet, ..) => {
                self.tx_drops[DropReason::HaStandby.index()] += 1;
                self.free(packet);
                None
            }
            Arrived::Lost => {
                self.tx_drops[DropReason::RedirectLimit.index()] += 1;
                None
            }
        })
    }

    /// Sends a copy of a packet to the other node. `false`: there is no room.
    #[cold]
    fn cross(&mut self, packet: &Mbuf, crossing: Crossing, port: PortId) -> bool {
        let crossway = self.crossway.as_mut();
        crossway.is_some_and(|crossway| crossway.send(crossing, port, packet.bytes()))
    }

    /// The same of a packet that is the other node's.
    #[cold]
    fn cross_back(&mut self, packet: Mbuf, crossing: Crossing, port: PortId) {
        if !self.cross(&packet, crossing, port) {
            self.tx_drops[DropReason::RedirectLimit.index()] += 1;
        }
        self.free(packet);
    }

    /// Sends a packet that another worker could not.
    pub(super) fn send_for(&mut self, handed: Handed) {
        self.push(handed.packet, handed.port, handed.what == What::SendMade);
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

    #[inline(always)]
    fn forward_run(
        &mut self,
        mut packets: impl Iterator<Item = Mbuf>,
        to: PortId,
        _note: impl Fn(usize) -> Note,
    ) {
        let burst = self.burst;
        // One look at the port for as many packets as fit.
        while let Some(first) = packets.next() {
            let Some(slot) = self.slots.get_mut(to.index()) else {
                self.push(first, to, false);
                continue;
            };
            let longest = slot.mtu + ETHERNET;
            let mut odd = None;
            let mut next = Some(first);
            while let Some(packet) = next {
                if packet.len() > longest {
                    odd = Some(packet);
                    break;
                }
                // There is room: a buffer is flushed before it is full.
                slot.waiting.push(packet);
                if slot.waiting.len() >= burst {
                    break;
                }
                next = packets.next();
            }
            if slot.waiting.len() >= burst {
                self.flush_port(to.index());
            }
            if let Some(packet) = odd {
                self.push(packet, to, false);
            }
        }
    }

    #[inline]
    fn drop(&mut self, packet: Mbuf, _reason: DropReason, _note: Note) {
        // The engine counts what it drops.
        self.free(packet);
    }

    #[inline]
    fn answer(&mut self, packet: Mbuf, to: PortId, _reason: DropReason, _note: Note) {
        self.originate(packet, to);
    }

    #[inline]
    fn hand_over(&mut self, packet: Mbuf, ingress: PortId, to: WorkerId, hops: Hops, _note: Note) {
        self.give(to, Handed::new(packet, ingress, hops, What::Judge));
    }

    fn tell(&mut self, to: WorkerId, message: Message) -> Result<(), Message> {
        match &self.mesh {
            Some(mesh) => mesh.tell(to, message),
            None => Err(message),
        }
    }

    #[cold]
    fn mark(&mut self, to: WorkerId, mark: Mark) -> bool {
        // What is for another worker's ports goes by the same rings.
        self.flush();
        self.mesh.as_ref().is_some_and(|mesh| mesh.mark(to, mark))
    }

    fn offer(&mut self, packet: Mbuf, ingress: PortId, what: Offered, _note: Note) -> Result<(), Mbuf> {
        let crossing = match what {
            Offered::Peers => Crossing::Known,
            Offered::Unknown => Crossing::Unknown,
        };
        if !self.cross(&packet, crossing, ingress) {
            return Err(packet);
        }
        self.free(packet);
        Ok(())
    }

    fn give_back(&mut self, packet: Mbuf, to: PortId, _note: Note) {
        self.cross_back(packet, Crossing::Return, to);
    }

    fn give_back_made(&mut self, packet: Mbuf, to: PortId) {
        self.originated += 1;
        self.cross_back(packet, Crossing::ReturnMade, to);
    }

    fn send_back(&mut self, packet: Mbuf, ingress: PortId, _note: Note) {
        self.cross_back(packet, Crossing::SentBack, ingress);
    }

    fn buffer(&mut self) -> Option<Mbuf> {
        self.pool.alloc()
    }

    fn originate(&mut self, packet: Mbuf, to: PortId) {
        self.originated += 1;
        self.push(packet, to, true);
    }
}
