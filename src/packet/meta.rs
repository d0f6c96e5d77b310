//! What the parser finds out about one frame: 64 bytes, one cache line, no pointers.

use crate::base::PortId;

/// What a frame is, as far as the engine's stages part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketKind {
    /// Lengths contradict each other; `detail` says which ([`crate::packet::parse::Malformed`]).
    #[default]
    Malformed,
    /// The IPv4 header checksum or the L4 checksum is wrong.
    BadChecksum,
    /// A valid ARP packet.
    Arp,
    /// Neither IP nor ARP (spanning tree, LACP, LLDP, ...).
    NonIp,
    /// IPv6 neighbour discovery (RFC 4861, valid: hop limit 255) or MLD (RFC 2710, RFC 3810; link-local source, hop
    /// limit 1).
    NeighbourDiscovery,
    /// TCP: ports and flags are set.
    Tcp,
    /// UDP: ports are set.
    Udp,
    /// ICMP or ICMPv6 echo: both ports hold the identifier.
    Echo,
    /// An ICMP or ICMPv6 error: it carries the packet that caused it.
    IcmpError,
    /// Other ICMP or ICMPv6.
    Icmp,
    /// Another IP protocol: by its addresses.
    OtherIp,
    /// An IP fragment (not an atomic one, RFC 6946): first or later.
    Fragment,
}

/// One frame's metadata, filled by [`crate::packet::parse::parse`] and by the engine's stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct PacketMeta {
    /// Source address; IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
    pub source: [u8; 16],
    /// Destination address; IPv4 likewise.
    pub destination: [u8; 16],
    /// Source port; the identifier of an echo; 0 where there is none. Host byte order.
    pub source_port: u16,
    /// Destination port; the identifier of an echo; 0 where there is none. Host byte order.
    pub destination_port: u16,
    /// VLAN identifiers, without those of priority tags (0): outer in bits 12..24, inner in bits 0..12 of a double-tagged
    /// frame; the only one in bits 0..12. 0: none.
    pub vlan: u32,
    /// Where the L4 header starts in the frame, in bytes.
    pub l4_offset: u16,
    /// Bytes from the L4 header to the end of the IP packet (Ethernet padding is not part of it).
    pub l4_len: u16,
    /// The port that the frame came in by; set by the engine.
    pub ingress: PortId,
    /// Where the IP or ARP header starts in the frame, in bytes: 14, 18 or 22 (0: neither).
    pub l3_offset: u8,
    /// What the frame is.
    pub kind: PacketKind,
    /// IP protocol of the L4 header (after IPv6 extension headers); 0 for frames without IP.
    pub protocol: u8,
    /// TCP: the flags byte (FIN is bit 0, RFC 9293, section 3.1). ICMP and ICMPv6: the type.
    pub tcp_flags_or_icmp_type: u8,
    /// TCP: the header's length in bytes. ICMP and ICMPv6: the code. Malformed: which length (`Malformed as u8`).
    pub detail: u8,
    /// [`PacketMeta::IPV4`], [`PacketMeta::TAGGED`] and so on.
    pub flags: u8,
}

impl PacketMeta {
    /// In `flags`: the frame carries IPv4.
    pub const IPV4: u8 = 1;
    /// In `flags`: the frame carries IPv6.
    pub const IPV6: u8 = 2;
    /// In `flags`: the frame has at least one VLAN tag.
    pub const TAGGED: u8 = 4;
    /// In `flags`: the Ethernet destination is a group address (multicast or broadcast).
    pub const GROUP: u8 = 8;
    /// In `flags`: a fragment with offset 0.
    pub const FIRST_FRAGMENT: u8 = 16;

    /// The TCP flags byte; meaningful for [`PacketKind::Tcp`].
    #[inline]
    #[must_use]
    pub const fn tcp_flags(&self) -> u8 {
        self.tcp_flags_or_icmp_type
    }

    /// The ICMP or ICMPv6 type; meaningful for the ICMP kinds.
    #[inline]
    #[must_use]
    pub const fn icmp_type(&self) -> u8 {
        self.tcp_flags_or_icmp_type
    }

    /// Is a flag of `flags` set?
    #[inline]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

const _: () = assert!(size_of::<PacketMeta>() == 64);
