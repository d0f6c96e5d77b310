//! What `show ha` shows of the protocol.

use crate::base::Nanos;
use crate::ha::election::Why;
use crate::ha::frames::{InboxCounters, OutboxCounters};
use crate::ha::message::{Lead, Path, Role};
use crate::ha::seal::SealCounters;
use crate::ha::stream::{ReceiverCounters, SenderCounters};

/// What was counted of datagrams and messages, beside what the seal and the streams count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Datagrams that were given to the socket,
    pub sent: u64,
    /// and that came from it.
    pub received: u64,
    /// Datagrams by a way that the configuration does not have.
    pub unknown_path: u64,
    /// Datagrams of the peer's that cannot be read.
    pub unreadable: u64,
    /// Messages of a kind that this version does not know.
    pub unknown_frames: u64,
    /// Messages with values that this version does not know.
    pub invalid_frames: u64,
    /// Sessions that cannot be.
    pub invalid_updates: u64,
    /// Frames of updates by a way, or of a thread, that carries none, or from a peer of another layout.
    pub misplaced: u64,
    /// Frames that were not taken in for want of room.
    pub no_room: u64,
    /// Heartbeats sent,
    pub heartbeats_sent: u64,
    /// heard,
    pub heartbeats_heard: u64,
    /// and overtaken by a later one.
    pub heartbeats_late: u64,
    /// Updates taken in.
    pub updates: u64,
    /// Times that the peer's process was another one.
    pub peer_starts: u64,
    /// Times that datagrams could not be sealed.
    pub unsealed: u64,
}

/// One way between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// Which one.
    pub path: Path,
    /// The time since the peer was heard by it.
    pub heard_ago: Option<Nanos>,
    /// Does the peer hear this node by it?
    pub heard_by_peer: bool,
    /// There and back, without the time that an answer waited.
    pub round_trip: Option<Nanos>,
}

/// How the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Heard within the dead time?
    pub alive: bool,
    /// What it last said to be.
    pub role: Role,
    /// Could it lead?
    pub healthy: bool,
    /// Does it have all of this node's sessions?
    pub in_sync: bool,
    /// Its priority.
    pub priority: u8,
    /// The version of the protocol that it speaks at most.
    pub version: u16,
    /// Its policy is the same.
    pub policy_equal: bool,
    /// Its ports, mode and session scope are the same.
    pub layout_equal: bool,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// What this node is.
    pub role: Role,
    /// Why.
    pub why: Why,
    /// Its lead, or its last one.
    pub lead: Lead,
    /// It could lead.
    pub healthy: bool,
    /// It is giving its lead up by plan.
    pub hands_over: bool,
    /// The peer, once it was heard.
    pub peer: Option<PeerStatus>,
    /// Its digest of its policy.
    pub peer_policy: Option<u64>,
    /// Its digest of its layout.
    pub peer_layout: Option<u64>,
    /// The version that both speak.
    pub version: u16,
    /// By path.
    pub paths: Vec<PathStatus>,
    /// Updates can be sent.
    pub sync_up: bool,
    /// This node has all of its peer's sessions.
    pub in_sync: bool,
    /// The peer was last found to have all of this node's.
    pub peer_in_sync: bool,
    /// Sessions walked and to be walked, about, of a resync under way of this node's sessions.
    pub resync: Option<(u64, u64)>,
    /// Sessions taken in and to come, about, of a resync under way of the peer's sessions.
    pub resync_in: Option<(u64, u64)>,
    /// Updates held: in flight, to be asked for again, not sent yet.
    pub held: usize,
    /// How long an acknowledgement takes.
    pub ack_time: Option<Nanos>,
    /// Events that wait to be taken.
    pub events: usize,
    /// What was counted.
    pub counters: PeerCounters,
    /// Of the seal: datagrams refused by kind, among others.
    pub seal: SealCounters,
    /// Of updates sent.
    pub sender: SenderCounters,
    /// Of updates received.
    pub receiver: ReceiverCounters,
    /// Of packets that were sent to the peer.
    pub frames_out: OutboxCounters,
    /// Of those that came.
    pub frames_in: InboxCounters,
}
