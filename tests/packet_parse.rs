//! The parser against frames built byte by byte: every kind, every way to be malformed, every truncation.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "support/frames.rs"]
mod frames;

use frames::*;
use haechi::packet::{
    ChecksumStatus, Malformed, PacketKind, PacketMeta, ParseOptions, RxChecksum, parse, parse_into,
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

fn look(frame: &[u8]) -> PacketMeta {
    parse(frame, RxChecksum::default(), ParseOptions::default())
}

fn device(ip: ChecksumStatus, l4: ChecksumStatus) -> RxChecksum {
    RxChecksum { ip, l4 }
}

#[track_caller]
fn is_malformed(frame: &[u8], how: Malformed) {
    let meta = look(frame);
    let found = Malformed::from_detail(meta.detail).map(Malformed::name);
    assert_eq!(
        (meta.kind, found),
        (PacketKind::Malformed, Some(how.name())),
        "{frame:02x?}"
    );
}

#[track_caller]
fn is_kind(frame: &[u8], kind: PacketKind) -> PacketMeta {
    let meta = look(frame);
    assert_eq!(
        meta.kind,
        kind,
        "detail {:?} of {frame:02x?}",
        Malformed::from_detail(meta.detail)
    );
    meta
}

fn mapped(address: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets()
}

/// One valid frame of every kind and shape, by name.
fn valid() -> Vec<(&'static str, Vec<u8>, PacketKind)> {
    use PacketKind as K;
    let error4 = Ip4::new(17).packet(&udp((1, 2), b"12345678"));
    let error6 = Ip6::new(17).packet(&udp((1, 2), b"12345678"));
    let mut first4 = Ip4::new(17);
    first4.fragment = 0x2000;
    let mut later4 = Ip4::new(17);
    later4.fragment = 185;
    let mut options4 = Ip4::new(6);
    options4.options = vec![7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0];
    let options4 = options4.frame(&summed(&options4.pseudo(20), tcp((1, 2), SYN, &[], &[]), 16));
    let first6 = Ip6::new(17).extension(44, &[0, 0, 0, 1, 0, 0, 0, 9]);
    let later6 = Ip6::new(17).extension(44, &[0, 0, 0, 8, 0, 0, 0, 9]);
    let atomic6 = Ip6::new(17).extension(44, &[0, 0, 0, 0, 0, 0, 0, 9]);
    let chain6 = Ip6::new(6)
        .extension(0, &[0, 0, 1, 4, 0, 0, 0, 0])
        .extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])
        .extension(43, &[0, 0, 0, 0, 0, 0, 0, 0])
        .extension(51, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    vec![
        ("tcp4", tcp4((1234, 80), SYN, &[2, 4, 5, 180], &[]), K::Tcp),
        ("tcp4 data", tcp4((1234, 80), ACK, &TIMESTAMPS, &[7; 100]), K::Tcp),
        (
            "tcp4 padded",
            padded(tcp4((1234, 80), ACK, &[], &[]), 60, 0xee),
            K::Tcp,
        ),
        ("tcp4 options", options4, K::Tcp),
        ("tcp6", tcp6((1234, 80), SYN, &[2, 4, 5, 180], &[]), K::Tcp),
        (
            "tcp6 extensions",
            over6(&chain6, tcp((1, 2), ACK, &[], b"odd"), 16),
            K::Tcp,
        ),
        ("udp4", udp4((1234, 53), &[1; 18]), K::Udp),
        (
            "udp4 odd padded",
            padded(udp4((1234, 53), b"odd"), 60, 0xee),
            K::Udp,
        ),
        ("udp4 long", udp4((1234, 53), &[0xa5; 1471]), K::Udp),
        (
            "udp4 without checksum",
            Ip4::new(17).frame(&udp((1, 2), b"abcd")),
            K::Udp,
        ),
        ("udp6", udp6((1234, 53), b"odd"), K::Udp),
        (
            "udp6 atomic fragment",
            over6(&atomic6, udp((1, 2), b"abcd"), 6),
            K::Udp,
        ),
        ("echo4", icmp4(8, 0, [0x12, 0x34, 0, 1], &[9; 56]), K::Echo),
        ("echo6", icmp6(129, 0, [0x12, 0x34, 0, 1], &[9; 55]), K::Echo),
        ("timestamp4", icmp4(13, 0, [0; 4], &[0; 12]), K::Icmp),
        ("node information6", icmp6(139, 0, [0; 4], &[0; 8]), K::Icmp),
        ("unreachable4", icmp4(3, 1, [0; 4], &error4), K::IcmpError),
        ("too big6", icmp6(2, 0, [0, 0, 5, 0], &error6), K::IcmpError),
        ("gre4", Ip4::new(47).frame(&[0, 0, 8, 0]), K::OtherIp),
        ("protocol 253 empty", Ip4::new(253).frame(&[]), K::OtherIp),
        ("esp6", Ip6::new(50).frame(&[1; 16]), K::OtherIp),
        ("no next header6", Ip6::new(59).frame(&[]), K::OtherIp),
        ("icmp in ipv6", Ip6::new(1).frame(&[8, 0, 0, 0]), K::OtherIp),
        ("first fragment4", first4.frame(&[1; 64]), K::Fragment),
        ("later fragment4", later4.frame(&[1; 7]), K::Fragment),
        ("first fragment6", first6.frame(&[1; 64]), K::Fragment),
        ("later fragment6", later6.frame(&[1; 7]), K::Fragment),
        (
            "arp request",
            padded(with(arp(1, SOURCE_MAC), 0, &[0xff; 6]), 60, 0),
            K::Arp,
        ),
        ("arp reply", arp(2, SOURCE_MAC), K::Arp),
        (
            "neighbour solicitation",
            neighbour_solicitation(),
            K::NeighbourDiscovery,
        ),
        ("mld report", mld_report(), K::NeighbourDiscovery),
        ("lldp", ethernet(0x88cc, &[2, 7, 4]), K::NonIp),
        ("spanning tree", ethernet(38, &[0x42, 0x42, 3]), K::NonIp),
    ]
}

#[test]
fn every_valid_frame_is_its_kind_whatever_its_tags_and_padding() {
    for (name, frame, kind) in valid() {
        let plain = look(&frame);
        assert_eq!(
            plain.kind,
            kind,
            "{name}: {:?}",
            Malformed::from_detail(plain.detail)
        );
        assert!(!plain.has(PacketMeta::TAGGED) && plain.vlan == 0, "{name}");
        for (tags, vlan) in [
            (vec![(0x8100, 0x0064)], 0x64),
            (vec![(0x8100, 0xefff)], 0xfff),
            (vec![(0x88a8, 0x0064)], 0x64),
            (vec![(0x9100, 0x0064)], 0x64),
            (vec![(0x8100, 0xe000)], 0),
            (vec![(0x88a8, 0x6123), (0x8100, 0x0456)], 0x12_3456),
        ] {
            let shift = 4 * tags.len() as u8;
            let frame = tags
                .iter()
                .rev()
                .fold(frame.clone(), |f, (tpid, tci)| tagged(*tpid, *tci, &f));
            for frame in [padded(frame.clone(), 80, 0x55), frame] {
                let meta = look(&frame);
                let mut expected = plain;
                expected.vlan = vlan;
                expected.flags |= PacketMeta::TAGGED;
                if expected.l3_offset != 0 {
                    expected.l3_offset += shift;
                }
                if expected.l4_offset != 0 {
                    expected.l4_offset += u16::from(shift);
                }
                assert_eq!(meta, expected, "{name} with tags {tags:04x?}");
            }
        }
    }
}

#[test]
fn metadata_of_tcp() {
    let meta = is_kind(
        &padded(tcp4((1234, 80), SYN | 0xc0, &[2, 4, 5, 180], &[]), 60, 1),
        PacketKind::Tcp,
    );
    let expected = PacketMeta {
        source: mapped(A4),
        destination: mapped(B4),
        source_port: 1234,
        destination_port: 80,
        l4_offset: 34,
        l4_len: 24,
        l3_offset: 14,
        kind: PacketKind::Tcp,
        protocol: 6,
        tcp_flags_or_icmp_type: SYN | 0xc0,
        detail: 24,
        flags: PacketMeta::IPV4,
        ..PacketMeta::default()
    };
    assert_eq!(meta, expected);
    let meta = is_kind(
        &tcp6((1234, 80), SYN | 0xc0, &[2, 4, 5, 180], &[]),
        PacketKind::Tcp,
    );
    let expected = PacketMeta {
        source: A6,
        destination: B6,
        l4_offset: 54,
        flags: PacketMeta::IPV6,
        ..expected
    };
    assert_eq!(meta, expected);
}

#[test]
fn metadata_of_udp_echo_fragment_error_and_others() {
    let udp = is_kind(&udp4((1234, 53), b"odd"), PacketKind::Udp);
    assert_eq!(
        (udp.source_port, udp.destination_port, udp.protocol, udp.l4_len),
        (1234, 53, 17, 11)
    );
    assert_eq!((udp.detail, udp.tcp_flags_or_icmp_type), (0, 0));
    let echo = is_kind(&icmp4(0, 0, [0x12, 0x34, 0, 1], &[]), PacketKind::Echo);
    assert_eq!((echo.source_port, echo.destination_port), (0x1234, 0x1234));
    assert_eq!((echo.icmp_type(), echo.detail, echo.protocol), (0, 0, 1));
    let odd_echo = is_kind(&icmp4(8, 1, [0x12, 0x34, 0, 1], &[]), PacketKind::Icmp);
    assert_eq!(
        (odd_echo.source_port, odd_echo.icmp_type(), odd_echo.detail),
        (0, 8, 1)
    );
    let error = is_kind(
        &icmp6(1, 4, [0; 4], &Ip6::new(59).packet(&[])),
        PacketKind::IcmpError,
    );
    assert_eq!(
        (error.icmp_type(), error.detail, error.protocol, error.source_port),
        (1, 4, 58, 0)
    );
    let mut ip = Ip4::new(6);
    ip.fragment = 0x2000;
    let first = is_kind(&ip.frame(&[0xff; 8]), PacketKind::Fragment);
    assert!(first.has(PacketMeta::FIRST_FRAGMENT));
    assert_eq!(
        (first.protocol, first.source_port, first.l4_offset, first.l4_len),
        (6, 0, 34, 8)
    );
    ip.fragment = 0x0001;
    assert!(!is_kind(&ip.frame(&[0xff; 5]), PacketKind::Fragment).has(PacketMeta::FIRST_FRAGMENT));
    let later = Ip6::new(17).extension(44, &[0, 0, 0, 8, 0, 0, 0, 9]);
    let later = is_kind(&later.frame(&[1; 7]), PacketKind::Fragment);
    assert_eq!((later.protocol, later.l4_offset, later.l4_len), (17, 62, 7));
    let esp = is_kind(&Ip6::new(50).frame(&[1; 16]), PacketKind::OtherIp);
    assert_eq!(
        (esp.protocol, esp.l4_offset, esp.l4_len, esp.source_port),
        (50, 54, 16, 0)
    );
}

#[test]
fn a_group_destination_is_noted() {
    for (first, group) in [
        (0x01, true),
        (0xff, true),
        (0x33, true),
        (0x02, false),
        (0x00, false),
    ] {
        for frame in [
            udp4((1, 2), b"x"),
            neighbour_solicitation(),
            ethernet(0x88cc, &[]),
            ethernet(0x0800, &[]),
        ] {
            let meta = look(&with(frame, 0, &[first]));
            assert_eq!(meta.has(PacketMeta::GROUP), group);
        }
    }
}

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
    for (field, len) in [(0x2000, 0), (0x2000, 9), (0x2005, 4), (0x3fff, 8), (0x1fff, 1)] {
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
    for (field, len) in [(0x0001, 0), (0x0001, 9), (0x0009, 4), (0xfff8, 8), (0xfff9, 8)] {
        is_malformed(&fragment(field, len), Malformed::Ipv6Fragment);
    }
    // Reserved bits do not make a fragment of a whole packet.
    is_kind(
        &Ip6::new(59).extension(44, &[0, 9, 0, 6, 0, 0, 0, 1]).frame(&[]),
        PacketKind::OtherIp,
    );
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

/// A discovery message with its IPv6 header.
fn discovery(
    kind: u8,
    source: [u8; 16],
    destination: [u8; 16],
    rest: [u8; 4],
    body: &[u8],
) -> (Ip6, Vec<u8>) {
    let mut ip = Ip6::new(58);
    (ip.source, ip.destination, ip.hop_limit) = (source, destination, 255);
    (ip, icmp(kind, 0, rest, body))
}

#[test]
fn neighbour_discovery_follows_rfc_4861() {
    const NOBODY: [u8; 16] = [0; 16];
    const SOURCE_OPTION: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 0x0a];
    const TARGET_OPTION: [u8; 8] = [2, 1, 2, 0, 0, 0, 0, 0x0a];
    let solicited: [u8; 4] = [0x40, 0, 0, 0];
    let node = solicited_node(B6);
    let advertisement = [0; 8];
    let join = |parts: &[&[u8]]| parts.concat();
    let good = [
        discovery(133, LINK, ALL_NODES, [0; 4], &SOURCE_OPTION),
        discovery(133, NOBODY, ALL_NODES, [0; 4], &[]),
        discovery(
            134,
            LINK,
            ALL_NODES,
            [64, 0, 7, 8],
            &join(&[&advertisement, &SOURCE_OPTION]),
        ),
        discovery(135, A6, node, [0; 4], &join(&[&B6, &SOURCE_OPTION])),
        discovery(135, A6, B6, [0; 4], &B6),
        discovery(135, NOBODY, node, [0; 4], &B6),
        discovery(136, B6, A6, solicited, &join(&[&B6, &TARGET_OPTION])),
        discovery(136, B6, ALL_NODES, [0x20, 0, 0, 0], &B6),
        discovery(137, LINK, A6, [0; 4], &join(&[&LINK, &B6])),
        discovery(137, LINK, A6, [0; 4], &join(&[&B6, &B6])),
        // An option that nobody knows, of two units.
        discovery(135, A6, node, [0; 4], &join(&[&B6, &[200, 2], &[0; 14]])),
    ];
    for (ip, message) in &good {
        let frame = over6(ip, message.clone(), 2);
        let meta = is_kind(&frame, PacketKind::NeighbourDiscovery);
        assert_eq!((meta.icmp_type(), meta.protocol), (message[0], 58));
        // Forwarded by a router; a code; cut in its fixed part; a fragment header.
        let mut routed = ip.clone();
        routed.hop_limit = 254;
        is_malformed(&over6(&routed, message.clone(), 2), Malformed::NeighbourDiscovery);
        is_malformed(
            &over6(ip, with(message.clone(), 1, &[1]), 2),
            Malformed::NeighbourDiscovery,
        );
        let fragmented = ip.clone().extension(44, &[0; 8]);
        is_malformed(
            &over6(&fragmented, message.clone(), 2),
            Malformed::NeighbourDiscovery,
        );
        let with_options = |options: &[u8]| over6(ip, [&message[..], options].concat(), 2);
        is_malformed(
            &with_options(&[14, 0, 0, 0, 0, 0, 0, 0]),
            Malformed::NeighbourDiscovery,
        );
        is_malformed(
            &with_options(&[14, 2, 0, 0, 0, 0, 0, 0]),
            Malformed::NeighbourDiscovery,
        );
        is_malformed(&with_options(&[14]), Malformed::NeighbourDiscovery);
        is_kind(
            &with_options(&[14, 1, 0, 0, 0, 0, 0, 0]),
            PacketKind::NeighbourDiscovery,
        );
    }
    for (kind, least) in [(133, 8), (134, 16), (135, 24), (136, 24), (137, 40)] {
        for len in 8..least {
            let (ip, message) = discovery(kind, LINK, A6, [0; 4], &[0; 32][..len - 8]);
            is_malformed(&over6(&ip, message, 2), Malformed::NeighbourDiscovery);
        }
    }
    let bad = [
        discovery(133, NOBODY, ALL_NODES, [0; 4], &SOURCE_OPTION),
        discovery(134, A6, ALL_NODES, [0; 4], &advertisement),
        discovery(135, A6, node, [0; 4], &ALL_NODES),
        discovery(135, NOBODY, B6, [0; 4], &B6),
        discovery(135, NOBODY, node, [0; 4], &join(&[&B6, &SOURCE_OPTION])),
        discovery(136, B6, ALL_NODES, solicited, &B6),
        discovery(136, B6, A6, solicited, &ALL_NODES),
        discovery(137, A6, B6, [0; 4], &join(&[&LINK, &B6])),
        discovery(137, LINK, A6, [0; 4], &join(&[&LINK, &ALL_NODES])),
        discovery(137, LINK, A6, [0; 4], &join(&[&A6, &B6])),
    ];
    for (ip, message) in bad {
        is_malformed(&over6(&ip, message, 2), Malformed::NeighbourDiscovery);
    }
}

#[test]
fn mld_needs_link_local_source_hop_limit_1_and_a_router_alert() {
    let message = |kind: u8, len: usize| icmp(kind, 0, [0; 4], &vec![0; len - 8]);
    let ip = |source: [u8; 16]| {
        let mut ip = Ip6::new(58).extension(0, &ROUTER_ALERT);
        (ip.source, ip.destination, ip.hop_limit) = (source, ALL_NODES, 1);
        ip
    };
    for (kind, least) in [(130, 24), (131, 24), (132, 24), (143, 8)] {
        is_kind(
            &over6(&ip(LINK), message(kind, least), 2),
            PacketKind::NeighbourDiscovery,
        );
        is_malformed(&over6(&ip(A6), message(kind, least), 2), Malformed::Mld);
        for len in 8..least {
            is_malformed(&over6(&ip(LINK), message(kind, len), 2), Malformed::Mld);
        }
        // Reports may come before the sender has an address, queries not.
        let unspecified = over6(&ip([0; 16]), message(kind, least), 2);
        match kind {
            130 => is_malformed(&unspecified, Malformed::Mld),
            _ => drop(is_kind(&unspecified, PacketKind::NeighbourDiscovery)),
        }
        for hop_limit in [0, 2, 255] {
            let mut ip = ip(LINK);
            ip.hop_limit = hop_limit;
            is_malformed(&over6(&ip, message(kind, least), 2), Malformed::Mld);
        }
        let mut bare = ip(LINK);
        bare.extensions.clear();
        is_malformed(&over6(&bare, message(kind, least), 2), Malformed::Mld);
        bare.extensions.push((0, vec![0, 0, 1, 4, 0, 0, 0, 0]));
        is_malformed(&over6(&bare, message(kind, least), 2), Malformed::Mld);
        // In destination options a router alert alerts nobody.
        bare.extensions = vec![(60, ROUTER_ALERT.to_vec())];
        is_malformed(&over6(&bare, message(kind, least), 2), Malformed::Mld);
    }
    for len in 25..28 {
        is_malformed(&over6(&ip(LINK), message(130, len), 2), Malformed::Mld);
    }
    is_kind(
        &over6(&ip(LINK), message(130, 28), 2),
        PacketKind::NeighbourDiscovery,
    );
}

/// What `status` of the device and a right or wrong checksum make of a frame, with and without `verify_l4`.
#[test]
fn checksums_are_the_devices_or_the_softwares() {
    use ChecksumStatus::{Bad, Good, Unknown};
    let (no, yes) = (
        ParseOptions {
            verify_l4: false,
            ..ParseOptions::default()
        },
        ParseOptions::default(),
    );
    for (name, frame, kind) in valid() {
        let l3 = usize::from(look(&frame).l3_offset);
        let v4 = look(&frame).has(PacketMeta::IPV4);
        if v4 {
            let wrong = with(frame.clone(), l3 + 10, &[!frame[l3 + 10]]);
            for options in [no, yes] {
                for (status, expected) in [
                    (Good, kind),
                    (Bad, PacketKind::BadChecksum),
                    (Unknown, PacketKind::BadChecksum),
                ] {
                    assert_eq!(
                        parse(&wrong, device(status, Unknown), options).kind,
                        expected,
                        "{name} {status:?}"
                    );
                }
                for (status, expected) in [(Good, kind), (Bad, PacketKind::BadChecksum), (Unknown, kind)] {
                    assert_eq!(
                        parse(&frame, device(status, Unknown), options).kind,
                        expected,
                        "{name} {status:?}"
                    );
                }
            }
        }
        let meta = look(&frame);
        let at = usize::from(meta.l4_offset)
            + match (meta.kind, meta.protocol) {
                (PacketKind::Fragment, _) => continue,
                (_, 6) => 16,
                (_, 17) => 6,
                (_, 1) if v4 => 2,
                (_, 58) if !v4 => 2,
                _ => continue,
            };
        let none = meta.protocol == 17 && frame[at..at + 2] == [0, 0];
        let tcp_or_udp = matches!(meta.kind, PacketKind::Tcp | PacketKind::Udp);
        let seen_by_device = tcp_or_udp && (v4 || meta.l4_offset == 54);
        let wrong = if none {
            frame.clone()
        } else {
            with(frame.clone(), at, &[frame[at] ^ 0x10])
        };
        for (status, right_is, wrong_is) in [
            (Unknown, kind, if none { kind } else { PacketKind::BadChecksum }),
            (
                Good,
                kind,
                if none || seen_by_device {
                    kind
                } else {
                    PacketKind::BadChecksum
                },
            ),
            (
                Bad,
                if none || !seen_by_device {
                    kind
                } else {
                    PacketKind::BadChecksum
                },
                if none { kind } else { PacketKind::BadChecksum },
            ),
        ] {
            for ip in [Unknown, Good] {
                assert_eq!(
                    parse(&frame, device(ip, status), yes).kind,
                    right_is,
                    "{name} right, {status:?}"
                );
                assert_eq!(
                    parse(&wrong, device(ip, status), yes).kind,
                    wrong_is,
                    "{name} wrong, {status:?}"
                );
                assert_eq!(
                    parse(&wrong, device(ip, status), no).kind,
                    kind,
                    "{name} not verified, {status:?}"
                );
            }
        }
    }
}

#[test]
fn udp_over_ipv6_must_have_a_checksum() {
    let without = Ip6::new(17).frame(&udp((1, 2), b"data"));
    is_kind(&without, PacketKind::BadChecksum);
    let options = ParseOptions {
        verify_l4: false,
        ..ParseOptions::default()
    };
    assert_eq!(
        parse(&without, RxChecksum::default(), options).kind,
        PacketKind::Udp
    );
    let good = device(ChecksumStatus::Good, ChecksumStatus::Good);
    assert_eq!(
        parse(&without, good, ParseOptions::default()).kind,
        PacketKind::BadChecksum
    );
}

#[test]
fn a_wrong_bit_anywhere_under_a_checksum_is_found() {
    for (name, frame, kind) in valid() {
        let meta = look(&frame);
        let covered = match meta.kind {
            PacketKind::Tcp | PacketKind::Udp if !name.contains("without") => true,
            PacketKind::Echo | PacketKind::Icmp | PacketKind::IcmpError => true,
            _ => false,
        };
        if !covered {
            continue;
        }
        let (start, end) = (
            usize::from(meta.l4_offset),
            usize::from(meta.l4_offset + meta.l4_len),
        );
        for at in start..end {
            for bit in 0..8 {
                let meta = look(&with(frame.clone(), at, &[frame[at] ^ (1 << bit)]));
                // A length that no longer fits is told before the checksum; a UDP checksum of 0 is none.
                assert!(
                    matches!(meta.kind, PacketKind::BadChecksum | PacketKind::Malformed),
                    "{name}: bit {bit} of byte {at} makes {:?} of {kind:?}",
                    meta.kind
                );
            }
        }
    }
}

#[test]
fn every_truncation_is_malformed_or_only_lost_padding() {
    for (name, frame, kind) in valid() {
        let whole = look(&frame);
        let tagged_frames = [frame.clone(), tagged(0x88a8, 7, &tagged(0x8100, 9, &frame))];
        for frame in tagged_frames {
            let whole_tagged = look(&frame);
            for len in 0..frame.len() {
                let meta = look(&frame[..len]);
                let end = usize::from(whole_tagged.l4_offset) + usize::from(whole_tagged.l4_len);
                let only_padding_lost = match kind {
                    PacketKind::Arp => len >= usize::from(whole_tagged.l3_offset) + 28,
                    PacketKind::NonIp => len >= frame.len() - (tagged_inside(&whole)),
                    _ => len >= end,
                };
                if only_padding_lost {
                    assert_eq!(meta, whole_tagged, "{name} cut to {len}");
                } else {
                    assert_eq!(meta.kind, PacketKind::Malformed, "{name} cut to {len}");
                }
            }
        }
    }
}

/// Bytes behind the EtherType of the frames that are not IP: they do not matter.
fn tagged_inside(meta: &PacketMeta) -> usize {
    assert_eq!(meta.kind, PacketKind::NonIp);
    3
}

#[test]
fn parse_into_overwrites_everything() {
    let junk = PacketMeta {
        source: [9; 16],
        vlan: 9,
        hash: 9,
        flags: 0xff,
        detail: 9,
        l4_len: 9,
        ..PacketMeta::default()
    };
    for (name, frame, _) in valid() {
        for frame in [frame.clone(), frame[..frame.len() / 2].to_vec()] {
            let mut meta = junk;
            parse_into(&frame, RxChecksum::default(), ParseOptions::default(), &mut meta);
            assert_eq!(meta, look(&frame), "{name}");
        }
    }
}
