//! Packets: the buffer that the engine is generic over, the one-pass parser, checksums and packet builders.

pub mod buffer;
pub mod meta;

pub use buffer::{ChecksumStatus, PacketBuf, RxChecksum, VecPacket};
pub use meta::{PacketKind, PacketMeta};
