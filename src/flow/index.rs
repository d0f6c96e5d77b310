//! The index: where in the table a key's session may be. 64-byte buckets of ten 16-bit tags and ten slot numbers, one
//! cache line a lookup in nearly all cases (the load is at most one half: 1.4 % of the buckets ever overflow).
//!
//! An entry that finds its home bucket full goes to the next bucket with room, and every full bucket on its way counts
//! it in `overflow` (as in Folly's F14): a lookup goes on to the next bucket only while that count is not zero, and a
//! removal takes the count back, so no tombstones pile up. The count is as wide as a slot number: it cannot saturate,
//! and an insertion below capacity never fails, whatever the hashes.

use crate::base::simd;

/// Entries of a bucket.
pub(super) const WAYS: usize = simd::TAGS;
/// "No slot".
pub(super) const NIL: u32 = u32::MAX;

/// One cache line of the index.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Tags of the entries; 0: empty.
    tags: [u16; WAYS],
    /// Entries that passed by this bucket because it was full.
    overflow: u32,
    /// Slot numbers of the entries.
    slots: [u32; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Buckets for a capacity: a load of one half at most.
pub(super) const fn buckets_for(capacity: u32) -> usize {
    (capacity as usize).div_ceil(WAYS / 2)
}

/// Home bucket of a hash: its high half spread over any number of buckets by multiplication (Lemire), so that memory is not
/// rounded up to a power of two.
#[inline(always)]
pub(super) const fn home(hash: u64, buckets: usize) -> usize {
    (((hash >> 32) * buckets as u64) >> 32) as usize
}

/// Tag of a hash: from its low half, never 0.
#[inline(always)]
pub(super) const fn tag(hash: u64) -> u16 {
    let tag = hash as u16;
    if tag == 0 { 1 } else { tag }
}

/// What a look at a home bucket says.
pub(super) enum Probe {
    /// No entry can have this hash.
    Miss,
    /// This slot may be it; look at its key.
    Candidate(u32),
    /// No tag matches here, but entries passed by.
    Further,
}

/// Looks at the home bucket alone: one cache line.
#[inline(always)]
pub(super) fn probe(buckets: &[Bucket], hash: u64) -> Probe {
    let bucket = &buckets[home(hash, buckets.len())];
    let found = simd::match_tags(&bucket.tags, tag(hash));
    if found != 0 {
        Probe::Candidate(bucket.slots[first(found)])
    } else if bucket.overflow != 0 {
        Probe::Further
    } else {
        Probe::Miss
    }
}

/// Place of the lowest set bit of a match mask that is not 0; always inside a bucket, which the compiler can see.
#[inline(always)]
const fn first(mask: u32) -> usize {
    let place = mask.trailing_zeros() as usize;
    if place < WAYS { place } else { 0 }
}

/// Finds the slot whose key `is_it` knows, along the whole path.
#[inline]
pub(super) fn find(buckets: &[Bucket], hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
    let mut at = home(hash, buckets.len());
    // A path that visited every bucket has seen every entry.
    for _ in 0..buckets.len() {
        let bucket = &buckets[at];
        let mut found = simd::match_tags(&bucket.tags, tag(hash));
        while found != 0 {
            let slot = bucket.slots[first(found)];
            if is_it(slot) {
                return Some(slot);
            }
            found &= found - 1;
        }
        if bucket.overflow == 0 {
            return None;
        }
        at = next(at, buckets.len());
    }
    None
}

/// Adds an entry. False: every bucket is full, which a table that keeps its capacity never sees; nothing changed.
pub(super) fn insert(buckets: &mut [Bucket], hash: u64, slot: u32) -> bool {
    let start = home(hash, buckets.len());
    let mut at = start;
    for _ in 0..buckets.len() {
        let empty = simd::match_tags(&buckets[at].tags, 0);
        if empty != 0 {
            let place = first(empty);
            buckets[at].tags[place] = tag(hash);
            buckets[at].slots[place] = slot;
            let mut passed = start;
            while passed != at {
                buckets[passed].overflow += 1;
                passed = next(passed, buckets.len());
            }
            return true;
        }
        at = next(at, buckets.len());
    }
    false
}

/// Removes the entry of a slot that was inserted with this hash. False: there is none.
pub(super) fn remove(buckets: &mut [Bucket], hash: u64, slot: u32) -> bool {
    let start = home(hash, buckets.len());
    let mut at = start;
    for _ in 0..buckets.len() {
        let mut found = simd::match_tags(&buckets[at].tags, tag(hash));
        while found != 0 {
            let place = first(found);
            if buckets[at].slots[place] == slot {
                buckets[at].tags[place] = 0;
                let mut passed = start;
                while passed != at {
                    buckets[passed].overflow -= 1;
                    passed = next(passed, buckets.len());
                }
                return true;
            }
            found &= found - 1;
        }
        if buckets[at].overflow == 0 {
            return false;
        }
        at = next(at, buckets.len());
    }
    false
}

#[inline(always)]
const fn next(at: usize, buckets: usize) -> usize {
    if at + 1 == buckets { 0 } else { at + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What each bucket's count must be: entries whose home is at or before it and whose place is behind it.
    fn passed_by(buckets: &[Bucket], hashes: &[u64]) -> Vec<u32> {
        let mut counts = vec![0; buckets.len()];
        for (at, bucket) in buckets.iter().enumerate() {
            for (tag, slot) in bucket.tags.iter().zip(bucket.slots) {
                let mut passed = if *tag == 0 {
                    at
                } else {
                    home(hashes[slot as usize], buckets.len())
                };
                while passed != at {
                    counts[passed] += 1;
                    passed = next(passed, buckets.len());
                }
            }
        }
        counts
    }

    proptest! {
        /// Counts that were too high would be correct but slow, and grow without end.
        #[test]
        fn overflow_counts_are_exact(
            hashes in prop::collection::vec(prop::sample::select(vec![0, 1 << 62, 3 << 62, u64::MAX, 5 << 61]), 1..50),
            ops in prop::collection::vec(any::<prop::sample::Index>(), 0..300),
        ) {
            let mut buckets = vec![Bucket::default(); buckets_for(hashes.len() as u32)];
            let mut inserted = vec![false; hashes.len()];
            for op in ops {
                let slot = op.index(hashes.len());
                let done = if inserted[slot] {
                    remove(&mut buckets, hashes[slot], slot as u32)
                } else {
                    insert(&mut buckets, hashes[slot], slot as u32)
                };
                prop_assert!(done);
                inserted[slot] = !inserted[slot];
                let counts: Vec<_> = buckets.iter().map(|b| b.overflow).collect();
                prop_assert_eq!(counts, passed_by(&buckets, &hashes));
            }
        }
    }
}
