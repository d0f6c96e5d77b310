//! A network between two nodes that a seed makes drop, delay, repeat and reorder datagrams, and a script cuts, each way and each path by
//! itself. What happens depends on the seed and on what is sent alone.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;

use haechi::base::Nanos;
use haechi::ha::Path;

/// splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn chance(&mut self, of_256: u8) -> bool {
        (self.next() as u8) < of_256
    }

    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes());
        }
        bytes
    }
}

/// What becomes of datagrams; probabilities in 256ths.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub drop: u8,
    pub duplicate: u8,
    /// A bit is changed on the way.
    pub corrupt: u8,
    /// One way.
    pub delay: Nanos,
    /// On top of the delay, at most: datagrams overtake each other.
    pub jitter: Nanos,
}

impl Faults {
    /// A good link.
    pub const NONE: Self = Self {
        drop: 0,
        duplicate: 0,
        corrupt: 0,
        delay: Nanos(100_000),
        jitter: Nanos(0),
    };
}

/// What was sent and is not there yet.
#[derive(Debug)]
pub struct Datagram {
    pub to: usize,
    pub path: Path,
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub struct Net {
    pub random: Random,
    pub faults: Faults,
    /// What each node sends by these paths does not arrive.
    cut: [Vec<Path>; 2],
    way: BTreeMap<(Nanos, u64), Datagram>,
    sent: u64,
    /// Everything that was sent, if it is to be kept.
    pub record: Option<Vec<(usize, Vec<u8>)>>,
    /// The longest datagram so far.
    pub longest: usize,
    pub dropped: u64,
    pub delivered: u64,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            faults: Faults::NONE,
            cut: [Vec::new(), Vec::new()],
            way: BTreeMap::new(),
            sent: 0,
            record: None,
            longest: 0,
            dropped: 0,
            delivered: 0,
        }
    }

    /// From now on nothing that `from` sends by `path` arrives. What is on its way does.
    pub fn cut(&mut self, from: usize, path: Path) {
        self.cut[from].push(path);
    }

    pub fn heal(&mut self) {
        self.cut = [Vec::new(), Vec::new()];
    }

    pub fn send(&mut self, now: Nanos, from: usize, path: Path, bytes: &[u8]) {
        self.longest = self.longest.max(bytes.len());
        if let Some(record) = &mut self.record {
            record.push((from, bytes.to_vec()));
        }
        if self.cut[from].contains(&path) || self.random.chance(self.faults.drop) {
            self.dropped += 1;
            return;
        }
        let copies = 1 + u8::from(self.random.chance(self.faults.duplicate));
        for _ in 0..copies {
            let mut bytes = bytes.to_vec();
            if self.random.chance(self.faults.corrupt) {
                let bit = self.random.below(8 * bytes.len() as u64) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let jitter = Nanos(self.random.below(self.faults.jitter.0 + 1));
            let at = now.plus(self.faults.delay).plus(jitter);
            self.sent += 1;
            let to = 1 - from;
            self.way.insert((at, self.sent), Datagram { to, path, bytes });
        }
    }

    /// When the next datagram arrives.
    pub fn next(&self) -> Option<Nanos> {
        self.way.keys().next().map(|(at, _)| *at)
    }

    /// One that has arrived.
    pub fn take(&mut self, now: Nanos) -> Option<Datagram> {
        let entry = self.way.first_entry().filter(|entry| entry.key().0 <= now)?;
        self.delivered += 1;
        Some(entry.remove())
    }

    /// A node does not run any more: nothing of what was on its way to it will be read.
    pub fn forget(&mut self, to: usize) {
        self.way.retain(|_, datagram| datagram.to != to);
    }
}
