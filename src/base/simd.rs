//! The one place outside `src/dpdk` with `unsafe`: prefetch hints and the index bucket's tag match, each with a safe
//! signature and a scalar twin that a test compares it with.
#![allow(unsafe_code, reason = "CPU intrinsics behind safe signatures; see each block")]

/// Hints that `value`'s cache line will be read soon. Never faults, changes nothing that a program can see.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 is a hint; any address is allowed, and this one comes from a live reference. SSE is part of
    // the x86-64 baseline.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(value).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// [`prefetch`] for the first cache line of `bytes`; of none, for nothing of interest.
#[inline(always)]
pub fn prefetch_bytes(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `prefetch`; the pointer of an empty slice may be read from by a hint, too.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(bytes.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Tags of an index bucket.
pub const TAGS: usize = 10;

/// The tags that equal `tag`, as a mask: bit `i` for `tags[i]`.
#[inline(always)]
#[must_use]
pub fn match_tags(tags: &[u16; TAGS], tag: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16,
            _mm_set1_epi16,
        };
        let last = i32::from(tags[8]) | (i32::from(tags[9]) << 16);
        // SAFETY: the load reads the first 16 bytes of a 20-byte array, at any alignment; SSE2 is part of the x86-64
        // baseline.
        let mask = unsafe {
            let wanted = _mm_set1_epi16(tag as i16);
            let low = _mm_cmpeq_epi16(_mm_loadu_si128(tags.as_ptr().cast()), wanted);
            let high = _mm_cmpeq_epi16(_mm_cvtsi32_si128(last), wanted);
            _mm_movemask_epi8(_mm_packs_epi16(low, high))
        };
        mask as u32 & ((1 << TAGS) - 1)
    }
    #[cfg(not(target_arch = "x86_64"))]
    match_tags_scalar(tags, tag)
}

/// What [`match_tags`] does, one tag after the other.
#[inline]
#[must_use]
pub fn match_tags_scalar(tags: &[u16; TAGS], tag: u16) -> u32 {
    let mut mask = 0;
    for (i, t) in tags.iter().enumerate() {
        mask |= u32::from(*t == tag) << i;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Few distinct values, so that several tags match; the extremes of both signs, because the comparison packs
        /// with signed saturation.
        #[test]
        fn tags_match_like_the_scalar_twin(
            tags in prop::array::uniform10(prop::sample::select(vec![0, 1, 2, 0x7fff, 0x8000, 0xff00, 0x00ff, u16::MAX])),
            tag in prop::sample::select(vec![0, 1, 2, 0x7fff, 0x8000, 0xff00, 0x00ff, u16::MAX]),
        ) {
            prop_assert_eq!(match_tags(&tags, tag), match_tags_scalar(&tags, tag));
        }

        #[test]
        fn any_tags_match_like_the_scalar_twin(tags: [u16; TAGS], tag: u16, place in 0..TAGS) {
            prop_assert_eq!(match_tags(&tags, tag), match_tags_scalar(&tags, tag));
            prop_assert!(match_tags(&tags, tags[place]) & (1 << place) != 0);
        }
    }
}
