//! The one-pass parser: bytes of a frame to [`PacketMeta`].
//!
//! Every length is checked once, here; nothing that reads the frame by the metadata's offsets later has to look again.
//! Untagged IPv4 without options that carries TCP or UDP, nearly all of what a firewall sees, takes a straight path
//! that is inlined into the engine's loop; anything else, and anything wrong, takes the general path, which alone
//! decides what is wrong. A test compares the two on the frames that both can take.

mod arp;
mod embedded;
mod fragment;
mod icmp;
mod ipv4;
mod ipv6;
mod l4;
mod lanes;
mod malformed;

pub use embedded::{Embedded, may_relate, parse_embedded};
pub use fragment::{FragmentField, fragment_field, parse_first_fragment, parse_reassembled};
pub use lanes::{Lanes, TcpLanes, parse_lanes};
pub use malformed::Malformed;

use super::checksum::Sum;
use super::{ChecksumStatus, PacketKind, PacketMeta, RxChecksum};

/// An Ethernet header's length in bytes.
const ETHERNET: usize = 14;
/// A VLAN tag's length in bytes.
const TAG: usize = 4;

/// EtherTypes (IEEE 802 numbers).
pub(crate) mod ethertype {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const IPV6: u16 = 0x86dd;
    /// 802.1Q customer tag.
    pub(crate) const VLAN: u16 = 0x8100;
    /// 802.1ad service tag.
    pub(crate) const SERVICE_VLAN: u16 = 0x88a8;
    /// The service tag of switches from before 802.1ad.
    pub(crate) const OLD_SERVICE_VLAN: u16 = 0x9100;

    /// Does a VLAN tag follow?
    #[inline]
    pub(crate) const fn is_tag(ethertype: u16) -> bool {
        matches!(ethertype, VLAN | SERVICE_VLAN | OLD_SERVICE_VLAN)
    }
}

/// IP protocol numbers.
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
}

/// What [`parse`] is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// Verify the checksums of TCP, UDP, ICMP and ICMPv6. A device's word is taken for TCP and UDP where it gives one;
    /// ICMP's are always summed here, because drivers report "good" for protocols that their device cannot check.
    pub verify_l4: bool,
    /// Look behind VLAN tags. `false`: a tagged frame is [`PacketKind::NonIp`] with [`PacketMeta::TAGGED`] set, whatever
    /// is behind its first tag.
    pub look_into_vlan: bool,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            verify_l4: true,
            look_into_vlan: true,
        }
    }
}

/// Looks at one frame, from the Ethernet header on, without FCS. Never fails, whatever the bytes; `ingress` is
/// left for the engine.
#[inline]
#[must_use]
pub fn parse(frame: &[u8], checksum: RxChecksum, options: ParseOptions) -> PacketMeta {
    let mut meta = PacketMeta::default();
    parse_into(frame, checksum, options, &mut meta);
    meta
}

/// [`parse`] into a place of the engine's own: overwrites all of `meta`. A burst's metadata is written once, where it
/// stays; returned by value it would be built elsewhere and copied before its small stores have left the store buffer.
#[inline]
pub fn parse_into(frame: &[u8], checksum: RxChecksum, options: ParseOptions, meta: &mut PacketMeta) {
    match parse_straight(frame, checksum, options.verify_l4) {
        Some(straight) => straight.meta(meta),
        None => parse_general(frame, checksum, options, meta),
    }
}

/// What the straight path finds out: values that stay in registers, of which the engine makes a flow key at once. Most
/// packets never need the whole [`PacketMeta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Straight {
    /// Source address, the bytes in the order of the wire read as a number of this machine.
    pub source: u32,
    /// Destination address, likewise.
    pub destination: u32,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// Bytes from the L4 header to the end of the IP packet.
    pub l4_len: u16,
    /// TCP (else UDP).
    pub tcp: bool,
    /// The TCP flags byte; UDP: 0.
    pub tcp_flags: u8,
    /// The TCP header's length in bytes; UDP: 0.
    tcp_header: u8,
    /// [`PacketMeta::GROUP`] or 0.
    group: u8,
}

impl Straight {
    /// The IP header's length in bytes: there are no options.
    pub const IP_HEADER: u16 = 20;
    /// Where the IP header starts in the frame, in bytes: there are no tags.
    pub const L3_OFFSET: usize = ETHERNET;
    /// Where the L4 header starts.
    pub const L4_OFFSET: u16 = ETHERNET as u16 + Self::IP_HEADER;

    /// IP protocol.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        if self.tcp { protocol::TCP } else { protocol::UDP }
    }

    /// Of a frame that [`parse_lanes`] took, with an IP packet of `ip_len` bytes: what it has verified is not looked at again.
    /// `None`: the frame is too short for that.
    #[inline(always)]
    #[must_use]
    pub fn of_taken(frame: &[u8], ip_len: u16) -> Option<Self> {
        let head = frame.first_chunk::<48>()?;
        let tcp = head[23] == protocol::TCP;
        Some(Self {
            source: u32::from_ne_bytes(field::<26, 4, 48>(head)),
            destination: u32::from_ne_bytes(field::<30, 4, 48>(head)),
            source_port: be16::<34, 48>(head),
            destination_port: be16::<36, 48>(head),
            l4_len: ip_len.wrapping_sub(Self::IP_HEADER),
            tcp,
            tcp_flags: if tcp { head[47] } else { 0 },
            tcp_header: if tcp { (head[46] >> 4) * 4 } else { 0 },
            group: group(head[0]),
        })
    }

    /// All that there is to know; overwrites all of `meta`.
    #[inline(always)]
    pub fn meta(&self, meta: &mut PacketMeta) {
        *meta = PacketMeta {
            source: mapped(self.source.to_ne_bytes()),
            destination: mapped(self.destination.to_ne_bytes()),
            source_port: self.source_port,
            destination_port: self.destination_port,
            l4_offset: Self::L4_OFFSET,
            l4_len: self.l4_len,
            l3_offset: ETHERNET as u8,
            kind: if self.tcp {
                PacketKind::Tcp
            } else {
                PacketKind::Udp
            },
            protocol: self.protocol(),
            tcp_flags_or_icmp_type: self.tcp_flags,
            detail: self.tcp_header,
            flags: PacketMeta::IPV4 | self.group,
            ..PacketMeta::default()
        };
    }
}

/// Untagged IPv4 without options and not fragmented, TCP or UDP, nothing wrong; `None`: the general path has to look.
#[inline(always)]
#[must_use]
pub fn parse_straight(frame: &[u8], checksum: RxChecksum, verify_l4: bool) -> Option<Straight> {
    let (ethernet, rest) = frame.split_first_chunk::<ETHERNET>()?;
    let (ip, rest) = rest.split_first_chunk::<20>()?;
    // EtherType; version and header length; fragment offset and MORE FRAGMENTS.
    if be16::<12, ETHERNET>(ethernet) != ethertype::IPV4 || ip[0] != 0x45 || be16::<6, 20>(ip) & 0x3fff != 0 {
        return None;
    }
    let l4_len = be16::<2, 20>(ip).checked_sub(Straight::IP_HEADER)?;
    let l4 = rest.get(..usize::from(l4_len))?;
    let udp = l4.first_chunk::<8>()?;
    let straight = |tcp, tcp_flags, tcp_header| Straight {
        source: u32::from_ne_bytes(field::<12, 4, 20>(ip)),
        destination: u32::from_ne_bytes(field::<16, 4, 20>(ip)),
        source_port: be16::<0, 8>(udp),
        destination_port: be16::<2, 8>(udp),
        l4_len,
        tcp,
        tcp_flags,
        tcp_header,
        group: group(ethernet[0]),
    };
    // Protocol by protocol to the end, so that what is constant for one is a constant.
    match ip[9] {
        protocol::UDP if be16::<4, 8>(udp) == l4_len => {
            let unchecked = be16::<6, 8>(udp) == 0;
            sums_hold(ip, l4, protocol::UDP, checksum, verify_l4 && !unchecked).then(|| straight(false, 0, 0))
        }
        protocol::TCP => {
            let tcp = l4.first_chunk::<20>()?;
            let length = usize::from(tcp[12] >> 4) * 4;
            if length != 20 {
                l4::tcp_options(l4.get(20..length)?).ok()?;
            }
            sums_hold(ip, l4, protocol::TCP, checksum, verify_l4)
                .then(|| straight(true, tcp[13], length as u8))
        }
        _ => None,
    }
}

/// The IPv4 header's checksum, and with `verify_l4` that of `l4`: by the device's word or by their sums. `false`: one of
/// them is wrong, or the device says so.
#[inline(always)]
fn sums_hold(ip: &[u8; 20], l4: &[u8], protocol: u8, checksum: RxChecksum, verify_l4: bool) -> bool {
    // Little-endian words for the sums.
    let [a, b, c] = [le64::<0, 20>(ip), le64::<8, 20>(ip), le64::<12, 20>(ip)];
    match checksum.ip() {
        ChecksumStatus::Good => {}
        ChecksumStatus::Unknown if Sum::ZERO.add(a).add(b).add(c >> 32).is_valid() => {}
        _ => return false,
    }
    if !verify_l4 {
        return true;
    }
    match checksum.l4() {
        ChecksumStatus::Good => true,
        ChecksumStatus::Unknown => Sum::ZERO
            .add(c)
            .pseudo(protocol, l4.len() as u32)
            .bytes(l4)
            .is_valid(),
        ChecksumStatus::Bad => false,
    }
}

/// The general path, whole: what [`parse`] falls back to, and its oracle. Overwrites all of `meta`.
#[inline(never)]
pub fn parse_general(frame: &[u8], checksum: RxChecksum, options: ParseOptions, meta: &mut PacketMeta) {
    *meta = PacketMeta::default();
    match ethernet(frame, checksum, options, meta) {
        Ok(kind) => meta.kind = kind,
        Err(malformed) => {
            meta.kind = PacketKind::Malformed;
            meta.detail = malformed as u8;
        }
    }
}

/// The Ethernet header, up to two VLAN tags, and what follows them.
fn ethernet(
    frame: &[u8],
    checksum: RxChecksum,
    options: ParseOptions,
    meta: &mut PacketMeta,
) -> Result<PacketKind, Malformed> {
    let head = frame
        .first_chunk::<ETHERNET>()
        .ok_or(Malformed::EthernetTruncated)?;
    meta.flags = group(head[0]);
    let mut ethertype = u16::from_be_bytes([head[12], head[13]]);
    let mut offset = ETHERNET;
    while ethertype::is_tag(ethertype) {
        meta.flags |= PacketMeta::TAGGED;
        if !options.look_into_vlan {
            return Ok(PacketKind::NonIp);
        }
        if offset == ETHERNET + 2 * TAG {
            return Err(Malformed::VlanTags);
        }
        let tag = chunk::<TAG>(frame, offset).ok_or(Malformed::VlanTags)?;
        // A priority tag (identifier 0) belongs to no VLAN (IEEE 802.1Q, section 9.6), wherever it stands.
        let vlan = u32::from(u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff);
        meta.vlan = if vlan == 0 {
            meta.vlan
        } else {
            (meta.vlan << 12) | vlan
        };
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        offset += TAG;
    }
    let packet = &frame[offset..];
    let frame = Frame {
        packet,
        checksum,
        verify_l4: options.verify_l4,
    };
    match ethertype {
        ethertype::IPV4 | ethertype::IPV6 | ethertype::ARP => meta.l3_offset = offset as u8,
        _ => return Ok(PacketKind::NonIp),
    }
    match ethertype {
        ethertype::IPV4 => ipv4::ipv4(&frame, meta),
        ethertype::IPV6 => ipv6::ipv6(&frame, meta),
        _ => arp::arp(packet, [head[6], head[7], head[8], head[9], head[10], head[11]]),
    }
}

/// What is left of a frame behind its Ethernet header and tags, and what was said about it.
struct Frame<'a> {
    /// From the IP header to the end of the frame, padding and all.
    packet: &'a [u8],
    checksum: RxChecksum,
    verify_l4: bool,
}

/// An IP packet's payload, ready for the L4 parsers.
struct Datagram<'a> {
    /// From the L4 header to the end of the IP packet.
    payload: &'a [u8],
    /// Of both addresses.
    address_sum: Sum,
    /// TTL or hop limit.
    hop_limit: u8,
    /// What the device said about the L4 checksum, where it can be believed.
    device: ChecksumStatus,
    verify: bool,
    /// The hop-by-hop options have a router alert (RFC 2711).
    router_alert: bool,
    /// There was an (atomic) fragment header.
    fragment_header: bool,
}

impl Datagram<'_> {
    /// Does the device or the sum say that the checksum of `bytes`, the L4 packet, is right?
    fn checksum_holds(&self, protocol: u8, bytes: &[u8]) -> bool {
        if !self.verify {
            return true;
        }
        match self.device {
            ChecksumStatus::Good => true,
            ChecksumStatus::Bad => false,
            ChecksumStatus::Unknown => self
                .address_sum
                .pseudo(protocol, bytes.len() as u32)
                .bytes(bytes)
                .is_valid(),
        }
    }
}

/// `N` bytes at `at`, if they are there.
#[inline]
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// `LEN` bytes of a header at `AT`; one load, no check at run time.
#[inline(always)]
fn field<const AT: usize, const LEN: usize, const N: usize>(header: &[u8; N]) -> [u8; LEN] {
    const { assert!(AT + LEN <= N, "the field is inside the header") };
    let mut field = [0; LEN];
    field.copy_from_slice(&header[AT..AT + LEN]);
    field
}

/// A field in network byte order.
#[inline(always)]
fn be16<const AT: usize, const N: usize>(header: &[u8; N]) -> u16 {
    u16::from_be_bytes(field::<AT, 2, N>(header))
}

/// Four 16-bit words for a [`Sum`].
#[inline(always)]
fn le64<const AT: usize, const N: usize>(header: &[u8; N]) -> u64 {
    u64::from_le_bytes(field::<AT, 8, N>(header))
}

/// An IPv4 address in its IPv6 form (RFC 4291, section 2.5.5.2).
#[inline(always)]
const fn mapped(address: [u8; 4]) -> [u8; 16] {
    // As one number: written in two halves, which can be read back at once.
    let address = u32::from_be_bytes(address) as u128;
    ((0xffff << 32) | address).to_be_bytes()
}

/// [`PacketMeta::GROUP`] when the first byte of a MAC address says so.
#[inline(always)]
const fn group(first: u8) -> u8 {
    (first & 1) * PacketMeta::GROUP
}
