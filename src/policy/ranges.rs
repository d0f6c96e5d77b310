//! Sets of integers as sorted ranges: the one form that prefixes, ports and services are compiled to, and in which one
//! rule can be compared with another.

/// An integer that ranges can be made of.
pub(crate) trait Bound: Copy + Ord {
    /// 0.
    const MIN: Self;
    /// The largest.
    const MAX: Self;
    /// The next larger one.
    fn successor(self) -> Option<Self>;
    /// The next smaller one; of 0, the largest.
    fn predecessor(self) -> Self;
    /// The distance from `other` up to this one, around the end where it is larger.
    fn distance(self, other: Self) -> Self;
}

macro_rules! bound {
    ($($int:ty),*) => {$(
        impl Bound for $int {
            const MIN: Self = <$int>::MIN;
            const MAX: Self = <$int>::MAX;
            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn predecessor(self) -> Self {
                self.wrapping_sub(1)
            }
            #[inline]
            fn distance(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
        }
    )*};
}

bound!(u16, u32, u128);

/// Disjoint ranges in ascending order, both ends included, no two of which touch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RangeSet<T>(Vec<(T, T)>);

impl<T: Bound> RangeSet<T> {
    /// Everything.
    pub(crate) fn full() -> Self {
        Self(vec![(T::MIN, T::MAX)])
    }

    /// The union of `ranges`; one with its ends reversed is empty.
    pub(crate) fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if before.1.successor().is_none_or(|next| first <= next) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    pub(crate) fn ranges(&self) -> &[(T, T)] {
        &self.0
    }

    /// Are the members all those from the lowest to the highest?
    pub(crate) fn is_interval(&self) -> bool {
        self.0.len() == 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is every member of `other` one of these too?
    pub(crate) fn covers(&self, other: &Self) -> bool {
        // Ranges of one set never touch, so a range of `other` is covered by one range or not at all.
        other.0.iter().all(|(first, last)| {
            let next = self.0.partition_point(|(_, end)| end < first);
            self.0
                .get(next)
                .is_some_and(|range| range.0 <= *first && *last <= range.1)
        })
    }
}

/// A range whose test is one subtraction and one compare, without a branch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval<T> {
    first: T,
    width: T,
}

impl<T: Bound> Interval<T> {
    /// From the lowest to the highest member of `set`; of an empty one, everything.
    pub(crate) fn hull(set: &RangeSet<T>) -> Self {
        let first = set.0.first().map_or(T::MIN, |range| range.0);
        let last = set.0.last().map_or(T::MAX, |range| range.1);
        Self {
            first,
            width: last.distance(first),
        }
    }

    #[inline]
    pub(crate) fn contains(self, value: T) -> bool {
        value.distance(self.first) <= self.width
    }
}

/// Up to so many ranges a scan is quicker than a binary search.
const SCAN: usize = 8;

/// Is `value` in one of `ranges`, which are as [`RangeSet`] keeps them?
#[inline]
pub(crate) fn contains<T: Bound>(ranges: &[(T, T)], value: T) -> bool {
    if ranges.len() <= SCAN {
        return ranges
            .iter()
            .any(|(first, last)| *first <= value && value <= *last);
    }
    let next = ranges.partition_point(|(_, last)| *last < value);
    ranges.get(next).is_some_and(|range| range.0 <= value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[(u16, u16)]) -> RangeSet<u16> {
        RangeSet::new(ranges.to_vec())
    }

    #[test]
    fn touching_and_overlapping_ranges_merge() {
        assert_eq!(
            set(&[(5, 9), (1, 4), (8, 12), (20, 20)]).ranges(),
            [(1, 12), (20, 20)]
        );
        assert_eq!(set(&[(7, 3)]).ranges(), []);
        assert_eq!(set(&[(0, 99), (100, u16::MAX)]), RangeSet::full());
        assert_eq!(set(&[(0, u16::MAX), (3, 4)]).ranges(), [(0, u16::MAX)]);
    }

    proptest! {
        #[test]
        fn membership_and_cover_are_those_of_plain_sets(
            a in prop::collection::vec((0_u16..64, 0_u16..64), 0..24),
            b in prop::collection::vec((0_u16..64, 0_u16..64), 0..4),
        ) {
            let member = |ranges: &[(u16, u16)], v: u16| ranges.iter().any(|(f, l)| *f <= v && v <= *l);
            let (set_a, set_b) = (set(&a), set(&b));
            if set_a.is_interval() {
                let hull = Interval::hull(&set_a);
                for v in (0..70).chain([u16::MAX]) {
                    prop_assert_eq!(hull.contains(v), member(&a, v));
                }
            }
            for v in 0..70 {
                prop_assert_eq!(contains(set_a.ranges(), v), member(&a, v));
            }
            let covered = (0..70).all(|v| !member(&b, v) || member(&a, v));
            prop_assert_eq!(set_a.covers(&set_b), covered);
        }
    }
}
