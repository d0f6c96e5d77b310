//! Frames cut into IP fragments (RFC 791, section 3.2; RFC 8200, section 4.5), by hand: nothing of the program is in here.

/// Ethernet header, in bytes.
const ETHERNET: usize = 14;

/// An untagged frame whose IP packet is to come in fragments; an IPv6 packet has no extension headers.
#[derive(Clone, Debug)]
pub struct Fragmented {
    frame: Vec<u8>,
    id: u32,
}

impl Fragmented {
    /// With this identification, of which IPv4 has 16 bits.
    #[must_use]
    pub fn new(frame: Vec<u8>, id: u32) -> Self {
        Self { frame, id }
    }

    fn is_v6(&self) -> bool {
        self.frame[12..14] == [0x86, 0xdd]
    }

    fn header(&self) -> usize {
        ETHERNET + if self.is_v6() { 40 } else { 20 }
    }

    /// What is cut: the IP packet's payload.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.frame[self.header()..]
    }

    /// Any bytes as the fragment at `offset`, a multiple of 8.
    #[must_use]
    pub fn piece(&self, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
        assert_eq!(offset % 8, 0);
        let mut frame = self.frame[..self.header()].to_vec();
        let field = u16::try_from(offset).unwrap();
        if self.is_v6() {
            let length = u16::try_from(8 + bytes.len()).unwrap();
            frame[18..20].copy_from_slice(&length.to_be_bytes());
            let next = std::mem::replace(&mut frame[20], 44);
            frame.extend([next, 0]);
            frame.extend((field | u16::from(more)).to_be_bytes());
            frame.extend(self.id.to_be_bytes());
        } else {
            let length = u16::try_from(20 + bytes.len()).unwrap();
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            frame[18..20].copy_from_slice(&self.id.to_be_bytes()[2..]);
            frame[20..22].copy_from_slice(&((field / 8) | (u16::from(more) << 13)).to_be_bytes());
            frame[24..26].fill(0);
            let sum: u32 = frame[14..34]
                .chunks(2)
                .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                .sum();
            let sum = (sum & 0xffff) + (sum >> 16);
            let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        frame.extend(bytes);
        frame
    }

    /// The fragment with these bytes of it.
    #[must_use]
    pub fn part(&self, start: usize, end: usize) -> Vec<u8> {
        self.piece(start, end < self.body().len(), &self.body()[start..end])
    }

    /// All of it, in fragments of `size` bytes.
    #[must_use]
    pub fn pieces(&self, size: usize) -> Vec<Vec<u8>> {
        let length = self.body().len();
        (0..length)
            .step_by(size)
            .map(|start| self.part(start, (start + size).min(length)))
            .collect()
    }
}

/// Is the frame an IP fragment, behind whatever tags? (Of IPv6 with the fragment header in first place.)
#[must_use]
pub fn is_fragment(frame: &[u8]) -> bool {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8])) {
        at += 4;
    }
    match frame.get(at..at + 2) {
        Some([0x08, 0x00]) => frame
            .get(at + 8..at + 10)
            .is_some_and(|field| u16::from_be_bytes([field[0], field[1]]) & 0x3fff != 0),
        Some([0x86, 0xdd]) => frame.get(at + 8) == Some(&44),
        _ => false,
    }
}
