//! The owner function against Toeplitz bit by bit, and what both directions of a flow have in common.

use haechi::flow::owner::{KEY_BYTES, KeyError};
use haechi::flow::{
    Event, FlowKey, KeySet, Kind, Kinds, Method, OwnerFunction, Proof, RssState, Side, Trust, Tuple,
};
use haechi::packet::synth::{Addresses, Content, PacketSpec};
use haechi::packet::{PacketKind, PacketMeta, ParseOptions, RxChecksum, parse};
use proptest::prelude::*;

/// Microsoft, "Verifying the RSS hash calculation": a window of 32 bits of the key for each set bit of the input.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], i: usize| (bytes[i / 8] >> (7 - i % 8)) & 1 != 0;
    let mut hash = 0;
    for i in (0..8 * input.len()).filter(|i| bit(input, *i)) {
        hash ^= (0..32).fold(0u32, |window, k| (window << 1) | u32::from(bit(key, i + k)));
    }
    hash
}

/// What the device of a port on this side puts into its hash.
fn input(method: Method, tuple: &Tuple) -> Vec<u8> {
    let from = if tuple.is_ipv4 { 12 } else { 0 };
    let (mut source, mut destination) = (tuple.source[from..].to_vec(), tuple.destination[from..].to_vec());
    let mut ports = [tuple.source_port, tuple.destination_port];
    match method {
        Method::SymmetricToeplitz => {
            for (a, b) in source.iter_mut().zip(&mut destination) {
                (*a, *b) = (*a ^ *b, *a ^ *b);
            }
            ports = [ports[0] ^ ports[1]; 2];
        }
        Method::Sorted => {
            if source > destination {
                std::mem::swap(&mut source, &mut destination);
            }
            ports.sort_unstable();
        }
        Method::TwoSided | Method::SymmetricKey => {}
    }
    source.extend(destination);
    if tuple.has_ports {
        source.extend(ports.iter().flat_map(|p| p.to_be_bytes()));
    }
    source
}

const METHODS: [Method; 4] = [
    Method::SymmetricToeplitz,
    Method::Sorted,
    Method::TwoSided,
    Method::SymmetricKey,
];

fn address() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![any::<[u8; 16]>(), Just([0; 16]), Just([0xff; 16])]
}

prop_compose! {
    fn tuples()(
        source in address(),
        destination in address(),
        ports in any::<[u16; 2]>(),
        is_ipv4 in any::<bool>(),
        has_ports in any::<bool>(),
    ) -> Tuple {
        let mapped = |mut address: [u8; 16]| {
            if is_ipv4 {
                address[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            }
            address
        };
        Tuple {
            source: mapped(source),
            destination: mapped(destination),
            source_port: ports[0],
            destination_port: ports[1],
            is_ipv4,
            has_ports,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn hashes_are_toeplitz_and_symmetric(
        tuple in tuples(),
        entropy in any::<[u8; KEY_BYTES]>(),
        method in prop::sample::select(&METHODS[..]),
    ) {
        let keys = KeySet::draw(method, &entropy);
        let function = OwnerFunction::new(method, keys).unwrap();
        let back = tuple.reverse();
        for (side, sent) in [(Side::Lan, &tuple), (Side::Wan, &tuple), (Side::Lan, &back), (Side::Wan, &back)] {
            prop_assert_eq!(function.hash(side, sent), toeplitz(keys.key(side), &input(method, sent)));
            prop_assert_eq!(function.hash(side, sent), function.hash(side.opposite(), &sent.reverse()));
            if method != Method::TwoSided {
                prop_assert_eq!(function.hash(side, sent), function.hash(side, &sent.reverse()));
            }
        }
    }

    #[test]
    fn a_flow_key_says_what_its_packets_say(tuple in tuples()) {
        let meta = PacketMeta {
            source: tuple.source,
            destination: tuple.destination,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            kind: if tuple.has_ports { PacketKind::Udp } else { PacketKind::OtherIp },
            ..PacketMeta::default()
        };
        let of_packet = Tuple::of(&meta);
        prop_assert_eq!(of_packet, tuple);
        let (key, direction) = FlowKey::of(&meta, 0);
        prop_assert_eq!(Tuple::of_key(&key, direction), tuple);
        prop_assert_eq!(Tuple::of_key(&key, direction.reverse()), tuple.reverse());
    }
}

/// Microsoft's examples for plain Toeplitz: the reference above is right.
#[test]
fn the_reference_is_the_one_of_the_standard() {
    let key: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];
    let four = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
    assert_eq!(toeplitz(&key, &four[..8]), 0x323e_8fc2);
    assert_eq!(toeplitz(&key, &four), 0x51cc_c178);
    // It is not symmetric, and so of no use here.
    let keys = KeySet::one(&key).unwrap();
    assert_eq!(
        OwnerFunction::new(Method::SymmetricKey, keys).unwrap_err(),
        KeyError::NotSymmetric(Method::SymmetricKey)
    );
}

/// Echoes have their identifier where others have ports; SCTP's are not looked at.
#[test]
fn what_is_neither_tcp_nor_udp_goes_by_its_addresses() {
    let function = OwnerFunction::new(Method::SymmetricKey, KeySet::PERIODIC).unwrap();
    let addresses = Addresses::V4([10, 0, 0, 5].into(), [192, 0, 2, 7].into());
    let hash = |content: Content| {
        let mut spec = PacketSpec::new(addresses, content);
        spec.payload = vec![1; 20];
        let meta = parse(&spec.frame(), RxChecksum::default(), ParseOptions::default());
        function.hash(Side::Lan, &Tuple::of(&meta))
    };
    let two = hash(Content::Protocol(132));
    let echo = |rest| Content::Icmp {
        kind: 8,
        code: 0,
        rest,
    };
    assert_eq!(hash(echo([1, 2, 3, 4])), two);
    assert_eq!(hash(echo([4, 3, 2, 1])), two);
    assert_eq!(hash(Content::Protocol(47)), two);
    // Equal ports cancel out under this method.
    assert_eq!(hash(Content::Udp { ports: (7, 7) }), two);
    assert_ne!(hash(Content::Udp { ports: (7, 8) }), two);
}

fn kind_of(change: impl FnOnce(&mut PacketSpec), content: Content, ipv6: bool) -> Option<Kind> {
    let addresses = if ipv6 {
        let host = |last| [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into();
        Addresses::V6(host(1), host(2))
    } else {
        Addresses::V4([10, 0, 0, 5].into(), [192, 0, 2, 7].into())
    };
    let mut spec = PacketSpec::new(addresses, content);
    change(&mut spec);
    kind_of_frame(&spec.frame())
}

fn kind_of_frame(frame: &[u8]) -> Option<Kind> {
    Kind::of(&parse(frame, RxChecksum::default(), ParseOptions::default()))
}

#[test]
fn kinds_are_what_devices_hash_alike() {
    let tcp = Content::Tcp {
        ports: (1024, 80),
        flags: 2,
        sequence: 1,
        acknowledgment: 0,
        window: 1000,
    };
    let udp = |to| Content::Udp { ports: (1024, to) };
    let echo = |kind| Content::Icmp {
        kind,
        code: 0,
        rest: [0; 4],
    };
    let plain = |_: &mut PacketSpec| {};
    for (content, ipv6, kind) in [
        (tcp, false, Some(Kind::Ipv4Tcp)),
        (udp(53), false, Some(Kind::Ipv4Udp)),
        (echo(8), false, Some(Kind::Ipv4Icmp)),
        (tcp, true, Some(Kind::Ipv6Tcp)),
        (udp(53), true, Some(Kind::Ipv6Udp)),
        (echo(128), true, Some(Kind::Ipv6Icmp)),
        // GTP-U, VXLAN, Geneve; GRE, ESP, SCTP.
        (udp(2152), false, None),
        (udp(4789), true, None),
        (udp(6081), false, None),
        (Content::Protocol(47), false, None),
        (Content::Protocol(50), true, None),
        (Content::Protocol(132), false, None),
    ] {
        assert_eq!(kind_of(plain, content, ipv6), kind, "{content:?}");
        let tagged = kind.map(|kind| Kind::ALL[kind as usize + 6]);
        assert_eq!(
            kind_of(|spec| spec.vlans = vec![5], content, ipv6),
            tagged,
            "{content:?}"
        );
        assert_eq!(
            kind_of(|spec| spec.vlans = vec![5, 6], content, ipv6),
            None,
            "{content:?}"
        );
    }

    // With IPv4 options, as a fragment, and with mapped addresses in IPv6.
    let addresses = Addresses::V4([10, 0, 0, 5].into(), [192, 0, 2, 7].into());
    let mut meta = parse(
        &PacketSpec::new(addresses, tcp).frame(),
        RxChecksum::default(),
        ParseOptions::default(),
    );
    meta.l4_offset += 4;
    assert_eq!(Kind::of(&meta), None);
    let mapped = Addresses::V6(
        "::ffff:10.0.0.5".parse().unwrap(),
        "::ffff:10.0.0.6".parse().unwrap(),
    );
    assert_eq!(kind_of_frame(&PacketSpec::new(mapped, tcp).frame()), None);
    let fragment = PacketMeta {
        kind: PacketKind::Fragment,
        ..meta
    };
    assert_eq!(Kind::of(&fragment), None);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A packet whose hash is right (or 0), on the right queue.
    Agrees {
        kind: usize,
        hash: u32,
    },
    /// So many of them.
    Many {
        kind: usize,
        count: u16,
    },
    WrongHash {
        kind: usize,
    },
    WrongQueue {
        kind: usize,
    },
    NoHash {
        kind: usize,
    },
    TableChanges {
        unsettled: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let kind = 0..Kind::ALL.len();
    prop_oneof![
        8 => (kind.clone(), prop_oneof![Just(0), any::<u32>()]).prop_map(|(kind, hash)| Step::Agrees { kind, hash }),
        8 => (kind.clone(), 1..150u16).prop_map(|(kind, count)| Step::Many { kind, count }),
        1 => kind.clone().prop_map(|kind| Step::WrongHash { kind }),
        1 => kind.clone().prop_map(|kind| Step::WrongQueue { kind }),
        1 => kind.prop_map(|kind| Step::NoHash { kind }),
        1 => (0..20u32).prop_map(|unsettled| Step::TableChanges { unsettled }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever comes in whatever order: nothing is believed that was not proved since the last change, and nothing at all
    /// after a disagreement.
    #[test]
    fn belief_follows_from_the_packets(claimed in any::<u16>(), steps in prop::collection::vec(step(), 0..60)) {
        let claimed = Kinds::from_bits(claimed);
        let mut proof = Proof::new(claimed);
        let (mut agreed, mut broken, mut unsettled) = ([0u32; 12], false, 0);
        for step in steps {
            let settling = unsettled > 0;
            let mut send = |kind: usize, device: Option<u32>, hash: u32, here: bool| {
                let kind = Kind::ALL[kind];
                proof.check(kind, device, hash, here)
            };
            let mut agree = |kind: usize, hash: u32, event: Event| {
                if broken || !claimed.has(Kind::ALL[kind]) {
                    assert_eq!(event, Event::Nothing);
                } else if unsettled > 0 {
                    unsettled -= 1;
                } else if hash != 0 {
                    agreed[kind] += 1;
                }
            };
            let claims = |kind: usize| claimed.has(Kind::ALL[kind]);
            match step {
                Step::Agrees { kind, hash } => {
                    let event = send(kind, Some(hash), hash, true);
                    agree(kind, hash, event);
                }
                Step::Many { kind, count } => for hash in 1..=u32::from(count) {
                    let event = send(kind, Some(hash), hash, true);
                    agree(kind, hash, event);
                },
                Step::WrongHash { kind } => {
                    let event = send(kind, Some(6), 7, true);
                    prop_assert_eq!(matches!(event, Event::Mismatch(_)), !broken && claims(kind));
                    broken |= claims(kind);
                }
                Step::WrongQueue { kind } => {
                    let event = send(kind, Some(7), 7, false);
                    if settling {
                        agree(kind, 7, event);
                    } else {
                        prop_assert_eq!(matches!(event, Event::Mismatch(_)), !broken && claims(kind));
                        broken |= claims(kind);
                    }
                }
                Step::NoHash { kind } => {
                    let event = send(kind, None, 7, true);
                    prop_assert_eq!(matches!(event, Event::Mismatch(_)), !broken && claims(kind));
                    broken |= claims(kind);
                }
                Step::TableChanges { unsettled: packets } => {
                    proof.table_changes(packets);
                    if !broken {
                        (agreed, unsettled) = ([0; 12], packets);
                    }
                }
            }
            let proven = agreed.iter().sum::<u32>() >= u32::from(Proof::PORT);
            let state = match (claimed.is_empty(), broken, proven) {
                (true, ..) => RssState::Software,
                (_, true, _) => RssState::Mismatch,
                (_, _, true) => RssState::Proven,
                _ => RssState::Unproven,
            };
            prop_assert_eq!(proof.state(), state);
            for kind in Kind::ALL {
                let believed = state == RssState::Proven && agreed[kind as usize] >= u32::from(Proof::KIND);
                prop_assert_eq!(proof.believes(kind), believed, "{:?}", kind);
                let expected = match state {
                    _ if believed => None,
                    RssState::Proven | RssState::Unproven if claimed.has(kind) => Some(Trust::Check),
                    _ => Some(Trust::Software),
                };
                if let Some(expected) = expected {
                    prop_assert_eq!(proof.trust(Some(kind)), expected);
                }
            }
        }
    }
}
