//! The one place outside `src/dpdk` with `unsafe`: prefetch hints, eight frames' headers turned to columns
//! and columns to rows, and the
//! index bucket's tag match, each with a safe signature; the latter two with a scalar twin that a test compares them with.
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

/// Frames that [`columns`] takes.
pub const LANES: usize = 8;
/// 32-bit words of each.
pub const COLUMNS: usize = 12;
/// A piece of a frame.
pub type Row = [u8; 4 * COLUMNS];

/// Eight rows of words to columns: word `w` of row `r`, read as a little-endian number, goes to `[w][r]`.
#[inline(always)]
#[must_use]
pub fn columns(rows: &[&Row; LANES]) -> [[u32; LANES]; COLUMNS] {
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
    {
        use std::arch::x86_64::{
            __m256i, _mm_loadu_si128, _mm256_set_m128i, _mm256_storeu_si256, _mm256_unpackhi_epi32,
            _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
        };
        let mut columns = [[0; LANES]; COLUMNS];
        for (part, four) in columns.chunks_exact_mut(4).enumerate() {
            // SAFETY: `part` is 0, 1 or 2, so the loads read 16 of a row's 48 bytes, and each store writes one column of
            // 32 bytes, at any alignment; the build asks for AVX2 (`target_feature`), and the program checks at start
            // that the CPU has it.
            unsafe {
                // Rows r and r + 4 in the halves of one vector, so that no shuffle crosses them.
                let pair = |r: usize| -> __m256i {
                    let quarter = |row: &Row| _mm_loadu_si128(row.as_ptr().add(16 * part).cast());
                    _mm256_set_m128i(quarter(rows[r + 4]), quarter(rows[r]))
                };
                let (a, b, c, d) = (pair(0), pair(1), pair(2), pair(3));
                let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
                let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
                let words = [
                    _mm256_unpacklo_epi64(ab, cd),
                    _mm256_unpackhi_epi64(ab, cd),
                    _mm256_unpacklo_epi64(ab2, cd2),
                    _mm256_unpackhi_epi64(ab2, cd2),
                ];
                for (column, word) in four.iter_mut().zip(words) {
                    _mm256_storeu_si256(column.as_mut_ptr().cast(), word);
                }
            }
        }
        columns
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
    columns_scalar(rows)
}

/// What [`columns`] does, one word after the other.
#[inline]
#[must_use]
pub fn columns_scalar(rows: &[&Row; LANES]) -> [[u32; LANES]; COLUMNS] {
    std::array::from_fn(|w| {
        std::array::from_fn(|r| {
            let mut word = [0; 4];
            word.copy_from_slice(&rows[r][4 * w..4 * w + 4]);
            u32::from_le_bytes(word)
        })
    })
}

/// Eight columns of words to rows: word `r` of column `w` goes to bits `32 * (w % 4)` and up of `[r][w / 4]`.
#[inline(always)]
#[must_use]
pub fn rows(columns: &[[u32; LANES]; LANES]) -> [[u128; 2]; LANES] {
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
    {
        use std::arch::x86_64::{
            __m256i, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_storeu_si256,
            _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
        };
        let mut rows = [[0; 2]; LANES];
        // SAFETY: every load reads one column of 32 bytes and every store writes one row of 32 bytes, at any alignment; the
        // build asks for AVX2 (`target_feature`), and the program checks at start that the CPU has it.
        unsafe {
            let column = |w: usize| -> __m256i { _mm256_loadu_si256(columns[w].as_ptr().cast()) };
            // Of four columns: rows 0 and 4, 1 and 5, 2 and 6, 3 and 7.
            let four = |w: usize| -> [__m256i; 4] {
                let (a, b, c, d) = (column(w), column(w + 1), column(w + 2), column(w + 3));
                let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
                let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
                [
                    _mm256_unpacklo_epi64(ab, cd),
                    _mm256_unpackhi_epi64(ab, cd),
                    _mm256_unpacklo_epi64(ab2, cd2),
                    _mm256_unpackhi_epi64(ab2, cd2),
                ]
            };
            let (left, right) = (four(0), four(4));
            for r in 0..4 {
                let upper = _mm256_permute2x128_si256::<0x20>(left[r], right[r]);
                let lower = _mm256_permute2x128_si256::<0x31>(left[r], right[r]);
                _mm256_storeu_si256(rows[r].as_mut_ptr().cast(), upper);
                _mm256_storeu_si256(rows[r + 4].as_mut_ptr().cast(), lower);
            }
        }
        rows
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
    rows_scalar(columns)
}

/// What [`rows`] does, one word after the other.
#[inline]
#[must_use]
pub fn rows_scalar(columns: &[[u32; LANES]; LANES]) -> [[u128; 2]; LANES] {
    let word = |w: usize, r: usize| u128::from(columns[w][r]) << (32 * (w % 4));
    std::array::from_fn(|r| [0, 4].map(|w| word(w, r) | word(w + 1, r) | word(w + 2, r) | word(w + 3, r)))
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
        #[test]
        fn rows_become_columns_like_by_the_scalar_twin(
            rows in prop::array::uniform8(prop::collection::vec(any::<u8>(), 4 * COLUMNS)),
        ) {
            let rows = std::array::from_fn(|i| rows[i].first_chunk().unwrap());
            prop_assert_eq!(columns(&rows), columns_scalar(&rows));
        }

        #[test]
        fn columns_become_rows_like_by_the_scalar_twin(columns in prop::array::uniform8(prop::array::uniform8(any::<u32>()))) {
            prop_assert_eq!(rows(&columns), rows_scalar(&columns));
        }

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
