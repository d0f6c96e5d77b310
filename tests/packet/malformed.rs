//! Every way to be malformed, with its neighbours that are not.

use haechi::packet::{Malformed, PacketKind, PacketMeta, ParseOptions, RxChecksum, parse};

use crate::frames::*;
use crate::{SYN, TIMESTAMPS, is_kind, is_malformed, mapped};

#[test]
fn malformed_ethernet_and_tags() {
    for len in 0..14 {
        is_malformed(&vec![0x81; len], Malformed::EthernetTruncated);
    }
    let frame = udp4((1, 2), b"x");
    let double = tagged(0x88a8, 1, &tagged(0x8100, 2, &frame));
    for tpid in [0x8100, 0x88a8, 0x9100] {
        is_malformed(&tagged(tpid, 3, &double), Malformed::VlanTags);
    }
    for len in [14, 15, 17] {
        is_malformed(&tagged(0x8100, 1, &frame)[..len], Malformed::VlanTags);
    }
    for len in [18, 21] {
        is_malformed(&double[..len], Malformed::VlanTags);
    }
}

#[test]
fn tags_are_left_alone_when_nobody_looks_inside() {
    let options = ParseOptions {
        look_into_vlan: false,
        ..ParseOptions::default()
    };
    let inner = tcp4((1, 2), SYN, &[], &[]);
    let three = (0..3).fold(inner.clone(), |f, _| tagged(0x8100, 5, &f));
    for frame in [
        tagged(0x8100, 5, &inner),
        three.clone(),
        tagged(0x88a8, 1, &inner)[..15].to_vec(),
    ] {
        let meta = parse(&frame, RxChecksum::default(), options);
        assert_eq!((meta.kind, meta.flags), (PacketKind::NonIp, PacketMeta::TAGGED));
        assert_eq!((meta.l3_offset, meta.vlan), (0, 0));
    }
    assert_eq!(
        parse(&inner, RxChecksum::default(), options).kind,
        PacketKind::Tcp
    );
}

#[test]
fn malformed_arp() {
    let good = arp(1, SOURCE_MAC);
    for len in 14..good.len() {
        is_malformed(&good[..len], Malformed::ArpTruncated);
    }
    // Hardware type, protocol type, both lengths, operation.
    for (at, byte) in [
        (15, 6),
        (14, 1),
        (16, 0x86),
        (17, 1),
        (18, 8),
        (19, 16),
        (21, 0),
        (21, 3),
        (20, 1),
    ] {
        is_malformed(&with(good.clone(), at, &[byte]), Malformed::ArpFormat);
    }
    is_malformed(&arp(2, DESTINATION_MAC), Malformed::ArpSender);
    let group = [0x03, 0, 0, 0, 0, 0x0a];
    is_malformed(&with(arp(1, group), 6, &group), Malformed::ArpSender);
    is_malformed(&with(arp(1, [0xff; 6]), 6, &[0xff; 6]), Malformed::ArpSender);
}

#[test]
fn malformed_ipv4() {
    let good = tcp4((1, 2), SYN, &[], &[]);
    for len in 14..34 {
        is_malformed(&good[..len], Malformed::Ipv4Truncated);
    }
    for version_and_length in [0x55, 0x35, 0x05, 0x65, 0x44, 0x40, 0x41] {
        is_malformed(
            &with(good.clone(), 14, &[version_and_length]),
            Malformed::Ipv4Header,
        );
    }
    is_malformed(&fixed(with(good.clone(), 14, &[0x4f])), Malformed::Ipv4Truncated);
    for total_length in [0_u16, 19, 41, 1500, 65_535] {
        let frame = fixed(with(good.clone(), 16, &total_length.to_be_bytes()));
        is_malformed(&frame, Malformed::Ipv4TotalLength);
    }
    // Longer than the frame by one byte, shorter than the header by one.
    let mut ip = Ip4::new(253);
    ip.options = vec![1, 1, 1, 0];
    let frame = ip.frame(&[1, 2, 3]);
    is_kind(&frame, PacketKind::OtherIp);
    is_malformed(&frame[..frame.len() - 1], Malformed::Ipv4TotalLength);
    is_malformed(&fixed(with(frame, 16, &[0, 23])), Malformed::Ipv4TotalLength);
}

#[test]
fn malformed_ipv4_options() {
    let with_options = |options: &[u8]| {
        let mut ip = Ip4::new(253);
        ip.options = options.to_vec();
        ip.frame(&[])
    };
    // No-operation, end, record route, router alert, timestamp, an unknown one that fills all; garbage after the end.
    for good in [
        &[1, 1, 1, 1][..],
        &[0, 9, 9, 9],
        &[7, 7, 4, 0, 0, 0, 0, 0],
        &[148, 4, 0, 0],
        &[68, 8, 5, 0, 0, 0, 0, 0],
        &[99, 4, 0, 0],
        &[99, 2, 99, 2],
    ] {
        is_kind(&with_options(good), PacketKind::OtherIp);
    }
    for bad in [
        &[7, 0, 0, 0][..],
        &[7, 1, 0, 0],
        &[7, 5, 0, 0],
        &[1, 1, 1, 7],
        &[1, 1, 7, 3],
        &[99, 255, 0, 0],
    ] {
        is_malformed(&with_options(bad), Malformed::Ipv4Options);
    }
    for source_route in [
        &[131, 7, 4, 1, 2, 3, 4, 0][..],
        &[137, 7, 8, 1, 2, 3, 4, 0],
        &[1, 131, 3, 4],
    ] {
        is_malformed(&with_options(source_route), Malformed::SourceRoute);
    }
}

#[test]
fn malformed_ipv4_fragments() {
    let fragment = |field: u16, len: usize| {
        let mut ip = Ip4::new(17);
        ip.fragment = field;
        ip.frame(&vec![0; len])
    };
    for (field, len) in [(0x2000, 8), (0x2001, 1480), (0x0001, 1), (0x6000, 8)] {
        is_kind(&fragment(field, len), PacketKind::Fragment);
    }
    // The last byte that a packet of 65,535 can have: offset 65,512, behind a header of 20.
    is_kind(&fragment(8189, 3), PacketKind::Fragment);
    is_malformed(&fragment(8189, 4), Malformed::Ipv4Fragment);
    for (field, len) in [
        (0x2000, 0),
        (0x0001, 0),
        (0x2000, 9),
        (0x2005, 4),
        (0x3fff, 8),
        (0x1fff, 1),
    ] {
        is_malformed(&fragment(field, len), Malformed::Ipv4Fragment);
    }
    // Don't-fragment and the reserved bit make no fragment.
    let mut ip = Ip4::new(253);
    ip.fragment = 0xc000;
    is_kind(&ip.frame(&[]), PacketKind::OtherIp);
}

#[test]
fn malformed_ipv6() {
    let good = tcp6((1, 2), SYN, &[], &[]);
    for len in 14..54 {
        is_malformed(&good[..len], Malformed::Ipv6Header);
    }
    is_malformed(&with(good.clone(), 14, &[0x45]), Malformed::Ipv6Header);
    is_malformed(&with(good.clone(), 18, &[0, 21]), Malformed::Ipv6PayloadLength);
    is_malformed(
        &with(good.clone(), 18, &[0xff, 0xff]),
        Malformed::Ipv6PayloadLength,
    );
    is_malformed(&with(good.clone(), 18, &[0, 0]), Malformed::TcpTruncated);
    let jumbo = Ip6::new(17).extension(0, &[0, 0, 0xc2, 4, 0, 1, 0, 0]);
    is_malformed(&jumbo.frame(&[0; 16]), Malformed::Ipv6PayloadLength);
    is_malformed(
        &with(jumbo.frame(&[0; 16]), 18, &[0, 0]),
        Malformed::Ipv6PayloadLength,
    );
    for at in [22, 38] {
        let frame = with(good.clone(), at, &mapped(A4));
        is_malformed(&frame, Malformed::Ipv6MappedAddress);
    }
}

#[test]
fn malformed_ipv6_extensions() {
    let pad = [0, 0, 1, 4, 0, 0, 0, 0];
    let chain = |n: usize| (0..n).fold(Ip6::new(59), |ip, _| ip.extension(60, &pad));
    is_kind(&chain(8).frame(&[]), PacketKind::OtherIp);
    is_malformed(&chain(9).frame(&[]), Malformed::Ipv6Extension);
    // Hop-by-hop options in second place.
    is_malformed(&chain(1).extension(0, &pad).frame(&[]), Malformed::Ipv6Extension);
    is_malformed(
        &Ip6::new(59).extension(0, &pad).extension(0, &pad).frame(&[]),
        Malformed::Ipv6Extension,
    );
    // A header that ends outside of the packet, each kind: its length says 16 bytes and 8 are there.
    for kind in [0, 43, 60] {
        is_malformed(
            &Ip6::new(59).extension(kind, &[0, 1, 0, 0, 0, 0, 0, 0]).frame(&[]),
            Malformed::Ipv6Extension,
        );
        is_malformed(
            &Ip6::new(59).extension(kind, &[0, 0, 0, 0]).frame(&[]),
            Malformed::Ipv6Extension,
        );
    }
    is_malformed(
        &Ip6::new(59).extension(51, &[0, 2, 0, 0, 0, 0, 0, 0]).frame(&[]),
        Malformed::Ipv6Extension,
    );
    is_malformed(
        &Ip6::new(59).extension(44, &[0, 0, 0, 0]).frame(&[]),
        Malformed::Ipv6Extension,
    );
    // Authentication counts in words of four bytes: 12 here, and the protocol behind it is found.
    let ah = Ip6::new(59).extension(51, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(is_kind(&ah.frame(&[]), PacketKind::OtherIp).protocol, 59);
    // Options that end outside of their header.
    for options in [
        [1, 5, 0, 0, 0, 0],
        [1, 3, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 1],
    ] {
        let header = [&[0, 0][..], &options].concat();
        is_malformed(
            &Ip6::new(59).extension(0, &header).frame(&[]),
            Malformed::Ipv6Extension,
        );
        is_malformed(
            &Ip6::new(59).extension(60, &header).frame(&[]),
            Malformed::Ipv6Extension,
        );
    }
    // Two fragment headers.
    let atomic = [0; 8];
    let twice = Ip6::new(59).extension(44, &atomic).extension(44, &atomic);
    is_malformed(&twice.frame(&[]), Malformed::Ipv6Extension);
    // Routing headers: none left is harmless, some left is a source route, of whatever type.
    for kind in [0, 2, 3, 4] {
        let route = |left| {
            let header = [&[0, 2, kind, left, 0, 0, 0, 0][..], &B6].concat();
            Ip6::new(59).extension(43, &header).frame(&[])
        };
        is_kind(&route(0), PacketKind::OtherIp);
        is_malformed(&route(1), Malformed::SourceRoute);
    }
}

#[test]
fn malformed_ipv6_fragments() {
    let fragment = |field: u16, len: usize| {
        let field = field.to_be_bytes();
        Ip6::new(17)
            .extension(44, &[0, 0, field[0], field[1], 0, 0, 0, 1])
            .frame(&vec![0; len])
    };
    for (field, len) in [(0x0001, 8), (0x05a9, 1448), (0x0008, 1), (0xfff8, 7)] {
        is_kind(&fragment(field, len), PacketKind::Fragment);
    }
    for (field, len) in [
        (0x0001, 0),
        (0x0008, 0),
        (0x0001, 9),
        (0x0009, 4),
        (0xfff8, 8),
        (0xfff9, 8),
    ] {
        is_malformed(&fragment(field, len), Malformed::Ipv6Fragment);
    }
    // Reserved bits do not make a fragment of a whole packet.
    is_kind(
        &Ip6::new(59).extension(44, &[0, 9, 0, 6, 0, 0, 0, 1]).frame(&[]),
        PacketKind::OtherIp,
    );
}

#[test]
fn tiny_fragments() {
    let (tcp, long) = (tcp((1, 2), SYN, &[], &[0; 4]), tcp((1, 2), SYN, &[0; 8], &[0; 4]));
    let destination_options = [0, 0, 1, 4, 0, 0, 0, 0];
    let fragment6 = |field: u8, protocol| Ip6::new(protocol).extension(44, &[0, 0, 0, field, 0, 0, 0, 1]);
    for (part, tiny) in [
        (&tcp[..8], true),
        (&tcp[..16], true),
        (&tcp[..24], false),
        // Options are part of the header.
        (&long[..24], true),
        (&long[..32], false),
    ] {
        let mut ip = Ip4::new(6);
        ip.fragment = 0x2000;
        let behind_options = fragment6(1, 6).extension(60, &destination_options);
        for frame in [
            ip.frame(part),
            fragment6(1, 6).frame(part),
            behind_options.frame(part),
        ] {
            if tiny {
                is_malformed(&frame, Malformed::TinyFragment);
            } else {
                is_kind(&frame, PacketKind::Fragment);
            }
        }
    }
    // A second fragment that has the flags (RFC 1858, section 3.2); of another protocol it has none.
    for (protocol, tiny) in [(6, true), (17, false)] {
        let mut ip = Ip4::new(protocol);
        ip.fragment = 0x2001;
        for frame in [ip.frame(&[0; 8]), fragment6(9, protocol).frame(&[0; 8])] {
            if tiny {
                is_malformed(&frame, Malformed::TinyFragment);
            } else {
                is_kind(&frame, PacketKind::Fragment);
            }
        }
    }
    // The chain of extension headers goes on in the second fragment (RFC 7112), or has no end.
    let cut = fragment6(1, 60).frame(&[17, 1, 1, 4, 0, 0, 0, 0]);
    is_malformed(&cut, Malformed::TinyFragment);
    let twice = fragment6(1, 17).extension(44, &[0, 0, 0, 1, 0, 0, 0, 1]);
    is_malformed(&twice.frame(&[0; 8]), Malformed::Ipv6Extension);
    let route = fragment6(1, 17).extension(43, &[&[0, 2, 4, 1, 0, 0, 0, 0][..], &B6].concat());
    is_malformed(&route.frame(&[0; 8]), Malformed::SourceRoute);
}

#[test]
fn malformed_tcp() {
    let segment = tcp((1, 2), SYN, &[], &[]);
    let sum4 = |tcp: Vec<u8>| Ip4::new(6).frame(&summed(&Ip4::new(6).pseudo(tcp.len()), tcp, 16));
    let sum6 = |tcp: Vec<u8>| over6(&Ip6::new(6), tcp, 16);
    for len in 0..20 {
        is_malformed(&Ip4::new(6).frame(&segment[..len]), Malformed::TcpTruncated);
        is_malformed(&Ip6::new(6).frame(&segment[..len]), Malformed::TcpTruncated);
        // Padding is no part of the segment.
        is_malformed(
            &padded(Ip4::new(6).frame(&segment[..len]), 80, 0),
            Malformed::TcpTruncated,
        );
    }
    for offset in [0x00, 0x10, 0x40, 0x60, 0xf0] {
        is_malformed(
            &sum4(with(segment.clone(), 12, &[offset])),
            Malformed::TcpDataOffset,
        );
        is_malformed(
            &sum6(with(segment.clone(), 12, &[offset])),
            Malformed::TcpDataOffset,
        );
        is_malformed(
            &padded(sum4(with(segment.clone(), 12, &[offset])), 90, 0),
            Malformed::TcpDataOffset,
        );
    }
    for options in [
        &[2, 0, 0, 0][..],
        &[2, 1, 0, 0],
        &[2, 5, 0, 0],
        &[1, 1, 1, 2],
        &[1, 1, 3, 3],
        &[254, 255, 0, 0],
    ] {
        is_malformed(&sum4(tcp((1, 2), SYN, options, b"data")), Malformed::TcpOptions);
        is_malformed(&sum6(tcp((1, 2), SYN, options, b"data")), Malformed::TcpOptions);
    }
    for options in [
        &[2, 4, 5, 180][..],
        &[0, 77, 77, 77],
        &[1, 3, 3, 7],
        &[254, 4, 0, 0],
        &TIMESTAMPS,
        &[1; 40],
    ] {
        let meta = is_kind(&sum4(tcp((1, 2), SYN, options, b"data")), PacketKind::Tcp);
        assert_eq!(usize::from(meta.detail), 20 + options.len());
        is_kind(&sum6(tcp((1, 2), SYN, options, b"data")), PacketKind::Tcp);
    }
}

#[test]
fn malformed_udp() {
    let datagram = udp((1, 2), b"data");
    for len in 0..8 {
        is_malformed(&Ip4::new(17).frame(&datagram[..len]), Malformed::UdpTruncated);
        is_malformed(&Ip6::new(17).frame(&datagram[..len]), Malformed::UdpTruncated);
    }
    for length in [0_u16, 1, 7, 13, 65_535] {
        let bad = with(datagram.clone(), 4, &length.to_be_bytes());
        is_malformed(&Ip4::new(17).frame(&bad), Malformed::UdpLength);
        is_malformed(&Ip6::new(17).frame(&bad), Malformed::UdpLength);
    }
    // Shorter than the packet: what is behind it belongs to UDP options and is not in the checksum (RFC 9868).
    let ip = Ip4::new(17);
    let summed_part = summed(&ip.pseudo(12), datagram.clone(), 6);
    let meta = is_kind(
        &ip.frame(&[&summed_part[..], &[0xde, 0xad]].concat()),
        PacketKind::Udp,
    );
    assert_eq!(meta.l4_len, 14);
}

#[test]
fn malformed_icmp() {
    for len in 0..8 {
        is_malformed(
            &Ip4::new(1).frame(&[8, 0, 0, 0, 0, 0, 0, 0][..len]),
            Malformed::IcmpTruncated,
        );
        is_malformed(
            &Ip6::new(58).frame(&[128, 0, 0, 0, 0, 0, 0, 0][..len]),
            Malformed::IcmpTruncated,
        );
    }
    let mut options = Ip4::new(17);
    options.options = vec![1; 40];
    let whole4 = Ip4::new(17).packet(&udp((1, 2), b"12345678"));
    for (quoted, least) in [
        (whole4.clone(), 28),
        (options.packet(&udp((1, 2), b"")), 68),
        (Ip4::new(253).packet(&[1, 2]), 22),
    ] {
        for kind in [3, 4, 5, 11, 12] {
            for len in 0..quoted.len() {
                let frame = icmp4(kind, 0, [0; 4], &quoted[..len]);
                if len < least {
                    is_malformed(&frame, Malformed::IcmpErrorPacket);
                } else {
                    is_kind(&frame, PacketKind::IcmpError);
                }
            }
        }
    }
    for byte in [0x44, 0x65, 0x05] {
        is_malformed(
            &icmp4(3, 3, [0; 4], &with(whole4.clone(), 0, &[byte])),
            Malformed::IcmpErrorPacket,
        );
    }
    is_malformed(
        &icmp4(3, 3, [0; 4], &with(whole4.clone(), 2, &[0, 19])),
        Malformed::IcmpErrorPacket,
    );
    let whole6 = Ip6::new(17).packet(&udp((1, 2), b"12345678"));
    for (quoted, least) in [
        (whole6.clone(), 48),
        (Ip6::new(59).packet(&[]), 40),
        (Ip6::new(253).packet(&[1, 2]), 42),
    ] {
        for kind in [0, 1, 2, 3, 4, 127] {
            for len in 0..quoted.len() {
                let frame = icmp6(kind, 0, [0; 4], &quoted[..len]);
                if len < least {
                    is_malformed(&frame, Malformed::IcmpErrorPacket);
                } else {
                    is_kind(&frame, PacketKind::IcmpError);
                }
            }
        }
    }
    is_malformed(
        &icmp6(1, 4, [0; 4], &with(whole6, 0, &[0x45])),
        Malformed::IcmpErrorPacket,
    );
}
