//! SYN cookies (RFC 4987, section 3.6): an initial sequence number that says what the SYN said, and that only who received it
//! can send back. Nothing is kept for a SYN.
//!
//! | bits | |
//! | --- | --- |
//! | 8 to 31 | MAC under the key of its epoch over both ends, the domain, the client's initial sequence number, the bits below, and the window scale that the client was told |
//! | 4 to 7 | the client's window scale; 15: none |
//! | 3 | the client was told that selective acknowledgements are understood |
//! | 0 to 2 | the client's maximum segment size, rounded down to one of eight |
//!
//! The MAC is AES-128 in CBC-MAC (ISO/IEC 9797-1, algorithm 1), which is a pseudorandom function where all messages of a key have
//! one length: two blocks over IPv4, three over IPv6, each family under a key of its own. What SYNs to one service have in common
//! comes first, and is enciphered once for many. Every CPU that haechi starts on has instructions for it.
//!
//! The key changes with every epoch of 64 seconds, and cookies of the epoch before are still taken: so one lives for 64 to 128
//! seconds. An epoch's key is derived from the engine's secret by the same PRF, because an engine has no source of randomness:
//! who has learnt one epoch's key knows no other's.
//!
//! A blind guess is right with a probability of 2^-24 for each of at most eight tries (two epochs, two sequence numbers, two
//! scales; see [`Cookies::check`]); a right one costs a session and a SYN to the server.

use aes::Aes128Enc;
use aes::cipher::{BlockEncrypt, KeyInit};

use crate::base::Nanos;
use crate::flow::{HashSeed, TcpSender};

/// What a cookie remembers of the client's SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Index into [`SEGMENT_SIZES`].
    pub(super) mss: u8,
    /// The client's window scale; `None`: the client has none, or was told none.
    pub(super) scale: Option<u8>,
    /// The client permits selective acknowledgements, and was told that they are understood.
    pub(super) sack: bool,
}

/// Maximum segment sizes that a cookie can say: those of the smallest MTU in use, 576, 1280, tunnels and mobile networks, PPPoE,
/// Ethernet (IPv6, IPv4), jumbo frames. A client with a smaller one than the first does not exist.
pub(super) const SEGMENT_SIZES: [u16; 8] = [216, 536, 1220, 1340, 1400, 1440, 1460, 8940];
const NO_SCALE: u8 = 15;

impl Facts {
    /// `mss`: in bytes.
    #[inline]
    pub(super) fn new(mss: u16, scale: Option<u8>, sack: bool) -> Self {
        // They ascend. All are compared, which is one vector instruction and no branch.
        let smaller: u16 = SEGMENT_SIZES.iter().map(|size| u16::from(*size <= mss)).sum();
        Self {
            mss: smaller.saturating_sub(1) as u8,
            scale,
            sack,
        }
    }

    /// Maximum segment size in bytes.
    pub(super) const fn mss(mss: u8) -> u16 {
        SEGMENT_SIZES[(mss & 7) as usize]
    }

    fn bits(self) -> u8 {
        (self.scale.unwrap_or(NO_SCALE) << 4) | (u8::from(self.sack) << 3) | self.mss
    }

    const fn from_bits(bits: u8) -> Self {
        let scale = bits >> 4;
        Self {
            mss: bits & 7,
            scale: if scale == NO_SCALE { None } else { Some(scale) },
            sack: bits & 8 != 0,
        }
    }
}

/// Whose cookie it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'a> {
    /// Address and port.
    pub(super) client: (&'a [u8; 16], u16),
    /// Address and port.
    pub(super) server: (&'a [u8; 16], u16),
    /// The session's domain.
    pub(super) domain: u32,
}

/// The keys of this epoch and the one before.
pub(super) struct Cookies {
    master: Aes128Enc,
    /// When this epoch began.
    since: Nanos,
    keys: [Keys; 2],
    /// The first block of the last cookie made over IPv4 in this epoch, and what it was enciphered to.
    last: Option<[Block; 2]>,
    /// Added to the time stamps that clients are told, which else would tell for how long this node has been up.
    stamp_offset: u32,
}

impl Cookies {
    /// How long a key makes cookies; it takes them for as long again.
    pub(super) const EPOCH: Nanos = Nanos::from_secs(64);

    pub(super) fn new(seed: HashSeed) -> Self {
        let [a, b, c, d] = seed.0;
        // All of the seed goes into the key; what is made of it says nothing of the table's hash.
        let from = Aes128Enc::new(&block(a, b).into());
        let word = |place: u64| {
            mac(
                &from,
                [block(u64::from_le_bytes(*b"syn cook"), place), block(c, d)],
            )
        };
        let master = Aes128Enc::new(&word(0).into());
        let [stamp_offset, ..] = halves(word(1));
        Self {
            keys: [Keys::new(&master, 1), Keys::new(&master, 0)],
            since: Nanos(0),
            last: None,
            stamp_offset: stamp_offset as u32,
            master,
        }
    }

    /// The number of the epoch; epoch 0 is before all time.
    const fn epoch(now: Nanos) -> u64 {
        now.0 / Self::EPOCH.0 + 1
    }

    /// Has the keys of `now`'s epoch and the one before.
    fn turn(&mut self, now: Nanos) {
        if now.0.wrapping_sub(self.since.0) >= Self::EPOCH.0 {
            self.turn_to(Self::epoch(now));
        }
    }

    #[cold]
    fn turn_to(&mut self, epoch: u64) {
        self.since = Nanos((epoch - 1) * Self::EPOCH.0);
        self.keys = [Keys::new(&self.master, epoch), Keys::new(&self.master, epoch - 1)];
        self.last = None;
    }

    /// The time stamp, in milliseconds, that a client is told now.
    pub(super) const fn stamp(&self, now: Nanos) -> u32 {
        ((now.0 / 1_000_000) as u32).wrapping_add(self.stamp_offset)
    }

    /// The cookie for a SYN with `isn` as its sequence number. `told_scale`: what the client is told of the server's windows.
    #[inline(always)]
    pub(super) fn make(
        &mut self,
        now: Nanos,
        ends: &Ends<'_>,
        isn: u32,
        facts: Facts,
        told_scale: u8,
    ) -> u32 {
        self.turn(now);
        let bits = facts.bits();
        let covered = Covered {
            ends,
            isn,
            bits,
            told: told(facts, told_scale),
        };
        let [keys, _] = &self.keys;
        let mac = match covered.ipv4() {
            Some([service, client]) => {
                let enciphered = match self.last {
                    Some([last, enciphered]) if last == service => enciphered,
                    _ => encipher(&keys.v4, service),
                };
                self.last = Some([service, enciphered]);
                encipher(&keys.v4, xor(enciphered, client))
            }
            None => mac(&keys.v6, covered.ipv6()),
        };
        (top(mac) << 8) | u32::from(bits)
    }

    /// What a cookie says, and the scale that its client was told, if it is one of the last two epochs for a SYN with one of
    /// the sequence numbers `isns`, which is given back first. `told_scales`: what the client may have been told.
    pub(super) fn check(
        &mut self,
        now: Nanos,
        ends: &Ends<'_>,
        cookie: u32,
        isns: &[u32],
        told_scales: &[u8],
    ) -> Option<(u32, Facts, u8)> {
        self.turn(now);
        let bits = cookie as u8;
        let facts = Facts::from_bits(bits);
        let told_scales = if facts.scale.is_some() { told_scales } else { &[0] };
        for isn in isns {
            for told_scale in told_scales {
                let covered = Covered {
                    ends,
                    isn: *isn,
                    bits,
                    told: told(facts, *told_scale),
                };
                let is_it = |keys| covered.mac(keys) == cookie >> 8;
                if self.keys.iter().any(is_it) {
                    return Some((*isn, facts, *told_scale));
                }
            }
        }
        None
    }
}

/// The scale that the client was told, as the MAC covers it.
const fn told(facts: Facts, told_scale: u8) -> u8 {
    match facts.scale {
        Some(_) => told_scale,
        None => TcpSender::NO_SCALE,
    }
}

/// What AES works on.
type Block = [u8; 16];

/// An epoch's keys.
struct Keys {
    v4: Aes128Enc,
    v6: Aes128Enc,
}

impl Keys {
    fn new(master: &Aes128Enc, epoch: u64) -> Self {
        let key = |label: &[u8; 8]| {
            let key = encipher(master, block(u64::from_le_bytes(*label), epoch));
            Aes128Enc::new(&key.into())
        };
        Self {
            v4: key(b"epoch v4"),
            v6: key(b"epoch v6"),
        }
    }
}

/// What a cookie's MAC covers.
struct Covered<'a> {
    ends: &'a Ends<'a>,
    isn: u32,
    bits: u8,
    told: u8,
}

impl Covered<'_> {
    /// 24 bits.
    fn mac(&self, keys: &Keys) -> u32 {
        top(match self.ipv4() {
            Some(blocks) => mac(&keys.v4, blocks),
            None => mac(&keys.v6, self.ipv6()),
        })
    }

    /// Of SYNs that offer the same to one service the first block is the same.
    #[inline(always)]
    fn ipv4(&self) -> Option<[Block; 2]> {
        let (client, server) = (mapped_v4(self.ends.client.0)?, mapped_v4(self.ends.server.0)?);
        let service = u64::from(server) | (u64::from(self.ends.server.1) << 32);
        let client = u64::from(client) | (u64::from(self.ends.client.1) << 32);
        Some([block(service, self.rest()), block(client, u64::from(self.isn))])
    }

    fn ipv6(&self) -> [Block; 3] {
        let ports = u64::from(self.ends.client.1) | (u64::from(self.ends.server.1) << 16);
        let last = block(self.rest(), ports | (u64::from(self.isn) << 32));
        [*self.ends.server.0, *self.ends.client.0, last]
    }

    #[inline(always)]
    fn rest(&self) -> u64 {
        u64::from(self.ends.domain) | (u64::from(self.bits) << 32) | (u64::from(self.told) << 40)
    }
}

#[inline(always)]
fn block(low: u64, high: u64) -> Block {
    (u128::from(low) | (u128::from(high) << 64)).to_le_bytes()
}

const fn halves(block: Block) -> [u64; 2] {
    let both = u128::from_le_bytes(block);
    [both as u64, (both >> 64) as u64]
}

#[inline(always)]
const fn xor(a: Block, b: Block) -> Block {
    (u128::from_le_bytes(a) ^ u128::from_le_bytes(b)).to_le_bytes()
}

#[inline(always)]
fn encipher(key: &Aes128Enc, block: Block) -> Block {
    let mut block = block.into();
    key.encrypt_block(&mut block);
    block.into()
}

/// CBC-MAC: all messages of a key have the same number of blocks.
fn mac<const BLOCKS: usize>(key: &Aes128Enc, message: [Block; BLOCKS]) -> Block {
    message
        .into_iter()
        .fold([0; 16], |mac, block| encipher(key, xor(mac, block)))
}

/// The 24 bits of a MAC that fit into a cookie.
#[inline(always)]
const fn top(mac: Block) -> u32 {
    (u128::from_le_bytes(mac) >> 104) as u32
}

/// The IPv4 address in `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
#[inline]
fn mapped_v4(address: &[u8; 16]) -> Option<u32> {
    let bits = u128::from_be_bytes(*address);
    (bits >> 32 == 0xffff).then_some(bits as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT: [u8; 16] = [1; 16];
    const SERVER: [u8; 16] = [2; 16];
    const CLIENT_V4: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
    const SERVER_V4: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2];
    const ENDS: Ends<'_> = Ends {
        client: (&CLIENT, 1000),
        server: (&SERVER, 80),
        domain: 7,
    };
    const ENDS_V4: Ends<'_> = Ends {
        client: (&CLIENT_V4, 1000),
        server: (&SERVER_V4, 80),
        domain: 7,
    };

    fn cookies() -> Cookies {
        Cookies::new(HashSeed([1, 2, 3, 4]))
    }

    fn facts() -> impl Strategy<Value = Facts> {
        (0_u8..8, prop::option::of(0_u8..15), any::<bool>()).prop_map(|(mss, scale, sack)| Facts {
            mss,
            scale,
            sack,
        })
    }

    #[test]
    fn segment_sizes_are_rounded_down() {
        for (mss, kept) in [
            (1460, 1460),
            (1459, 1440),
            (9000, 8940),
            (536, 536),
            (535, 216),
            (0, 216),
            (65_535, 8940),
        ] {
            assert_eq!(Facts::mss(Facts::new(mss, None, false).mss), kept, "{mss}");
        }
    }

    #[test]
    fn two_epochs_long_and_no_longer() {
        let mut cookies = cookies();
        let facts = Facts::new(1460, Some(7), true);
        for made in [0, 63, 64, 1000] {
            let made = Nanos::from_secs(made);
            let cookie = cookies.make(made, &ENDS, 5, facts, 7);
            let second_epoch_ends = (made.0 / Cookies::EPOCH.0 + 2) * Cookies::EPOCH.0;
            for (at, good) in [
                (made.0, true),
                (second_epoch_ends - 1, true),
                (second_epoch_ends, false),
            ] {
                let found = cookies.check(Nanos(at), &ENDS, cookie, &[5], &[7]);
                assert_eq!(found, good.then_some((5, facts, 7)), "{made:?} at {at}");
            }
        }
    }

    #[test]
    fn keys_differ_by_epoch_and_by_secret() {
        let facts = Facts::new(1460, None, true);
        let mut one = cookies();
        let mut other = Cookies::new(HashSeed([1, 2, 3, 5]));
        let made = [
            one.make(Nanos(0), &ENDS, 5, facts, 0),
            one.make(Cookies::EPOCH, &ENDS, 5, facts, 0),
            other.make(Nanos(0), &ENDS, 5, facts, 0),
        ];
        assert_ne!(made[0], made[1]);
        assert_ne!(made[0], made[2]);
        assert_ne!(one.stamp(Nanos(0)), other.stamp(Nanos(0)));
        // The clock need not go on from one epoch to the next.
        let later = Nanos::from_secs(64 * 1000);
        let cookie = one.make(later, &ENDS, 5, facts, 0);
        assert!(
            one.check(later.plus(Cookies::EPOCH), &ENDS, cookie, &[5], &[0])
                .is_some()
        );
    }

    /// A MAC of few bits may fit by chance: one in 2^24. The inputs are fixed, so the test cannot fail by chance.
    #[test]
    fn everything_is_covered() {
        for (own, other_client, other_server) in [
            (ENDS, &SERVER, &CLIENT),
            (ENDS_V4, &SERVER_V4, &CLIENT_V4),
            // One end of each family is none of IPv4.
            (ENDS, &CLIENT_V4, &SERVER_V4),
            (ENDS_V4, &CLIENT, &SERVER),
        ] {
            let mut cookies = cookies();
            let facts = Facts::new(1460, Some(7), true);
            let cookie = cookies.make(Nanos(0), &own, 5, facts, 7);
            let mut refused = |change: &dyn Fn(&mut Ends<'_>), cookie: u32, isn: u32, told: u8| {
                let mut ends = own;
                change(&mut ends);
                assert_eq!(cookies.check(Nanos(0), &ends, cookie, &[isn], &[told]), None);
            };
            refused(&|e| e.client.0 = other_client, cookie, 5, 7);
            refused(&|e| e.client.1 += 1, cookie, 5, 7);
            refused(&|e| e.server.0 = other_server, cookie, 5, 7);
            refused(&|e| e.server.1 += 1, cookie, 5, 7);
            refused(&|e| e.domain += 1, cookie, 5, 7);
            refused(&|_| {}, cookie, 6, 7);
            refused(&|_| {}, cookie, 5, 6);
            for bit in 0..32 {
                refused(&|_| {}, cookie ^ (1 << bit), 5, 7);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_made_is_taken(
            isn: u32, told_scale in 0_u8..15, facts in facts(), secs in 0_u64..1 << 40, v4: bool,
        ) {
            let mut cookies = cookies();
            let now = Nanos(secs);
            let ends = if v4 { &ENDS_V4 } else { &ENDS };
            let cookie = cookies.make(now, ends, isn, facts, told_scale);
            let found = cookies.check(now, ends, cookie, &[isn], &[told_scale]);
            let told_scale = if facts.scale.is_some() { told_scale } else { 0 };
            prop_assert_eq!(found, Some((isn, facts, told_scale)));
        }
    }
}
