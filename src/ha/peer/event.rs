//! What a node is told by its [`super::Peer`].

use crate::flow::image::{BUCKETS, BucketSet};
use crate::ha::election::Why;
use crate::ha::message::{Role, Update};

/// Something that the node has to act on. They come in the order in which they happened, but for [`Self::Told`],
/// [`Self::Again`], [`Self::Cut`] and [`Self::Walk`], which come behind all others, in this order.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "it travels in queues that allocate nothing"
)]
pub enum Event {
    /// The node is something else from now on. A leader adopts its peer's sessions; who leads no more leaves its own to the peer.
    Role {
        /// What it was when it was last told.
        from: Role,
        /// What it is.
        to: Role,
        /// Why.
        why: Why,
    },
    /// The witness is to be asked; its answer goes to [`super::Peer::witness_answered`] with this number.
    AskWitness {
        /// Which question.
        ask: u32,
    },
    /// The peer's process is another one, or the first that is heard of: what is known of its sessions comes from an earlier one.
    PeerStarted,
    /// Whether updates can be sent ([`super::Peer::offer`]). When they can, a resync of everything follows ([`Self::Walk`]); while they
    /// cannot, nothing need be remembered for the peer. When sessions have come to be the other node's, by the role of either, all is
    /// told anew: they cannot, and can at once.
    Sync {
        /// They can.
        up: bool,
    },
    /// The peer's policy is the same, or not.
    Policy {
        /// It is.
        equal: bool,
    },
    /// The peer's ports, mode and session scope are the same, or not; if not, sessions mean nothing to it, and none are sent or taken.
    Layout {
        /// They are.
        equal: bool,
    },
    /// News of a session of the peer's.
    Update(Update),
    /// The peer is about to tell of all its sessions in these buckets. Replicas of them that are not named until
    /// [`Self::ResyncEnd`] are to be ended then.
    ResyncBegin {
        /// Which resync.
        resync: u32,
        /// Of which buckets.
        buckets: BucketSet,
        /// How many sessions will come, about.
        sessions: u64,
    },
    /// See [`Self::ResyncBegin`].
    ResyncEnd {
        /// Which resync.
        resync: u32,
    },
    /// The sums of the replicas by bucket, as they are when all updates before this are taken in, are wanted:
    /// [`super::Peer::answer_digests`].
    Digests {
        /// Which barrier.
        barrier: u64,
    },
    /// What was told of this session got lost: it is to be told again as it is now, if it still is.
    Again {
        /// As it was offered.
        worker: u16,
        /// As it was offered.
        handle: u64,
    },
    /// The peer has what it was told of this session, which was offered as [`awaited`](crate::ha::Outgoing::awaited).
    Told {
        /// As it was offered.
        worker: u16,
        /// As it was offered.
        handle: u64,
    },
    /// A consistent cut is wanted: each worker offers what its journal holds now, then says the sums by bucket of its own sessions as
    /// last offered, and none of its later updates is offered before [`super::Peer::cut`].
    Cut {
        /// Which one.
        round: u64,
    },
    /// All of the node's own sessions in these buckets are to be offered, as [`super::Peer::take_allowance`] allows; then
    /// [`super::Peer::walked`].
    Walk {
        /// Which resync.
        resync: u32,
        /// Of which buckets.
        buckets: BucketSet,
    },
}

/// Sums of digests by bucket, modulo 2^64.
pub type Sums = [u64; BUCKETS];
