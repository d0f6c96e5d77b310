//! The pair's key, and what is derived from it (HKDF-SHA256, RFC 5869).

use aes_gcm::{Aes256Gcm, KeyInit as _};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::header::Salt;
use crate::flow::image::DigestKey;
use crate::ha::message::NodeId;

const SIZE: usize = 32;

/// What both nodes of a pair have, and nobody else: 256 random bits. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PairKey(Zeroizing<[u8; SIZE]>);

impl std::fmt::Debug for PairKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairKey(..)")
    }
}

/// What is wrong with a key file's text, and what mends it. Nothing of the key is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairKeyError {
    /// Only comments or nothing.
    #[error(
        "there is no key in it: make one with `haechi ha keygen FILE` on one node and copy the file to the other"
    )]
    Empty,
    /// Another length.
    #[error(
        "line {line} has {found} characters and not the 64 hexadecimal digits of a key: copy the file whole, or make a new one with `haechi ha keygen FILE` for both nodes"
    )]
    Length {
        /// From 1.
        line: usize,
        /// Characters without white space around them.
        found: usize,
    },
    /// A character that is no hexadecimal digit.
    #[error(
        "line {line}, column {column} is no hexadecimal digit: copy the file unchanged, or make a new one with `haechi ha keygen FILE` for both nodes"
    )]
    Digit {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// More than one key.
    #[error("line {line} is a second key: leave one, the same on both nodes")]
    Second {
        /// From 1.
        line: usize,
    },
    /// One byte over and over.
    #[error(
        "it is no random key: make one with `haechi ha keygen FILE` on one node and copy the file to the other"
    )]
    Weak,
}

impl PairKey {
    /// A new one of 32 bytes that `fill` makes, of the operating system's randomness.
    ///
    /// # Errors
    ///
    /// Those of `fill`.
    pub fn generate<E>(fill: impl FnOnce(&mut [u8; SIZE]) -> Result<(), E>) -> Result<Self, E> {
        let mut bytes = Zeroizing::new([0; SIZE]);
        fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Of a key file: one line of 64 hexadecimal digits; empty lines and such as begin with `#` count for nothing.
    ///
    /// # Errors
    ///
    /// It is no key file.
    pub fn from_text(text: &str) -> Result<Self, PairKeyError> {
        let mut found = None;
        for (line, content) in (1..).zip(text.lines()) {
            if content.trim().is_empty() || content.trim_start().starts_with('#') {
                continue;
            }
            if found.is_some() {
                return Err(PairKeyError::Second { line });
            }
            found = Some(Self(digits(line, content)?));
        }
        let key = found.ok_or(PairKeyError::Empty)?;
        let first = key.0[0];
        if key.0.iter().all(|byte| *byte == first) {
            return Err(PairKeyError::Weak);
        }
        Ok(key)
    }

    /// The text of a key file, with a line that says what it is.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        const COMMENT: &str = "# The key of a haechi HA pair: secret, the same file on both nodes.\n";
        // Never moved while it grows: a copy would stay behind.
        let mut text = Zeroizing::new(String::with_capacity(COMMENT.len() + 2 * SIZE + 1));
        text.push_str(COMMENT);
        for half in self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or_default());
        }
        text.push('\n');
        text
    }

    /// What keys the digests by which the nodes compare their sessions.
    #[must_use]
    pub fn digest_key(&self) -> DigestKey {
        let bytes = self.mixed().derive::<16>(&[b"digest"]);
        let (low, high) = bytes.split_at(8);
        DigestKey([low, high].map(|half| half.first_chunk().map_or(0, |half| u64::from_le_bytes(*half))))
    }

    pub(super) fn mixed(&self) -> Mixed {
        let (bytes, _) = Hkdf::<Sha256>::extract(Some(b"haechi ha 1"), self.0.as_slice());
        let mut mixed = Zeroizing::new([0; SIZE]);
        mixed.copy_from_slice(&bytes);
        Mixed(mixed)
    }
}

/// The 32 bytes of a line of a key file.
fn digits(line: usize, content: &str) -> Result<Zeroizing<[u8; SIZE]>, PairKeyError> {
    let before = content.chars().take_while(|c| c.is_whitespace()).count();
    let content = content.trim();
    let mut bytes = Zeroizing::new([0; SIZE]);
    let mut found = 0;
    for character in content.chars() {
        let column = before + found + 1;
        let digit = character
            .to_digit(16)
            .ok_or(PairKeyError::Digit { line, column })?;
        if let Some(byte) = bytes.get_mut(found / 2) {
            *byte = (*byte << 4) | digit as u8;
        }
        found += 1;
    }
    if found != 2 * SIZE {
        return Err(PairKeyError::Length { line, found });
    }
    Ok(bytes)
}

/// The pair's key, extracted (RFC 5869, section 2.2): what all keys are derived from.
pub(super) struct Mixed(Zeroizing<[u8; SIZE]>);

impl Mixed {
    fn derive<const N: usize>(&self, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
        derive(&self.0, info)
    }

    /// What all datagrams from `node`, from one salt for another, have their keys of.
    pub(super) fn traffic(&self, node: NodeId, [from, to]: [Salt; 2]) -> Traffic {
        Traffic(self.derive(&[b"traffic", &[node.0], &from.0, &to.0]))
    }
}

/// [`Mixed::traffic`].
#[derive(Clone)]
pub(super) struct Traffic(Zeroizing<[u8; SIZE]>);

impl Traffic {
    /// The cipher of a thread in an epoch.
    pub(super) fn cipher(&self, thread: u16, epoch: u32) -> Aes256Gcm {
        let key: Zeroizing<[u8; SIZE]> = derive(
            &self.0,
            &[b"datagram", &thread.to_le_bytes(), &epoch.to_le_bytes()],
        );
        Aes256Gcm::new(key.as_slice().into())
    }
}

/// HKDF's second step (RFC 5869, section 2.3). Infos of one purpose have one length, and no purpose's word begins another's.
pub(super) fn derive<const N: usize>(from: &[u8; SIZE], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "no more comes out of HKDF-SHA256") };
    let mut out = Zeroizing::new([0; N]);
    // A secret shorter than the hash or an output that is too long would be errors; the types rule both out.
    let derived = Hkdf::<Sha256>::from_prk(from).map(|hkdf| hkdf.expand_multi_info(info, out.as_mut_slice()));
    if !matches!(derived, Ok(Ok(()))) {
        unreachable!("lengths are constant");
    }
    out
}
