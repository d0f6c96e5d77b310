//! One node's side of the pair, without I/O: datagrams and time in, datagrams and [`Event`]s out.
//!
//! ```text
//! loop:  handle_datagram for what came, handle_timeout if next_timeout is over,
//!        poll_event until there is none, offer what the workers' journals have while it is taken,
//!        poll_transmit until there is nothing to send
//! ```
//!
//! What came is to be handled before a timeout: a node that was kept from running has not heard silence. Everything is bounded: events
//! by `events` (a frame that finds no room is not taken in, so it counts as lost and is told again), updates to be sent by `pending`
//! ([`Peer::offer`] says no), those in flight by the window.

mod event;
mod receive;
mod status;
mod transmit;

pub use event::{Event, Sums};
pub use status::{PathStatus, PeerCounters, PeerStatus, Status};

use std::collections::VecDeque;

use super::election::{Election, ElectionConfig, SwitchRefused};
use super::frames::{FrameBuf, FramesConfig, Inbox, Outbox};
use super::message::{Heartbeat, Lead, NodeId, Path, Progress, Role};
use super::seal::{self, PairKey, Seal, SealConfig};
use super::stream::{Outgoing, Receiver, Sender, StreamConfig};
use super::wire;
use crate::base::Nanos;
use crate::flow::image::BucketSet;

/// What a node has to know to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Roles.
    pub election: ElectionConfig,
    /// Updates.
    pub stream: StreamConfig,
    /// Keys.
    pub seal: SealConfig,
    /// The ways to the peer that heartbeats are sent by; updates take [`Path::Link`].
    pub paths: Vec<Path>,
    /// UDP payload of a datagram, at most.
    pub datagram: usize,
    /// Packets that cross, of an active-active pair; `None`: none do.
    pub frames: Option<FramesConfig>,
    /// Events that may wait: as many as a frame can bring beside [`RESERVE`] at least.
    pub events: usize,
    /// Workers of this node.
    pub workers: u16,
    /// Digest of the policy.
    pub policy: u64,
    /// Digest of what has to be equal if sessions are to be understood.
    pub layout: u64,
    /// The version of the protocol that this node speaks at most.
    pub version: u16,
}

impl PeerConfig {
    /// The defaults, of a node with a link.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            election: ElectionConfig::new(node),
            stream: StreamConfig::default(),
            seal: SealConfig::new(node),
            paths: vec![Path::Link],
            datagram: wire::DATAGRAM,
            frames: None,
            events: 4096,
            workers: 1,
            policy: 0,
            layout: 0,
            version: wire::VERSION,
        }
    }

    /// After so long without a heartbeat by the link no updates are sent, and all is told anew when it is back. Shorter silences are
    /// bridged by what is lost being told again.
    fn sync_silence(&self) -> Nanos {
        Nanos(2 * self.election.dead_time().0).max(Nanos::SECOND)
    }

    /// A comparison of digests that is older than this proves nothing.
    fn sync_stale(&self) -> Nanos {
        Nanos(self.stream.barrier_every.0.saturating_mul(10)).max(Nanos::from_secs(10))
    }
}

/// Events of these many places are kept for what is not an update.
pub const RESERVE: usize = 16;
/// The smallest datagram that can be configured: the largest session has room in it, and a barrier has parts of some use.
const DATAGRAM_MIN: usize = 768;

/// A way to the peer.
#[derive(Clone, Copy, Debug)]
struct Way {
    path: Path,
    next_heartbeat: Nanos,
    hello_due: bool,
    /// The peer's last heartbeat by it: when it came, and what it said the time was.
    heard: Option<(Nanos, Nanos)>,
    /// When the peer last said to have heard this node by it.
    heard_by_peer: Option<Nanos>,
    round_trip: Option<Nanos>,
}

/// Whose the sessions are, to a node of some role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Peer,
    Itself,
    Either,
}

impl Owner {
    const fn by(role: Role) -> Self {
        match role {
            Role::Waiting | Role::Standby => Self::Peer,
            Role::Leader | Role::Isolated => Self::Itself,
            Role::Active => Self::Either,
        }
    }
}

/// What was last put into events of things that go on changing: only how they are now matters.
#[derive(Clone, Copy, Debug, Default)]
struct Announced {
    role: Role,
    asked: u32,
    starts: u64,
    sync: bool,
    conversation: u64,
    policy: Option<bool>,
    layout: Option<bool>,
    cut: u64,
    walk: Option<u32>,
}

/// A resync of the peer's sessions.
#[derive(Clone, Copy, Debug)]
struct ResyncIn {
    resync: u32,
    /// Of all buckets.
    of_all: bool,
    sessions: u64,
    /// [`PeerCounters::updates`] when it began.
    updates: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Peer {
    config: PeerConfig,
    seal: Seal,
    election: Election,
    sender: Sender,
    receiver: Receiver,
    ways: Vec<Way>,
    progress: Vec<Progress>,
    healthy: bool,
    /// The last heartbeat of the peer's present process.
    heard: Option<Heartbeat>,
    /// The peer's processes so far.
    starts: u64,
    /// No two heartbeats of this node say the same time.
    last_sent: Nanos,
    /// What the last heartbeat said.
    said: Heartbeat,
    answer_by: Option<Path>,
    /// How often the sending half has begun anew, and whose the sessions were then, by both nodes' roles.
    conversation: u64,
    owners: ([Owner; 2], Lead),
    resync_in: Option<ResyncIn>,
    outbox: Outbox,
    inbox: Option<Inbox>,
    /// Datagrams with packets since the last with updates.
    in_a_row: u32,
    events: VecDeque<Event>,
    announced: Announced,
    role_before: Role,
    alive_before: bool,
    counters: PeerCounters,
}

impl Peer {
    /// A node that starts now. `random`: from the operating system, another one with each start.
    #[must_use]
    pub fn new(config: PeerConfig, key: &PairKey, now: Nanos, random: [u8; 32]) -> Self {
        let config = PeerConfig {
            datagram: config.datagram.max(DATAGRAM_MIN),
            events: config.events.max(2 * RESERVE + config.datagram / 8),
            ..config
        };
        let way = |path: &Path| Way {
            path: *path,
            next_heartbeat: now,
            hello_due: false,
            heard: None,
            heard_by_peer: None,
            round_trip: None,
        };
        let progress = |worker| Progress { worker, turns: 0 };
        let mut peer = Self {
            seal: Seal::new(config.seal, key, random),
            election: Election::new(config.election, now),
            sender: Sender::new(config.stream),
            receiver: Receiver::new(),
            ways: config.paths.iter().map(way).collect(),
            progress: (0..config.workers).map(progress).collect(),
            healthy: true,
            heard: None,
            starts: 0,
            last_sent: Nanos(0),
            said: Heartbeat::default(),
            answer_by: None,
            conversation: 0,
            owners: ([Owner::Peer; 2], Lead(0)),
            resync_in: None,
            outbox: Outbox::default(),
            inbox: config.frames.map(|frames| Inbox::new(&frames, now)),
            in_a_row: 0,
            events: VecDeque::with_capacity(config.events),
            announced: Announced::default(),
            role_before: Role::Waiting,
            alive_before: false,
            counters: PeerCounters::default(),
            config,
        };
        peer.follow(now);
        peer
    }

    // What the node says.

    /// Takes an update to be sent. `false`: there is no room now, or nobody to send it to ([`Event::Sync`]); it stays with the caller.
    pub fn offer(&mut self, now: Nanos, outgoing: Outgoing) -> bool {
        self.sender.offer(now, outgoing)
    }

    /// The journals have lost something (ends of sessions that nobody else remembers): everything is told anew.
    pub fn gap(&mut self, now: Nanos) {
        self.sender.want_resync(now, &BucketSet::ALL);
    }

    /// The answer to [`Event::Cut`]: the sums over all workers.
    pub fn cut(&mut self, now: Nanos, round: u64, sums: &Sums) {
        self.sender.cut(now, round, sums);
    }

    /// How many sessions of `want` may be offered now for [`Event::Walk`].
    pub fn take_allowance(&mut self, now: Nanos, want: u32) -> u32 {
        self.sender.take_allowance(now, want)
    }

    /// All workers are through with [`Event::Walk`].
    pub fn walked(&mut self, now: Nanos, resync: u32) {
        self.sender.walked(now, resync);
    }

    /// The answer to [`Event::Digests`]: the sums of the replicas over all workers.
    pub fn answer_digests(&mut self, now: Nanos, barrier: u64, sums: &Sums) {
        self.receiver.answer(now, barrier, sums);
        self.follow(now);
    }

    /// Could this node lead: do its tracked ports have a link, do its workers turn?
    pub fn set_health(&mut self, now: Nanos, healthy: bool) {
        self.healthy = healthy;
        self.election.set_health(now, healthy);
        self.follow(now);
    }

    /// Another policy is in force.
    pub fn set_policy(&mut self, now: Nanos, policy: u64) {
        self.config.policy = policy;
        self.follow(now);
    }

    /// The priority of this node from now on.
    pub fn set_priority(&mut self, now: Nanos, priority: u8) {
        self.election.set_priority(now, priority);
        self.follow(now);
    }

    /// How far a worker has come. One that does not exist changes nothing.
    pub fn set_progress(&mut self, worker: u16, turns: u32) {
        if let Some(progress) = self.progress.get_mut(usize::from(worker)) {
            progress.turns = turns;
        }
    }

    /// How many sessions this node owns, for the progress of a resync.
    pub const fn set_sessions(&mut self, sessions: u64) {
        self.sender.set_sessions(sessions);
    }

    /// The witness answered question `ask` of [`Event::AskWitness`].
    pub fn witness_answered(&mut self, now: Nanos, ask: u32) {
        self.election.witness_answered(now, ask);
        self.follow(now);
    }

    /// The operator wants the other node to lead: asked of a leader, its peer; of a standby, itself. [`Event::Role`] says when it is done.
    ///
    /// # Errors
    /// The node that would lead is not there, or not fit.
    pub fn switchover(&mut self, now: Nanos) -> Result<(), SwitchRefused> {
        let answer = self.election.switchover(now);
        self.follow(now);
        answer
    }

    /// The node is about to stop. It may once [`Self::may_stop`], or when its patience is over.
    pub fn leave(&mut self, now: Nanos) {
        self.election.leave(now);
        self.follow(now);
    }

    /// Nothing is lost by stopping now: the node does not forward, or no peer is there to take over.
    #[must_use]
    pub const fn may_stop(&self) -> bool {
        !self.election.role().forwards() || !self.election.peer_alive()
    }

    /// What the node is, at once; [`Event::Role`] comes in its place among the events.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.election.role()
    }

    /// Has this node all of its peer's sessions?
    #[must_use]
    pub fn in_sync(&self, now: Nanos) -> bool {
        let fresh = |at: Nanos| now.since(at) < self.config.sync_stale();
        self.sender.is_up() && self.receiver.equal_at().is_some_and(fresh)
    }

    /// The seal: for the workers' [`Seal::sealer`]s.
    pub const fn seal_mut(&mut self) -> &mut Seal {
        &mut self.seal
    }

    // Packets that cross.

    /// Takes a packet to be sent, as soon as there is room in a datagram.
    ///
    /// # Errors
    /// Gives it back: there is no room now.
    pub fn send_frame(&mut self, frame: Box<FrameBuf>) -> Result<(), Box<FrameBuf>> {
        self.outbox.push(frame)
    }

    /// Is there room for [`Self::send_frame`]?
    #[must_use]
    pub fn has_room_for_frames(&self) -> bool {
        self.outbox.has_room()
    }

    /// A buffer of [`Self::send_frame`] that is free again.
    pub fn take_spent(&mut self) -> Option<Box<FrameBuf>> {
        self.outbox.take_spent()
    }

    /// The next packet that the peer sent; its buffer is to come back by [`Self::give_back`].
    pub fn poll_frame(&mut self) -> Option<Box<FrameBuf>> {
        self.inbox.as_mut()?.pop()
    }

    /// A buffer of [`Self::poll_frame`] comes back.
    pub fn give_back(&mut self, buffer: Box<FrameBuf>) {
        if let Some(inbox) = &mut self.inbox {
            inbox.give_back(buffer);
        }
    }

    /// A packet of [`Self::poll_frame`] found no room at its worker.
    pub fn lose_frame(&mut self, buffer: Box<FrameBuf>) {
        if let Some(inbox) = &mut self.inbox {
            inbox.lose(buffer);
        }
    }

    /// `[ha] redirect_rate` from now on.
    pub fn set_redirect_rate(&mut self, rate: u32) {
        if let Some(inbox) = &mut self.inbox {
            inbox.set_rate(rate);
        }
    }

    /// May packets cross: do both nodes forward, and understand each other?
    const fn crosses(&self) -> bool {
        self.inbox.is_some() && self.election.role().forwards()
    }

    // Time.

    /// When [`Self::handle_timeout`], or [`Self::poll_transmit`], has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Nanos {
        let heartbeats = self.ways.iter().map(|way| way.next_heartbeat);
        let stream = self.sender.next_timeout().into_iter();
        stream
            .chain(self.receiver.next_timeout())
            .chain(heartbeats)
            .fold(self.election.next_timeout(), Nanos::min)
    }

    /// Time goes on. What has arrived is to be handled first.
    pub fn handle_timeout(&mut self, now: Nanos) {
        self.election.tick(now);
        self.sender.tick(now);
        self.follow(now);
    }

    // What happened.

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.announce();
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Some((worker, handle)) = self.sender.take_told() {
            return Some(Event::Told { worker, handle });
        }
        if let Some((worker, handle)) = self.sender.take_again() {
            return Some(Event::Again { worker, handle });
        }
        if let Some(round) = self
            .sender
            .cut_wanted()
            .filter(|round| *round != self.announced.cut)
        {
            self.announced.cut = round;
            return Some(Event::Cut { round });
        }
        let (resync, buckets) = self.sender.walk()?;
        if self.announced.walk == Some(resync) {
            return None;
        }
        self.announced.walk = Some(resync);
        Some(Event::Walk {
            resync,
            buckets: *buckets,
        })
    }

    /// Puts what has changed into events, if there is room: else once there is.
    fn announce(&mut self) {
        let room = self.config.events - self.events.len();
        if room < RESERVE / 2 {
            return;
        }
        let equal = |own: u64, of: fn(&Heartbeat) -> u64| self.heard.as_ref().map(|heard| of(heard) == own);
        let now = Announced {
            role: self.election.role(),
            asked: self.election.asked(),
            starts: self.starts,
            sync: self.sender.is_up(),
            conversation: self.conversation,
            policy: equal(self.config.policy, |heard| heard.policy).or(self.announced.policy),
            layout: equal(self.config.layout, |heard| heard.layout).or(self.announced.layout),
            ..self.announced
        };
        let before = std::mem::replace(&mut self.announced, now);
        let is_over = !now.sync || now.conversation != before.conversation;
        let changed = [
            (now.starts != before.starts).then_some(Event::PeerStarted),
            now.policy
                .filter(|_| now.policy != before.policy)
                .map(|equal| Event::Policy { equal }),
            now.layout
                .filter(|_| now.layout != before.layout)
                .map(|equal| Event::Layout { equal }),
            (now.role != before.role).then_some(Event::Role {
                from: before.role,
                to: now.role,
                why: self.election.why(),
            }),
            (before.sync && is_over).then_some(Event::Sync { up: false }),
            (now.sync && (is_over || !before.sync)).then_some(Event::Sync { up: true }),
            (now.asked != before.asked).then_some(Event::AskWitness { ask: now.asked }),
        ];
        self.events.extend(changed.into_iter().flatten());
    }

    /// Brings the parts in line with each other after anything happened.
    fn follow(&mut self, now: Nanos) {
        self.follow_link(now);
        self.follow_role(now);
        let in_sync = self.in_sync(now);
        if in_sync != self.said.in_sync {
            self.election.set_in_sync(now, in_sync);
            self.follow_role(now);
            self.follow_link(now);
        }
        if let Some(since) = self.election.drains_since() {
            if self.sender.equal_since().is_some_and(|asked| asked >= since) {
                self.election.drained(now);
            } else {
                self.sender.want_barrier(now);
            }
        }
        self.say_news(now);
        self.announce();
    }

    /// Are there updates to be sent?
    fn follow_link(&mut self, now: Nanos) {
        let heard = self
            .ways
            .iter()
            .find(|way| way.path == Path::Link)
            .and_then(|way| way.heard);
        let is_heard = heard.is_some_and(|(at, _)| now.since(at) < self.config.sync_silence());
        let up = is_heard && self.seal.has_peer() && self.understands_peer();
        let owners = self.owners_now();
        if up && (!self.sender.is_up() || owners != self.owners) {
            // What was told when the sessions were somebody else's, or did not want to hear of them, counts no more.
            self.sender.start(now);
            self.conversation += 1;
            self.owners = owners;
        } else if !up && self.sender.is_up() {
            self.sender.stop();
        }
        if !up {
            self.receiver.doubt();
        }
    }

    /// Whose the sessions are, to this node and to its peer; and the peer's lead beside this one's, of which this node may have heard
    /// only when it was over: meanwhile the peer took nothing in.
    fn owners_now(&self) -> ([Owner; 2], Lead) {
        let own = Owner::by(self.election.role());
        let Some(heard) = &self.heard else {
            return ([own, Owner::Peer], Lead(0));
        };
        let beside = own != Owner::Peer && heard.lead > self.election.lead();
        let lead = if beside { heard.lead } else { Lead(0) };
        ([own, Owner::by(heard.role)], lead)
    }

    /// Has the peer the same layout, as far as is known?
    fn understands_peer(&self) -> bool {
        self.heard
            .as_ref()
            .is_some_and(|heard| heard.layout == self.config.layout)
    }

    fn follow_role(&mut self, now: Nanos) {
        let (role, alive) = (self.election.role(), self.election.peer_alive());
        if Owner::by(self.role_before) != Owner::Peer && Owner::by(role) == Owner::Peer {
            // Its sessions are the peer's now. Which of them the peer has it must say: no digest knows of those that it never told.
            self.receiver.distrust();
            self.resync_in = None;
        }
        if role != self.role_before || alive && !self.alive_before {
            self.sender.want_barrier(now);
        }
        (self.role_before, self.alive_before) = (role, alive);
    }

    /// What is new in this node's heartbeats is said at once.
    fn say_news(&mut self, now: Nanos) {
        let before = (
            self.said.role,
            self.said.yields,
            self.said.asks_to_lead,
            self.said.healthy,
            self.said.in_sync,
        );
        self.election.say(&mut self.said);
        self.said.policy = self.config.policy;
        self.said.layout = self.config.layout;
        self.said.version = self.config.version;
        let after = (
            self.said.role,
            self.said.yields,
            self.said.asks_to_lead,
            self.said.healthy,
            self.said.in_sync,
        );
        if before != after {
            self.heartbeats_due(now);
        }
    }

    fn heartbeats_due(&mut self, now: Nanos) {
        for way in &mut self.ways {
            way.next_heartbeat = now;
        }
    }

    /// How everything is.
    #[must_use]
    pub fn status(&self, now: Nanos) -> Status {
        let dead_time = self.config.election.dead_time();
        let recent = |at: Nanos| now.since(at) < dead_time;
        let peer = self.heard.as_ref().map(|heard| PeerStatus {
            alive: self.election.peer_alive(),
            role: heard.role,
            healthy: heard.healthy,
            in_sync: heard.in_sync,
            priority: heard.priority,
            version: heard.version,
            policy_equal: heard.policy == self.config.policy,
            layout_equal: heard.layout == self.config.layout,
        });
        let path = |way: &Way| PathStatus {
            path: way.path,
            heard_ago: way.heard.map(|(at, _)| now.since(at)),
            heard_by_peer: way.heard_by_peer.is_some_and(recent),
            round_trip: way.round_trip,
        };
        Status {
            role: self.election.role(),
            why: self.election.why(),
            lead: self.election.lead(),
            healthy: self.healthy,
            hands_over: self.election.drains_since().is_some() || self.said.yields,
            version: peer.map_or(self.config.version, |peer| peer.version.min(self.config.version)),
            peer,
            peer_policy: self.heard.as_ref().map(|heard| heard.policy),
            peer_layout: self.heard.as_ref().map(|heard| heard.layout),
            paths: self.ways.iter().map(path).collect(),
            sync_up: self.sender.is_up(),
            in_sync: self.in_sync(now),
            peer_in_sync: self.sender.is_up() && self.sender.equal_since().is_some(),
            resync: self.sender.progress(),
            resync_in: self.resync_in.map(|resync| {
                let done = self.counters.updates - resync.updates;
                (done, resync.sessions.max(done))
            }),
            held: self.sender.held(),
            ack_time: self.sender.round_trip(),
            events: self.events.len(),
            counters: self.counters,
            seal: *self.seal.counters(),
            sender: *self.sender.counters(),
            receiver: *self.receiver.counters(),
            frames_out: *self.outbox.counters(),
            frames_in: self
                .inbox
                .as_ref()
                .map(|inbox| *inbox.counters())
                .unwrap_or_default(),
        }
    }
}

/// Room for frames in a datagram.
const fn plaintext(datagram: usize) -> usize {
    datagram.saturating_sub(seal::OVERHEAD)
}
