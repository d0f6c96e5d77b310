//! The receiving half.

use super::{ACK_DELAY, ACK_EVERY};
use crate::base::Nanos;
use crate::flow::image::{BUCKETS, Bucket, BucketSet};
use crate::ha::message::{Ack, DigestReport};

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounters {
    /// Frames that were taken in.
    pub frames: u64,
    /// Frames whose number was not above all before: late, or repeated.
    pub late: u64,
    /// Numbers that were passed over when a higher one came.
    pub missed: u64,
    /// Acknowledgements sent.
    pub acks: u64,
    /// Comparisons of digests: equal,
    pub equal: u64,
    /// and not.
    pub different: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    highest: u64,
    before: u64,
    /// Frames that are not acknowledged yet, and when they are to be.
    since_ack: u32,
    ack_at: Option<Nanos>,
    /// The sums of the barrier that is being told, up to which bucket, and the number of its last part.
    sums: Box<[u64; BUCKETS]>,
    told: usize,
    last_part: u64,
    barrier: u64,
    /// This node's sums are waited for.
    waits: bool,
    /// It has sessions that no sum knows of: nothing is equal before the peer has named all of its own.
    distrusts: bool,
    report: Option<DigestReport>,
    /// When the digests were last equal, unless something has shown since that they are not.
    equal_at: Option<Nanos>,
    counters: ReceiverCounters,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    /// Nothing has been received.
    #[must_use]
    pub fn new() -> Self {
        Self {
            highest: 0,
            before: 0,
            since_ack: 0,
            ack_at: None,
            sums: Box::new([0; BUCKETS]),
            told: 0,
            last_part: 0,
            barrier: 0,
            waits: false,
            distrusts: false,
            report: None,
            equal_at: None,
            counters: ReceiverCounters::default(),
        }
    }

    /// The peer has started anew.
    pub fn reset(&mut self) {
        *self = Self {
            counters: self.counters,
            sums: std::mem::replace(&mut self.sums, Box::new([0; BUCKETS])),
            distrusts: self.distrusts,
            ..Self::new()
        };
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &ReceiverCounters {
        &self.counters
    }

    /// A frame of this number is here, and there is room for what it says: is it to be taken in?
    pub fn accept(&mut self, now: Nanos, number: u64) -> bool {
        let Some(step) = number.checked_sub(self.highest).filter(|step| *step > 0) else {
            self.counters.late += 1;
            return false;
        };
        self.counters.frames += 1;
        self.counters.missed += step - 1;
        // Bit 0 is the number before `highest`.
        self.before = match u32::try_from(step) {
            Ok(step) if step <= 64 => {
                let older = self.before.checked_shl(step).unwrap_or(0);
                older | if self.highest > 0 { 1 << (step - 1) } else { 0 }
            }
            _ => 0,
        };
        self.highest = number;
        self.since_ack += 1;
        self.ack_at = self.ack_at.or(Some(now.plus(ACK_DELAY)));
        true
    }

    /// The sender waits for the acknowledgement of what was just accepted.
    pub const fn hasten(&mut self, now: Nanos) {
        self.ack_at = Some(now);
    }

    /// The acknowledgement, when it is time for one.
    pub fn take_ack(&mut self, now: Nanos) -> Option<Ack> {
        let at = self.ack_at?;
        if now < at && self.since_ack < ACK_EVERY && self.report.is_none() {
            return None;
        }
        self.ack_at = None;
        self.since_ack = 0;
        self.counters.acks += 1;
        Some(Ack {
            highest: self.highest,
            before: self.before,
        })
    }

    /// When an acknowledgement is due.
    #[must_use]
    pub const fn next_timeout(&self) -> Option<Nanos> {
        self.ack_at
    }

    /// A part of a barrier was taken in. When it is complete, its number: this node's sums are wanted ([`Self::answer`]).
    pub fn barrier(&mut self, number: u64, barrier: u64, first: Bucket, digests: &[u64]) -> Option<u64> {
        let from = usize::from(first.0);
        // Whatever comes between the parts would make them speak of different moments.
        let follows = self.barrier == barrier && self.told == from && self.last_part + 1 == number;
        if from != 0 && !follows {
            return None;
        }
        let place = self.sums.get_mut(from..from + digests.len())?;
        place.copy_from_slice(digests);
        self.told = from + digests.len();
        self.last_part = number;
        self.barrier = barrier;
        self.waits = self.told == BUCKETS;
        self.waits.then_some(barrier)
    }

    /// The sums of this node's replicas as they were when `barrier` came.
    pub fn answer(&mut self, now: Nanos, barrier: u64, sums: &[u64; BUCKETS]) {
        if !self.waits || barrier != self.barrier {
            return;
        }
        self.waits = false;
        let mut differ = BucketSet::NONE;
        for (bucket, _) in (0u16..)
            .zip(self.sums.iter().zip(sums))
            .filter(|(_, (theirs, own))| theirs != own)
        {
            differ.insert(Bucket(bucket));
        }
        if self.distrusts {
            differ = BucketSet::ALL;
        }
        if differ.is_empty() {
            self.counters.equal += 1;
            self.equal_at = Some(now);
        } else {
            // That may be for what got lost. What is really different the sender begins to resync.
            self.counters.different += 1;
        }
        self.report = Some(DigestReport {
            barrier,
            differ: differ.iter().collect(),
        });
        // The sender makes nothing of the report before it knows what became of the frames before.
        self.ack_at = Some(now);
    }

    /// What is to be sent about the last barrier.
    pub const fn take_report(&mut self) -> Option<DigestReport> {
        self.report.take()
    }

    /// From now on this node does not know whether it has all of the peer's sessions.
    pub const fn doubt(&mut self) {
        self.equal_at = None;
    }

    /// There are sessions here that were this node's own and are the peer's now: the next comparisons are different in everything, until
    /// [`Self::trust`].
    pub const fn distrust(&mut self) {
        self.doubt();
        self.distrusts = true;
    }

    /// The peer has named all of its sessions.
    pub const fn trust(&mut self) {
        self.distrusts = false;
    }

    /// When the digests were last equal, if nothing speaks against it since.
    #[must_use]
    pub const fn equal_at(&self) -> Option<Nanos> {
        self.equal_at
    }
}
