//! Fields: tag, length, value.

use super::FIELD;

/// Why a datagram is refused whose seal was right: a bug of the peer, or a version that broke with the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame or field is longer than what it stands in, or its head is cut off.
    #[error("a length runs over the end (frame kind {kind})")]
    Overrun {
        /// The frame's kind; 0: it is the frame's own head or length.
        kind: u16,
    },
    /// A value is shorter than version 1 made it.
    #[error("a value is too short (frame kind {kind}, field {tag})")]
    TooShort {
        /// The frame's kind.
        kind: u16,
        /// The field's tag; of a session's fields that of the session.
        tag: u8,
    },
}

/// What a row of fields with lengths of `WIDTH` bytes (1 or 2) has, until one runs over its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a, const WIDTH: usize>(pub(super) &'a [u8]);

impl<'a, const WIDTH: usize> Iterator for Fields<'a, WIDTH> {
    /// Tag and value; `None`: a length runs over the end.
    type Item = Option<(u8, &'a [u8])>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let cut = || {
            let (tag, rest) = self.0.split_first()?;
            let (length, rest) = if WIDTH == 1 {
                let (length, rest) = rest.split_first()?;
                (usize::from(*length), rest)
            } else {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_le_bytes(*length)), rest)
            };
            let (value, rest) = rest.split_at_checked(length)?;
            Some((*tag, value, rest))
        };
        let Some((tag, value, rest)) = cut() else {
            self.0 = &[];
            return Some(None);
        };
        self.0 = rest;
        Some(Some((tag, value)))
    }
}

/// Bytes of a body whose fields have these lengths.
pub(super) const fn body_len(values: &[usize]) -> usize {
    let mut sum = values.len() * FIELD;
    let mut i = 0;
    while i < values.len() {
        sum += values[i];
        i += 1;
    }
    sum
}

/// A frame's body that is written.
#[derive(Debug)]
pub(super) struct Body<'a>(pub(super) &'a mut Vec<u8>);

impl Body<'_> {
    pub(super) fn field(&mut self, tag: u8, value: &[u8]) {
        let length = (value.len() as u16).to_le_bytes();
        self.0.extend_from_slice(&[tag, length[0], length[1]]);
        self.0.extend_from_slice(value);
    }

    pub(super) fn number(&mut self, tag: u8, value: u64) {
        self.field(tag, &value.to_le_bytes());
    }

    /// A list's items one behind the other. One that is longer than a length can say is cut, and longer than any datagram.
    pub(super) fn list<const N: usize>(&mut self, tag: u8, items: impl ExactSizeIterator<Item = [u8; N]>) {
        let length = ((items.len() * N).min(usize::from(u16::MAX)) as u16).to_le_bytes();
        self.0.extend_from_slice(&[tag, length[0], length[1]]);
        for item in items {
            self.0.extend_from_slice(&item);
        }
    }
}

/// The first bytes of a value as an integer; 0 where they are not there, which [`super::frame`] has ruled out.
#[inline]
pub(super) fn u16_of(value: &[u8]) -> u16 {
    value.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// As [`u16_of`].
#[inline]
pub(super) fn u32_of(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// As [`u16_of`].
#[inline]
pub(super) fn u64_of(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
