//! What the owner of a session tells the other node of an HA pair of it: everything by which that node could go on with it, in terms
//! that both nodes share. Slots, timers and rule numbers are each node's own and not in it.

use std::hash::Hasher as _;

use arrayvec::ArrayVec;
use siphasher::sip::SipHasher13;

use super::{Direction, FlowKey, Session, SessionState, TcpSender, Translation};
use crate::base::{Nanos, PortId};
use crate::packet::LinkHeader;

/// Tells the sessions that one flow has had apart: each has a later birth than the one before, whichever node made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Birth(pub u64);

/// One of [`BUCKETS`] parts of a node's sessions, by a hash that both nodes key alike: the same on both, whatever their sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub u16);

/// How many there are.
pub const BUCKETS: usize = 512;

/// Some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketSet([u64; BUCKETS / 64]);

impl BucketSet {
    /// None of them.
    pub const NONE: Self = Self([0; BUCKETS / 64]);
    /// All of them.
    pub const ALL: Self = Self([u64::MAX; BUCKETS / 64]);

    /// Is this one of them?
    #[must_use]
    pub fn has(&self, Bucket(bucket): Bucket) -> bool {
        let word = self.0.get(usize::from(bucket / 64));
        word.is_some_and(|word| word & (1 << (bucket % 64)) != 0)
    }

    /// Adds one; one that there is not is left out.
    pub fn insert(&mut self, Bucket(bucket): Bucket) {
        if let Some(word) = self.0.get_mut(usize::from(bucket / 64)) {
            *word |= 1 << (bucket % 64);
        }
    }

    /// Adds those of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// All that are in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Bucket> + '_ {
        (0..BUCKETS as u16).map(Bucket).filter(|bucket| self.has(*bucket))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FromIterator<Bucket> for BucketSet {
    fn from_iter<I: IntoIterator<Item = Bucket>>(buckets: I) -> Self {
        let mut set = Self::NONE;
        buckets.into_iter().for_each(|bucket| set.insert(bucket));
        set
    }
}

/// What keys the digests of a pair's sessions, and their buckets; made of the pair's key.
#[derive(Clone, Copy, Default)]
pub struct DigestKey(pub [u64; 2]);

impl DigestKey {
    /// The bucket of a flow.
    #[must_use]
    pub fn bucket(&self, key: &FlowKey) -> Bucket {
        let mut input = Input::new();
        input.key(key);
        Bucket((input.hash([self.0[0], self.0[1]]) % BUCKETS as u64) as u16)
    }
}

/// A session as its owner has it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Image {
    /// The flow. Pairs and VLANs are numbered alike on both nodes, which have the same ports in the same order.
    pub key: FlowKey,
    /// Which of the flow's sessions.
    pub birth: Birth,
    /// Grows with each image that its owner makes of it, whoever that is: an image with a lower one is older news.
    pub serial: u32,
    /// Where it stands.
    pub state: SessionState,
    /// The direction of the opener's packets.
    pub opener: Direction,
    /// The port that the opener's packets come in by, by its place in the configuration.
    pub ingress: PortId,
    /// The port that the replier's packets come in by.
    pub egress: PortId,
    /// [`crate::flow::Session::flags`], of them [`Image::FLAGS`].
    pub flags: u8,
    /// ICMP and ICMPv6: type and code of the packet that opened it.
    pub icmp: [u8; 2],
    /// The rule that allowed it, by its name: [`Image::rule_of`].
    pub rule: u64,
    /// TCP: what is known of each sender, by [`Direction`]; of other protocols what the tracker keeps in its place.
    pub tcp: [TcpSender; 2],
    /// Means something with [`crate::flow::Session::PROXIED`].
    pub translation: Translation,
    /// By [`Direction`]; mean something with [`crate::flow::Session::RESETS`] or [`crate::flow::Session::PROXIED`].
    pub links: [LinkHeader; 2],
    // Not in the digest: what every packet changes.
    /// Bytes of IP packets by [`Direction`].
    pub bytes: [u64; 2],
    /// Packets by [`Direction`].
    pub packets: [u64; 2],
    /// Since it was made.
    pub age: Nanos,
    /// Since its last packet.
    pub idle: Nanos,
}

impl Image {
    /// Of [`Session::flags`] what the other node needs; the others follow from its rules.
    pub const FLAGS: u8 = Session::PROXIED | Session::OUTLIVED;

    /// What stands for a rule's name, on both nodes.
    #[must_use]
    pub fn rule_of(name: &str) -> u64 {
        Self::hash_of(name.as_bytes())
    }

    /// A hash that is the same on both nodes, and no secret.
    pub(super) fn hash_of(bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(bytes);
        hasher.finish()
    }

    /// By this two nodes find out that they have the same session in the same state. Timers and counters are not in it, nor what the
    /// rule says: each node has that of its own rules.
    #[must_use]
    pub fn digest(&self, key: &DigestKey) -> u64 {
        let mut input = Input::new();
        input.key(&self.key);
        input.bytes(&self.birth.0.to_le_bytes());
        input.bytes(&[
            self.state as u8,
            self.opener as u8,
            self.flags & Self::FLAGS,
            self.icmp[0],
            self.icmp[1],
        ]);
        input.bytes(&self.ingress.0.to_le_bytes());
        input.bytes(&self.egress.0.to_le_bytes());
        for sender in &self.tcp {
            for number in [sender.end, sender.max_end, sender.acked] {
                input.bytes(&number.to_le_bytes());
            }
            input.bytes(&sender.max_win.to_le_bytes());
            input.bytes(&[sender.flags, sender.scale]);
        }
        if self.flags & Session::PROXIED != 0 {
            let of = &self.translation;
            for number in [of.sequence, of.timestamp, of.cookie] {
                input.bytes(&number.to_le_bytes());
            }
            input.bytes(&[of.flags, of.mss, of.told_scale, of.client_scale]);
        }
        input.hash([!key.0[0], key.0[1]])
    }
}

/// What is hashed, in one piece: a hasher that gets it piece by piece takes several times as long.
struct Input(ArrayVec<u8, 160>);

impl Input {
    fn new() -> Self {
        Self(ArrayVec::new())
    }

    fn key(&mut self, key: &FlowKey) {
        for word in key.words() {
            self.bytes(&word.to_le_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let fits = self.0.try_extend_from_slice(bytes);
        debug_assert!(fits.is_ok(), "there is room for everything that is hashed");
    }

    fn hash(&self, [first, second]: [u64; 2]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write(&self.0);
        hasher.finish()
    }
}
