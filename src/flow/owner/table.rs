//! The logical table: which worker owns which bucket of hashes.

use crate::base::WorkerId;

/// Buckets of the logical table: as many as the largest common device table has.
pub const BUCKETS: usize = 512;

/// Who owns which bucket; one for the whole node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketTable {
    /// One more with every change.
    pub version: u32,
    /// The owner of each bucket.
    pub workers: [WorkerId; BUCKETS],
}

/// Some of the buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketSet([u64; BUCKETS / 64]);

impl BucketSet {
    /// Is this bucket among them?
    #[inline]
    #[must_use]
    pub const fn has(&self, bucket: usize) -> bool {
        (self.0[bucket % BUCKETS / 64] >> (bucket % 64)) & 1 == 1
    }

    /// Is the bucket of this hash?
    #[inline]
    #[must_use]
    pub const fn has_hash(&self, hash: u32) -> bool {
        self.has(BucketTable::bucket(hash))
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..BUCKETS).filter(|bucket| self.has(*bucket))
    }
}

impl FromIterator<usize> for BucketSet {
    fn from_iter<I: IntoIterator<Item = usize>>(buckets: I) -> Self {
        let mut set = Self::default();
        for bucket in buckets {
            set.0[bucket % BUCKETS / 64] |= 1 << (bucket % 64);
        }
        set
    }
}

/// A device's table cannot say what the logical one says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The device takes the remainder of the hash by a number that is none of the logical table's.
    #[error("its table has {0} entries, which is no power of two")]
    Odd(u16),
    /// Buckets with different owners fall into one entry.
    #[error("its table has {0} entries, too few for how the workers share the buckets")]
    TooSmall(u16),
}

impl BucketTable {
    /// An even share for each of `workers` (0 counts as 1).
    #[must_use]
    pub fn even(workers: u16) -> Self {
        Self::even_folded(workers, BUCKETS)
    }

    /// The same, but so that device tables with `period` entries (a power of two up to [`BUCKETS`]) and more can say it, too:
    /// bucket b has the owner of bucket b mod `period`.
    #[must_use]
    pub fn even_folded(workers: u16, period: usize) -> Self {
        let period = period.clamp(1, BUCKETS).next_power_of_two();
        Self {
            version: 0,
            workers: std::array::from_fn(|b| WorkerId((b % period) as u16 % workers.max(1))),
        }
    }

    /// The bucket of a hash.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(hash: u32) -> usize {
        hash as usize % BUCKETS
    }

    /// Who owns the flows of this hash.
    #[inline(always)]
    #[must_use]
    pub const fn owner(&self, hash: u32) -> WorkerId {
        self.workers[Self::bucket(hash)]
    }

    /// The smallest power of two such that bucket b has the owner of bucket b mod that: device tables of this size and
    /// more can say what this one says, and buckets are moved in classes of this number.
    #[must_use]
    pub fn period(&self) -> usize {
        let periodic = |n: usize| (n..BUCKETS).all(|b| self.workers[b] == self.workers[b - n]);
        (0..BUCKETS.ilog2())
            .map(|i| 1 << i)
            .find(|n| periodic(*n))
            .unwrap_or(BUCKETS)
    }

    /// A table in which `moves` (bucket, new owner) have happened, with the next version.
    #[must_use]
    pub fn moved(&self, moves: impl IntoIterator<Item = (usize, WorkerId)>) -> Self {
        let mut table = self.clone();
        table.version = self.version.wrapping_add(1);
        for (bucket, to) in moves {
            table.workers[bucket % BUCKETS] = to;
        }
        table
    }

    /// The owners as a device's table with `entries` has them: folded or repeated.
    ///
    /// # Errors
    /// It cannot say the same.
    pub fn device_entries(&self, entries: u16) -> Result<impl Iterator<Item = WorkerId> + '_, Unfit> {
        if !entries.is_power_of_two() {
            return Err(Unfit::Odd(entries));
        }
        if usize::from(entries) < self.period() {
            return Err(Unfit::TooSmall(entries));
        }
        Ok((0..usize::from(entries)).map(|i| self.workers[i % BUCKETS]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_even() {
        for workers in 1..=64 {
            for period in [64, 128, 512] {
                let table = BucketTable::even_folded(workers, period);
                let mut share = vec![0usize; workers.into()];
                table.workers.iter().for_each(|w| share[w.index()] += 1);
                let (least, most) = (share.iter().min().unwrap(), share.iter().max().unwrap());
                assert!(most - least <= BUCKETS / period, "{workers} {period}: {share:?}");
            }
        }
        assert_eq!(BucketTable::even(0), BucketTable::even(1));
    }

    #[test]
    fn device_tables_say_the_same_or_are_refused() {
        for workers in 1..=16 {
            for period in [16usize, 128, 512] {
                let table = BucketTable::even_folded(workers, period);
                assert!(table.period() <= period);
                for entries in [16u16, 32, 64, 128, 256, 512, 1024, 2048] {
                    match table.device_entries(entries) {
                        Ok(device) => {
                            let device: Vec<_> = device.collect();
                            assert_eq!(device.len(), usize::from(entries));
                            for hash in (0..5000u32).map(|i| i.wrapping_mul(0x9e37_79b9)) {
                                let entry = hash as usize & (device.len() - 1);
                                assert_eq!(device[entry], table.owner(hash));
                            }
                        }
                        Err(why) => {
                            assert_eq!(why, Unfit::TooSmall(entries));
                            assert!(usize::from(entries) < table.period());
                        }
                    }
                }
                for entries in [0, 48, 100, 513] {
                    assert_eq!(table.device_entries(entries).err(), Some(Unfit::Odd(entries)));
                }
            }
        }
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        let buckets = [0, 63, 64, 200, 511];
        let set: BucketSet = buckets.into_iter().collect();
        assert!(set.iter().eq(buckets));
        assert!(set.has_hash(512 + 63) && !set.has_hash(62) && !set.has(1));
        assert_eq!(BucketSet::default().iter().count(), 0);
    }

    #[test]
    fn moves_make_a_new_version() {
        let table = BucketTable::even(2);
        assert_eq!(table.period(), 2);
        let moved = table.moved([(0, WorkerId(1))]);
        assert_eq!((moved.version, moved.period()), (1, BUCKETS));
        assert_eq!((moved.owner(512), moved.owner(2)), (WorkerId(1), WorkerId(0)));
    }
}
