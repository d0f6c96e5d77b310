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

/// What the device said about a received frame's checksums: a bit for each "good" and each "bad" of a checksum. Both of them
/// at once are as good as none: DPDK says so of a checksum that is not in the packet, but known to be right
/// (`RTE_MBUF_F_RX_L4_CKSUM_NONE`); a frame that leaves again needs it in the packet, so software looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxChecksum(u32);

impl RxChecksum {
    /// TCP's, UDP's, ICMP's checksum is wrong. (Where these bits are, DPDK's flags have them, shifted by 3.)
    pub const L4_BAD: u32 = 1;
    /// The IPv4 header's checksum is wrong.
    pub const IP_BAD: u32 = 1 << 1;
    /// The IPv4 header's is right.
    pub const IP_GOOD: u32 = 1 << 4;
    /// TCP's, UDP's, ICMP's is right.
    pub const L4_GOOD: u32 = 1 << 5;
    /// All of them.
    pub const ALL: u32 = Self::L4_BAD | Self::IP_BAD | Self::IP_GOOD | Self::L4_GOOD;

    /// From what was said of the IPv4 header's checksum and of that of TCP, UDP or ICMP.
    #[must_use]
    pub const fn new(ip: ChecksumStatus, l4: ChecksumStatus) -> Self {
        let ip = match ip {
            ChecksumStatus::Unknown => 0,
            ChecksumStatus::Good => Self::IP_GOOD,
            ChecksumStatus::Bad => Self::IP_BAD,
        };
        let l4 = match l4 {
            ChecksumStatus::Unknown => 0,
            ChecksumStatus::Good => Self::L4_GOOD,
            ChecksumStatus::Bad => Self::L4_BAD,
        };
        Self(ip | l4)
    }

    /// From these bits; others are ignored.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL)
    }

    /// [`RxChecksum::L4_BAD`] and so on.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Of the IPv4 header's.
    #[inline(always)]
    #[must_use]
    pub const fn ip(self) -> ChecksumStatus {
        self.status(Self::IP_GOOD, Self::IP_BAD)
    }

    /// Of that of TCP, UDP or ICMP.
    #[inline(always)]
    #[must_use]
    pub const fn l4(self) -> ChecksumStatus {
        self.status(Self::L4_GOOD, Self::L4_BAD)
    }

    #[inline(always)]
    const fn status(self, good: u32, bad: u32) -> ChecksumStatus {
        match (self.0 & good != 0, self.0 & bad != 0) {
            (true, false) => ChecksumStatus::Good,
            (false, true) => ChecksumStatus::Bad,
            _ => ChecksumStatus::Unknown,
        }
    }
}

/// One whole frame in one contiguous buffer, from the Ethernet header to the last byte (no FCS).
pub trait PacketBuf: Sized {
    /// The frame.
    fn bytes(&self) -> &[u8];
    /// The frame, to be changed in place.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// What the device said about the checksums.
    fn rx_checksum(&self) -> RxChecksum;
    /// The hash that the device computed to choose a receive queue (RSS); `None`: it computed none.
    #[inline(always)]
    fn rx_hash(&self) -> Option<u32> {
        None
    }
    /// Replaces the frame with `frame`.
    ///
    /// # Errors
    /// `FrameTooLong` when the buffer has not that much room; the frame is then as it was.
    fn try_fill(&mut self, frame: &[u8]) -> Result<(), FrameTooLong>;
    /// Cuts the frame to `len` bytes, or lets it grow to so many: by bytes of any value, which the caller writes. It is the
    /// caller's frame then, of which no device has said anything.
    ///
    /// # Errors
    /// `FrameTooLong` when the buffer has not that much room; the frame is then as it was.
    fn try_resize(&mut self, len: usize) -> Result<(), FrameTooLong>;
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
    /// The RSS hash of a device that gives one.
    pub hash: Option<u32>,
}

impl VecPacket {
    /// A frame whose checksums no device has looked at.
    #[must_use]
    pub fn new(frame: impl Into<Vec<u8>>) -> Self {
        Self {
            frame: frame.into(),
            checksum: RxChecksum::default(),
            hash: None,
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
    fn rx_hash(&self) -> Option<u32> {
        self.hash
    }
    fn try_fill(&mut self, frame: &[u8]) -> Result<(), FrameTooLong> {
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        Ok(())
    }
    fn try_resize(&mut self, len: usize) -> Result<(), FrameTooLong> {
        self.frame.resize(len, 0);
        self.checksum = RxChecksum::default();
        Ok(())
    }
}
