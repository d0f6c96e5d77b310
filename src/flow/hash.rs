//! The secret hash that spreads flow keys over the index. Never the RSS hash, which an attacker can collide.

use std::hash::{BuildHasher, Hasher};

use super::{FlowKey, KeyRow};

/// The secret that keys a table's hash, and that an engine derives its other secrets from.
#[derive(Clone, Copy)]
pub struct HashSeed(pub [u64; 4]);

impl HashSeed {
    /// From the operating system's randomness, another one with every call.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(32) => Self(std::array::from_fn(|i| {
                u64::from_ne_bytes(std::array::from_fn(|j| bytes[8 * i + j]))
            })),
            // A kernel without it (before 3.17): ahash and the standard library have ways of their own.
            _ => {
                let secrets = [ahash::RandomState::new(), ahash::RandomState::new()];
                let standard = std::hash::RandomState::new();
                Self(std::array::from_fn(|i| {
                    secrets[i % 2].hash_one(i) ^ standard.hash_one(i)
                }))
            }
        }
    }
}

/// Hashes flow keys. Tests give the table one of their own, to make keys collide.
pub trait HashKey {
    /// The hash of a key; the index takes the bucket from its high half and the tag from its low 16 bits.
    fn hash(&self, key: &FlowKey) -> u64;

    /// The same for the key of a row.
    #[inline(always)]
    fn hash_row(&self, row: &KeyRow) -> u64 {
        self.hash(&row.key())
    }
}

/// ahash under a secret seed.
#[derive(Clone)]
pub struct SecretHash(ahash::RandomState);

impl SecretHash {
    /// Keyed with this seed.
    #[must_use]
    pub const fn new(seed: HashSeed) -> Self {
        let [a, b, c, d] = seed.0;
        Self(ahash::RandomState::with_seeds(a, b, c, d))
    }
}

impl HashKey for SecretHash {
    #[inline(always)]
    fn hash(&self, key: &FlowKey) -> u64 {
        if key.is_ipv4() {
            return self.ipv4(key.ipv4_word());
        }
        let [low, high, rest] = key.words();
        let mut hasher = self.0.build_hasher();
        hasher.write_u128(low);
        hasher.write_u128(high);
        hasher.write_u128(rest);
        hasher.finish()
    }

    #[inline(always)]
    fn hash_row(&self, row: &KeyRow) -> u64 {
        self.ipv4(row.ipv4_word())
    }
}

impl SecretHash {
    /// One round instead of three.
    #[inline(always)]
    fn ipv4(&self, word: u128) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u128(word);
        hasher.finish()
    }
}
