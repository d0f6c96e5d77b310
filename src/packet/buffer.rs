//! The packet buffer that the engine is generic over: an mbuf on a worker, a byte vector in tests and `explain`.

/// What the device said about one checksum of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumStatus {
    /// Nothing: software has to look.
    #[default]
    Unknown,
    /// The device verified it.
    Good,
    /// The device found it wrong.
    Bad,
}

/// What the device said about a received frame's checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxChecksum {
    /// The IPv4 header's.
    pub ip: ChecksumStatus,
    /// TCP's, UDP's, ICMP's.
    pub l4: ChecksumStatus,
}

/// One whole frame in one contiguous buffer, from the Ethernet header to the last byte (no FCS).
pub trait PacketBuf: Sized {
    /// The frame.
    fn bytes(&self) -> &[u8];
    /// The frame, to be changed in place.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// What the device said about the checksums.
    fn rx_checksum(&self) -> RxChecksum;
    /// Replaces the frame with `frame`.
    ///
    /// # Errors
    /// `FrameTooLong` when the buffer has not that much room; the frame is then as it was.
    fn try_fill(&mut self, frame: &[u8]) -> Result<(), FrameTooLong>;
}

/// The frame does not fit its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame does not fit its buffer")]
pub struct FrameTooLong;

/// A frame in ordinary memory: the buffer of tests, tools and `explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VecPacket {
    /// The frame.
    pub frame: Vec<u8>,
    /// What a device would have said.
    pub checksum: RxChecksum,
}

impl VecPacket {
    /// A frame whose checksums no device has looked at.
    #[must_use]
    pub fn new(frame: impl Into<Vec<u8>>) -> Self {
        Self {
            frame: frame.into(),
            checksum: RxChecksum::default(),
        }
    }
}

impl PacketBuf for VecPacket {
    fn bytes(&self) -> &[u8] {
        &self.frame
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.frame
    }
    fn rx_checksum(&self) -> RxChecksum {
        self.checksum
    }
    fn try_fill(&mut self, frame: &[u8]) -> Result<(), FrameTooLong> {
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        Ok(())
    }
}
