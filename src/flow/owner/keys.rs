//! Methods of symmetric RSS and their keys.

use super::{INPUT, Side, Table, added};

/// Bytes of a key that any of our inputs can reach: 36 bytes and a window of 32 bits from the last one on. A device that takes
/// a longer key is given it repeated.
pub const KEY_BYTES: usize = INPUT + 4;

type Key = [u8; KEY_BYTES];

/// What makes the hash the same for both directions of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The device hashes the XOR of source and destination, in the place of each of them (DPDK's `SYMMETRIC_TOEPLITZ`: ice,
    /// iavf, i40e, hns3). Any key will do.
    SymmetricToeplitz,
    /// The device puts the lower address first, and the lower port first, each by itself (DPDK's `SYMMETRIC_TOEPLITZ_SORT` from
    /// 23.11 on; what mlx5 does when asked for the former). Any key will do.
    Sorted,
    /// Plain Toeplitz with two keys, one for each side of the firewall, so that the one hashes a packet as the other hashes
    /// the answer.
    TwoSided,
    /// Plain Toeplitz with 0x6d5a over and over: the hash of the XOR of all 16-bit words.
    SymmetricKey,
}

impl Method {
    /// As the log has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SymmetricToeplitz => "symmetric Toeplitz",
            Self::Sorted => "sorted Toeplitz",
            Self::TwoSided => "two-sided keys",
            Self::SymmetricKey => "symmetric key",
        }
    }
}

/// A key or a pair of keys is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Shorter than what is hashed needs.
    #[error(
        "an RSS key of {0} bytes is too short: {KEY_BYTES} are needed for the addresses and ports of IPv6"
    )]
    Length(usize),
    /// The two directions of a flow would have different hashes.
    #[error("the RSS key is not symmetric, as the method '{}' needs it", .0.name())]
    NotSymmetric(Method),
}

/// The key that each side's devices are given. With [`Method::TwoSided`] they differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeySet {
    lan: Key,
    wan: Key,
}

impl std::fmt::Debug for KeySet {
    /// The key is what an attacker would have to guess: it does not get into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.lan == self.wan {
            "one key"
        } else {
            "two keys"
        };
        f.debug_tuple("KeySet").field(&kind).finish()
    }
}

impl KeySet {
    /// The periodic key of [`Method::SymmetricKey`]. A secret one of its kind would be no better: what collides, does so under
    /// each of them.
    pub const PERIODIC: Self = {
        let mut key = [0x6d; KEY_BYTES];
        let mut i = 1;
        while i < KEY_BYTES {
            key[i] = 0x5a;
            i += 2;
        }
        Self { lan: key, wan: key }
    };

    /// One key for all ports. Bytes beyond [`KEY_BYTES`] are never hashed with.
    ///
    /// # Errors
    /// It is too short.
    pub fn one(key: &[u8]) -> Result<Self, KeyError> {
        let key = *key.first_chunk().ok_or(KeyError::Length(key.len()))?;
        Ok(Self { lan: key, wan: key })
    }

    /// One for the ports of each side.
    ///
    /// # Errors
    /// One is too short.
    pub fn two(lan: &[u8], wan: &[u8]) -> Result<Self, KeyError> {
        Ok(Self {
            lan: Self::one(lan)?.lan,
            wan: Self::one(wan)?.lan,
        })
    }

    /// Drawn from these random bits.
    #[must_use]
    pub fn draw(method: Method, entropy: &[u8; KEY_BYTES]) -> Self {
        match method {
            Method::SymmetricToeplitz | Method::Sorted => Self {
                lan: *entropy,
                wan: *entropy,
            },
            Method::TwoSided => two_sided(entropy),
            Method::SymmetricKey => Self::PERIODIC,
        }
    }

    /// A good one, drawn until one is found; `random` fills in what nobody can guess. Nearly every other draw is good.
    #[must_use]
    pub fn random(method: Method, mut random: impl FnMut(&mut [u8; KEY_BYTES])) -> Self {
        const DRAWS: usize = 64;
        let mut draw = || {
            let mut entropy = [0; KEY_BYTES];
            random(&mut entropy);
            Self::draw(method, &entropy)
        };
        let mut best = draw();
        for _ in 1..DRAWS {
            if method == Method::SymmetricKey || best.worth(method) == (32, MOST) {
                break;
            }
            let next = draw();
            if next.worth(method) > best.worth(method) {
                best = next;
            }
        }
        best
    }

    /// The key of the ports of a side.
    #[must_use]
    pub const fn key(&self, side: Side) -> &[u8; KEY_BYTES] {
        match side {
            Side::Lan => &self.lan,
            Side::Wan => &self.wan,
        }
    }

    /// How many bits the hash of IPv4's addresses and ports has in truth: the rank over GF(2) of the map from the tuple to
    /// the hash. 32 is the most. (Of [`Method::Sorted`] that of the part behind the sorting, which is not linear.)
    #[must_use]
    pub fn rank(&self, method: Method) -> u32 {
        rank((0..96).map(|bit| self.of_ipv4_bit(method, bit)))
    }

    /// What the log should warn of, if the hash is easy to collide.
    #[must_use]
    pub fn weakness(&self, method: Method) -> Option<String> {
        let rank = self.rank(method);
        (rank < 32).then(|| {
            format!(
                "RSS with the method '{}' has hashes of rank {rank} of 32: whoever knows how it works can send flows that all land on \
                 one worker, without knowing a key; ports that hash symmetrically in hardware, or pairs of ports that take a key of \
                 their own each, have no such weakness",
                method.name()
            )
        })
    }

    /// Does it make the method symmetric?
    pub(super) fn fit(&self, method: Method) -> Result<(), KeyError> {
        let fits = match method {
            Method::SymmetricToeplitz | Method::Sorted => self.lan == self.wan,
            Method::SymmetricKey => self.lan == self.wan && self.lan.windows(3).all(|w| w[0] == w[2]),
            Method::TwoSided => twins().all(|(from, to)| bit(&self.lan, from) == bit(&self.wan, to)),
        };
        if fits {
            Ok(())
        } else {
            Err(KeyError::NotSymmetric(method))
        }
    }

    /// What byte `place` of the input adds to the hash of a LAN port.
    pub(super) fn lan_adds(&self, place: usize, byte: u8) -> u32 {
        (0..8)
            .filter(|i| byte & (0x80 >> i) != 0)
            .fold(0, |sum, i| sum ^ window(&self.lan, 8 * place + i))
    }

    /// By place.
    pub(super) fn tables(&self) -> Box<[Table; INPUT]> {
        Box::new(std::array::from_fn(|place| {
            added(|byte| self.lan_adds(place, byte))
        }))
    }

    /// What bit `i` of IPv4's input adds, behind XORing or sorting.
    fn of_ipv4_bit(&self, method: Method, i: usize) -> u32 {
        let own = window(&self.lan, i);
        if method != Method::SymmetricToeplitz {
            return own;
        }
        let other = match i {
            0..64 => i ^ 32,
            _ => 64 + ((i - 64) ^ 16),
        };
        own ^ window(&self.lan, other)
    }

    /// The rank, and how well flows that differ in little spread over the buckets of a table: the bits of the bucket that depend
    /// on the last 16 bits of each address, and on each port, alone.
    fn worth(&self, method: Method) -> (u32, u32) {
        let spread = [16..32, 48..64, 64..80, 80..96]
            .into_iter()
            .map(|field| rank(field.map(|i| self.of_ipv4_bit(method, i) & (super::BUCKETS as u32 - 1))))
            .sum();
        (self.rank(method), spread)
    }
}

/// Four fields, each with all bits of the bucket.
const MOST: u32 = 4 * super::BUCKETS.ilog2();

fn bit(key: &Key, i: usize) -> bool {
    key[i / 8] & (0x80 >> (i % 8)) != 0
}

/// The 32 bits of a key that a set bit `i` of the input adds to the hash.
fn window(key: &Key, i: usize) -> u32 {
    let from = i / 8;
    let five = (0..5).fold(0u64, |sum, k| {
        (sum << 8) | u64::from(key.get(from + k).copied().unwrap_or(0))
    });
    (five >> (8 - i % 8)) as u32
}

/// Of vectors over GF(2).
fn rank(vectors: impl Iterator<Item = u32>) -> u32 {
    // By leading bit.
    let mut basis = [0u32; 32];
    let mut rank = 0;
    for mut vector in vectors {
        while vector != 0 {
            let place = &mut basis[vector.ilog2() as usize];
            if *place == 0 {
                *place = vector;
                rank += 1;
                break;
            }
            vector ^= *place;
        }
    }
    rank
}

/// Fields of the input that change places in the answer, each with its length in bits: where they lie in a packet and in its
/// answer. IPv4's and IPv6's addresses, and the ports behind each.
const FIELDS: [(usize, usize, usize); 4] = [(0, 32, 32), (64, 80, 16), (0, 128, 128), (256, 272, 16)];

/// Which bit of one side's key has to be which of the other's: where a field lies in a packet the one has the windows that the
/// other has where it lies in the answer.
fn twins() -> impl Iterator<Item = (usize, usize)> {
    FIELDS.into_iter().flat_map(|(source, destination, bits)| {
        let reach = bits + 31;
        (0..reach).flat_map(move |i| [(source + i, destination + i), (destination + i, source + i)])
    })
}

/// Bits of both keys that have to be the same are drawn as one.
fn two_sided(entropy: &Key) -> KeySet {
    const BITS: usize = 8 * KEY_BYTES;
    let (classes, _) = two_sided_classes();
    let drawn = |i: usize| bit(entropy, classes[i] % BITS);
    let key = |from: usize| -> Key {
        std::array::from_fn(|byte| (0..8).fold(0, |sum, i| (sum << 1) | u8::from(drawn(from + 8 * byte + i))))
    };
    KeySet {
        lan: key(0),
        wan: key(BITS),
    }
}

/// The class of each bit of the LAN key, then of the WAN key; classes are numbered from 0 on. And how many there are.
fn two_sided_classes() -> ([usize; 16 * KEY_BYTES], usize) {
    const BITS: usize = 8 * KEY_BYTES;
    let mut class: [usize; 2 * BITS] = std::array::from_fn(|i| i);
    // Small and seldom: the lower name wins until nothing changes.
    loop {
        let mut changed = false;
        for (lan, wan) in twins() {
            let wan = BITS + wan;
            let low = class[lan].min(class[wan]);
            changed |= class[lan] != low || class[wan] != low;
            class[lan] = low;
            class[wan] = low;
        }
        if !changed {
            break;
        }
    }
    let mut count = 0;
    let mut number = [0; 2 * BITS];
    for i in 0..2 * BITS {
        if class[i] == i {
            number[i] = count;
            count += 1;
        }
        class[i] = number[class[i]];
    }
    (class, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sided_keys_have_36_free_bits() {
        // 34 of them in IPv4's windows. Bit 319, the last one, is in no window: one class more for each key.
        assert_eq!(two_sided_classes().1, 36 + 2);
        let (classes, _) = two_sided_classes();
        let of_ipv4: std::collections::HashSet<_> = classes[..127].iter().collect();
        assert_eq!(of_ipv4.len(), 34);
    }

    #[test]
    fn the_periodic_key_has_rank_16() {
        assert_eq!(KeySet::PERIODIC.rank(Method::SymmetricKey), 16);
        let warning = KeySet::PERIODIC.weakness(Method::SymmetricKey).unwrap();
        assert!(warning.contains("rank 16 of 32"), "{warning}");
    }

    #[test]
    fn keys_too_short_are_refused_by_their_length() {
        let error = KeySet::one(&[7; 39]).unwrap_err();
        assert_eq!(error, KeyError::Length(39));
        assert!(error.to_string().contains("39 bytes"), "{error}");
        assert!(KeySet::one(&[7; 40]).is_ok() && KeySet::one(&[7; 52]).is_ok());
    }

    #[test]
    fn keys_that_do_not_fit_their_method_are_refused() {
        let key: [u8; KEY_BYTES] = std::array::from_fn(|i| (i * i) as u8);
        let keys = KeySet::one(&key).unwrap();
        for (method, fits) in [
            (Method::SymmetricToeplitz, true),
            (Method::Sorted, true),
            (Method::TwoSided, false),
            (Method::SymmetricKey, false),
        ] {
            assert_eq!(keys.fit(method).is_ok(), fits, "{method:?}");
        }
        let mut two = KeySet::draw(Method::TwoSided, &key);
        assert_eq!(two.fit(Method::TwoSided), Ok(()));
        assert!(two.fit(Method::SymmetricToeplitz).is_err());
        two.wan[20] ^= 1;
        assert!(two.fit(Method::TwoSided).is_err());
    }

    #[test]
    fn drawn_keys_are_strong() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |bytes: &mut [u8; KEY_BYTES]| {
            for byte in bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = (state >> 32) as u8;
            }
        };
        for _ in 0..20 {
            for method in [Method::SymmetricToeplitz, Method::Sorted, Method::TwoSided] {
                let keys = KeySet::random(method, &mut random);
                assert_eq!(keys.worth(method), (32, MOST), "{method:?}");
                assert_eq!(keys.weakness(method), None);
            }
        }
    }

    #[test]
    fn no_key_gets_into_a_log() {
        assert_eq!(format!("{:?}", KeySet::PERIODIC), r#"KeySet("one key")"#);
    }
}
