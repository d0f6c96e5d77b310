//! Answers to refused packets: every one checked by etherparse, and every packet that must not be answered.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "support/checked.rs"]
mod checked;
#[path = "support/frames.rs"]
mod frames;

use checked::{checked, checked_tcp};
use etherparse::{NetHeaders, TransportHeader};
use frames::*;
use haechi::packet::build::{Bare, MAX_ANSWER, Way, bare, may_answer, refusal};
use haechi::packet::in_place::bare_in_place;
use haechi::packet::{ChecksumStatus, PacketKind, ParseOptions, RxChecksum, VecPacket, parse};
use proptest::prelude::*;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The answer to a frame, from a scratch buffer full of rubbish.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let meta = parse(frame, RxChecksum::default(), ParseOptions::default());
    let mut scratch = [0xa5; MAX_ANSWER];
    let len = refusal(&meta, frame, &mut scratch);
    assert_eq!(len.is_some(), may_answer(&meta, frame), "room was enough");
    Some(scratch[..len?].to_vec())
}

#[track_caller]
fn not_answered(frame: &[u8]) {
    assert_eq!(answer(frame), None, "{frame:02x?}");
}

/// A segment with these numbers; both families.
fn segments(flags: u8, sequence: u32, acknowledgment: u32, options: &[u8], data: &[u8]) -> [Vec<u8>; 2] {
    let mut tcp = tcp((1234, 80), flags, options, data);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
    let (ip4, ip6) = (Ip4::new(6), Ip6::new(6));
    [
        ip4.frame(&summed(&ip4.pseudo(tcp.len()), tcp.clone(), 16)),
        over6(&ip6, tcp, 16),
    ]
}

#[test]
fn resets_have_the_numbers_of_rfc_9293() {
    let mss = [2, 4, 5, 180];
    for (flags, sequence, options, data, expected) in [
        // No ACK: seq 0, ack = SEG.SEQ + SEG.LEN.
        (SYN, 1000, &mss[..], &b""[..], (0, 1001, true)),
        (SYN, u32::MAX, &mss, b"", (0, 0, true)),
        (SYN, 1000, &[], b"fast open", (0, 1010, true)),
        (FIN, 1000, &[], b"data", (0, 1005, true)),
        (0, 1000, &[], b"", (0, 1000, true)),
        // ACK: seq = SEG.ACK, no acknowledgment.
        (ACK, 1000, &[], b"data", (7777, 0, false)),
        (SYN | ACK, 1000, &mss, b"", (7777, 0, false)),
        (FIN | ACK, 1000, &[], b"", (7777, 0, false)),
    ] {
        for frame in segments(flags, sequence, 7777, options, data) {
            let reset = answer(&frame).expect("it is answered");
            let tcp = checked_tcp(&reset);
            assert_eq!(
                (tcp.sequence_number, tcp.acknowledgment_number, tcp.ack),
                expected
            );
            assert!(tcp.rst && !tcp.syn && !tcp.fin && !tcp.psh && !tcp.urg && !tcp.ece && !tcp.cwr);
            assert_eq!((tcp.source_port, tcp.destination_port), (80, 1234));
            assert_eq!(
                (tcp.window_size, tcp.urgent_pointer, tcp.header_len()),
                (0, 0, 20)
            );
        }
    }
}

/// Ethernet, tags and IP of an answer, whatever it carries.
#[track_caller]
fn comes_from_the_refused_destination(refused: &[u8], answer: &[u8]) {
    let packet = checked(answer);
    assert_eq!(answer[0..6], refused[6..12], "Ethernet destination");
    assert_eq!(answer[6..12], refused[0..6], "Ethernet source");
    let original = checked(refused);
    let tags = 4 * original.vlan_ids().len();
    assert_eq!(
        answer[12..14 + tags],
        refused[12..14 + tags],
        "tags, byte for byte"
    );
    match (packet.net, original.net) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(NetHeaders::Ipv4(original, _))) => {
            assert_eq!(
                (ip.source, ip.destination),
                (original.destination, original.source)
            );
            assert_eq!(
                (ip.time_to_live, ip.dont_fragment, ip.more_fragments),
                (64, true, false)
            );
            assert_eq!((ip.identification, ip.options.len()), (0, 0));
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(NetHeaders::Ipv6(original, _))) => {
            assert_eq!(
                (ip.source, ip.destination),
                (original.destination, original.source)
            );
            assert_eq!((ip.hop_limit, ip.flow_label.value()), (64, 0));
        }
        other => panic!("another family: {other:?}"),
    }
}

#[test]
fn answers_keep_tags_and_swap_ends() {
    let frames = [
        tcp4((1234, 80), SYN, &[2, 4, 5, 180], &[]),
        tcp6((1234, 80), SYN, &[2, 4, 5, 180], &[]),
        udp4((1234, 53), b"query"),
        udp6((1234, 53), b"query"),
        icmp4(8, 0, [0, 1, 0, 1], b"ping"),
        icmp6(128, 0, [0, 1, 0, 1], b"ping"),
    ];
    for frame in frames {
        let one = tagged(0x8100, 0x6005, &frame);
        let two = tagged(0x88a8, 0xf123, &one);
        for frame in [padded(frame, 60, 0), one, two] {
            let answer = answer(&frame).expect("it is answered");
            comes_from_the_refused_destination(&frame, &answer);
            assert!(answer.len() >= 60, "the shortest frame");
        }
    }
}

#[test]
fn short_answers_are_padded_with_zeroes() {
    let reset = answer(&tcp4((1234, 80), SYN, &[], &[])).expect("it is answered");
    assert_eq!((reset.len(), &reset[54..]), (60, &[0; 6][..]));
}

/// Type, code and quoted bytes of an unreachable.
fn unreachable(answer: &[u8]) -> (u8, u8, Vec<u8>) {
    let packet = checked(answer);
    let quoted = packet.payload.slice().to_vec();
    let at = match packet.transport {
        Some(TransportHeader::Icmpv4(_)) => 34,
        Some(TransportHeader::Icmpv6(_)) => 54,
        other => panic!("not ICMP: {other:?}"),
    };
    assert_eq!(answer[at + 4..at + 8], [0; 4], "unused");
    (answer[at], answer[at + 1], quoted)
}

#[test]
fn udp_is_port_unreachable_and_the_rest_prohibited() {
    for (frame, expected) in [
        (udp4((1234, 53), b"query"), (3, 3)),
        (Ip4::new(47).frame(&[0, 0, 8, 0]), (3, 13)),
        (icmp4(8, 0, [0, 1, 0, 1], b"ping"), (3, 13)),
        (icmp4(13, 0, [0; 4], &[0; 12]), (3, 13)),
        (udp6((1234, 53), b"query"), (1, 4)),
        (Ip6::new(47).frame(&[0, 0, 8, 0]), (1, 1)),
        (icmp6(128, 0, [0, 1, 0, 1], b"ping"), (1, 1)),
        (icmp6(139, 0, [0; 4], &[0; 8]), (1, 1)),
    ] {
        let answer = answer(&padded(frame.clone(), 90, 0xee)).expect("it is answered");
        let (kind, code, quoted) = unreachable(&answer);
        assert_eq!((kind, code), expected);
        assert_eq!(
            quoted,
            frame[14..],
            "the whole packet, and no padding of its frame"
        );
        let meta = parse(&answer, RxChecksum::default(), ParseOptions::default());
        assert_eq!(meta.kind, PacketKind::IcmpError);
    }
}

#[test]
fn long_packets_are_quoted_up_to_the_limit() {
    for len in [519, 520, 521, 1204, 1205, 1472, 8972] {
        let frame = udp4((1, 2), &vec![7; len]);
        let answer = answer(&frame).expect("it is answered");
        let (_, _, quoted) = unreachable(&answer);
        assert_eq!(quoted.len(), (28 + len).min(576 - 28));
        assert_eq!(quoted, frame[14..14 + quoted.len()]);

        let frame = tagged(0x88a8, 1, &tagged(0x8100, 1, &udp6((1, 2), &vec![7; len])));
        let answer = self::answer(&frame).expect("it is answered");
        let (_, _, quoted) = {
            let untagged = [&answer[..12], &answer[20..]].concat();
            unreachable(&untagged)
        };
        assert_eq!(quoted.len(), (48 + len).min(1280 - 48));
        assert!(answer.len() <= MAX_ANSWER);
    }
}

#[test]
fn internetwork_control_precedence() {
    let answer = answer(&udp4((1234, 53), b"query")).expect("it is answered");
    assert_eq!(answer[15], 0xc0);
}

#[test]
fn first_fragments_are_answered_by_icmp_and_later_ones_not() {
    let mut ip = Ip4::new(17);
    ip.fragment = 0x2000;
    let (kind, code, _) = unreachable(&answer(&ip.frame(&[1; 64])).expect("it is answered"));
    assert_eq!((kind, code), (3, 3));
    ip.protocol = 6;
    let (kind, code, _) = unreachable(&answer(&ip.frame(&[1; 64])).expect("it is answered"));
    assert_eq!((kind, code), (3, 13));
    ip.fragment = 0x0008;
    not_answered(&ip.frame(&[1; 64]));
    // It may be an error.
    (ip.protocol, ip.fragment) = (1, 0x2000);
    not_answered(&ip.frame(&[1; 64]));
    not_answered(
        &Ip6::new(58)
            .extension(44, &[0, 0, 0, 1, 0, 0, 0, 1])
            .frame(&[1; 64]),
    );
    not_answered(
        &Ip6::new(17)
            .extension(44, &[0, 0, 0, 9, 0, 0, 0, 1])
            .frame(&[1; 64]),
    );
    let first = Ip6::new(17).extension(44, &[0, 0, 0, 1, 0, 0, 0, 1]);
    assert!(answer(&first.frame(&[1; 64])).is_some());
}

#[test]
fn what_must_not_be_answered() {
    for flags in [RST, RST | ACK, RST | SYN, RST | FIN | ACK] {
        for frame in segments(flags, 1, 2, &[], &[]) {
            not_answered(&frame);
        }
    }
    let quoted4 = Ip4::new(17).packet(&udp((1, 2), b"12345678"));
    let quoted6 = Ip6::new(17).packet(&udp((1, 2), b"12345678"));
    for kind in [3, 4, 5, 11, 12] {
        not_answered(&icmp4(kind, 0, [0; 4], &quoted4));
    }
    for kind in [0, 1, 2, 3, 4, 127] {
        not_answered(&icmp6(kind, 0, [0; 4], &quoted6));
    }
    // ICMP types that nobody knows.
    for kind in [1, 2, 6, 9, 10, 19, 30, 40, 255] {
        not_answered(&icmp4(kind, 0, [0; 4], &quoted4));
    }
    not_answered(&neighbour_solicitation());
    not_answered(&mld_report());
    not_answered(&arp(1, SOURCE_MAC));
    not_answered(&ethernet(0x88cc, &[0; 60]));
    // Bad checksums, malformed, empty.
    let wrong = |frame: Vec<u8>, at: usize| {
        let byte = frame[at];
        with(frame, at, &[byte ^ 1])
    };
    not_answered(&wrong(tcp4((1234, 80), SYN, &[], &[]), 50));
    not_answered(&wrong(udp4((1234, 80), b"x"), 24));
    not_answered(&udp4((1234, 53), b"query")[..45]);
    not_answered(&[]);
}

#[test]
fn groups_and_nobody_get_and_cause_no_answer() {
    // Ethernet: to a group, from a group.
    for frame in [tcp4((1, 2), SYN, &[], &[]), udp6((1, 2), b"x")] {
        not_answered(&with(frame.clone(), 0, &[0xff; 6]));
        not_answered(&with(frame.clone(), 0, &[0x01, 0, 0x5e]));
        not_answered(&with(frame, 6, &[0x03]));
    }
    let v4 = |source: [u8; 4], destination: [u8; 4]| {
        let mut ip = Ip4::new(253);
        (ip.source, ip.destination) = (source, destination);
        ip.frame(&[0; 8])
    };
    assert!(answer(&v4(A4, B4)).is_some());
    for nobody in [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [239, 255, 255, 250],
        [240, 0, 0, 1],
        [255; 4],
    ] {
        not_answered(&v4(nobody, B4));
        not_answered(&v4(A4, nobody));
    }
    for somebody in [
        [1, 0, 0, 1],
        [126, 255, 255, 255],
        [128, 0, 0, 1],
        [223, 255, 255, 255],
        [169, 254, 1, 1],
    ] {
        assert!(answer(&v4(somebody, B4)).is_some() && answer(&v4(A4, somebody)).is_some());
    }
    let v6 = |source: [u8; 16], destination: [u8; 16]| {
        let mut ip = Ip6::new(253);
        (ip.source, ip.destination) = (source, destination);
        ip.frame(&[0; 8])
    };
    assert!(answer(&v6(A6, B6)).is_some() && answer(&v6(LINK, B6)).is_some());
    let mut loopback = [0; 16];
    loopback[15] = 1;
    for nobody in [[0; 16], loopback, ALL_NODES, [0xff; 16]] {
        not_answered(&v6(nobody, B6));
        not_answered(&v6(A6, nobody));
    }
    let mut nearly_loopback = loopback;
    nearly_loopback[15] = 2;
    assert!(answer(&v6(nearly_loopback, B6)).is_some());
}

#[test]
fn a_scratch_that_is_too_small_gets_no_answer() {
    for frame in [
        tcp4((1, 2), SYN, &[], &[]),
        udp4((1, 2), &[1; 1000]),
        udp6((1, 2), &[1; 1400]),
    ] {
        let meta = parse(&frame, RxChecksum::default(), ParseOptions::default());
        let needed = answer(&frame).expect("it is answered").len();
        for len in 0..needed {
            assert_eq!(
                refusal(&meta, &frame, &mut vec![0; len]),
                None,
                "{len} of {needed} bytes"
            );
        }
        assert_eq!(refusal(&meta, &frame, &mut vec![0; needed]), Some(needed));
    }
}

proptest! {
    /// Whatever is answered, the answer is a right packet, is not answered itself, and comes from the destination.
    #[test]
    fn answers_are_right_and_end_the_conversation(
        v6: bool, protocol in prop::sample::select(vec![6_u8, 17, 47]), flags: u8, sequence: u32, acknowledgment: u32,
        data in prop::collection::vec(any::<u8>(), 0..2000), tags in prop::collection::vec(0_u16..4096, 0..3),
    ) {
        let l4 = match protocol {
            6 => {
                let mut tcp = tcp((1234, 80), flags, &[], &data);
                tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
                tcp[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
                tcp
            }
            17 => udp((1234, 53), &data),
            _ => data,
        };
        let at = match protocol { 6 => Some(16), 17 => Some(6), _ => None };
        let (ip4, ip6) = (Ip4::new(protocol), Ip6::new(protocol));
        let pseudo = if v6 { ip6.pseudo(l4.len()) } else { ip4.pseudo(l4.len()) };
        let l4 = at.map_or(l4.clone(), |at| summed(&pseudo, l4, at));
        let frame = if v6 { ip6.frame(&l4) } else { ip4.frame(&l4) };
        let frame = tags.iter().fold(frame, |f, id| tagged(0x8100, *id, &f));
        match answer(&frame) {
            Some(made) => {
                comes_from_the_refused_destination(&frame, &made);
                prop_assert_eq!(answer(&made), None);
                prop_assert!(made.len() <= MAX_ANSWER && made.len() >= 60);
            }
            None => prop_assert!(protocol == 6 && flags & RST != 0),
        }
    }

    /// In the buffer of the packet that is answered it is the same segment: a right one, whatever stood there before.
    #[test]
    fn a_segment_in_place_is_the_one_beside(
        v6: bool, numbers: (u32, u32, u16, u8), mss: Option<u16>, scale in prop::option::of(0_u8..15),
        sack_permitted: bool, timestamps: Option<(u32, u32)>, words in 0_usize..11,
        data in prop::collection::vec(any::<u8>(), 0..50), tags in prop::collection::vec(0_u16..4096, 0..2),
    ) {
        let (seq, ack, window, flags) = numbers;
        let segment = Bare { flags, seq, ack, window, mss, scale, sack_permitted, timestamps };
        let options = vec![1; 4 * words];
        let frame = if v6 {
            tcp6((1234, 80), SYN, &options, &data)
        } else {
            tcp4((1234, 80), SYN, &options, &data)
        };
        let frame = tags.iter().fold(frame, |f, id| tagged(0x8100, *id, &f));
        let meta = parse(&frame, RxChecksum::default(), ParseOptions::default());
        prop_assert_eq!(meta.kind, PacketKind::Tcp);
        let mut beside = [0xa5; MAX_ANSWER];
        let len = bare(&meta, &frame, Way::Back, &segment, &mut beside).expect("there is room");
        let device = RxChecksum::new(ChecksumStatus::Good, ChecksumStatus::Good);
        let mut packet = VecPacket { frame: frame.clone(), checksum: device, hash: None };
        let made = bare_in_place(&meta, &segment, &mut packet);
        prop_assert_eq!(made, !v6 && tags.is_empty());
        if made {
            prop_assert_eq!(&packet.frame[..], &beside[..len]);
            prop_assert_eq!(packet.checksum, RxChecksum::default(), "the device has not seen it");
            let tcp = checked_tcp(&packet.frame);
            prop_assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (seq, ack));
            prop_assert_eq!((tcp.source_port, tcp.destination_port), (80, 1234));
        } else {
            prop_assert_eq!(packet, VecPacket { frame, checksum: device, hash: None });
        }
    }
}
