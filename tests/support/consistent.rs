//! What must hold of the parser's word on any frame at all; for property tests and the fuzzers.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::net::Ipv6Addr;

use haechi::base::simd::LANES;
use haechi::flow::proof::{Kind, Kinds};
use haechi::flow::{FlowKey, HashKey, HashSeed, KeyRow, SecretHash};
use haechi::packet::parse::{TcpLanes, parse_general, parse_lanes, parse_straight};
use haechi::packet::view::{Tcp, tcp_flag};
use haechi::packet::{Malformed, PacketKind, PacketMeta, ParseOptions, RxChecksum, Straight, parse};
use wide::u32x8;

/// Offsets inside the frame, fields that fit the kind.
///
/// # Panics
/// When something does not hold.
pub fn consistent(frame: &[u8], meta: &PacketMeta) {
    use PacketKind as K;
    let l3 = usize::from(meta.l3_offset);
    let (l4, l4_len) = (usize::from(meta.l4_offset), usize::from(meta.l4_len));
    assert!(l3 <= frame.len() && l4 + l4_len <= frame.len());
    assert!(matches!(l3, 0 | 14 | 18 | 22));
    assert!(l4 == 0 || l4 >= l3 + 20);
    assert!(meta.vlan < 1 << 24);
    assert!(meta.vlan == 0 || meta.has(PacketMeta::TAGGED));
    assert_eq!(meta.ingress.0, 0, "the engine's");
    let (is_v4, is_v6) = (meta.has(PacketMeta::IPV4), meta.has(PacketMeta::IPV6));
    assert!(!(is_v4 && is_v6));
    let carries_ip = matches!(
        meta.kind,
        K::Tcp | K::Udp | K::Echo | K::Icmp | K::IcmpError | K::OtherIp | K::Fragment | K::NeighbourDiscovery
    );
    if carries_ip {
        assert!((is_v4 || is_v6) && l4 > 0);
        for address in [meta.source, meta.destination] {
            let mapped = Ipv6Addr::from(address).to_ipv4_mapped().is_some();
            assert_eq!(mapped, is_v4, "IPv4 and only IPv4 is mapped");
        }
    }
    assert!(meta.kind == K::Fragment || !meta.has(PacketMeta::FIRST_FRAGMENT));
    match meta.kind {
        K::Malformed => assert!(Malformed::from_detail(meta.detail).is_some()),
        K::Tcp => {
            let header_len = usize::from(meta.detail);
            assert!(meta.protocol == 6 && (20..=60).contains(&header_len) && header_len <= l4_len);
            assert!(Tcp::of(meta, frame).is_some());
        }
        K::Udp => assert!(meta.protocol == 17 && l4_len >= 8),
        K::Echo | K::Icmp | K::IcmpError => {
            assert!(l4_len >= 8);
            assert_eq!(meta.protocol, if is_v4 { 1 } else { 58 });
            assert_eq!(meta.source_port, meta.destination_port);
        }
        K::NeighbourDiscovery => assert!(meta.protocol == 58 && is_v6),
        K::Arp => assert!(!is_v4 && !is_v6 && frame.len() >= l3 + 28),
        K::NonIp => assert!(!is_v4 && !is_v6 && l3 == 0),
        K::BadChecksum => assert!(is_v4 || is_v6),
        K::OtherIp | K::Fragment => {}
    }
}

/// A VLAN tag sends a frame along the general path, which must say of it what the straight one says without.
///
/// # Panics
/// When the two differ.
pub fn both_paths(frame: &[u8], checksum: RxChecksum, options: ParseOptions) {
    let options = ParseOptions {
        look_into_vlan: true,
        ..options
    };
    let plain = parse(frame, checksum, options);
    if frame.len() < 14 || plain.has(PacketMeta::TAGGED) {
        return;
    }
    let tagged = [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat();
    let mut general = parse(&tagged, checksum, options);
    general.flags &= !PacketMeta::TAGGED;
    if general.l3_offset != 0 {
        general.l3_offset -= 4;
    }
    if general.l4_offset != 0 {
        general.l4_offset -= 4;
    }
    assert_eq!(plain, general);
}

/// Is this one that eight at once take, if one alone is taken?
fn usual(frame: &[u8]) -> bool {
    let stamps = [1, 1, 8, 10];
    frame.len() >= 60
        && match frame[23] {
            6 => frame[46] >> 4 == 5 || (frame[46] >> 4 == 8 && frame[54..58] == stamps),
            _ => true,
        }
}

/// Lane `i` says of a segment with ACK alone what its header does, and of anything else that it is none.
fn plain_tcp(lanes: &TcpLanes, i: usize, meta: &PacketMeta, frame: &[u8]) {
    const ACK_SYN_RST_FIN: u8 = tcp_flag::ACK | tcp_flag::SYN | tcp_flag::RST | tcp_flag::FIN;
    let tcp = Tcp::of(meta, frame).filter(|_| meta.tcp_flags() & ACK_SYN_RST_FIN == tcp_flag::ACK);
    assert_eq!(
        lanes.plain.to_array()[i] != 0,
        tcp.is_some(),
        "lane {i}: {frame:02x?}"
    );
    let Some(tcp) = tcp else { return };
    let said = [lanes.sequence, lanes.acknowledgment, lanes.window_and_len].map(|l| l.to_array()[i]);
    let data = u32::from(meta.l4_len) - u32::from(meta.detail);
    let expected = [
        tcp.sequence(),
        tcp.acknowledgment(),
        u32::from(tcp.window()) | (data << 16),
    ];
    assert_eq!(said, expected, "lane {i}: {frame:02x?}");
}

/// Eight frames at once, one by one on the straight path, and on the general one: the same of each, and the same flow key.
///
/// # Panics
/// When they differ.
pub fn three_paths(
    frames: &[&[u8]; LANES],
    devices: &[RxChecksum; LANES],
    verify_l4: bool,
    domain: u32,
    seed: HashSeed,
) {
    let lanes = parse_lanes(frames, devices, verify_l4);
    let kinds = Kinds::of_lanes(&lanes);
    let tags = u32x8::new(std::array::from_fn(|i| 0xff00 | i as u32));
    let rows = KeyRow::of(&lanes, u32x8::splat(domain), tags);
    let hasher = SecretHash::new(seed);
    for i in 0..LANES {
        let straight = parse_straight(frames[i], devices[i], verify_l4);
        let taken = lanes.taken.to_array()[i] != 0;
        let expected = straight.is_some() && usual(frames[i]);
        assert_eq!(taken, expected, "lane {i}: {:?} {:02x?}", devices[i], frames[i]);
        let Some(straight) = straight else {
            continue;
        };
        // The general path says of every packet of the straight one the same.
        let options = ParseOptions {
            verify_l4,
            look_into_vlan: true,
        };
        let (mut meta, mut general) = (PacketMeta::default(), PacketMeta::default());
        straight.meta(&mut meta);
        parse_general(frames[i], devices[i], options, &mut general);
        assert_eq!(meta, general);
        if !taken {
            continue;
        }
        assert_eq!(u32::from(straight.l4_len) + 20, lanes.ip_len.to_array()[i]);
        // What it has verified is read again without a look at its checksums.
        assert_eq!(
            Straight::of_taken(frames[i], straight.l4_len + 20),
            Some(straight)
        );
        assert_eq!(straight.tcp, meta.kind == PacketKind::Tcp);
        plain_tcp(&lanes.tcp, i, &meta, frames[i]);
        let (key, direction) = FlowKey::of(&meta, domain);
        let row = &rows[i];
        assert_eq!((key, direction), (row.key(), row.direction()));
        assert_eq!(
            (row.ip_len(), row.tag()),
            (straight.l4_len + 20, 0xff00 | i as u16)
        );
        assert_eq!(key.ipv4_word(), row.ipv4_word());
        let kind = Kind::of(&meta);
        let bit = kind.map_or(0, |kind| 1 << kind as u32);
        assert_eq!(Kinds::of_lane(bit as u8), kind);
        assert_eq!(kinds.to_array()[i], bit);
        assert!(key.is_ipv4());
        assert_eq!(hasher.hash(&key), hasher.hash_row(row));
    }
}
