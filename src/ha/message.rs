//! What the nodes of a pair tell each other. A datagram carries one or more [`Frame`]s.

use crate::base::{Nanos, PortId};
use crate::flow::FlowKey;
use crate::flow::image::{Birth, Bucket, Image};
use crate::flow::station::Station;

/// `[ha] node_id`: 1 or 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u8);

/// A way between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// `[ha] link`.
    Link,
    /// `[ha] second_link`: heartbeats only.
    Second,
    /// A data port, by its place in the configuration: heartbeats only.
    Port(u16),
}

/// What a node is in its pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// It has just started, and does not know of its peer yet. It forwards nothing.
    #[default]
    Waiting = 0,
    /// The peer leads: it takes sessions in and drops every packet.
    Standby = 1,
    /// It forwards.
    Leader = 2,
    /// It led, and hears neither its peer nor the witness: it forwards nothing.
    Isolated = 3,
    /// Active-active: it forwards, and so may its peer.
    Active = 4,
}

/// When a lead began: a later one beats an earlier one of the same node, so that what an old heartbeat says is not taken for news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lead(pub u64);

/// How far one worker has come: a counter that moves as long as it turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Which worker.
    pub worker: u16,
    /// Its turns, modulo 2^32.
    pub turns: u32,
}

/// Sent over every path, every `heartbeat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heartbeat {
    /// Who sends it.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// Its lead, or its last one.
    pub lead: Lead,
    /// `[ha] priority`.
    pub priority: u8,
    /// It could lead: its tracked ports have a link, its workers turn, it is not stopping.
    pub healthy: bool,
    /// It has all of its peer's sessions, and the digests were equal.
    pub in_sync: bool,
    /// It gives its lead up to the peer: everything that it knew has been sent up to this sync number, and acknowledged.
    pub yields: bool,
    /// The operator wants the other node to lead (`haechi ha switchover`): asked of the leader by a standby.
    pub asks_to_lead: bool,
    /// Digest of the policy: rules, zones, timeouts, limits.
    pub policy: u64,
    /// Digest of what has to be equal if sessions are to be understood: mode, ports and pairs in their order, session scope. Nodes that
    /// differ in this do not synchronise.
    pub layout: u64,
    /// The sender's clock.
    pub sent: Nanos,
    /// What it thinks its peer's clock to be: `sent` of the last heartbeat that it heard by this path, and the time since. 0: it has
    /// heard none within the dead time. So the peer learns that it is heard, and of the round trip, however long the answer took.
    pub heard: Nanos,
    /// Workers that turn.
    pub progress: Vec<Progress>,
    /// The version of the protocol that the sender speaks at most.
    pub version: u16,
}

/// News of one session.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "it travels in queues that allocate nothing"
)]
pub enum Update {
    /// The session as it is now.
    Session(Image),
    /// The session of this birth has ended, or any earlier one of the flow.
    Gone {
        /// The flow.
        key: FlowKey,
        /// Which of its sessions.
        birth: Birth,
    },
    /// A host is behind a port.
    Station(Station),
}

/// What a node acknowledges of its peer's updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// The highest sync number that was taken in.
    pub highest: u64,
    /// Bit n: the number `highest - 1 - n` was taken in.
    pub before: u64,
}

/// What a node finds at a [`Frame::Barrier`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestReport {
    /// The barrier's number.
    pub barrier: u64,
    /// The buckets whose digests differ.
    pub differ: Vec<Bucket>,
}

/// Why a frame crosses to the other node of an active-active pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crossing {
    /// A packet that came in by the port and belongs to a session that the sender has from the receiver: the receiver is to judge it.
    Known,
    /// The same of a packet without a session, which may open none at the sender.
    #[default]
    Unknown,
    /// The other way: a fragment of a datagram whose session is the receiver's own. The receiver judges it as one of its own.
    SentBack,
    /// A packet that the receiver had sent, judged: it is to leave by the port.
    Return,
    /// A packet that the sender made in answer to one of those (RST, ICMP): it is to leave by the port.
    ReturnMade,
}

/// Which part of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The frame: the sender's count of frames in parts, modulo 2^32.
    pub id: u32,
    /// Where the part begins.
    pub offset: u16,
    /// Bytes of the frame.
    pub total: u16,
}

/// A frame, or a part of one, as it stands in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossed<'a> {
    /// What for.
    pub crossing: Crossing,
    /// The port, by its place in the configuration, which both nodes have alike.
    pub port: PortId,
    /// The sender's worker.
    pub worker: u16,
    /// `None`: the whole frame.
    pub part: Option<Part>,
    /// From the Ethernet header on.
    pub bytes: &'a [u8],
}

/// One message. Numbers are the sender's unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// I am here.
    Heartbeat(Heartbeat),
    /// News of sessions of the sender's; at most as many as one datagram holds. `number` grows by one with each frame of this kind. A
    /// receiver takes no frame in whose number is not above all before: what comes late counts as lost, and is sent again in its newest
    /// state under a new number. So a late message never moves a session backwards.
    Sync {
        /// The sync number.
        number: u64,
        /// What is new.
        updates: Vec<Update>,
    },
    /// Which sync numbers have been taken in.
    Ack(Ack),
    /// All sessions of these buckets follow, marked in no way: the receiver ends those of the sender's that it has not heard of when
    /// [`Frame::ResyncEnd`] comes. Takes a sync number, as all that follow do.
    ResyncBegin {
        /// The sync number.
        number: u64,
        /// Grows with each resync of a start of the sender's.
        resync: u32,
        /// Which buckets; empty: all.
        buckets: Vec<Bucket>,
        /// How many sessions there are to come, about.
        sessions: u64,
    },
    /// All sessions of the resync have been sent (and what got lost of them, again).
    ResyncEnd {
        /// The sync number.
        number: u64,
        /// Which resync.
        resync: u32,
    },
    /// The digests of the sender's sessions at this point of its updates, by bucket. A datagram does not hold all of them: a barrier is
    /// told in parts, in the order of the buckets; the part that reaches [`crate::flow::image::BUCKETS`] is the last.
    Barrier {
        /// The sync number, each part's own.
        number: u64,
        /// Which barrier.
        barrier: u64,
        /// The bucket of the first digest.
        first: Bucket,
        /// Of the buckets from `first`: sums, modulo 2^64, of the digests of single sessions.
        digests: Vec<u64>,
    },
    /// What the receiver of a barrier has to say to it.
    Digests(DigestReport),
    /// A packet of an active-active pair: [`Crossed`]. Takes no number, and is not sent again.
    Packet {
        /// What for.
        crossing: Crossing,
        /// See [`Crossed`].
        port: PortId,
        /// See [`Crossed`].
        worker: u16,
        /// See [`Crossed`].
        part: Option<Part>,
        /// See [`Crossed`].
        bytes: Vec<u8>,
    },
    /// A kind that this version does not know: counted, and passed over.
    Unknown {
        /// Its kind.
        kind: u16,
    },
}
