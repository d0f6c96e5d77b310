//! What a packet had in front of its IP header: who sent it to whom on its link. A packet that haechi makes in the place of an
//! end goes the same way as that end's last one.

use super::parse::ethertype;

/// An Ethernet header with up to two VLAN tags (IEEE 802.3, 802.1Q), without the EtherType of what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LinkHeader {
    /// Destination and source.
    addresses: [u8; 12],
    /// As they came; a tag whose first two bytes are 0 is none.
    tags: [[u8; 4]; 2],
}

impl LinkHeader {
    /// Bytes that the longest takes, with the EtherType.
    pub const MAX: usize = 12 + 8 + 2;
    /// Bytes of [`Self::to_bytes`].
    pub const SIZE: usize = 12 + 8;

    /// Of a frame whose IP header begins at `l3_offset` (14, 18 or 22).
    #[must_use]
    pub fn of(frame: &[u8], l3_offset: usize) -> Self {
        let mut header = Self::default();
        let tags = frame.get(12..l3_offset.saturating_sub(2)).unwrap_or_default();
        if let Some(addresses) = frame.first_chunk() {
            header.addresses = *addresses;
        }
        for (tag, bytes) in header.tags.iter_mut().zip(tags.chunks_exact(4)) {
            tag.copy_from_slice(bytes);
        }
        header
    }

    /// As [`Self::to_bytes`] made them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let mut header = Self::default();
        let (addresses, tags) = bytes.split_at(12);
        header.addresses.copy_from_slice(addresses);
        for (tag, bytes) in header.tags.iter_mut().zip(tags.chunks_exact(4)) {
            tag.copy_from_slice(bytes);
        }
        header
    }

    /// Both addresses and both tags as they came, a tag that is none as zeros.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let (addresses, tags) = bytes.split_at_mut(12);
        addresses.copy_from_slice(&self.addresses);
        tags.copy_from_slice(self.tags.as_flattened());
        bytes
    }

    /// Has none been seen?
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Its source and its tags alone; `None`: the source is none that a host can have.
    #[must_use]
    pub fn of_source(mut self) -> Option<Self> {
        self.addresses[..6].fill(0);
        let is_group = self.addresses[6] & 1 != 0;
        (!is_group && self.addresses != [0; 12]).then_some(self)
    }

    /// The source address.
    #[must_use]
    pub fn source(&self) -> [u8; 6] {
        let [.., a, b, c, d, e, f] = self.addresses;
        [a, b, c, d, e, f]
    }

    /// The same to everybody.
    #[must_use]
    pub fn to_all(mut self) -> Self {
        self.addresses[..6].fill(0xff);
        self
    }

    /// The way back.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.addresses.rotate_left(6);
        self
    }

    /// Writes it to the front of `out`; returns where the IP header begins. `None`: `out` is too short.
    #[must_use]
    pub fn write(&self, is_ipv4: bool, out: &mut [u8]) -> Option<usize> {
        let of = if is_ipv4 { ethertype::IPV4 } else { ethertype::IPV6 };
        self.write_of(of, out)
    }

    /// The same with any EtherType.
    pub(super) fn write_of(&self, of: u16, out: &mut [u8]) -> Option<usize> {
        out.first_chunk_mut::<12>()?.copy_from_slice(&self.addresses);
        let mut at = 12;
        for tag in self.tags.iter().filter(|tag| tag[..2] != [0, 0]) {
            out.get_mut(at..at + 4)?.copy_from_slice(tag);
            at += 4;
        }
        out.get_mut(at..at + 2)?.copy_from_slice(&of.to_be_bytes());
        Some(at + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written() {
        let mut frame: Vec<u8> = (1..=22).collect();
        frame[12..14].copy_from_slice(&[0x88, 0xa8]);
        frame[16..18].copy_from_slice(&[0x81, 0x00]);
        for (l3, is_ipv4) in [(14, true), (18, false), (22, true)] {
            let mut expected = frame[..l3].to_vec();
            expected[l3 - 2..].copy_from_slice(if is_ipv4 { &[8, 0] } else { &[0x86, 0xdd] });
            let header = LinkHeader::of(&frame, l3);
            let mut out = [0; LinkHeader::MAX];
            assert_eq!(header.write(is_ipv4, &mut out), Some(l3));
            assert_eq!(out[..l3], expected);
            assert_eq!(header.write(is_ipv4, &mut out[..l3 - 1]), None);
            assert_eq!(header.reversed().reversed(), header);
            assert_eq!(LinkHeader::from_bytes(&header.to_bytes()), header);
            assert!(header.reversed().write(is_ipv4, &mut out).is_some());
            assert_eq!((&out[..6], &out[6..12]), (&frame[6..12], &frame[..6]));
        }
        assert!(LinkHeader::of(&[], 14).is_unknown());
    }
}
