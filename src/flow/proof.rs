//! A port's RSS is believed only after real packets proved it (ARCHITECTURE.md, invariant 2). What is proved is that the hash
//! which came with a packet is the owner function's, and that the packet came by the queue of its owner.
//!
//! Each worker proves the queue that it polls; a port is what its worst queue is ([`RssState::worst`]).

use super::owner::is_mapped;
use wide::u32x8;

use crate::packet::parse::{Lanes, protocol};
use crate::packet::{PacketKind, PacketMeta};

/// What a device may hash in a way of its own: each is believed by itself. Fragments, ICMP errors, SCTP, tunnels, two VLAN tags
/// and headers with options or extensions are none of these; they are always placed by software.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// IPv4 without options; TCP.
    Ipv4Tcp,
    /// UDP, to a port that no tunnel has ([`is_tunnel`]).
    Ipv4Udp,
    /// ICMP but for its errors: by the addresses. Of other protocols nothing is believed.
    Ipv4Icmp,
    /// IPv6 without extension headers; TCP.
    Ipv6Tcp,
    /// UDP, as above.
    Ipv6Udp,
    /// ICMPv6 but for its errors, neighbour discovery and MLD.
    Ipv6Icmp,
    /// The same behind one VLAN tag.
    TaggedIpv4Tcp,
    /// See above.
    TaggedIpv4Udp,
    /// See above.
    TaggedIpv4Icmp,
    /// See above.
    TaggedIpv6Tcp,
    /// See above.
    TaggedIpv6Udp,
    /// See above.
    TaggedIpv6Icmp,
}

/// UDP ports behind which devices look for another packet to hash: GTP, VXLAN, VXLAN-GPE, RoCEv2, Geneve, MPLS (IANA).
const TUNNELS: [u16; 7] = [2123, 2152, 4789, 4790, 4791, 6081, 6635];

/// Is it one of the ports behind which devices look for another packet to hash?
#[inline(always)]
#[must_use]
pub const fn is_tunnel(destination_port: u16) -> bool {
    matches!(destination_port, 2123 | 2152 | 4789..=4791 | 6081 | 6635)
}

impl Kind {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Ipv4Tcp,
        Self::Ipv4Udp,
        Self::Ipv4Icmp,
        Self::Ipv6Tcp,
        Self::Ipv6Udp,
        Self::Ipv6Icmp,
        Self::TaggedIpv4Tcp,
        Self::TaggedIpv4Udp,
        Self::TaggedIpv4Icmp,
        Self::TaggedIpv6Tcp,
        Self::TaggedIpv6Udp,
        Self::TaggedIpv6Icmp,
    ];

    /// Of a parsed packet; `None`: software places it.
    #[must_use]
    pub const fn of(meta: &PacketMeta) -> Option<Self> {
        let tagged = match meta.l3_offset {
            14 => 0,
            18 => 6,
            _ => return None,
        };
        let header = meta.l4_offset.wrapping_sub(meta.l3_offset as u16);
        let ipv6 = match (meta.has(PacketMeta::IPV4), header) {
            (true, 20) => 0,
            (false, 40) if !(is_mapped(&meta.source) && is_mapped(&meta.destination)) => 3,
            _ => return None,
        };
        let content = match meta.kind {
            PacketKind::Tcp => 0,
            PacketKind::Udp if !is_tunnel(meta.destination_port) => 1,
            PacketKind::Echo | PacketKind::Icmp => 2,
            _ => return None,
        };
        Some(Self::ALL[tagged + ipv6 + content])
    }

    /// As the log has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4Tcp => "IPv4 TCP",
            Self::Ipv4Udp => "IPv4 UDP",
            Self::Ipv4Icmp => "ICMP",
            Self::Ipv6Tcp => "IPv6 TCP",
            Self::Ipv6Udp => "IPv6 UDP",
            Self::Ipv6Icmp => "ICMPv6",
            Self::TaggedIpv4Tcp => "tagged IPv4 TCP",
            Self::TaggedIpv4Udp => "tagged IPv4 UDP",
            Self::TaggedIpv4Icmp => "tagged ICMP",
            Self::TaggedIpv6Tcp => "tagged IPv6 TCP",
            Self::TaggedIpv6Udp => "tagged IPv6 UDP",
            Self::TaggedIpv6Icmp => "tagged ICMPv6",
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// All of them.
    pub const ALL: Self = Self((1 << Kind::ALL.len()) - 1);
    /// None.
    pub const NONE: Self = Self(0);

    /// These, each with and without a tag.
    #[must_use]
    pub fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let untagged = |kind: Kind| 1 << (kind as u16 % 6);
        let set = kinds.into_iter().fold(0, |set, kind| set | untagged(kind));
        Self(set | (set << 6))
    }

    /// Is it in?
    #[inline(always)]
    #[must_use]
    pub const fn has(self, kind: Kind) -> bool {
        (self.0 >> kind as u16) & 1 != 0
    }

    /// Of eight packets of the straight path what [`Kind::of`] says of each, as [`Kinds::bits`] below 256.
    #[inline(always)]
    #[must_use]
    pub fn of_lanes(lanes: &Lanes) -> u32x8 {
        let to: u32x8 = lanes.ports >> 16;
        // 0: it is one of them.
        let no_tunnel = TUNNELS
            .iter()
            .map(|port| to ^ u32x8::splat(u32::from(*port)))
            .fold(u32x8::splat(1), u32x8::min);
        let udp = no_tunnel * u32x8::splat(1 << Kind::Ipv4Udp as u32);
        let tcp = lanes.protocol.cmp_eq(u32x8::splat(protocol::TCP.into()));
        tcp.blend(u32x8::splat(1 << Kind::Ipv4Tcp as u32), udp)
    }

    /// The one that a packet has of which [`Kinds::of_lanes`] said this.
    #[inline(always)]
    #[must_use]
    pub const fn of_lane(bits: u8) -> Option<Kind> {
        const TCP: u8 = 1 << Kind::Ipv4Tcp as u8;
        const UDP: u8 = 1 << Kind::Ipv4Udp as u8;
        match bits {
            TCP => Some(Kind::Ipv4Tcp),
            UDP => Some(Kind::Ipv4Udp),
            _ => None,
        }
    }

    /// As a word, for atomics.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// From such a word; other bits are ignored.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Is none?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn with(self, kind: Kind) -> Self {
        Self(self.0 | (1 << kind as u16))
    }

    /// Those that are in, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

/// How far a port's RSS is believed, as `show ports` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RssState {
    /// The device has no RSS that would be of use: software places its packets.
    #[default]
    Software,
    /// Packets proved it.
    Proven,
    /// Not enough packets yet: software places them.
    Unproven,
    /// A packet disproved it: software places them, until the port is set up again.
    Mismatch,
}

impl RssState {
    /// `software`, `proven`, `unproven`, `mismatch`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Proven => "proven",
            Self::Unproven => "unproven",
            Self::Mismatch => "mismatch",
        }
    }

    /// Of a port's queues: what the least trusted one is. Of none: software.
    #[must_use]
    pub fn worst(states: impl IntoIterator<Item = Self>) -> Self {
        states.into_iter().max_by_key(|s| *s as u8).unwrap_or_default()
    }
}

/// What a packet disproved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The hash is not the owner function's.
    Hash {
        /// The one that came with the packet.
        device: u32,
        /// The right one.
        software: u32,
    },
    /// The hash is right, the queue is another worker's.
    Queue {
        /// The hash.
        hash: u32,
    },
    /// The packet came without a hash.
    Missing,
}

/// A packet that disproved a port's RSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// What kind of packet it was.
    pub kind: Kind,
    /// What was wrong with it.
    pub wrong: Wrong,
}

impl std::fmt::Display for Disagreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.kind.name();
        match self.wrong {
            Wrong::Hash { device, software } => write!(
                f,
                "wrong hash: a packet ({kind}) came with {device:#010x} instead of {software:#010x}"
            ),
            Wrong::Queue { hash } => {
                write!(
                    f,
                    "right hash on the wrong queue: a packet ({kind}) with {hash:#010x}"
                )
            }
            Wrong::Missing => write!(f, "hash missing: a packet ({kind}) came without one"),
        }
    }
}

/// What a check changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing to tell.
    Nothing,
    /// The queue is proven now, and the kinds of [`Proof::believed`] are believed from now on.
    Proven,
    /// The queue was proven before, and this kind is now, too.
    KindProven(Kind),
    /// The queue is not believed any more.
    Mismatch(Disagreement),
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is on its owner's queue.
    Here,
    /// Software places it, and [`Proof::check`] is to be told what it found.
    Check,
    /// Software places it.
    Software,
}

/// What one worker knows of the RSS of the queue of a port that it polls.
#[derive(Clone, Debug)]
pub struct Proof {
    /// What is believed now; empty unless the state is [`RssState::Proven`]. In front: the fast path asks for nothing else.
    believed: Kinds,
    /// Packets of believed kinds until the next one is checked.
    until_sample: u16,
    state: RssState,
    /// What the device says that it hashes.
    claimed: Kinds,
    /// Packets that agreed, up to [`Proof::PORT`].
    agreed: u16,
    agreed_by_kind: [u8; Kind::ALL.len()],
    /// Packets that still may come by the order of an older table.
    unsettled: u32,
}

impl Default for Proof {
    /// Of a port without RSS.
    fn default() -> Self {
        Self::new(Kinds::NONE)
    }
}

impl Proof {
    /// Suitable packets that have to agree before anything is believed.
    pub const PORT: u16 = 256;
    /// Of a kind, before it is believed. How a device hashes a kind is fixed, and a hash of another input agrees in one of
    /// 2^32: the first packet that does says nearly all. The others are for packets that agree by their nature: with the ports
    /// of a TCP packet equal, or 0, some methods do not tell an input with ports from one without; and that all of so many came by
    /// the right queue by chance is, with two workers and flows of their own, one in four thousand million.
    pub const KIND: u8 = 32;
    /// Of packets that are believed, one of so many is checked, on average, for ever: at 10 million packets a second and queue
    /// a disagreement is found in microseconds, and the hash of one packet costs each a fraction of a nanosecond.
    pub const SAMPLE: u16 = 64;

    /// Of a port whose device says that it hashes these kinds, just set up; none: by software.
    #[must_use]
    pub const fn new(claimed: Kinds) -> Self {
        Self {
            believed: Kinds::NONE,
            until_sample: Self::SAMPLE,
            state: if claimed.is_empty() {
                RssState::Software
            } else {
                RssState::Unproven
            },
            claimed,
            agreed: 0,
            agreed_by_kind: [0; Kind::ALL.len()],
            unsettled: 0,
        }
    }

    /// What it is now.
    #[must_use]
    pub const fn state(&self) -> RssState {
        self.state
    }

    /// Which kinds are believed.
    #[must_use]
    pub const fn believed(&self) -> Kinds {
        self.believed
    }

    /// Is a packet of this kind on its owner's queue?
    #[inline(always)]
    #[must_use]
    pub const fn believes(&self, kind: Kind) -> bool {
        self.believed.has(kind)
    }

    /// What to do with the next packet. Asked once a packet: it counts them.
    #[inline(always)]
    #[must_use]
    pub fn trust(&mut self, kind: Option<Kind>) -> Trust {
        match kind {
            Some(kind) if self.believed.has(kind) => {
                self.until_sample -= 1;
                if self.until_sample == 0 {
                    self.sample()
                } else {
                    Trust::Here
                }
            }
            Some(kind) => self.unbelieved(kind),
            None => Trust::Software,
        }
    }

    /// So many packets of believed kinds come before the next one that is checked.
    #[inline(always)]
    #[must_use]
    pub const fn quiet(&self) -> u16 {
        self.until_sample.saturating_sub(1)
    }

    /// So many of them came, no more than [`Proof::quiet`] said: [`Proof::trust`] would have answered [`Trust::Here`].
    #[inline(always)]
    pub const fn skip(&mut self, packets: u16) {
        self.until_sample = self.until_sample.saturating_sub(packets);
    }

    #[cold]
    fn sample(&mut self) -> Trust {
        // Until `check` draws another number.
        self.until_sample = Self::SAMPLE;
        Trust::Check
    }

    #[inline(never)]
    fn unbelieved(&self, kind: Kind) -> Trust {
        match self.state {
            RssState::Unproven | RssState::Proven if self.claimed.has(kind) => Trust::Check,
            _ => Trust::Software,
        }
    }

    /// A packet of `kind` came with `device_hash`; software computed `software_hash`, and `here`: by the logical table its owner is
    /// the worker that polled it.
    pub fn check(&mut self, kind: Kind, device_hash: Option<u32>, software_hash: u32, here: bool) -> Event {
        if !matches!(self.state, RssState::Unproven | RssState::Proven) || !self.claimed.has(kind) {
            return Event::Nothing;
        }
        // Not every 64th, lest a pattern in the traffic keeps a flow from ever being looked at.
        self.until_sample = Self::SAMPLE / 2 + 1 + (software_hash >> 16) as u16 % Self::SAMPLE;
        let wrong = match device_hash {
            None => Wrong::Missing,
            Some(device) if device != software_hash => Wrong::Hash {
                device,
                software: software_hash,
            },
            Some(hash) if !here && self.unsettled == 0 => Wrong::Queue { hash },
            Some(_) => return self.agree(kind, software_hash),
        };
        self.distrust();
        Event::Mismatch(Disagreement { kind, wrong })
    }

    fn agree(&mut self, kind: Kind, hash: u32) -> Event {
        if self.unsettled > 0 {
            self.unsettled -= 1;
            return Event::Nothing;
        }
        // A device that says 0 because it says nothing: not suitable.
        if hash == 0 || self.believed.has(kind) {
            return Event::Nothing;
        }
        let of_kind = &mut self.agreed_by_kind[kind as usize];
        *of_kind = of_kind.saturating_add(1).min(Self::KIND);
        let kind_proven = *of_kind == Self::KIND;
        self.agreed = (self.agreed + 1).min(Self::PORT);
        match self.state {
            RssState::Unproven if self.agreed == Self::PORT => {
                self.state = RssState::Proven;
                self.believed = Kind::ALL
                    .into_iter()
                    .filter(|kind| self.agreed_by_kind[*kind as usize] == Self::KIND)
                    .fold(Kinds::NONE, Kinds::with);
                Event::Proven
            }
            RssState::Proven if kind_proven => {
                self.believed = self.believed.with(kind);
                Event::KindProven(kind)
            }
            _ => Event::Nothing,
        }
    }

    /// A packet on this queue or another one of the port disproved it: nothing is believed until the port is set up again.
    pub fn distrust(&mut self) {
        if self.state != RssState::Software {
            self.state = RssState::Mismatch;
        }
        self.believed = Kinds::NONE;
    }

    /// The logical table and the device's change now: what was proved of it is to be proved again, and the next
    /// `unsettled` packets (what the receive ring holds) may still come by the old one.
    pub fn table_changes(&mut self, unsettled: u32) {
        if self.state == RssState::Mismatch {
            return;
        }
        *self = Self {
            unsettled,
            ..Self::new(self.claimed)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` packets that agree; the last event.
    fn agree(proof: &mut Proof, kind: Kind, count: u32) -> Event {
        (1..=count).fold(Event::Nothing, |_, hash| {
            proof.check(kind, Some(hash), hash, true)
        })
    }

    #[test]
    fn there_is_one_list_of_tunnels() {
        for port in 0..=u16::MAX {
            assert_eq!(is_tunnel(port), TUNNELS.contains(&port), "{port}");
        }
    }

    #[test]
    fn nothing_is_believed_before_256_packets_agreed() {
        let mut proof = Proof::new(Kinds::ALL);
        assert_eq!(agree(&mut proof, Kind::Ipv4Udp, 31), Event::Nothing);
        assert_eq!(agree(&mut proof, Kind::Ipv4Tcp, 224), Event::Nothing);
        assert_eq!(proof.state(), RssState::Unproven);
        assert_eq!(proof.trust(Some(Kind::Ipv4Tcp)), Trust::Check);
        assert_eq!(agree(&mut proof, Kind::Ipv4Tcp, 1), Event::Proven);
        assert_eq!(proof.state(), RssState::Proven);
        // Of UDP one is missing.
        assert_eq!(proof.believed().iter().collect::<Vec<_>>(), [Kind::Ipv4Tcp]);
        assert_eq!(proof.trust(Some(Kind::Ipv4Tcp)), Trust::Here);
        assert_eq!(proof.trust(Some(Kind::Ipv4Udp)), Trust::Check);
        assert_eq!(
            agree(&mut proof, Kind::Ipv4Udp, 1),
            Event::KindProven(Kind::Ipv4Udp)
        );
        assert!(proof.believes(Kind::Ipv4Udp) && !proof.believes(Kind::TaggedIpv4Udp));
        assert_eq!(
            agree(&mut proof, Kind::TaggedIpv4Udp, 32),
            Event::KindProven(Kind::TaggedIpv4Udp)
        );
        assert_eq!(proof.trust(None), Trust::Software);
    }

    #[test]
    fn hashes_of_nothing_prove_nothing() {
        let mut proof = Proof::new(Kinds::ALL);
        for _ in 0..10_000 {
            assert_eq!(proof.check(Kind::Ipv4Tcp, Some(0), 0, true), Event::Nothing);
        }
        assert_eq!(proof.state(), RssState::Unproven);
        assert!(matches!(
            proof.check(Kind::Ipv4Tcp, Some(0), 1, true),
            Event::Mismatch(_)
        ));
    }

    #[test]
    fn one_disagreement_at_any_time_ends_it() {
        let wrongs = [
            (
                Some(7),
                8,
                true,
                "wrong hash: a packet (IPv6 UDP) came with 0x00000007 instead of 0x00000008",
            ),
            (
                Some(8),
                8,
                false,
                "right hash on the wrong queue: a packet (IPv6 UDP) with 0x00000008",
            ),
            (
                None,
                8,
                true,
                "hash missing: a packet (IPv6 UDP) came without one",
            ),
            // What is worst about it comes first.
            (
                None,
                8,
                false,
                "hash missing: a packet (IPv6 UDP) came without one",
            ),
        ];
        for before in [0, 255, 256, 100_000] {
            for (device, software, here, words) in wrongs {
                let mut proof = Proof::new(Kinds::ALL);
                agree(&mut proof, Kind::Ipv6Udp, before);
                match proof.check(Kind::Ipv6Udp, device, software, here) {
                    Event::Mismatch(what) => assert_eq!(what.to_string(), words),
                    other => panic!("{other:?}"),
                }
                assert_eq!(proof.state(), RssState::Mismatch);
                assert_eq!(proof.trust(Some(Kind::Ipv6Udp)), Trust::Software);
                // It does not come back by itself, nor with another table.
                proof.table_changes(0);
                assert_eq!(agree(&mut proof, Kind::Ipv6Udp, 1000), Event::Nothing);
                assert_eq!(proof.state(), RssState::Mismatch);
                assert_eq!(proof.believed(), Kinds::NONE);
            }
        }
    }

    #[test]
    fn what_the_device_does_not_claim_is_neither_believed_nor_held_against_it() {
        let mut proof = Proof::new(Kinds::of([Kind::Ipv4Tcp]));
        assert_eq!(proof.trust(Some(Kind::Ipv4Udp)), Trust::Software);
        assert_eq!(proof.check(Kind::Ipv4Udp, None, 1, true), Event::Nothing);
        assert_eq!(proof.trust(Some(Kind::TaggedIpv4Tcp)), Trust::Check);
        assert_eq!(agree(&mut proof, Kind::Ipv4Tcp, 256), Event::Proven);
        assert_eq!(proof.check(Kind::Ipv4Udp, Some(1), 2, true), Event::Nothing);
        assert_eq!(proof.state(), RssState::Proven);

        let mut none = Proof::default();
        assert_eq!(none.state(), RssState::Software);
        assert_eq!(none.check(Kind::Ipv4Tcp, Some(1), 2, true), Event::Nothing);
        none.distrust();
        assert_eq!(none.state(), RssState::Software);
    }

    #[test]
    fn packets_that_are_believed_are_sampled_for_ever() {
        let mut proof = Proof::new(Kinds::ALL);
        agree(&mut proof, Kind::Ipv4Tcp, 256);
        let (mut checked, mut gap, mut hash) = (0u32, 0, 1u32);
        for _ in 0..1_000_000 {
            hash = hash.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            match proof.trust(Some(Kind::Ipv4Tcp)) {
                Trust::Here => gap += 1,
                Trust::Check => {
                    assert!(gap < u32::from(2 * Proof::SAMPLE), "{gap}");
                    (checked, gap) = (checked + 1, 0);
                    assert_eq!(proof.check(Kind::Ipv4Tcp, Some(hash), hash, true), Event::Nothing);
                }
                Trust::Software => panic!("it was believed"),
            }
        }
        assert!((14_000..17_000).contains(&checked), "{checked}");
    }

    #[test]
    fn a_new_table_is_proved_again_once_the_ring_is_empty_of_the_old() {
        let mut proof = Proof::new(Kinds::ALL);
        agree(&mut proof, Kind::Ipv4Tcp, 256);
        proof.table_changes(10);
        assert_eq!(proof.state(), RssState::Unproven);
        for hash in 1..=10 {
            assert_eq!(
                proof.check(Kind::Ipv4Tcp, Some(hash), hash, false),
                Event::Nothing
            );
        }
        assert_eq!(agree(&mut proof, Kind::Ipv4Tcp, 255), Event::Nothing);
        assert_eq!(agree(&mut proof, Kind::Ipv4Tcp, 1), Event::Proven);
        // A wrong hash is one at any time.
        proof.table_changes(10);
        assert!(matches!(
            proof.check(Kind::Ipv4Tcp, Some(1), 2, true),
            Event::Mismatch(_)
        ));
    }

    #[test]
    fn a_port_is_what_its_worst_queue_is() {
        use RssState::{Mismatch, Proven, Software, Unproven};
        for (states, worst) in [
            (vec![], Software),
            (vec![Software], Software),
            (vec![Proven, Proven], Proven),
            (vec![Proven, Unproven], Unproven),
            (vec![Mismatch, Unproven, Proven], Mismatch),
        ] {
            assert_eq!(RssState::worst(states), worst);
        }
        let names = [Software, Proven, Unproven, Mismatch].map(RssState::name);
        assert_eq!(names, ["software", "proven", "unproven", "mismatch"]);
    }
}
