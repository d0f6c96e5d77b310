//! The parser against frames built byte by byte: every kind, every way to be malformed, every truncation.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "packet/discovery.rs"]
mod discovery;
#[path = "support/frames.rs"]
mod frames;
#[path = "packet/malformed.rs"]
mod malformed;

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
    RxChecksum::new(ip, l4)
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
    // Found by the parser's fuzz target: a first fragment that is too short was still noted as a first one.
    assert!(!meta.has(PacketMeta::FIRST_FRAGMENT), "{frame:02x?}");
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
    let first = is_kind(&ip.frame(&[0x55; 24]), PacketKind::Fragment);
    assert!(first.has(PacketMeta::FIRST_FRAGMENT));
    assert_eq!(
        (first.protocol, first.source_port, first.l4_offset, first.l4_len),
        (6, 0, 34, 24)
    );
    ip.fragment = 0x0002;
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
