//! Session updates, one stream each way: in order, acknowledged, and what got lost sent again in its newest state. Never a log
//! that grows: of a datagram in flight the sender remembers which sessions it told of, not what it told.
//!
//! - `send`: numbers, the window, what is lost; resyncs and barriers
//! - `pace`: how long an acknowledgement takes, how much may be in flight
//! - `receive`: which numbers are taken in, acknowledgements, digests
//!
//! # What a number means
//!
//! A receiver takes a frame in only if its number is above all before. So an acknowledgement of a number is final for every lower
//! one: it was taken in, or it never will be. There is nothing to wait for, and a reordered datagram counts as a lost one.

mod pace;
mod receive;
mod send;

pub use receive::{Receiver, ReceiverCounters};
pub use send::{Sender, SenderCounters};

use super::message::Update;
use crate::base::Nanos;
use crate::flow::image::{Bucket, BucketSet};

/// An update on its way out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outgoing {
    /// The worker whose session it is.
    pub worker: u16,
    /// By this the worker finds the session again, if it is still the same one: slot and version.
    pub handle: u64,
    /// What the peer is told.
    pub update: Update,
    /// A packet waits until the peer has acknowledged it ([`Sender::take_told`]).
    pub awaited: bool,
}

/// How a stream is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Frames in flight at most.
    pub window: u32,
    /// Updates that wait to be sent at most.
    pub pending: usize,
    /// A datagram that is not full waits so long for more, while others are in flight.
    pub linger: Nanos,
    /// From one comparison of digests that were equal to the next.
    pub barrier_every: Nanos,
    /// `[ha] sync_rate`: sessions a second of a resync.
    pub sync_rate: u32,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            window: 1024,
            pending: 512,
            linger: Nanos(200_000),
            barrier_every: Nanos::SECOND,
            sync_rate: 200_000,
        }
    }
}

/// Updates in a frame at most: what a datagram of 1400 bytes holds of the shortest ones.
pub const ITEMS: usize = 32;
/// A receiver acknowledges every so many frames,
pub const ACK_EVERY: u32 = 16;
/// or so long after the first that it has not acknowledged.
pub const ACK_DELAY: Nanos = Nanos::from_millis(10);
/// After a comparison of digests that said nothing, because frames got lost, the next one.
pub const BARRIER_RETRY: Nanos = Nanos::from_millis(100);
/// A comparison that is not answered by then is given up.
pub const BARRIER_LIMIT: Nanos = Nanos::SECOND;
/// A resync ends after so many rounds of sending again what got lost, if every one of them lost something: what is missing then comes
/// all the same, and the comparison after it says so.
pub const SETTLE_ROUNDS: u32 = 8;

/// Buckets as [`super::Frame::ResyncBegin`] has them: none stands for all.
#[must_use]
pub fn listed(buckets: &BucketSet) -> Vec<Bucket> {
    if *buckets == BucketSet::ALL {
        Vec::new()
    } else {
        buckets.iter().collect()
    }
}

/// The other way.
#[must_use]
pub fn from_listed(listed: &[Bucket]) -> BucketSet {
    if listed.is_empty() {
        BucketSet::ALL
    } else {
        listed.iter().copied().collect()
    }
}
