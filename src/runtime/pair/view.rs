//! What `show ha` shows, from what the protocol says of itself.

use crate::base::{Nanos, WorkerId};
use crate::config::{Ha, HaMode};
use crate::control::node::{
    ErrorKind, HaDigest, HaPath, HaPeer, HaRedirect, HaRole, HaStatus, HaSync, HaWish, HaWitness, NodeError,
    SyncState,
};
use crate::engine::DropReason;
use crate::ha::dispatch::DispatchCounters;
use crate::ha::election::SwitchRefused;
use crate::ha::peer::Status;
use crate::ha::seal::Refused;
use crate::ha::{Path, Role};
use crate::runtime::command::WorkerLink;
use crate::runtime::stats::Counts;

/// What the view needs to know besides.
pub(super) struct Viewer {
    ha: Ha,
    policy: u64,
    layout: u64,
    pub(super) wish: Option<HaWish>,
    role_since: Nanos,
    takeovers: u64,
    /// Has the witness answered the last question?
    witness: Option<bool>,
    witness_heard: Option<Nanos>,
    proved: Option<Nanos>,
    equal: u64,
}

impl Viewer {
    pub(super) const fn new(ha: Ha, policy: u64, layout: u64, now: Nanos) -> Self {
        Self {
            ha,
            policy,
            layout,
            wish: None,
            role_since: now,
            takeovers: 0,
            witness: None,
            witness_heard: None,
            proved: None,
            equal: 0,
        }
    }

    pub(super) const fn applied(&mut self, policy: u64, priority: u8) {
        self.policy = policy;
        self.ha.priority = priority;
    }

    pub(super) const fn role_changed(&mut self, now: Nanos, from: Role, to: Role) {
        self.role_since = now;
        if to.forwards() && !from.forwards() {
            self.takeovers += 1;
        }
    }

    pub(super) fn witness_asked(&mut self) {
        self.witness = Some(false);
    }

    pub(super) fn witness_answered(&mut self, now: Nanos) {
        self.witness = Some(true);
        self.witness_heard = Some(now);
    }

    /// The view at a moment; `down`: tracked ports without a link.
    pub(super) fn view(
        &mut self,
        now: Nanos,
        status: &Status,
        stalled: &[WorkerId],
        down: Vec<String>,
        (counters, unsent): (&DispatchCounters, u64),
        workers: &[WorkerLink],
    ) -> HaStatus {
        let equal = status.sender.equal + status.receiver.equal;
        if equal != self.equal {
            self.equal = equal;
            self.proved = Some(now);
        }
        let is_in_sync = match status.role {
            Role::Leader | Role::Isolated => status.peer_in_sync,
            Role::Waiting | Role::Standby => status.in_sync,
            Role::Active => status.peer_in_sync && status.in_sync,
        };
        let mut total = Counts::default();
        for worker in workers {
            total.add(&worker.stats().read().0);
        }
        let peer = status.peer;
        let is_alive = peer.is_some_and(|peer| peer.alive);
        let state = match peer {
            _ if !is_alive => SyncState::NoPeer,
            Some(peer) if !peer.layout_equal => SyncState::Incompatible,
            _ if status.resync.is_some() || status.resync_in.is_some() => SyncState::Resync,
            _ if is_in_sync => SyncState::InSync,
            _ => SyncState::CatchingUp,
        };
        let (resync_done, resync_of) = status.resync.or(status.resync_in).unwrap_or_default();
        let mut counted: std::collections::BTreeMap<String, u64> = Refused::ALL
            .iter()
            .zip(status.seal.refused)
            .map(|(kind, count)| (kind.name().to_owned(), count))
            .collect();
        let of_peer = &status.counters;
        for (name, count) in [
            ("unreadable", of_peer.unreadable),
            ("unknown_path", of_peer.unknown_path),
            ("invalid_session", of_peer.invalid_updates),
            ("misplaced", of_peer.misplaced),
            ("no_room", of_peer.no_room),
            ("unwanted", counters.unwanted),
            ("not_sent", unsent),
        ] {
            counted.insert(name.to_owned(), count);
        }
        counted.retain(|_, count| *count > 0);
        let reasons = self.reasons(status, state, stalled, &down);
        HaStatus {
            mode: match self.ha.mode {
                HaMode::ActiveStandby => "active-standby",
                HaMode::ActiveActive => "active-active",
            }
            .to_owned(),
            node_id: self.ha.node_id,
            role: status.role.into(),
            role_s: seconds(now.since(self.role_since)),
            takeovers: self.takeovers,
            priority: self.ha.priority,
            able: status.healthy,
            wish: self.wish.clone(),
            peer: HaPeer {
                node_id: 3 - self.ha.node_id.clamp(1, 2),
                alive: is_alive,
                role: peer.map(|peer| peer.role.into()),
                priority: peer.map(|peer| peer.priority),
                able: peer.map(|peer| peer.healthy),
                version: peer.map(|peer| peer.version),
                paths: status.paths.iter().map(path).collect(),
            },
            witness: self.ha.witness.map(|address| HaWitness {
                address: address.to_string(),
                answers: self.witness,
                heard_ms: self.witness_heard.map(|at| milliseconds(now.since(at))),
            }),
            policy: HaDigest::new(self.policy, status.peer_policy),
            layout: HaDigest::new(self.layout, status.peer_layout),
            sync: HaSync {
                state,
                proved_s: self.proved.map(|at| seconds(now.since(at))),
                replicas: match status.role {
                    Role::Waiting | Role::Standby => total.sessions,
                    Role::Leader | Role::Isolated => 0,
                    // About: those that this node adopted from a peer that died are its own.
                    Role::Active => total
                        .sessions_synced_in
                        .saturating_sub(total.sessions_synced_out)
                        .min(total.sessions),
                },
                waiting: status.held as u64,
                resync_done,
                resync_of,
                resyncs: status.sender.resyncs,
                sessions_sent: status.sender.sent.saturating_sub(counters.gone_sent),
                sessions_received: of_peer.updates.saturating_sub(counters.gone_received),
                gone_sent: counters.gone_sent,
                gone_received: counters.gone_received,
                sessions_resent: status.sender.again,
                sessions_refused: total.sync_refused,
                datagrams_sent: of_peer.sent,
                datagrams_received: of_peer.received,
            },
            redirect: (self.ha.mode == HaMode::ActiveActive).then(|| self.redirect(status, &total)),
            deferred: total.deferred,
            deferred_late: total.deferred_late,
            refused: counted,
            ..HaStatus::default()
        }
        .with_reasons(reasons)
    }

    fn redirect(&self, status: &Status, total: &Counts) -> HaRedirect {
        let taken = &status.frames_in;
        HaRedirect {
            rate: u64::from(self.ha.redirect_rate.0),
            redirected_out: total.redirected_out,
            returned: total.returned,
            redirected_in: total.redirected_in,
            given_back: total.given_back,
            limited: total.drops[DropReason::RedirectLimit.index()],
            refused: taken.refused,
            lost: taken.no_room + taken.unjoined + taken.invalid + status.frames_out.given_up,
        }
    }

    /// Why the pair could not take the loss of a node now, the worst first.
    fn reasons(
        &self,
        status: &Status,
        state: SyncState,
        stalled: &[WorkerId],
        down: &[String],
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        match status.role {
            Role::Isolated => reasons.push(format!("this node forwards nothing: {}", status.why.text())),
            Role::Waiting => reasons.push("this node does not know yet what it is".to_owned()),
            _ => {}
        }
        for worker in stalled {
            reasons.push(format!("worker {} does not turn", worker.0));
        }
        for port in down {
            reasons.push(format!("port {port} has no link"));
        }
        let Some(peer) = status.peer.filter(|peer| peer.alive) else {
            reasons.push("the peer is not heard".to_owned());
            return reasons;
        };
        if !peer.healthy {
            reasons.push("the peer cannot lead".to_owned());
        }
        if peer.role.forwards() == status.role.forwards() && self.ha.mode == HaMode::ActiveStandby {
            reasons.push(
                if peer.role.forwards() {
                    "both nodes lead"
                } else {
                    "no node leads"
                }
                .to_owned(),
            );
        }
        if !peer.layout_equal {
            reasons.push("the nodes differ in mode, ports or session scope".to_owned());
        } else if state != SyncState::InSync {
            reasons.push(format!("the sessions are not in sync: {}", state.words()));
        }
        if !peer.policy_equal {
            reasons.push("the nodes have different policies".to_owned());
        }
        if self.ha.mode == HaMode::ActiveActive && status.role != Role::Active {
            reasons.push(format!(
                "this node is {}, not active",
                HaRole::from(status.role).name()
            ));
        }
        for path in status.paths.iter().filter(|path| !path.heard_by_peer) {
            reasons.push(format!("the peer does not hear this node by {}", name(path.path)));
        }
        reasons
    }
}

fn name(path: Path) -> String {
    match path {
        Path::Link => "link".to_owned(),
        Path::Second => "second_link".to_owned(),
        Path::Port(port) => format!("port {port}"),
    }
}

fn path(path: &crate::ha::peer::PathStatus) -> HaPath {
    HaPath {
        name: name(path.path),
        heard_ms: path.heard_ago.map(milliseconds),
        rtt_us: path.round_trip.map(|time| time.0 as f64 / 1e3),
    }
}

fn seconds(time: Nanos) -> f64 {
    time.0 as f64 / 1e9
}

fn milliseconds(time: Nanos) -> f64 {
    time.0 as f64 / 1e6
}

/// Why there is no change of lead.
#[allow(clippy::needless_pass_by_value, reason = "it is mapped over errors")]
pub(super) fn refused(why: SwitchRefused) -> NodeError {
    NodeError::new(ErrorKind::Refused, format!("the lead stays where it is: {why}"))
        .fix("see `haechi show ha`")
}

/// The HA thread did not answer.
pub(super) fn no_answer() -> NodeError {
    NodeError::new(ErrorKind::Unavailable, "the HA thread does not answer")
}
