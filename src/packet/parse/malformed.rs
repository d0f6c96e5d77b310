//! What can be wrong with a frame, and the word for each.

macro_rules! malformed {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// What is wrong with a malformed frame: `detail` of a [`PacketMeta`](crate::packet::PacketMeta) of kind
        /// [`PacketKind::Malformed`](crate::packet::PacketKind::Malformed).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Malformed {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Malformed {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word that users see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One line that says what it means.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)*).trim_ascii(),)* }
            }
        }
    };
}

malformed! {
    /// The frame is shorter than an Ethernet header.
    EthernetTruncated = "ethernet_truncated",
    /// More than two VLAN tags, or the frame ends inside a tag.
    VlanTags = "vlan_tags",
    /// The frame ends inside the ARP packet.
    ArpTruncated = "arp_truncated",
    /// Hardware or protocol type or address lengths other than Ethernet's and IPv4's, or an operation other than request and reply (RFC 826).
    ArpFormat = "arp_format",
    /// The sender's hardware address is a group address or not the frame's source.
    ArpSender = "arp_sender",
    /// The frame ends inside the IPv4 header.
    Ipv4Truncated = "ipv4_truncated",
    /// Another version than the EtherType says, or a header length below 20 bytes.
    Ipv4Header = "ipv4_header",
    /// The total length is less than the header's, or more than the frame holds.
    Ipv4TotalLength = "ipv4_total_length",
    /// An option's length is below 2 or more than the header holds (RFC 791, section 3.1).
    Ipv4Options = "ipv4_options",
    /// A fragment whose end lies past 65,535 bytes, an empty one, or one before the last whose length is not a multiple of 8 (RFC 791, section 3.2).
    Ipv4Fragment = "ipv4_fragment",
    /// The frame ends inside the IPv6 header, or its version is not the one that the EtherType says.
    Ipv6Header = "ipv6_header",
    /// The payload length is more than the frame holds, or a jumbogram's (RFC 2675).
    Ipv6PayloadLength = "ipv6_payload_length",
    /// An IPv4-mapped address on the wire, which nobody may send and which rules would take for IPv4.
    Ipv6MappedAddress = "ipv6_mapped_address",
    /// An extension header or one of its options ends outside, there are too many, or hop-by-hop options are not in first place (RFC 8200, section 4.1).
    Ipv6Extension = "ipv6_extension",
    /// A fragment whose end lies past 65,535 bytes, an empty one, or one before the last whose length is not a multiple of 8 (RFC 8200, section 4.5).
    Ipv6Fragment = "ipv6_fragment",
    /// A first fragment without the whole L4 header, or a TCP fragment that begins inside of one (RFC 1858, section 3; RFC 7112).
    TinyFragment = "tiny_fragment",
    /// Fragments of one datagram that contradict each other about where it ends.
    FragmentEnd = "fragment_end",
    /// The sender names the route: IPv4 source routing, or an IPv6 routing header with segments left (RFC 7126, section 4.3; RFC 5095).
    SourceRoute = "source_route",
    /// The packet ends inside the TCP header.
    TcpTruncated = "tcp_truncated",
    /// A TCP data offset below 5 words or past the packet's end.
    TcpDataOffset = "tcp_data_offset",
    /// A TCP option's length is below 2 or more than the header holds (RFC 9293, section 3.1).
    TcpOptions = "tcp_options",
    /// The packet ends inside the UDP header.
    UdpTruncated = "udp_truncated",
    /// A UDP length below 8 or more than the packet holds.
    UdpLength = "udp_length",
    /// The packet ends inside the ICMP or ICMPv6 header.
    IcmpTruncated = "icmp_truncated",
    /// An ICMP or ICMPv6 error without the header and first bytes of the packet that it is about.
    IcmpErrorPacket = "icmp_error_packet",
    /// Neighbour discovery that nodes have to discard: hop limit, code, lengths, addresses or options (RFC 4861, sections 6.1, 7.1 and 8.1).
    NeighbourDiscovery = "neighbour_discovery",
    /// MLD that nodes have to discard: hop limit, source address, router alert or length (RFC 2710, section 3; RFC 3810, section 5).
    Mld = "mld",
}

impl Malformed {
    /// The one with this number (`PacketMeta::detail`).
    #[must_use]
    pub fn from_detail(detail: u8) -> Option<Self> {
        Self::ALL.get(usize::from(detail)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_snake_case_and_numbers_lead_back() {
        let names: std::collections::BTreeSet<_> = Malformed::ALL.iter().map(|m| m.name()).collect();
        assert_eq!(names.len(), Malformed::ALL.len());
        for malformed in Malformed::ALL {
            assert!(
                malformed
                    .name()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(!malformed.help().is_empty());
            assert_eq!(Malformed::from_detail(*malformed as u8), Some(*malformed));
        }
        assert_eq!(Malformed::from_detail(Malformed::ALL.len() as u8), None);
    }
}
