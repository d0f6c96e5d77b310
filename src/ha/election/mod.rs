//! Which node of the pair leads: a machine that is told what was heard and what time it is, and says what the node is.
//!
//! | the peer | this node | becomes |
//! | --- | --- | --- |
//! | never heard for `alone_after` | waiting | leader |
//! | leads | waiting, standby, isolated | standby; leader if the peer yields, or cannot lead while this one can |
//! | heard, leads not | waiting, standby, isolated | leader if this one ranks higher, else standby |
//! | heard, leads too | leader | the one that is healthy, of higher priority, of the lower id stays; the other is standby |
//! | silent | standby | leader |
//! | silent, the witness too | leader, active | isolated |
//!
//! With a witness nobody comes to lead in silence unless it has answered since the silence set in. Who ranks higher where nobody
//! leads: who can lead, then who has the sessions of the later lead, then priority, then the lower node id. So a leader that restarts
//! faster than it is missed does not lead again with an empty table.
//!
//! Active-active has the same machine: a standby that is in sync becomes active beside the leader, which then calls itself active,
//! too; a leader there is a node that has taken over all of its peer's sessions.

use std::cmp::Reverse;

mod config;
mod plan;
mod why;

pub use config::ElectionConfig;
pub use plan::{ASK_LIMIT, DRAIN_LIMIT, YIELD_LIMIT};
pub use why::{SwitchRefused, Why};

use super::message::{Heartbeat, Lead, NodeId, Role};
use crate::base::Nanos;
use plan::Handover;

/// What was last heard of the peer.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Which of its starts said it.
    start: u64,
    sent: Nanos,
    role: Role,
    lead: Lead,
    priority: u8,
    node: NodeId,
    healthy: bool,
    in_sync: bool,
    yields: bool,
    asks: bool,
    /// Since when it has said that it cannot lead.
    unhealthy_since: Option<Nanos>,
}

/// Questions to the witness.
#[derive(Clone, Copy, Debug, Default)]
struct Witness {
    /// How many were put.
    asked: u32,
    /// How many before the present silence.
    before: u32,
    /// The next one.
    next: Nanos,
    /// The last answer to one of this silence.
    answered: Option<Nanos>,
}

/// Older questions than this many do not count as answered.
const STALE_QUESTIONS: u32 = 20;

/// The machine. Every input ends with the role that follows from it; [`Self::tick`] is due at [`Self::next_timeout`], every
/// heartbeat at least.
#[derive(Clone, Debug)]
pub struct Election {
    config: ElectionConfig,
    role: Role,
    why: Why,
    lead: Lead,
    healthy: bool,
    /// It was unhealthy before: active-active does not let it come and go at once.
    healthy_since: Option<Nanos>,
    leaving: bool,
    in_sync: bool,
    peer: Option<Seen>,
    alive: bool,
    last_heard: Nanos,
    /// When the peer last said to have heard this node.
    heard_by_peer: Option<Nanos>,
    /// No peer since; of no meaning while it is alive.
    silent_since: Nanos,
    /// Both lead since.
    conflict_since: Option<Nanos>,
    witness: Witness,
    handover: Handover,
    /// No planned change before.
    handover_not_before: Nanos,
    /// The operator wants this node to lead, until.
    ask_until: Option<Nanos>,
    /// All that `preempt` wants is given since.
    preempt_since: Option<Nanos>,
    /// It gave its lead up by plan: it does not take it back of its own accord.
    parked: bool,
    started: Nanos,
    last_input: Nanos,
    /// Silence is given one heartbeat more, once, after this node did not run.
    excused: bool,
    /// Until then a node that did not run only listens: what waits in its sockets is older than it looks.
    resume_at: Nanos,
}

impl Role {
    /// Does a node of this role forward packets?
    #[must_use]
    pub const fn forwards(self) -> bool {
        matches!(self, Self::Leader | Self::Active)
    }
}

impl Election {
    /// A node that starts now.
    #[must_use]
    pub fn new(config: ElectionConfig, now: Nanos) -> Self {
        Self {
            config,
            role: Role::Waiting,
            why: Why::Started,
            lead: Lead(0),
            healthy: true,
            healthy_since: None,
            leaving: false,
            in_sync: false,
            peer: None,
            alive: false,
            last_heard: now,
            heard_by_peer: None,
            silent_since: now,
            conflict_since: None,
            witness: Witness::default(),
            handover: Handover::None,
            handover_not_before: Nanos(0),
            ask_until: None,
            preempt_since: None,
            parked: false,
            started: now,
            last_input: now,
            excused: false,
            resume_at: now,
        }
    }

    /// What the node is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Why it is.
    #[must_use]
    pub const fn why(&self) -> Why {
        self.why
    }

    /// Its lead, its last one, or that whose sessions it has.
    #[must_use]
    pub const fn lead(&self) -> Lead {
        self.lead
    }

    /// Was the peer heard within the dead time?
    #[must_use]
    pub const fn peer_alive(&self) -> bool {
        self.alive
    }

    /// What the peer last said to be, while it is alive.
    #[must_use]
    pub fn peer_role(&self) -> Option<Role> {
        self.present().map(|peer| peer.role)
    }

    /// Questions put to the witness so far: one more, and another is to be asked, with this number.
    #[must_use]
    pub const fn asked(&self) -> u32 {
        self.witness.asked
    }

    /// Fills in what this node's heartbeats say of it.
    pub fn say(&self, heartbeat: &mut Heartbeat) {
        heartbeat.node = self.config.node;
        heartbeat.role = self.role;
        heartbeat.lead = self.lead;
        heartbeat.priority = self.config.priority;
        // A leader that stops is healthy until the peer has everything: else the peer would take the lead at once.
        heartbeat.healthy = self.healthy && (!self.leaving || self.role.forwards());
        heartbeat.in_sync = self.in_sync;
        heartbeat.yields = matches!(self.handover, Handover::Yielding { .. });
        heartbeat.asks_to_lead = self.asks();
    }

    /// The peer's process `start` was heard by some path; its first start that is heard, and every other, has a higher number than
    /// the one before. Heartbeats that are not later than the last one (`sent`) change nothing.
    pub fn heard(&mut self, now: Nanos, start: u64, heartbeat: &Heartbeat) {
        self.run_again(now);
        let before = self.peer;
        let is_old = before.is_some_and(|seen| (start, heartbeat.sent) <= (seen.start, seen.sent));
        if is_old || heartbeat.node == self.config.node {
            self.decide(now);
            return;
        }
        let restarted = before.is_some_and(|seen| seen.start != start);
        if restarted {
            self.parked = false;
            self.handover = Handover::None;
            self.heard_by_peer = None;
            self.in_sync = false;
        }
        let unhealthy_since = before
            .filter(|_| !restarted)
            .and_then(|seen| seen.unhealthy_since);
        self.peer = Some(Seen {
            start,
            sent: heartbeat.sent,
            role: heartbeat.role,
            lead: heartbeat.lead,
            priority: heartbeat.priority,
            node: heartbeat.node,
            healthy: heartbeat.healthy,
            in_sync: heartbeat.in_sync,
            yields: heartbeat.yields,
            asks: heartbeat.asks_to_lead,
            unhealthy_since: (!heartbeat.healthy).then(|| unhealthy_since.unwrap_or(now)),
        });
        if heartbeat.heard.0 != 0 {
            self.heard_by_peer = Some(now);
        }
        self.last_heard = now;
        self.alive = true;
        self.excused = false;
        self.decide(now);
    }

    /// Time goes on.
    pub fn tick(&mut self, now: Nanos) {
        self.run_again(now);
        self.decide(now);
    }

    /// The witness answered question `ask` (see [`Self::asked`]).
    pub fn witness_answered(&mut self, now: Nanos, ask: u32) {
        self.run_again(now);
        let age = self.witness.asked.wrapping_sub(ask);
        let of_this_silence = self.witness.asked.wrapping_sub(self.witness.before);
        if !self.alive && age < of_this_silence.min(STALE_QUESTIONS) {
            self.witness.answered = Some(now);
        }
        self.decide(now);
    }

    /// Can this node lead: do its tracked ports have a link, do its workers turn?
    pub fn set_health(&mut self, now: Nanos, healthy: bool) {
        self.run_again(now);
        if healthy && !self.healthy {
            self.healthy_since = Some(now);
        }
        self.healthy = healthy;
        self.decide(now);
    }

    /// `[ha] priority` from now on.
    pub fn set_priority(&mut self, now: Nanos, priority: u8) {
        self.run_again(now);
        self.config.priority = priority;
        self.decide(now);
    }

    /// Has this node all of its peer's sessions?
    pub fn set_in_sync(&mut self, now: Nanos, in_sync: bool) {
        self.run_again(now);
        self.in_sync = in_sync;
        self.decide(now);
    }

    /// When [`Self::tick`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Nanos {
        // What was due at the last input has been seen to.
        let due = self
            .deadlines()
            .into_iter()
            .flatten()
            .filter(|at| *at > self.last_input);
        due.fold(self.last_input.plus(self.config.heartbeat), Nanos::min)
    }

    fn deadlines(&self) -> [Option<Nanos>; 11] {
        let config = &self.config;
        let present = self.present();
        [
            self.alive.then(|| self.last_heard.plus(config.dead_time())),
            (self.role == Role::Waiting).then(|| self.started.plus(config.alone_after)),
            self.wants_witness().then_some(self.witness.next),
            (!self.alive && self.role.forwards()).then(|| self.witness_deadline()),
            self.conflict_since.map(|since| since.plus(config.dead_time())),
            match self.handover {
                Handover::None => None,
                Handover::Draining { since } => Some(since.plus(DRAIN_LIMIT)),
                Handover::Yielding { since } => Some(since.plus(YIELD_LIMIT)),
            },
            self.preempt_since
                .zip(config.preempt)
                .map(|(since, delay)| since.plus(delay)),
            self.ask_until,
            present
                .and_then(|peer| peer.unhealthy_since)
                .map(|since| since.plus(config.alone_after)),
            self.healthy_since.map(|since| since.plus(config.alone_after)),
            Some(self.resume_at),
        ]
    }

    /// The peer, while it is alive.
    fn present(&self) -> Option<&Seen> {
        self.peer.as_ref().filter(|_| self.alive)
    }

    /// Takes the time. A node that was itself stopped has heard nothing, and concludes nothing from it; who knows what the peer did
    /// meanwhile.
    fn run_again(&mut self, now: Nanos) {
        let dead_time = self.config.dead_time();
        let gap = now.since(self.last_input);
        self.last_input = self.last_input.max(now);
        if !self.alive || gap < dead_time.plus(self.config.heartbeat) {
            return;
        }
        if !self.excused {
            self.excused = true;
            self.resume_at = now.plus(self.config.heartbeat);
            self.last_heard = Nanos(self.resume_at.0.saturating_sub(dead_time.0));
        }
        if self.role.forwards() {
            self.turn_into(Role::Standby, Why::Stalled);
        }
    }

    /// Follows from what is known, until nothing changes any more: two steps at most.
    fn decide(&mut self, now: Nanos) {
        self.notice_silence(now);
        self.note_lead();
        for _ in 0..4 {
            self.watch_conflict(now);
            let (role, why) = self.step(now);
            if role == self.role {
                break;
            }
            self.turn_into(role, why);
        }
        self.hand_over(now);
        self.watch_preempt(now);
        self.put_questions(now);
    }

    fn notice_silence(&mut self, now: Nanos) {
        let dead_at = self.last_heard.plus(self.config.dead_time());
        if self.alive && now >= dead_at {
            self.alive = false;
            self.silent_since = dead_at;
            self.handover = Handover::None;
            self.ask_until = None;
            self.parked = false;
            self.heard_by_peer = None;
            self.witness.before = self.witness.asked;
            self.witness.answered = None;
            self.witness.next = now;
        }
    }

    /// A node in sync has the sessions of its peer's lead, and could go on with it as well as the leader itself.
    fn note_lead(&mut self) {
        let leader = self.present().filter(|peer| peer.role.forwards());
        if self.in_sync {
            self.lead = self.lead.max(lead_of(leader));
        }
    }

    fn watch_conflict(&mut self, now: Nanos) {
        let both = self.role == Role::Leader && self.peer_role() == Some(Role::Leader);
        self.conflict_since = both.then(|| self.conflict_since.unwrap_or(now));
    }

    /// What this node ought to be.
    fn step(&self, now: Nanos) -> (Role, Why) {
        match self.present() {
            Some(_) if now < self.resume_at => (self.role, self.why),
            Some(peer) if !self.role.forwards() => self.beside(now, peer),
            Some(peer) if self.config.active_active => self.active_beside(peer),
            Some(peer) if peer.role.forwards() => self.leading_beside(now, peer),
            Some(_) => (self.role, self.why),
            None => self.without_peer(now),
        }
    }

    /// A node that does not forward, and its living peer.
    fn beside(&self, now: Nanos, peer: &Seen) -> (Role, Why) {
        let fit = self.healthy && !self.leaving;
        if !peer.role.forwards() {
            return if !self.leaving && self.rank() > peer.rank() {
                (Role::Leader, Why::RanksHigher)
            } else {
                (Role::Standby, Why::PeerLeads)
            };
        }
        // Without its sessions a lead is worth less than one with a port down, for a while.
        let patient = peer
            .unhealthy_since
            .is_some_and(|since| now.since(since) < self.config.alone_after);
        if fit && peer.yields {
            (Role::Leader, Why::Yielded)
        } else if fit && !peer.healthy && (self.in_sync || !patient) {
            (Role::Leader, Why::PeerUnhealthy)
        } else if fit && self.config.active_active && self.in_sync && self.may_rejoin(now) {
            (Role::Active, Why::Both)
        } else {
            (Role::Standby, Why::PeerLeads)
        }
    }

    /// Active-active: a node comes back after it could not forward only once it could for a while.
    fn may_rejoin(&self, now: Nanos) -> bool {
        let settled = self
            .healthy_since
            .is_none_or(|since| now.since(since) >= self.config.alone_after);
        settled && !self.parked
    }

    /// Active-active: a node that forwards, and its living peer.
    fn active_beside(&self, peer: &Seen) -> (Role, Why) {
        let yields = matches!(self.handover, Handover::Yielding { .. });
        if !peer.role.forwards() {
            (Role::Leader, Why::PeerStopped)
        } else if peer.role == Role::Leader && yields {
            (Role::Standby, Why::GaveUp)
        } else if peer.role == Role::Leader && !self.healthy && peer.healthy {
            (Role::Standby, Why::Unhealthy)
        } else if self.healthy && !self.leaving && peer.yields {
            (Role::Leader, Why::Yielded)
        } else if self.healthy && !peer.healthy {
            (Role::Leader, Why::PeerUnhealthy)
        } else {
            (Role::Active, Why::Both)
        }
    }

    /// A leader, and its living peer that leads, too.
    fn leading_beside(&self, now: Nanos, peer: &Seen) -> (Role, Why) {
        if matches!(self.handover, Handover::Yielding { .. }) {
            (Role::Standby, Why::GaveUp)
        } else if peer.yields {
            (self.role, self.why)
        } else if self.loses(peer) {
            (Role::Standby, Why::LostToPeer)
        } else if self.is_unheard(now) {
            (Role::Standby, Why::PeerIsDeaf)
        } else {
            (self.role, self.why)
        }
    }

    /// Two leaders that meet: the healthy one stays, then the higher priority, then the lower node id.
    fn loses(&self, peer: &Seen) -> bool {
        let own = (self.healthy, self.config.priority, Reverse(self.config.node));
        own < (peer.healthy, peer.priority, Reverse(peer.node))
    }

    /// The peer leads, too, and has not heard this node for the dead time: it cannot step back, so this node does.
    fn is_unheard(&self, now: Nanos) -> bool {
        let dead_time = self.config.dead_time();
        let long = |since: Nanos| now.since(since) >= dead_time;
        self.conflict_since.is_some_and(long) && self.heard_by_peer.is_none_or(long)
    }

    /// No peer is alive.
    fn without_peer(&self, now: Nanos) -> (Role, Why) {
        let permitted = !self.config.witness || self.witness.answered.is_some();
        let forsaken = self.config.witness && now >= self.witness_deadline();
        match self.role {
            Role::Leader | Role::Active if forsaken => (Role::Isolated, Why::NoWitness),
            Role::Waiting if permitted && self.may_be_alone(now) => (Role::Leader, Why::Alone),
            Role::Active | Role::Isolated if permitted => (Role::Leader, Why::PeerSilent),
            Role::Standby if permitted && !self.leaving => (Role::Leader, Why::PeerSilent),
            role => (role, self.why),
        }
    }

    fn may_be_alone(&self, now: Nanos) -> bool {
        !self.leaving && now >= self.started.plus(self.config.alone_after)
    }

    fn witness_deadline(&self) -> Nanos {
        let since = self.silent_since.max(self.witness.answered.unwrap_or(Nanos(0)));
        since.plus(self.config.witness_wait())
    }

    fn rank(&self) -> (bool, Lead, u8, Reverse<NodeId>) {
        let healthy = self.healthy && !self.leaving;
        (
            healthy,
            self.lead,
            self.config.priority,
            Reverse(self.config.node),
        )
    }

    fn turn_into(&mut self, role: Role, why: Why) {
        let led = self.role.forwards();
        if role == Role::Leader && !led {
            self.lead = Lead(self.lead.max(lead_of(self.peer.as_ref())).0 + 1);
        }
        // What it led with is the peer's now, which has to say once more that both have the same.
        self.in_sync &= role.forwards() || !led;
        self.parked = why == Why::GaveUp || self.parked && !role.forwards();
        if !role.forwards() || why == Why::Yielded {
            self.handover = Handover::None;
        }
        if role.forwards() {
            self.ask_until = None;
        }
        self.role = role;
        self.why = why;
    }

    /// Is the witness's answer of use?
    fn wants_witness(&self) -> bool {
        self.config.witness
            && !self.alive
            && match self.role {
                Role::Waiting => self.last_input >= self.started.plus(self.config.alone_after),
                _ => true,
            }
    }

    fn put_questions(&mut self, now: Nanos) {
        if self.wants_witness() && now >= self.witness.next {
            self.witness.asked = self.witness.asked.wrapping_add(1);
            self.witness.next = now.plus(self.config.heartbeat);
        }
    }
}

impl Seen {
    fn rank(&self) -> (bool, Lead, u8, Reverse<NodeId>) {
        (self.healthy, self.lead, self.priority, Reverse(self.node))
    }
}

fn lead_of(peer: Option<&Seen>) -> Lead {
    peer.map_or(Lead(0), |peer| peer.lead)
}
