//! Packets: the buffer that the engine is generic over, the one-pass parser, checksums and packet builders.

pub mod buffer;
pub mod build;
pub mod checksum;
pub mod in_place;
mod link;
pub mod meta;
pub mod parse;
pub mod synth;
pub mod view;

pub use buffer::{ChecksumStatus, FrameTooLong, PacketBuf, RxChecksum, VecPacket};
pub use link::LinkHeader;
pub use meta::{PacketKind, PacketMeta};
pub use parse::{Lanes, Malformed, ParseOptions, Straight, parse, parse_into};
