//! The HA pair on a running node: one thread with the sockets, the clock and the protocol ([`crate::ha`]). Workers and it talk through
//! bounded queues; control threads ask it for its view, and for changes of lead.

pub mod udp;
mod view;
mod witness;

use std::os::fd::AsRawFd;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::command::WorkerLink;
use super::crossway::{Door, Way};
use super::lock::ControlLock;
use super::ports::NodePort;
use super::threads::PairCommon;
use crate::base::Nanos;
use crate::config::{self, Config};
use crate::config::{DeferFail, Ha, HaMode, Link};
use crate::control::node::{ErrorKind, HaRole, HaStatus, HaWish, NodeError, SwitchoverReport};
use crate::dpdk::Mempool;
use crate::dpdk::tsc::TscClock;
use crate::dpdk::wake::{Announcer, WakeSet};
use crate::engine::{Adoption, PairSetup, Placement};
use crate::flow::table::journal::MAX_GONE;
use crate::ha::dispatch::{Dispatch, DispatchConfig, Notice};
use crate::ha::election::SwitchRefused;
use crate::ha::frames::{self, Frames, FramesConfig};
use crate::ha::member::Queues;
use crate::ha::seal::PairKey;
use crate::ha::{NodeId, Path, Peer, PeerConfig, Role, wire};
use udp::UdpPath;
use view::Viewer;
use witness::Witness;

/// The thread looks at the workers' queues this often at least, while sessions are synchronised.
const LOOK_EVERY: Nanos = Nanos::MILLISECOND;
/// Datagrams in one turn, each way, before the others have theirs.
const DATAGRAMS: usize = 4 * udp::BATCH;
/// What is shown is as old as this at most.
const SHOW_EVERY: Nanos = Nanos::from_millis(20);
/// So long whoever asks for a change of lead waits for it.
const SWITCHOVER: Duration = Duration::from_secs(10);
/// So long a node that stops offers its lead.
pub const LEAVE_LIMIT: Duration = Duration::from_secs(6);

/// What a node of a pair needs to know before its workers begin.
pub struct PairPlan {
    ha: Ha,
    key: PairKey,
    policy: u64,
    layout: u64,
    queues: Vec<Arc<Queues>>,
    door: Arc<Door>,
    /// Packets that cross, of an active-active pair.
    frames: Option<FramesConfig>,
    paths: Vec<(Path, UdpPath)>,
    witness: Option<Witness>,
}

/// Ethernet header and two VLAN tags.
const FRAME_OVERHEAD: usize = 14 + 2 * 4;

impl PairPlan {
    /// Of a configuration with `[ha]`; `None`: the node is alone. Opens the sockets.
    ///
    /// # Errors
    /// One line with the fix: the key file, or a socket.
    pub fn of(config: &Config) -> Result<Option<Self>, String> {
        let Some(ha) = &config.ha else { return Ok(None) };
        let key = read_key(&ha.key_file)?;
        let open = |what: &str, path, link: &Link| {
            UdpPath::open(link.local.0, link.peer.0)
                .map(|socket| (path, socket))
                .map_err(|e| format!("[ha] {what}: cannot use {}: {e}", link.local))
        };
        let mut paths = vec![open("link", Path::Link, &ha.link)?];
        if let Some(second) = &ha.second_link {
            paths.push(open("second_link", Path::Second, second)?);
        }
        let witness = match ha.witness {
            None => None,
            Some(address) => Some(Witness::open(address).map_err(|e| {
                format!("[ha] witness: cannot ping {address}: {e}: run as root, or with the capability CAP_NET_RAW")
            })?),
        };
        let workers = config.node.workers.0.len();
        let link = paths.first().and_then(|(_, socket)| socket.datagram());
        let frames = (ha.mode == HaMode::ActiveActive).then(|| FramesConfig {
            longest: FRAME_OVERHEAD + usize::from(longest_packet(config)),
            ports: config.ports.len() as u16,
            rate: ha.redirect_rate.0,
            datagram: link
                .unwrap_or(wire::DATAGRAM)
                .clamp(wire::DATAGRAM / 2, udp::LONGEST),
            waiting: frames::IN,
        });
        let queues = || {
            let frames = frames.map(|of| Frames::new(frames::OUT, &of, workers));
            Arc::new(Queues::new(Queues::ROOM).with_frames(frames))
        };
        Ok(Some(Self {
            door: Arc::default(),
            frames,
            key,
            policy: config::policy_digest(config),
            layout: config::layout_digest(config),
            queues: (0..workers).map(|_| queues()).collect(),
            paths,
            witness,
            ha: ha.clone(),
        }))
    }

    /// What the workers' engines are given.
    #[must_use]
    pub fn common(&self) -> PairCommon {
        let workers = self.queues.len().max(1) as u32;
        PairCommon {
            setup: PairSetup {
                key: self.key.digest_key(),
                adoption: Adoption {
                    bytes: self.ha.adopt_kib.saturating_mul(1024),
                    time: self.ha.adopt_time.0,
                },
                ends: MAX_GONE,
            },
            redirect_rate: self.frames.map_or(0, |of| of.rate.div_ceil(workers)),
            defer: (self.ha.defer_timeout.0, self.ha.defer_fail == DeferFail::Open),
        }
    }

    /// Bytes of the longest IP packet that may come from the other node; `None`: none does.
    #[must_use]
    pub fn longest_packet(&self) -> Option<u16> {
        let longest = self.frames?.longest - FRAME_OVERHEAD;
        u16::try_from(longest).ok()
    }

    /// A worker's way to the HA thread; packets of the other node come into buffers of `pool`.
    #[must_use]
    pub fn way(&self, worker: usize, pool: Option<Mempool>) -> Option<Way> {
        Some(Way {
            queues: Arc::clone(self.queues.get(worker)?),
            door: Arc::clone(&self.door),
            pool,
        })
    }
}

fn read_key(file: &FilePath) -> Result<PairKey, String> {
    config::key_file::read(file).map_err(|e| format!("the pair's key: {e} ({})", e.help(file)))
}

/// What control threads ask of the HA thread.
enum Ask {
    /// The lead is to go to the other node.
    Switchover(Sender<Result<(), SwitchRefused>>),
    /// What somebody else says of the node.
    Wish(HaWish),
    /// Another configuration is in force: the digest of its policy, and the priority.
    Applied(u64, u8),
    /// Buckets have moved between workers.
    Placement(Arc<Placement>),
    /// The node stops.
    Leave,
}

/// What the HA thread and control threads share.
struct Shared {
    view: ControlLock<HaStatus>,
    /// The role, as a number, for those who ask often.
    role: std::sync::atomic::AtomicU8,
    is_ready: AtomicBool,
    may_stop: AtomicBool,
    ended: AtomicBool,
}

/// The HA thread, as control threads see it.
pub struct PairLink {
    asks: ControlLock<Sender<Ask>>,
    shared: Arc<Shared>,
}

/// The HA thread itself; ends when this goes.
pub struct PairThread {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Drop for PairThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            if thread.join().is_err() {
                error!("the HA thread panicked: this is a defect, please report it");
            }
        }
    }
}

impl PairLink {
    /// The pair, as this node sees it.
    pub fn view(&self) -> HaStatus {
        self.shared.view.lock().clone()
    }

    /// What the node is.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.shared.role.load(Ordering::Acquire) {
            1 => Role::Standby,
            2 => Role::Leader,
            3 => Role::Isolated,
            4 => Role::Active,
            _ => Role::Waiting,
        }
    }

    /// Has the node taken its place in the pair?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready.load(Ordering::Acquire)
    }

    /// Does nobody lose anything by its stop?
    #[must_use]
    pub fn may_stop(&self) -> bool {
        self.shared.may_stop.load(Ordering::Acquire) || self.shared.ended.load(Ordering::Acquire)
    }

    fn ask(&self, ask: Ask) {
        // Whoever asks sees by the view what became of it.
        let _ = self.asks.lock().send(ask);
    }

    /// Begins a change of lead.
    fn begin_switchover(&self, patience: Duration) -> Result<(), NodeError> {
        let (sender, answer) = mpsc::channel();
        self.ask(Ask::Switchover(sender));
        match answer.recv_timeout(patience) {
            Ok(answer) => answer.map_err(view::refused),
            Err(_) => Err(view::no_answer()),
        }
    }

    /// The lead goes to the other node; waits until it has.
    ///
    /// # Errors
    /// Why it does not, or that it has not in time.
    #[allow(clippy::disallowed_methods, reason = "a control thread's clock")]
    pub fn switch_over(&self) -> Result<SwitchoverReport, NodeError> {
        let (begin, before) = (Instant::now(), self.role());
        self.begin_switchover(SWITCHOVER)?;
        while begin.elapsed() < SWITCHOVER {
            let view = self.view();
            let leader = match (
                self.role().forwards(),
                view.peer.role.is_some_and(HaRole::forwards),
            ) {
                (true, false) => Some(view.node_id),
                (false, true) => Some(view.peer.node_id),
                _ => None,
            };
            if let Some(leader) = leader.filter(|_| self.role().forwards() != before.forwards()) {
                return Ok(SwitchoverReport {
                    leader,
                    role: self.role().into(),
                    took_ms: begin.elapsed().as_secs_f64() * 1e3,
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let error = "the lead has not changed in time: it may yet";
        Err(NodeError::new(ErrorKind::Unavailable, error).fix("see `haechi show ha`"))
    }

    /// Notes what somebody else says of the node.
    pub fn wish(&self, wish: HaWish) {
        self.ask(Ask::Wish(wish));
    }

    /// Another configuration is in force.
    pub fn applied(&self, config: &Config) {
        let priority = config.ha.as_ref().map_or(0, |ha| ha.priority);
        self.ask(Ask::Applied(config::policy_digest(config), priority));
    }

    /// Buckets have moved between workers.
    pub fn set_placement(&self, placement: Arc<Placement>) {
        self.ask(Ask::Placement(placement));
    }

    /// The node stops: the lead is to be somebody else's, if there is somebody.
    pub fn leave(&self) {
        self.ask(Ask::Leave);
    }
}

/// What the HA thread works with.
pub struct PairParts {
    /// What was planned.
    pub plan: PairPlan,
    /// The workers.
    pub workers: Arc<[WorkerLink]>,
    /// The ports.
    pub ports: Arc<[NodePort]>,
    /// Where flows belong, of several workers.
    pub placement: Option<Arc<Placement>>,
    /// The workers' clock.
    pub clock: TscClock,
}

/// Starts the HA thread.
///
/// # Errors
/// When there is no thread to be had, or no random numbers.
pub fn start(parts: PairParts) -> std::io::Result<(Arc<PairLink>, PairThread)> {
    let mut random = [0; 32];
    let mut filled = 0;
    while filled < random.len() {
        filled += rustix::rand::getrandom(&mut random[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    let shared = Arc::new(Shared {
        view: ControlLock::new(HaStatus::default()),
        role: std::sync::atomic::AtomicU8::new(0),
        is_ready: AtomicBool::new(false),
        may_stop: AtomicBool::new(true),
        ended: AtomicBool::new(false),
    });
    let (sender, asks) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let mut turner = Turner::new(parts, random, Arc::clone(&shared), asks)?;
    turner.show();
    let thread = std::thread::Builder::new().name("ha".to_owned()).spawn({
        let (stop, ended) = (Arc::clone(&stop), Arc::downgrade(&shared));
        move || {
            let _ended = Ended(ended);
            while !stop.load(Ordering::Acquire) {
                turner.turn();
            }
        }
    })?;
    let link = PairLink {
        asks: ControlLock::new(sender),
        shared,
    };
    let thread = PairThread {
        thread: Some(thread),
        stop,
    };
    Ok((Arc::new(link), thread))
}

/// Says that the thread has ended, if by a panic.
struct Ended(Weak<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.ended.store(true, Ordering::Release);
        }
    }
}

/// What the thread turns.
struct Turner {
    dispatch: Dispatch,
    paths: Vec<(Path, UdpPath)>,
    witness: Option<Witness>,
    workers: Arc<[WorkerLink]>,
    ports: Arc<[NodePort]>,
    tracked: Vec<usize>,
    ports_were_up: bool,
    clock: TscClock,
    asks: Receiver<Ask>,
    shared: Arc<Shared>,
    viewer: Viewer,
    next_show: Nanos,
    /// Datagrams on their way out, for each path.
    out: Vec<Vec<Vec<u8>>>,
    spare: Vec<Vec<u8>>,
    /// The last question to the witness.
    asked: u32,
    /// What workers wake the thread by, and what it waits for.
    door: Arc<Door>,
    wake: WakeSet,
}

impl Turner {
    fn new(
        parts: PairParts,
        random: [u8; 32],
        shared: Arc<Shared>,
        asks: Receiver<Ask>,
    ) -> std::io::Result<Self> {
        let PairParts {
            plan,
            workers,
            ports,
            placement,
            clock,
        } = parts;
        let now = clock.now();
        let peer = Peer::new(peer_config(&plan), &plan.key, now, random);
        let config = DispatchConfig {
            node: NodeId(plan.ha.node_id),
            ping_every: plan.ha.heartbeat.0,
            stalled_after: Nanos(plan.ha.heartbeat.0.0 * u64::from(plan.ha.dead_after)),
            sync_rate: plan.ha.sync_rate.0,
        };
        let tracked = plan
            .ha
            .track
            .iter()
            .filter_map(|name| ports.iter().position(|port| port.name() == name))
            .collect();
        let wake = WakeSet::new()?;
        plan.door.set_bell(wake.bell());
        for (_, socket) in &plan.paths {
            wake.add(Announcer::Readable(socket.fd().as_raw_fd()))?;
        }
        Ok(Self {
            door: plan.door,
            wake,
            dispatch: Dispatch::new(config, peer, plan.queues, placement, now),
            out: plan.paths.iter().map(|_| Vec::new()).collect(),
            paths: plan.paths,
            witness: plan.witness,
            viewer: Viewer::new(plan.ha, plan.policy, plan.layout, now),
            workers,
            ports,
            tracked,
            ports_were_up: true,
            clock,
            asks,
            shared,
            next_show: now,
            spare: Vec::new(),
            asked: 0,
        })
    }

    fn turn(&mut self) {
        let now = self.clock.now();
        let mut busy = self.receive(now);
        self.answer_asks(now);
        self.look_at_ports(now);
        if now >= self.dispatch.peer.next_timeout() {
            self.dispatch.peer.handle_timeout(now);
        }
        busy |= self.dispatch.turn(now);
        // Workers go on while datagrams are sealed.
        self.ring();
        busy |= self.transmit(now);
        self.ring();
        for notice in self.dispatch.take_notices() {
            self.heed(now, notice);
        }
        if now >= self.next_show {
            self.show();
        }
        if !busy {
            self.wait(now);
        }
    }

    fn ring(&mut self) {
        for worker in self.dispatch.rung() {
            if let Some(worker) = self.workers.get(worker.index()) {
                worker.ring();
            }
        }
    }

    fn receive(&mut self, now: Nanos) -> bool {
        let mut any = false;
        for (path, socket) in &mut self.paths {
            for _ in 0..DATAGRAMS / udp::BATCH {
                let peer = &mut self.dispatch.peer;
                let count = socket.receive(|datagram| peer.handle_datagram(now, *path, datagram));
                any |= count > 0;
                // There is room for the packets of as many datagrams.
                self.dispatch.deliver();
                if count < udp::BATCH {
                    break;
                }
            }
        }
        if let Some(witness) = &self.witness {
            let (peer, viewer, asked) = (&mut self.dispatch.peer, &mut self.viewer, self.asked);
            witness.answers(|number| {
                // The newest question that has this number.
                let ask = asked.wrapping_sub(u32::from((asked as u16).wrapping_sub(number)));
                viewer.witness_answered(now);
                peer.witness_answered(now, ask);
            });
        }
        any
    }

    fn transmit(&mut self, now: Nanos) -> bool {
        let mut any = false;
        for _ in 0..DATAGRAMS {
            let mut datagram = self.spare.pop().unwrap_or_default();
            let Some(path) = self.dispatch.poll_transmit(now, &mut datagram) else {
                self.spare.push(datagram);
                break;
            };
            any = true;
            match self.paths.iter().position(|(of, _)| *of == path) {
                Some(at) => self.out[at].push(datagram),
                None => self.spare.push(datagram),
            }
        }
        for ((_, socket), out) in self.paths.iter_mut().zip(&mut self.out) {
            socket.send(out);
            self.spare.append(out);
        }
        self.spare.truncate(2 * DATAGRAMS);
        any
    }

    fn answer_asks(&mut self, now: Nanos) {
        loop {
            match self.asks.try_recv() {
                Ok(Ask::Switchover(answer)) => {
                    // Who asked may have given up.
                    let _ = answer.send(self.dispatch.peer.switchover(now));
                }
                Ok(Ask::Wish(wish)) => self.wish(now, wish),
                Ok(Ask::Applied(policy, priority)) => {
                    self.viewer.applied(policy, priority);
                    self.dispatch.peer.set_policy(now, policy);
                    self.dispatch.peer.set_priority(now, priority);
                }
                Ok(Ask::Placement(placement)) => self.dispatch.set_placement(placement),
                Ok(Ask::Leave) => self.dispatch.peer.leave(now),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Somebody else says that this node is to lead, or not to.
    fn wish(&mut self, now: Nanos, wish: HaWish) {
        let leads = self.dispatch.peer.role().forwards();
        if wish.lead != leads {
            if let Err(e) = self.dispatch.peer.switchover(now) {
                warn!("{} says {}, but {e}: nothing changes", wish.by, wish.state.word());
            }
        }
        self.viewer.wish = Some(wish);
    }

    fn look_at_ports(&mut self, now: Nanos) {
        let are_up = self
            .tracked
            .iter()
            .all(|port| self.ports[*port].flags().link_up());
        if are_up != self.ports_were_up {
            self.ports_were_up = are_up;
            self.dispatch.set_ports(now, are_up);
        }
    }

    fn heed(&mut self, now: Nanos, notice: Notice) {
        match notice {
            Notice::Role { from, to, why } => {
                self.viewer.role_changed(now, from, to);
                let why = why.text();
                if to.forwards() {
                    info!("HA: leads from now on: {why}");
                } else if from.forwards() {
                    warn!("HA: leads no longer ({to:?}): {why}");
                } else {
                    info!("HA: {to:?}: {why}");
                }
                // What is asked for next shall not find the old role.
                self.next_show = now;
            }
            Notice::AskWitness(ask) => {
                self.asked = ask;
                self.viewer.witness_asked();
                if let Some(witness) = &self.witness {
                    witness.ask(ask as u16);
                }
            }
            Notice::PeerStarted => info!("HA: the peer has started"),
            Notice::Sync(true) => info!("HA: the peer is heard: sessions are synchronised"),
            Notice::Sync(false) => warn!("HA: no way to the peer: sessions are not synchronised"),
            Notice::Policy(true) => info!("HA: both nodes have the same policy"),
            Notice::Policy(false) => {
                warn!("HA: the nodes have different policies: compare their files by `haechi ha check`");
            }
            Notice::Layout(true) => {}
            Notice::Layout(false) => error!(
                "HA: the nodes differ in mode, ports or session scope: no session is synchronised; compare their files by `haechi ha check`"
            ),
            Notice::Stalled(worker, true) => warn!("HA: worker {} does not turn", worker.0),
            Notice::Stalled(worker, false) => info!("HA: worker {} turns again", worker.0),
        }
    }

    /// Publishes what control threads see.
    fn show(&mut self) {
        let now = self.clock.now();
        self.next_show = now.plus(SHOW_EVERY);
        let sessions = self
            .workers
            .iter()
            .map(|worker| worker.stats().read().0.sessions)
            .sum();
        self.dispatch.peer.set_sessions(sessions);
        let status = self.dispatch.peer.status(now);
        let shared = &self.shared;
        shared.role.store(self.dispatch.role() as u8, Ordering::Release);
        let has_place = match self.dispatch.role() {
            Role::Leader | Role::Active => true,
            Role::Standby => status.in_sync,
            Role::Waiting | Role::Isolated => false,
        };
        if has_place {
            shared.is_ready.store(true, Ordering::Release);
        }
        let has_peer = status.peer.is_some_and(|peer| peer.alive);
        let leads = self.dispatch.role().forwards() || !self.dispatch.peer.may_stop();
        shared.may_stop.store(!(leads && has_peer), Ordering::Release);
        let stalled: Vec<_> = self.dispatch.stalled().collect();
        let down = self
            .tracked
            .iter()
            .map(|port| &self.ports[*port])
            .filter(|port| !port.flags().link_up())
            .map(|port| port.name().to_owned())
            .collect();
        let unsent = self.paths.iter().map(|(_, socket)| socket.unsent).sum();
        let counted = (self.dispatch.counters(), unsent);
        let view = self
            .viewer
            .view(now, &status, &stalled, down, counted, &self.workers);
        *shared.view.lock() = view;
    }

    /// Until something comes, or is due.
    fn wait(&self, now: Nanos) {
        let due = self.dispatch.peer.next_timeout().since(now).min(LOOK_EVERY);
        self.door
            .sleep(|| !self.dispatch.has_frames(), || self.wake.wait(due));
    }
}

/// Bytes of the longest IP packet of any port.
fn longest_packet(config: &Config) -> u16 {
    config.ports.iter().map(|port| port.mtu).max().unwrap_or(1500)
}

fn peer_config(plan: &PairPlan) -> PeerConfig {
    let ha = &plan.ha;
    let node = NodeId(ha.node_id);
    let mut config = PeerConfig::new(node);
    config.election.priority = ha.priority;
    config.election.active_active = ha.mode == HaMode::ActiveActive;
    config.election.preempt = ha.preempt.then_some(ha.preempt_delay.0);
    config.election.witness = ha.witness.is_some();
    config.election.heartbeat = ha.heartbeat.0;
    config.election.dead_after = u32::from(ha.dead_after);
    config.election.alone_after = ha.alone_after.0;
    config.stream.sync_rate = ha.sync_rate.0;
    config.paths = plan.paths.iter().map(|(path, _)| *path).collect();
    if let Some(datagram) = plan.paths.first().and_then(|(_, socket)| socket.datagram()) {
        config.datagram = config.datagram.min(datagram);
    }
    config.frames = plan.frames;
    config.workers = plan.queues.len() as u16;
    config.policy = plan.policy;
    config.layout = plan.layout;
    config
}
