//! What stands in clear before what is sealed. The seal covers it: nothing of it can be changed.
//!
//! | bytes | |
//! | --- | --- |
//! | 0, 1 | `hA` |
//! | 2 | version of this form |
//! | 3 | kind: 0 hello, 1 data |
//! | 4 | sending node |
//! | 5 | 0 |
//! | 6, 7 | sending thread |
//! | 8 to 11 | epoch |
//! | 12 to 15 | mark of the receiver's salt that it is sealed for; 0 for none |
//! | 16 to 23 | counter |
//! | 24 to 39 | sender's salt: start, then what is fresh of it |

use super::{OVERHEAD, Refused};
use crate::ha::message::NodeId;

/// Bytes of it.
pub(super) const SIZE: usize = 40;
const MAGIC: [u8; 2] = *b"hA";
const VERSION: u8 = 1;

/// What makes a process and an association of it one of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Salt(pub(super) [u8; 16]);

impl Salt {
    pub(super) fn new(start: u64, fresh: [u8; 8]) -> Self {
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&start.to_le_bytes());
        salt[8..].copy_from_slice(&fresh);
        Self(salt)
    }

    /// Names the process.
    pub(super) const fn start(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// By this a receiver knows its salt in a header, before any key is made. It proves nothing.
    pub(super) const fn mark(&self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Sealed for no salt.
    Hello = 0,
    /// Sealed for a salt of the receiver's.
    Data = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) node: NodeId,
    pub(super) thread: u16,
    pub(super) epoch: u32,
    /// [`Salt::mark`] of the receiver's.
    pub(super) to: u32,
    pub(super) counter: u64,
    pub(super) salt: Salt,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = VERSION;
        bytes[3] = self.kind as u8;
        bytes[4] = self.node.0;
        bytes[6..8].copy_from_slice(&self.thread.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.to.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.counter.to_le_bytes());
        bytes[24..].copy_from_slice(&self.salt.0);
        bytes
    }

    /// Of a datagram that is long enough to be one.
    pub(super) fn read(datagram: &[u8]) -> Result<Self, Refused> {
        if datagram.len() < OVERHEAD {
            return Err(Refused::Short);
        }
        let (_, rest) = datagram
            .split_first_chunk::<2>()
            .filter(|(magic, _)| **magic == MAGIC)
            .ok_or(Refused::Magic)?;
        let bytes: &[u8; SIZE - 2] = rest.first_chunk().ok_or(Refused::Short)?;
        if bytes[0] != VERSION {
            return Err(Refused::Version);
        }
        let kind = match bytes[1] {
            0 => Kind::Hello,
            1 => Kind::Data,
            _ => return Err(Refused::Version),
        };
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let [low, high] = [four(14), four(18)].map(u32::from_le_bytes);
        let mut salt = Salt::default();
        salt.0.copy_from_slice(&bytes[22..]);
        Ok(Self {
            kind,
            node: NodeId(bytes[2]),
            thread: u16::from_le_bytes([bytes[4], bytes[5]]),
            epoch: u32::from_le_bytes(four(6)),
            to: u32::from_le_bytes(four(10)),
            counter: u64::from(low) | (u64::from(high) << 32),
            salt,
        })
    }

    /// Of a thread's counter: never twice under one key.
    pub(super) fn nonce(thread: u16, counter: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..2].copy_from_slice(&thread.to_le_bytes());
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        nonce
    }
}
