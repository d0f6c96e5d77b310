//! The Internet checksum (RFC 1071): the ones-complement sum of 16-bit words.

/// A running sum. Pieces may be added in any order as long as each of them starts at an even place of what is summed:
/// only the last piece may have an odd length.
///
/// It is kept modulo 2^64 - 1, a multiple of 2^16 - 1, and of little-endian words: the sum does not depend on the byte
/// order but for one swap at the end (RFC 1071, section 2(B)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Self = Self(0);

    /// With these bytes; an odd last one counts as if a zero byte followed it (RFC 1071, section 1).
    #[inline(always)]
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut rest = bytes;
        if bytes.len() >= 64 {
            let (blocks, after) = bytes.split_at(bytes.len() & !63);
            self = self.add(blocks_of_64(blocks));
            rest = after;
        }
        while let Some((sixteen, after)) = rest.split_first_chunk::<16>() {
            let words = u128::from_le_bytes(*sixteen);
            self = self.add(words as u64).add((words >> 64) as u64);
            rest = after;
        }
        if let Some((eight, after)) = rest.split_first_chunk::<8>() {
            self = self.add(u64::from_le_bytes(*eight));
            rest = after;
        }
        self.add(tail(bytes, rest))
    }

    /// With one 16-bit word in host byte order.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        self.add(word.swap_bytes() as u64)
    }

    /// With what TCP, UDP and ICMPv6 sum beside the addresses: protocol and length of the L4 packet (RFC 9293, section
    /// 3.1; RFC 768; RFC 8200, section 8.1).
    #[inline]
    #[must_use]
    pub const fn pseudo(self, protocol: u8, length: u32) -> Self {
        self.add(((protocol as u64) << 8) + length.swap_bytes() as u64)
    }

    /// With a whole number of 16-bit words of the frame, read as one little-endian number.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn add(self, words: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(words);
        Self(sum + carry as u64)
    }

    /// The 16-bit ones-complement sum in host byte order.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        (sum as u16).swap_bytes()
    }

    /// What belongs into the checksum field, in host byte order, when the field itself was summed as 0.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Was the field that is part of what was summed right? Then all words add up to a multiple of 2^16 - 1 other than
    /// 0, which only zeroes do.
    #[inline(always)]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        // A multiple of an odd number times the number's inverse modulo 2^64 is the small quotient, and nothing else
        // is small (Warren, Hacker's Delight, section 10-17): one multiplication where folding takes four steps.
        self.0 != 0 && self.0.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
    }
}

/// 0xffff * `INVERSE` is 1 modulo 2^64.
const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);

/// The sum of a multiple of 64 bytes, as 32-bit words, which need no carry in 64 bits; in lanes of which the compiler
/// makes vector code.
#[inline(never)]
fn blocks_of_64(bytes: &[u8]) -> u64 {
    let mut lanes = [0_u64; 16];
    for block in bytes.chunks_exact(64) {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    lanes.iter().sum()
}

/// The last up to 7 bytes as one addend. `rest` is the end of `bytes`.
#[inline(always)]
fn tail(bytes: &[u8], rest: &[u8]) -> u64 {
    match bytes.last_chunk::<8>() {
        // The eight last bytes with those shifted out that are summed already: no branch on the length. In two
        // steps because a shift by 64 is not defined.
        Some(last) => (u64::from_le_bytes(*last) >> 1) >> (63 - 8 * (rest.len() & 7)),
        None => short(rest),
    }
}

/// Fewer than 8 bytes in all.
#[inline(never)]
fn short(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071's definition, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), 0x220d);
    }

    #[test]
    fn all_ones_carry_all_the_way() {
        for len in 0..300 {
            let bytes = vec![0xff; len];
            assert_eq!(Sum::ZERO.bytes(&bytes).fold(), naive(&bytes), "{len} bytes");
        }
        assert_eq!(Sum(u64::MAX).fold(), 0xffff);
        assert_eq!(Sum(0xffff_ffff_ffff_0000).fold(), 0xffff);
    }

    proptest! {
        #[test]
        fn any_bytes_sum_as_the_naive_way_does(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            prop_assert_eq!(Sum::ZERO.bytes(&bytes).fold(), naive(&bytes));
        }

        #[test]
        fn valid_is_what_folds_to_all_ones(sum: u64, quotient in 0..=u64::MAX / 0xffff) {
            for sum in [sum, quotient * 0xffff, u64::MAX, 0, 0xffff, sum & 0xffff] {
                prop_assert_eq!(Sum(sum).is_valid(), Sum(sum).fold() == 0xffff);
            }
        }

        #[test]
        fn pieces_at_even_places_sum_as_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let (a, b) = bytes.split_at(cut);
            prop_assert_eq!(Sum::ZERO.bytes(b).bytes(a).fold(), naive(&bytes));
        }

        #[test]
        fn words_and_pseudo_headers_sum_as_their_bytes(word: u16, protocol: u8, length: u32) {
            prop_assert_eq!(Sum::ZERO.word(word).fold(), naive(&word.to_be_bytes()));
            let mut pseudo = length.to_be_bytes().to_vec();
            pseudo.extend([0, 0, 0, protocol]);
            prop_assert_eq!(Sum::ZERO.pseudo(protocol, length).fold(), naive(&pseudo));
        }

        #[test]
        fn a_written_checksum_is_valid_and_no_other_is(
            bytes in prop::collection::vec(any::<u8>(), 2..200), at in 0usize..99, bit in 0u32..16,
        ) {
            let at = (at * 2).min((bytes.len() & !1) - 2);
            let mut bytes = bytes;
            bytes[at..at + 2].fill(0);
            let checksum = Sum::ZERO.bytes(&bytes).checksum();
            bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            prop_assume!(bytes.iter().any(|b| *b != 0));
            prop_assert!(Sum::ZERO.bytes(&bytes).is_valid());
            bytes[at..at + 2].copy_from_slice(&(checksum ^ (1 << bit)).to_be_bytes());
            prop_assert!(!Sum::ZERO.bytes(&bytes).is_valid());
        }
    }
}
