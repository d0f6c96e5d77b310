//! The parser against etherparse, against itself on another path, and against anything at all.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "support/checked.rs"]
mod checked;
#[path = "support/consistent.rs"]
mod consistent;
#[path = "support/frames.rs"]
mod frames;

use std::net::{Ipv4Addr, Ipv6Addr};

use checked::checked;
use consistent::{both_paths, consistent};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ipv6ExtensionSlice, NetHeaders, NetSlice,
    PacketBuilder, TcpOptionElement, TransportHeader, TransportSlice, VlanId,
};
use haechi::packet::synth::{Addresses, Content, PacketSpec};
use haechi::packet::view::{Tcp, segment_len};
use haechi::packet::{ChecksumStatus, PacketKind, PacketMeta, ParseOptions, RxChecksum, parse};
use proptest::prelude::*;

fn look(frame: &[u8]) -> PacketMeta {
    parse(frame, RxChecksum::default(), ParseOptions::default())
}

/// What of a packet etherparse's builder is told.
#[derive(Clone, Debug)]
struct Wish {
    v6: bool,
    source: u32,
    destination: u32,
    ports: (u16, u16),
    sequence: u32,
    tags: Vec<u16>,
    options: usize,
    payload: Vec<u8>,
    /// Zero bytes behind the IP packet.
    padding: usize,
}

fn wish() -> impl Strategy<Value = Wish> {
    (
        any::<(bool, u32, u32, (u16, u16), u32)>(),
        // 0: a priority tag, which is no VLAN.
        prop::collection::vec(prop_oneof![1 => Just(0), 4 => 0_u16..4096], 0..3),
        0_usize..3,
        prop::collection::vec(any::<u8>(), 0..1600),
        0_usize..60,
    )
        .prop_map(
            |((v6, source, destination, ports, sequence), tags, options, payload, padding)| Wish {
                v6,
                source,
                destination,
                ports,
                sequence,
                tags,
                options,
                payload,
                padding,
            },
        )
}

impl Wish {
    fn v4(&self) -> ([u8; 4], [u8; 4]) {
        (self.source.to_be_bytes(), self.destination.to_be_bytes())
    }

    fn v6(&self) -> ([u8; 16], [u8; 16]) {
        let of = |end: u32| ((0x2001_0db8_u128 << 96) | u128::from(end)).to_be_bytes();
        (of(self.source), of(self.destination))
    }

    /// The addresses in the parser's form.
    fn mapped(&self) -> ([u8; 16], [u8; 16]) {
        if self.v6 {
            return self.v6();
        }
        let map = |address: [u8; 4]| Ipv4Addr::from(address).to_ipv6_mapped().octets();
        (map(self.v4().0), map(self.v4().1))
    }

    /// Ethernet and IP; `tags` are put in afterwards.
    fn start(&self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(frames::SOURCE_MAC, frames::DESTINATION_MAC);
        if self.v6 {
            ethernet.ipv6(self.v6().0, self.v6().1, 64)
        } else {
            ethernet.ipv4(self.v4().0, self.v4().1, 64)
        }
    }

    fn finish(&self, frame: Vec<u8>) -> Vec<u8> {
        let len = frame.len() + self.padding;
        let frame = frames::padded(frame, len, 0);
        self.tags
            .iter()
            .rev()
            .fold(frame, |f, id| frames::tagged(0x8100, *id, &f))
    }

    /// What the parser has to say, but for what is the protocol's own.
    fn expected(&self, kind: PacketKind, protocol: u8, l4_len: usize) -> PacketMeta {
        let (source, destination) = self.mapped();
        let l3_offset = 14 + 4 * self.tags.len();
        PacketMeta {
            source,
            destination,
            source_port: self.ports.0,
            destination_port: self.ports.1,
            vlan: self
                .tags
                .iter()
                .filter(|tag| **tag != 0)
                .fold(0, |vlan, tag| (vlan << 12) | u32::from(*tag)),
            l4_offset: (l3_offset + if self.v6 { 40 } else { 20 }) as u16,
            l4_len: l4_len as u16,
            l3_offset: l3_offset as u8,
            kind,
            protocol,
            flags: if self.v6 {
                PacketMeta::IPV6
            } else {
                PacketMeta::IPV4
            } | if self.tags.is_empty() {
                0
            } else {
                PacketMeta::TAGGED
            },
            ..PacketMeta::default()
        }
    }
}

proptest! {
    #[test]
    fn udp_as_etherparse_builds_it(wish in wish()) {
        let mut frame = vec![];
        wish.start().udp(wish.ports.0, wish.ports.1).write(&mut frame, &wish.payload).expect("built");
        let expected = wish.expected(PacketKind::Udp, 17, 8 + wish.payload.len());
        prop_assert_eq!(look(&wish.finish(frame)), expected);
    }

    #[test]
    fn tcp_as_etherparse_builds_it(wish in wish()) {
        use TcpOptionElement::{MaximumSegmentSize, Noop, SelectiveAcknowledgementPermitted, Timestamp, WindowScale};
        let options = [
            vec![],
            vec![MaximumSegmentSize(1460), SelectiveAcknowledgementPermitted, Timestamp(1, 2), Noop, WindowScale(7)],
            vec![Noop, Noop, Timestamp(3, 4)],
        ];
        let mut frame = vec![];
        wish.start()
            .tcp(wish.ports.0, wish.ports.1, wish.sequence, 1024)
            .psh()
            .ack(!wish.sequence)
            .options(&options[wish.options]).expect("they fit")
            .write(&mut frame, &wish.payload).expect("built");
        let header = [20, 40, 32][wish.options];
        let mut expected = wish.expected(PacketKind::Tcp, 6, header + wish.payload.len());
        (expected.tcp_flags_or_icmp_type, expected.detail) = (0x18, header as u8);
        let frame = wish.finish(frame);
        let meta = look(&frame);
        prop_assert_eq!(meta, expected);
        let tcp = Tcp::of(&meta, &frame).expect("it is TCP");
        prop_assert_eq!((tcp.sequence(), tcp.acknowledgment(), tcp.window()), (wish.sequence, !wish.sequence, 1024));
        prop_assert_eq!(segment_len(&meta), wish.payload.len() as u32);
    }

    #[test]
    fn echo_as_etherparse_builds_it(wish in wish()) {
        let mut frame = vec![];
        let (id, seq) = wish.ports;
        if wish.v6 {
            wish.start().icmpv6_echo_reply(id, seq).write(&mut frame, &wish.payload).expect("built");
        } else {
            wish.start().icmpv4_echo_request(id, seq).write(&mut frame, &wish.payload).expect("built");
        }
        let protocol = if wish.v6 { 58 } else { 1 };
        let mut expected = wish.expected(PacketKind::Echo, protocol, 8 + wish.payload.len());
        expected.destination_port = id;
        expected.tcp_flags_or_icmp_type = if wish.v6 { 129 } else { 8 };
        prop_assert_eq!(look(&wish.finish(frame)), expected);
    }

    #[test]
    fn synthesised_frames_are_right_for_etherparse_and_for_the_parser(
        wish in wish(), content in 0..4, flags: u8, acknowledgment: u32, window: u16, kind in 128_u8..=255, ttl in 1_u8..,
    ) {
        let content = match content {
            0 => Content::Tcp { ports: wish.ports, flags, sequence: wish.sequence, acknowledgment, window },
            1 => Content::Udp { ports: wish.ports },
            // Types that are neither errors nor discovery, of both families.
            2 => Content::Icmp { kind: if (130..160).contains(&kind) { 128 } else { kind }, code: 0, rest: [1, 2, 3, 4] },
            _ => Content::Protocol(253),
        };
        let addresses = if wish.v6 {
            Addresses::V6(Ipv6Addr::from(wish.v6().0), Ipv6Addr::from(wish.v6().1))
        } else {
            Addresses::V4(Ipv4Addr::from(wish.v4().0), Ipv4Addr::from(wish.v4().1))
        };
        let mut spec = PacketSpec::new(addresses, content);
        (spec.vlans, spec.payload, spec.ttl) = (wish.tags.clone(), wish.payload.clone(), ttl);
        let frame = spec.frame();
        prop_assert!(frame.len() >= 60);
        let packet = checked(&frame);
        prop_assert_eq!(packet.vlan_ids().iter().map(|id| id.value()).collect::<Vec<_>>(), wish.tags.clone());
        match (packet.net, content) {
            (Some(NetHeaders::Ipv4(ip, _)), _) => prop_assert_eq!((ip.source, ip.destination, ip.time_to_live), (wish.v4().0, wish.v4().1, ttl)),
            (Some(NetHeaders::Ipv6(ip, _)), _) => prop_assert_eq!((ip.source, ip.destination, ip.hop_limit), (wish.v6().0, wish.v6().1, ttl)),
            other => prop_assert!(false, "{:?}", other),
        }
        if let Some(TransportHeader::Tcp(tcp)) = packet.transport {
            prop_assert_eq!((tcp.source_port, tcp.destination_port), wish.ports);
            prop_assert_eq!((tcp.sequence_number, tcp.acknowledgment_number, tcp.window_size), (wish.sequence, acknowledgment, window));
        }
        let meta = look(&frame);
        let expected = match content {
            Content::Tcp { .. } => PacketKind::Tcp,
            Content::Udp { .. } => PacketKind::Udp,
            Content::Protocol(_) => PacketKind::OtherIp,
            Content::Icmp { kind: 128 | 129, .. } if wish.v6 => PacketKind::Echo,
            Content::Icmp { .. } => PacketKind::Icmp,
        };
        prop_assert_eq!(meta.kind, expected);
        prop_assert_eq!((meta.source, meta.destination), wish.mapped());
    }
}

#[test]
fn arp_as_etherparse_builds_it() {
    for operation in [ArpOperation::REQUEST, ArpOperation::REPLY] {
        let arp = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            operation,
            &frames::SOURCE_MAC,
            &frames::A4,
            &[0; 6],
            &frames::B4,
        )
        .expect("lengths agree");
        let mut frame = vec![];
        PacketBuilder::ethernet2(frames::SOURCE_MAC, [0xff; 6])
            .single_vlan(VlanId::try_new(7).expect("a VLAN identifier"))
            .arp(arp)
            .write(&mut frame)
            .expect("built");
        let meta = look(&frame);
        assert_eq!((meta.kind, meta.vlan, meta.l3_offset), (PacketKind::Arp, 7, 18));
    }
}

/// Valid frames to be spoiled: each protocol, both families.
fn seeds() -> Vec<Vec<u8>> {
    use frames::*;
    let quoted4 = Ip4::new(17).packet(&udp((1, 2), b"12345678"));
    let quoted6 = Ip6::new(17).packet(&udp((1, 2), b"12345678"));
    let mut fragment = Ip4::new(6);
    fragment.fragment = 0x2000;
    let chain = Ip6::new(17)
        .extension(0, &ROUTER_ALERT)
        .extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])
        .extension(44, &[0; 8]);
    vec![
        padded(tcp4((1234, 80), 2, &[2, 4, 5, 180], &[]), 60, 0),
        tcp4(
            (1234, 80),
            0x18,
            &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            b"payload",
        ),
        padded(udp4((1234, 53), b"odd"), 60, 0),
        udp4((1234, 53), &[0; 200]),
        icmp4(8, 0, [0, 1, 0, 1], &[9; 56]),
        icmp4(3, 3, [0; 4], &quoted4),
        fragment.frame(&[1; 64]),
        tcp6((1234, 80), 2, &[2, 4, 5, 180], &[]),
        udp6((1234, 53), b"payload"),
        icmp6(2, 0, [0, 0, 5, 0], &quoted6),
        over6(&chain, udp((1, 2), b"abcd"), 6),
        padded(arp(1, SOURCE_MAC), 60, 0),
        neighbour_solicitation(),
        mld_report(),
        tagged(0x88a8, 5, &tagged(0x8100, 6, &udp4((1, 2), b"abcd"))),
        ethernet(0x88cc, &[2, 7, 4]),
    ]
}

#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    Bit(usize, u8),
    /// A 16-bit field gets a value that lengths like to be wrong by.
    Word(usize, u16),
    Cut(usize),
    Grow(usize),
}

fn spoiled() -> impl Strategy<Value = Vec<u8>> {
    let at = 0_usize..120;
    let change = prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (at.clone(), 0_u8..8).prop_map(|(at, bit)| Change::Bit(at, bit)),
        (
            at.clone(),
            prop::sample::select(vec![
                0, 1, 7, 8, 19, 20, 28, 40, 46, 0x7fff, 0xffff, 0x0800, 0x86dd, 0x8100
            ])
        )
            .prop_map(|(at, word)| Change::Word(at, word)),
        at.prop_map(Change::Cut),
        (0_usize..100).prop_map(Change::Grow),
    ];
    (prop::sample::select(seeds()), prop::collection::vec(change, 0..5)).prop_map(|(mut frame, changes)| {
        for change in changes {
            match change {
                Change::Byte(at, byte) => {
                    if let Some(b) = frame.get_mut(at) {
                        *b = byte
                    }
                }
                Change::Bit(at, bit) => {
                    if let Some(b) = frame.get_mut(at) {
                        *b ^= 1 << bit
                    }
                }
                Change::Word(at, word) => {
                    if let Some(w) = frame.get_mut(at..at + 2) {
                        w.copy_from_slice(&word.to_be_bytes())
                    }
                }
                Change::Cut(len) => frame.truncate(len),
                Change::Grow(by) => frame.resize(frame.len() + by, 0x5a),
            }
        }
        frame
    })
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    // Half of it starts like something that is looked into.
    let start = prop::sample::select(vec![
        vec![],
        vec![8, 0],
        vec![0x86, 0xdd],
        vec![8, 6],
        vec![0x81, 0, 0, 5, 8, 0],
    ]);
    prop_oneof![
        bytes.clone(),
        (bytes, start).prop_map(|(bytes, start)| [
            &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2],
            &start[..],
            &bytes[..]
        ]
        .concat()),
    ]
}

fn options() -> impl Strategy<Value = (RxChecksum, ParseOptions)> {
    let status = || {
        prop::sample::select(vec![
            ChecksumStatus::Unknown,
            ChecksumStatus::Good,
            ChecksumStatus::Bad,
        ])
    };
    (status(), status(), any::<(bool, bool)>()).prop_map(|(ip, l4, (verify_l4, look_into_vlan))| {
        (
            RxChecksum::new(ip, l4),
            ParseOptions {
                verify_l4,
                look_into_vlan,
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_bytes_have_consistent_metadata(frame in anything(), (checksum, options) in options()) {
        consistent(&frame, &parse(&frame, checksum, options));
    }

    #[test]
    fn spoiled_frames_have_consistent_metadata(frame in spoiled(), (checksum, options) in options()) {
        consistent(&frame, &parse(&frame, checksum, options));
    }

    #[test]
    fn both_paths_agree(frame in prop_oneof![spoiled(), anything()], (checksum, options) in options()) {
        both_paths(&frame, checksum, options);
    }

    /// Whatever the parser takes for TCP or UDP, checksums aside, etherparse takes for the same.
    #[test]
    fn accepted_frames_mean_the_same_to_etherparse(frame in spoiled()) {
        let good = RxChecksum::new(ChecksumStatus::Good, ChecksumStatus::Good);
        let meta = parse(&frame, good, ParseOptions { verify_l4: false, ..ParseOptions::default() });
        if !matches!(meta.kind, PacketKind::Tcp | PacketKind::Udp) {
            return Ok(());
        }
        // Slices: they walk over any number of extension headers, in any order (RFC 8200, section 4.1).
        let packet = match etherparse::SlicedPacket::from_ethernet(&frame) {
            Ok(packet) => packet,
            Err(error) => return Err(TestCaseError::fail(format!("only haechi accepts it: {error}"))),
        };
        if let Some(NetSlice::Ipv6(ip)) = &packet.net {
            let extensions = ip.extensions().clone().into_iter();
            if extensions.into_iter().any(|e| matches!(e, Ipv6ExtensionSlice::Fragment(_))) {
                // etherparse 0.19 looks for M and the offset three bits off (RFC 8200, section 4.5).
                return Ok(());
            }
        }
        let ports = match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
            Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!((meta.source_port, meta.destination_port), ports);
    }
}

#[test]
fn descriptions_become_the_packets_that_they_describe() {
    let meta_of = |text: &str| {
        let spec: PacketSpec = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        let frame = spec.frame();
        checked(&frame);
        (look(&frame), frame)
    };
    let (tcp, frame) = meta_of("tcp 10.0.0.5:1234 > 192.0.2.7:80 syn");
    assert_eq!(
        (tcp.kind, tcp.tcp_flags(), tcp.source_port, tcp.destination_port),
        (PacketKind::Tcp, 2, 1234, 80)
    );
    assert_eq!((frame.len(), tcp.l4_len, tcp.vlan), (60, 20, 0));
    assert_eq!(
        meta_of("tcp 10.0.0.5:1234 > 192.0.2.7:80").0,
        tcp,
        "a TCP packet without flags is a SYN"
    );
    for (text, flags) in [
        ("syn,ack", 0x12),
        ("syn+ack", 0x12),
        ("syn ack", 0x12),
        ("fin psh urg", 0x29),
        ("ece cwr rst", 0xc4),
    ] {
        assert_eq!(
            meta_of(&format!("tcp 10.0.0.5:1 -> 10.0.0.6:2 {text}"))
                .0
                .tcp_flags(),
            flags
        );
    }
    let (tcp, frame) =
        meta_of("tcp [2001:db8::5]:1 > [2001:db8::7]:2 seq=7 ack=4294967295 win=9 len=3 ttl=5 vlan=5 vlan=6");
    let view = Tcp::of(&tcp, &frame).expect("TCP");
    assert_eq!(
        (
            view.sequence(),
            view.acknowledgment(),
            view.window(),
            tcp.tcp_flags()
        ),
        (7, u32::MAX, 9, 0x10)
    );
    assert_eq!(
        (tcp.vlan, tcp.l4_len, frame[22 + 7], &frame[12..14]),
        (0x5006, 23, 5, &[0x88, 0xa8][..])
    );
    let (udp, _) = meta_of("udp 10.0.0.5:1234 > 10.0.0.7:53 len=1472 vlan=4095");
    assert_eq!((udp.kind, udp.l4_len, udp.vlan), (PacketKind::Udp, 1480, 0xfff));
    let (echo, _) = meta_of("icmp 10.0.0.5 > 10.0.0.7 echo-request id=77 seq=2");
    assert_eq!(
        (echo.kind, echo.icmp_type(), echo.source_port),
        (PacketKind::Echo, 8, 77)
    );
    assert_eq!(meta_of("icmpv6 fe80::1 > fe80::2").0.icmp_type(), 128);
    assert_eq!(meta_of("icmpv6 fe80::1 > fe80::2 echo-reply").0.icmp_type(), 129);
    let (other, _) = meta_of("icmp 10.0.0.5 > 10.0.0.7 13/0 len=12");
    assert_eq!(
        (other.kind, other.icmp_type(), other.detail),
        (PacketKind::Icmp, 13, 0)
    );
    for text in [
        "icmp 10.0.0.5 > 10.0.0.7 3/4",
        "icmpv6 2001:db8::5 > 2001:db8::7 packet-too-big",
    ] {
        assert_eq!(meta_of(text).0.kind, PacketKind::IcmpError);
    }
    assert_eq!(meta_of("proto/47 10.0.0.5 > 10.0.0.7 len=4").0.protocol, 47);
}

#[test]
fn wrong_descriptions_say_what_is_wrong() {
    for (text, wrong) in [
        ("", "the protocol is missing"),
        ("tcp", "the source is missing"),
        (
            "tcp 10.0.0.5:1 10.0.0.6:2",
            "\"10.0.0.6:2\" where \">\" should stand",
        ),
        ("tcp 10.0.0.5:1 >", "the destination is missing"),
        (
            "tcp 10.0.0.5 > 10.0.0.6:2",
            "\"10.0.0.5\" is not an address with a port",
        ),
        ("tcp 2001:db8::5:80 > [::1]:2", "is not an address with a port"),
        ("tcp 10.0.0.5:70000 > 10.0.0.6:2", "is not an address with a port"),
        (
            "icmp 10.0.0.5:1 > 10.0.0.6",
            "\"10.0.0.5:1\" is not an IPv4 or IPv6 address",
        ),
        ("udp 10.0.0.5:1 > [2001:db8::1]:2", "different families"),
        ("icmp ::1 > ::2", "IPv6 has \"icmpv6\""),
        ("icmpv6 10.0.0.5 > 10.0.0.6", "IPv4 has \"icmp\""),
        ("sctp 10.0.0.5 > 10.0.0.6", "unknown protocol \"sctp\""),
        ("proto/300 10.0.0.5 > 10.0.0.6", "unknown protocol \"proto/300\""),
        ("tcp 10.0.0.5:1 > 10.0.0.6:2 sin", "\"sin\" is not a TCP flag"),
        (
            "icmp 10.0.0.5 > 10.0.0.6 hello",
            "\"hello\" is not an ICMP message",
        ),
        (
            "udp 10.0.0.5:1 > 10.0.0.6:2 syn",
            "\"syn\" means nothing in a udp packet",
        ),
        (
            "udp 10.0.0.5:1 > 10.0.0.6:2 seq=1",
            "\"seq=1\" means nothing in a udp packet",
        ),
        (
            "tcp 10.0.0.5:1 > 10.0.0.6:2 id=1",
            "\"id=1\" means nothing in a tcp packet",
        ),
        (
            "udp 10.0.0.5:1 > 10.0.0.6:2 len=9001",
            "len=9001: must be a number from 0 to 9000",
        ),
        (
            "udp 10.0.0.5:1 > 10.0.0.6:2 vlan=4096",
            "vlan=4096: must be a number from 0 to 4095",
        ),
        (
            "udp 10.0.0.5:1 > 10.0.0.6:2 ttl=-1",
            "ttl=-1: must be a number from 0 to 255",
        ),
        (
            "udp 10.0.0.5:1 > 10.0.0.6:2 vlan=1 vlan=2 vlan=3",
            "more than two VLAN tags",
        ),
    ] {
        let error = text.parse::<PacketSpec>().expect_err(text).to_string();
        assert!(error.contains(wrong), "\"{text}\" gives \"{error}\"");
    }
}
