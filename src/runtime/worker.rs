//! The worker loop: one thread on one CPU that owns its queues, its engine and its sessions.
//!
//! A turn, in the order that lets no reply overtake what it depends on ([`turn`]):
//!
//! 1. Read the TSC once; take commands.
//! 2. For each receive queue a burst, then packets that other workers handed over. Only then the waiting session-sync
//!    messages, drained completely: so a message that was pushed before its session's first packet left is known before any
//!    reply to that packet is processed.
//! 3. The engine judges the burst; what it forwards waits for transmission by port.
//! 4. Transmit in bursts, free what was dropped in bulk.
//! 5. Packets that the other node of an active-active pair has sent, in a batch of their own: own work goes first.
//! 6. Now and then, within a budget: timers, a step of a running job, counters to be published.
//! 7. With nothing done, wait as [`super::idle`] says.
//!
//! Nothing here allocates, frees, locks, logs or makes a system call, but for an idle worker on its way to sleep, which arms
//! its queues' interrupts under a lock for each port. (Kernel-backed drivers make system calls of their own when they have
//! packets to send.)

use std::num::NonZeroU64;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::command::{Command, Mailbox, Reply};
use super::crossway::{Crossway, Way};
use super::idle::{Idle, Wait, WakeUp};
use super::jobs::{pass_records, step_buckets, step_farewell, step_kill, step_lookup, step_rules, step_scan};
use super::load::{GAP_SECONDS, Load, Reap};
use super::mesh::{Handed, Mesh, What};
use super::slots::{PortFlags, PortQueues, Slot, WorkerOutputs};
use super::stats::{Counts, WorkerStats};
use crate::base::turn::{self, Steps};
use crate::base::{Nanos, PortId, WorkerId};
use crate::control::eventlog::RecordQueue;
use crate::dpdk::tsc::{self, TscClock};
use crate::dpdk::wake::{Bell, WakeSet};
use crate::dpdk::{MAX_BURST, Mbuf, Mempool};
use crate::engine::{Batch, Engine, Hops, MAX_BATCH, Upkeep};
use crate::flow::SessionState;
use crate::ha::member::Member;

/// So many batches of handed-over packets are taken in one turn at most: a worker that others flood still polls its own queues.
const TAKE_OVERS: usize = 4;
/// A step of a move looks at so many slots of the table; a session that goes counts as eight.
const MOVE_BUDGET: u32 = 1024;
/// Counters are published so often.
const PUBLISH_EVERY: Nanos = Nanos::MILLISECOND;

/// What a worker is made of.
pub struct WorkerSetup {
    /// Which of the node's workers it is.
    pub id: WorkerId,
    /// Its engine; made on the worker's own thread, so that its memory is near its CPU.
    pub engine: Engine<Mbuf>,
    /// The node's clock.
    pub clock: TscClock,
    /// All ports of the node, by [`PortId`].
    pub ports: Vec<Arc<PortFlags>>,
    /// Packets taken from a receive queue in one turn.
    pub burst: usize,
    /// `idle = "adaptive"`.
    pub adaptive: bool,
    /// Packets that the engine makes come from here.
    pub pool: Mempool,
    /// The way to the other workers, if there are any.
    pub mesh: Option<Mesh>,
    /// Commands and answers.
    pub mailbox: Arc<Mailbox>,
    /// Where it publishes.
    pub stats: Arc<WorkerStats>,
    /// Where its engine's records go, if there are logs.
    pub records: Option<Arc<RecordQueue>>,
    /// Its part in an HA pair,
    pub pair: Option<Member>,
    /// and its way to the other node.
    pub way: Option<Way>,
}

/// A worker; lives on one thread.
pub struct Worker {
    id: WorkerId,
    engine: Engine<Mbuf>,
    clock: TscClock,
    burst: usize,
    mailbox: Arc<Mailbox>,
    stats: Arc<WorkerStats>,
    records: Option<Arc<RecordQueue>>,
    pair: Option<Member>,
    out: WorkerOutputs,
    batch: Batch<Mbuf>,
    /// Packets that the other node of a pair has sent, to be judged for it.
    redirected: Batch<Mbuf>,
    /// A command that takes several turns; no other is taken meanwhile.
    job: Option<(u64, Command)>,
    /// An answer that found its queue full.
    unsent: Option<(u64, Reply)>,
    idle: Idle,
    wake: Option<WakeSet>,
    /// The receive queues are armed to wake the worker.
    armed: bool,
    /// It has slept since the last turn; true: it was woken.
    slept: Option<bool>,
    rx_packets: u64,
    /// Packets that other workers handed over.
    taken_over: u64,
    incoming: ArrayVec<Handed, MAX_BATCH>,
    load: Load,
    upkeep: Upkeep,
    next_upkeep: Nanos,
    next_publish: Nanos,
    reap: Reap,
    receiving: bool,
    stopping: bool,
}

impl Worker {
    /// A worker without queues: they come by [`Command::GivePort`]. Returns its bell, too.
    ///
    /// # Errors
    /// When the process has no file descriptors left for what wakes an idle worker.
    pub fn new(setup: WorkerSetup) -> std::io::Result<(Self, Bell)> {
        let wake = if setup.adaptive {
            Some(WakeSet::new()?)
        } else {
            None
        };
        let bell = wake.as_ref().map_or(Bell::mute(), WakeSet::bell);
        if let Some(mesh) = &setup.mesh {
            mesh.set_bell(bell.clone());
        }
        let worker = Self {
            id: setup.id,
            engine: setup.engine,
            clock: setup.clock,
            burst: setup.burst.clamp(1, MAX_BURST),
            mailbox: setup.mailbox,
            stats: setup.stats,
            records: setup.records,
            pair: setup.pair,
            out: WorkerOutputs::new(
                &setup.ports,
                setup.burst,
                setup.pool,
                setup.mesh,
                setup.way.map(|way| Crossway::new(way, setup.id.0)),
            ),
            batch: Batch::new(),
            redirected: Batch::new(),
            job: None,
            unsent: None,
            idle: Idle::new(setup.adaptive),
            wake,
            armed: false,
            slept: None,
            rx_packets: 0,
            taken_over: 0,
            incoming: ArrayVec::new(),
            load: Load::new(setup.clock.hz(), tsc::read()),
            upkeep: Upkeep::default(),
            next_upkeep: Nanos(0),
            next_publish: Nanos(0),
            reap: Reap::default(),
            receiving: false,
            stopping: false,
        };
        Ok((worker, bell))
    }

    /// Turns until [`Command::Stop`]. What the worker owned is then the caller's to free, on any thread.
    pub fn run(mut self) -> Self {
        if self.wake.is_some() {
            // Sleeps by the clock end when they should, not up to 50 microseconds later. Refused, they are a bit longer.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        }
        while !self.stopping {
            self.turn();
        }
        self
    }

    /// One turn of the loop.
    pub fn turn(&mut self) {
        let tsc = tsc::read();
        let now = self.clock.at(tsc);
        self.load.turn(tsc);
        let commanded = self.take_commands(now);
        let received = turn::turn(self, now);
        self.load.worked(received);
        if let Some(woken) = self.slept.take() {
            self.out.slots.iter_mut().for_each(|slot| slot.heard(woken));
        }
        let paired = match &mut self.pair {
            Some(_) => self.pair_up(now, received > 0),
            None => false,
        };
        if self.engine.is_moving() || self.out.mesh.as_ref().is_some_and(Mesh::is_marked) {
            self.step_move(now);
        }
        if self.job.is_some() {
            self.step_job(now);
        }
        if now >= self.next_upkeep {
            self.upkeep = self.engine.upkeep(now, Upkeep::BUDGET, &mut self.out);
            self.out.flush();
            self.next_upkeep = now.plus(self.upkeep.again_in());
        }
        if self.engine.records() > 0 {
            pass_records(&mut self.engine, self.records.as_deref());
        }
        if now >= self.next_publish {
            self.publish(now);
        }
        if received > 0 {
            self.reap = Reap::after(now);
        } else if now >= self.reap.at {
            self.out.reap();
            self.reap.next(now);
        }
        // A worker that slept with timers to serve would serve them once a sleep.
        let busy =
            self.job.is_some() || self.unsent.is_some() || self.upkeep.pending || self.engine.is_moving();
        let worked = received > 0 || commanded || busy || paired;
        match self.idle.after_turn(now, worked) {
            Some(idle_for) => self.rest(idle_for, now),
            None => {
                if self.armed {
                    self.disarm();
                }
                if received == 0 {
                    std::hint::spin_loop();
                }
            }
        }
    }

    /// The pair's share of a turn that had packets, or had none. True: there was something to do.
    fn pair_up(&mut self, now: Nanos, had_packets: bool) -> bool {
        let is_empty = self.out.crossway.as_ref().is_none_or(Crossway::is_empty);
        let crossed = !(is_empty && self.redirected.is_empty());
        if crossed {
            self.take_crossed(now);
        }
        let Some(pair) = &mut self.pair else {
            return crossed;
        };
        let paired = pair.turn(now, had_packets || crossed, &mut self.engine, &mut self.out);
        if paired || crossed {
            self.out.flush();
        }
        if let Some(crossway) = self.out.crossway.as_ref().filter(|_| self.engine.has_deferred()) {
            // What waits for the other node's answer shall not wait for the clock of the HA thread.
            crossway.hasten();
        }
        paired || crossed
    }

    /// What the other node has sent: a batch of it is judged, the rest has the next turn.
    #[inline(never)]
    fn take_crossed(&mut self, now: Nanos) {
        let forwards = self.engine.forwards();
        while self.redirected.room() > 0 && self.batch.room() > 0 {
            let Some(crossed) = self.out.take_crossed(forwards) else {
                break;
            };
            let pushed = match crossed {
                None => Ok(()),
                Some((packet, port, false)) => self.redirected.try_push_handed(packet, port, Hops::FROM_PEER),
                Some((packet, port, true)) => self.batch.try_push_handed(packet, port, Hops::SENT_BACK),
            };
            debug_assert!(pushed.is_ok(), "there is room");
        }
        if !self.batch.is_empty() {
            turn::judge(self, now);
        }
        self.judge_redirected(now);
    }

    /// As [`turn::judge`], of what the other node has sent.
    fn judge_redirected(&mut self, now: Nanos) {
        turn::drain(self, now);
        self.engine
            .process_redirected(now, &mut self.redirected, &mut self.out);
    }

    /// What packets proved and disproved of the ports' devices goes to the other workers and to the log.
    #[cold]
    fn report_rss(&mut self) {
        while let Some((port, event)) = self.engine.next_rss_event() {
            if let Some(slot) = self.out.slots.get(port.index()) {
                slot.flags.rss.report(self.id, event);
            }
        }
    }

    /// What this turn took has been judged and sent by now: marks behind it have passed.
    #[cold]
    fn step_move(&mut self, now: Nanos) {
        while let Some((from, mark)) = self.out.mesh.as_mut().and_then(Mesh::next_passed) {
            self.engine.passed(from, mark);
        }
        self.engine.step_move(now, MOVE_BUDGET, &mut self.out);
        self.out.flush();
    }

    /// What others have handed over: what is to be judged goes into the batch, what is to be sent is sent. Returns how many
    /// packets came.
    fn take_handed(&mut self, now: Nanos) -> usize {
        let mut taken = 0;
        for _ in 0..TAKE_OVERS {
            match &mut self.out.mesh {
                Some(mesh) => mesh.take(&mut self.incoming),
                None => break,
            }
            if self.incoming.is_empty() {
                break;
            }
            taken += self.incoming.len();
            for handed in std::mem::take(&mut self.incoming) {
                if handed.what != What::Judge {
                    self.out.send_for(handed);
                    continue;
                }
                if handed.hops.is_from_peer() {
                    if self.redirected.room() == 0 {
                        self.judge_redirected(now);
                    }
                    let pushed = self
                        .redirected
                        .try_push_handed(handed.packet, handed.port, handed.hops);
                    debug_assert!(pushed.is_ok(), "there is room");
                    continue;
                }
                if self.batch.room() == 0 {
                    turn::judge(self, now);
                }
                let pushed = self
                    .batch
                    .try_push_handed(handed.packet, handed.port, handed.hops);
                debug_assert!(pushed.is_ok(), "there is room");
            }
        }
        self.taken_over += taken as u64;
        taken
    }

    /// A burst from each receive queue into the batch. Returns how many packets came, and whether a queue had a full
    /// burst.
    #[inline]
    fn receive_bursts(&mut self, now: Nanos) -> (usize, bool) {
        let (mut received, mut more) = (0, false);
        for port in 0..self.out.slots.len() {
            if self.batch.room() < self.burst {
                turn::judge(self, now);
            }
            let slot = &mut self.out.slots[port];
            if slot.flags.rss.is_mismatch() {
                self.engine.distrust(PortId(port as u16));
            }
            let Some(rx) = slot.queues.as_mut().and_then(|queues| queues.rx.as_mut()) else {
                continue;
            };
            let burst = self.burst;
            let count = self.batch.receive_with(PortId(port as u16), |packets| {
                rx.rx_burst(packets, burst);
            });
            slot.counts.rx_packets += count as u64;
            received += count;
            more |= count >= burst;
        }
        (received, more)
    }

    /// Nothing to do, for so long.
    #[cold]
    fn rest(&mut self, idle_for: Nanos, now: Nanos) {
        // Asked every time: links come and go, and their speed is known only when they are there.
        match self.wake_up().wait(idle_for, self.armed) {
            Wait::No => std::hint::spin_loop(),
            Wait::Arm => self.arm(),
            wait => {
                // Whoever reads the counters of a sleeping worker shall not find old ones.
                self.publish(now);
                self.sleep(wait);
                self.disarm();
            }
        }
    }

    fn sleep(&mut self, wait: Wait) {
        match (wait, &self.wake) {
            (Wait::Event(timeout), Some(wake)) => {
                self.out.slots.iter_mut().for_each(Slot::listen);
                self.slept = match &self.out.mesh {
                    None => Some(wake.wait(timeout)),
                    // Woken by packets that are here, if not by the clock.
                    Some(mesh) => Some(mesh.sleep(|| wake.wait(timeout)).unwrap_or(true)),
                };
                self.load.slept(tsc::read());
            }
            // What others hand over shall not wait for the clock.
            (Wait::Sleep(time), Some(wake)) if self.out.mesh.is_some() => {
                let before = tsc::read();
                let sleep = || wake.wait(time);
                let _ = self.out.mesh.as_ref().and_then(|mesh| mesh.sleep(sleep));
                self.load.slept(self.load.after(before, time).min(tsc::read()));
            }
            (Wait::Sleep(time), _) => {
                let before = tsc::read();
                std::thread::sleep(time.to_duration());
                // What the sleep took too long is a gap.
                self.load.slept(self.load.after(before, time).min(tsc::read()));
            }
            _ => {}
        }
    }

    /// Has the receive queues wake the worker.
    fn arm(&mut self) {
        for slot in &mut self.out.slots {
            slot.arm();
        }
        self.armed = true;
    }

    /// Has them be silent while they are polled.
    #[cold]
    fn disarm(&mut self) {
        for slot in &mut self.out.slots {
            slot.disarm();
        }
        self.armed = false;
    }

    /// What can wake this worker with the queues that it has now.
    fn wake_up(&self) -> WakeUp {
        WakeUp::of(self.out.slots.iter().filter_map(Slot::polled))
    }

    /// Takes commands while there are any that are done at once. True: there was one.
    #[inline]
    fn take_commands(&mut self, now: Nanos) -> bool {
        let mut any = false;
        if self.unsent.is_some() {
            self.retry_answer();
        }
        while self.job.is_none() && self.unsent.is_none() && !self.stopping {
            let Some((number, command)) = self.mailbox.take() else {
                break;
            };
            any = true;
            self.carry_out(number, command, now);
        }
        any
    }

    #[cold]
    fn carry_out(&mut self, number: u64, command: Command, now: Nanos) {
        let reply = match command {
            Command::Publish => {
                self.publish(now);
                Reply::Publish
            }
            Command::Policy(policy) => Reply::Policy(self.engine.set_policy(policy)),
            Command::TakePort(port) => Reply::TakePort(self.take_port(port)),
            Command::GivePort(port, queues) => Reply::GivePort(self.give_port(port, queues)),
            Command::Begin => {
                self.receiving = true;
                self.load.gaps = [0; GAP_SECONDS];
                Reply::Begin
            }
            Command::Rest => {
                self.receiving = false;
                self.publish(now);
                Reply::Rest
            }
            Command::Stop => {
                self.take_over(now);
                turn::judge(self, now);
                self.judge_redirected(now);
                self.engine.drop_fragments(&mut self.out);
                self.out.flush();
                self.stopping = true;
                self.publish(now);
                Reply::Stop
            }
            Command::Farewell(farewell) => {
                self.receiving = false;
                self.job = Some((number, Command::Farewell(farewell)));
                return;
            }
            Command::Move(placement, of) => {
                let done = self.engine.begin_move(placement, &of);
                Reply::Move(done, of)
            }
            Command::Moving => Reply::Moving(self.engine.is_moving(), self.engine.table_version()),
            job @ (Command::Sessions(_)
            | Command::Kill(_)
            | Command::Lookup(_)
            | Command::Rules(_)
            | Command::Buckets(_)) => {
                self.job = Some((number, job));
                return;
            }
        };
        self.answer(number, reply);
    }

    #[cold]
    fn answer(&mut self, number: u64, reply: Reply) {
        self.unsent = self.mailbox.answer(number, reply).err();
    }

    #[cold]
    fn retry_answer(&mut self) {
        if let Some((number, reply)) = self.unsent.take() {
            self.answer(number, reply);
        }
    }

    /// A step of the running job; its answer goes out with the last.
    #[cold]
    fn step_job(&mut self, now: Nanos) {
        let Some((number, mut job)) = self.job.take() else {
            return;
        };
        let done = match &mut job {
            Command::Sessions(scan) => step_scan(&self.engine, scan, now),
            Command::Kill(kill) => step_kill(&mut self.engine, kill, now),
            Command::Lookup(lookup) => step_lookup(&self.engine, lookup, now),
            Command::Rules(rules) => step_rules(&self.engine, rules),
            Command::Buckets(scan) => step_buckets(&self.engine, scan),
            Command::Farewell(farewell) => {
                step_farewell(&mut self.engine, self.records.as_deref(), farewell, now)
            }
            _ => true,
        };
        if !done {
            self.job = Some((number, job));
            return;
        }
        let reply = match job {
            Command::Sessions(scan) => Reply::Sessions(scan),
            Command::Kill(kill) => Reply::Kill(kill),
            Command::Lookup(lookup) => Reply::Lookup(lookup),
            Command::Rules(rules) => Reply::Rules(rules),
            Command::Buckets(scan) => Reply::Buckets(scan),
            Command::Farewell(_) => Reply::Farewell,
            _ => return,
        };
        self.answer(number, reply);
    }

    fn take_port(&mut self, port: PortId) -> Option<Box<PortQueues>> {
        self.out.flush();
        if self.armed {
            self.disarm();
        }
        let queues = self.out.slots.get_mut(port.index())?.take()?;
        if let Some(wake) = &self.wake {
            queues
                .announcers
                .iter()
                .for_each(|announcer| wake.remove(*announcer));
        }
        Some(queues)
    }

    fn give_port(&mut self, port: PortId, queues: Box<PortQueues>) -> Option<Box<PortQueues>> {
        let old = self.take_port(port);
        let Some(slot) = self.out.slots.get_mut(port.index()) else {
            return Some(queues);
        };
        let announcers = &queues.announcers;
        let announces = self.wake.as_ref().is_some_and(|wake| {
            !announcers.is_empty() && announcers.iter().all(|announcer| wake.add(*announcer).is_ok())
        });
        let polls = queues.rx.is_some();
        slot.give(queues, announces);
        if polls {
            self.engine.claims(port, slot.flags.rss.claimed());
        }
        old
    }

    fn publish(&mut self, now: Nanos) {
        self.next_publish = now.plus(PUBLISH_EVERY);
        let engine = self.engine.counters();
        let mut drops = self.out.tx_drops;
        for (total, engine) in drops.iter_mut().zip(engine.drops) {
            *total += engine;
        }
        let crossings = self
            .out
            .crossway
            .as_ref()
            .map(|way| way.counts)
            .unwrap_or_default();
        let counts = Counts {
            rx_packets: self.rx_packets,
            tx_packets: self.out.tx_packets,
            forwarded: self.out.forwarded,
            originated: self.out.originated,
            rejects_suppressed: engine.rejects_suppressed,
            timeout_resets: engine.timeout_resets,
            timeout_resets_missed: engine.timeout_resets_missed,
            log_records_lost: engine.log_records_lost,
            fragments: engine.fragments,
            fragments_reassembled: engine.fragments_reassembled,
            fragments_held: self.engine.fragments_held(),
            held: self.out.held() + self.engine.held(),
            syn_cookies_sent: engine.syn_cookies_sent,
            syn_cookies_accepted: engine.syn_cookies_accepted,
            syn_retries_lost: engine.syn_retries_lost,
            syn_cookies_engaged: u64::from(self.engine.syn_cookies_engaged()),
            handed_over: self.out.handed_over,
            relayed: self.out.relayed,
            taken_over: self.taken_over,
            redirected_out: crossings.redirected_out,
            redirected_in: crossings.redirected_in,
            given_back: crossings.given_back,
            returned: crossings.returned,
            deferred: engine.deferred,
            deferred_late: engine.deferred_late,
            sessions: u64::from(self.engine.table().len()),
            max_sessions: u64::from(self.engine.quota()),
            half_open: u64::from(self.engine.table().half_open()),
            sessions_created: engine.sessions_created,
            sessions_ended: engine.sessions_ended,
            sessions_moved_in: engine.sessions_moved_in,
            sessions_moved_out: engine.sessions_moved_out,
            sessions_synced_in: engine.sessions_synced_in,
            sessions_synced_out: engine.sessions_synced_out,
            sync_refused: engine.sync_refused,
            redirects: self.engine.redirects() as u64,
            sessions_evicted: engine.sessions_evicted,
            sources_full: engine.sources_full,
            redirects_full: engine.redirects_full,
            timeout_scale_ppm: u64::from(self.engine.timeout_scale().ppm()),
            generation: u64::from(self.engine.policy().generation.0),
            turns: self.load.turns,
            busy_ppm: self.load.busy_ppm,
            millicycles_per_packet: self.load.millicycles_per_packet,
            max_loop_gap_ns: self.load.longest_gap_ns(),
            expiry_lag_ns: self.upkeep.lag.0,
            drops,
            malformed: engine.malformed,
            states: std::array::from_fn(|i| u64::from(self.engine.table().count(SessionState::ALL[i]))),
        };
        self.stats
            .publish(&counts, self.out.slots.iter().map(|s| s.counts));
    }
}

/// What the steps of a turn are on a worker; their order is [`turn::turn`]'s.
impl Steps for Worker {
    #[inline]
    fn receive(&mut self, now: Nanos) -> usize {
        let mut received = 0;
        // The more packets are judged together, the more of their cache misses overlap: while there is more to receive,
        // the batch is filled.
        while self.receiving {
            let (count, more) = self.receive_bursts(now);
            received += count;
            if !more || received + self.burst > MAX_BATCH {
                break;
            }
        }
        self.rx_packets += received as u64;
        received
    }

    #[inline]
    fn take_over(&mut self, now: Nanos) -> usize {
        if self.out.mesh.is_some() {
            self.take_handed(now)
        } else {
            0
        }
    }

    #[inline]
    fn messages(&self) -> usize {
        self.out.mesh.as_ref().map_or(0, Mesh::messages)
    }

    fn take_message(&mut self, now: Nanos) {
        if let Some(message) = self.out.mesh.as_mut().and_then(Mesh::next_message) {
            self.engine.receive(now, message, &mut self.out);
        }
    }

    #[inline]
    fn process(&mut self, now: Nanos) {
        self.engine.process(now, &mut self.batch, &mut self.out);
        if self.engine.has_rss_news() {
            self.report_rss();
        }
    }

    #[inline]
    fn flush(&mut self) {
        self.out.flush();
    }
}
