//! Sessions and messages of any kind that the two nodes of a pair may tell each other, for property tests.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use haechi::base::{Nanos, PortId};
use haechi::flow::image::{BUCKETS, Birth, Bucket, Image};
use haechi::flow::station::Station;
use haechi::flow::{Direction, FlowKey, KeyClass, Session, SessionState, TcpSender, Translation};
use haechi::ha::{Ack, Crossing, DigestReport, Frame, Heartbeat, Lead, NodeId, Part, Progress, Role, Update};
use haechi::packet::LinkHeader;
use proptest::prelude::*;

/// A key in the order in which packets have it.
pub(crate) fn ordered(mut key: FlowKey) -> FlowKey {
    let number = |address: [u8; 16]| u128::from_ne_bytes(address);
    if (number(key.low), key.low_port) > (number(key.high), key.high_port) {
        std::mem::swap(&mut key.low, &mut key.high);
        std::mem::swap(&mut key.low_port, &mut key.high_port);
    }
    key
}

/// An IPv4 address as keys have it.
pub(crate) fn ipv4(address: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[10..12].fill(0xff);
    bytes[12..].copy_from_slice(&address.to_be_bytes());
    bytes
}

/// TCP over IPv4, established: the usual session.
pub(crate) fn established(number: u32) -> Image {
    let sender = |end: u32| TcpSender {
        end,
        max_end: end.wrapping_add(65_535),
        acked: end.wrapping_sub(1460),
        max_win: 502,
        flags: TcpSender::SYN | TcpSender::SYN_ACKED | TcpSender::ACKED | TcpSender::SETTLED,
        scale: 7,
    };
    Image {
        key: ordered(FlowKey {
            low: ipv4(0x0a00_0000 + number),
            high: ipv4(0xc000_0207),
            low_port: 40_000 + (number % 20_000) as u16,
            high_port: 443,
            domain: 0x0100_0064,
            protocol: 6,
            class: KeyClass::Ports,
            reserved: 0,
        }),
        birth: Birth(0x0123_4567_89ab_cdef ^ u64::from(number)),
        serial: 0x1234_5600 + number,
        state: SessionState::Established,
        ingress: PortId(1),
        egress: PortId(0),
        rule: Image::rule_of("web"),
        tcp: [sender(1_000_000 + number), sender(4_000_000_000)],
        bytes: [123_456, 78_901_234],
        packets: [321, 54_321],
        age: Nanos::from_secs(77),
        idle: Nanos::from_millis(30),
        ..Image::default()
    }
}

/// A TCP session with everything that a session can have, over IPv6.
pub(crate) fn full() -> Image {
    let header = |first: u8| LinkHeader::from_bytes(&std::array::from_fn(|i| first + i as u8));
    Image {
        key: ordered(FlowKey {
            low: std::array::from_fn(|i| 0x20 + i as u8),
            high: std::array::from_fn(|i| 0x30 + i as u8),
            ..established(7).key
        }),
        opener: Direction::HighToLow,
        flags: Session::PROXIED | Session::OUTLIVED,
        icmp: [8, 0],
        translation: Translation {
            sequence: 0x1111_2222,
            timestamp: 0x3333_4444,
            cookie: 0x5555_6666,
            flags: Translation::SACK | Translation::SCALE,
            mss: 6,
            told_scale: 7,
            client_scale: 14,
        },
        links: [header(0x40), header(0x80)],
        ..established(7)
    }
}

fn sender() -> impl Strategy<Value = TcpSender> {
    (any::<[u32; 3]>(), any::<u16>(), any::<u8>(), 0..16_u8).prop_map(|(numbers, max_win, flags, scale)| {
        let unsettled = scale == 15;
        TcpSender {
            end: numbers[0],
            max_end: numbers[1],
            acked: numbers[2],
            max_win,
            flags: if unsettled {
                flags & !TcpSender::SETTLED
            } else {
                flags
            },
            scale: if unsettled { TcpSender::NO_SCALE } else { scale },
        }
    })
}

fn address() -> impl Strategy<Value = ([u8; 16], [u8; 16])> {
    let ipv6 = any::<([u8; 16], [u8; 16])>();
    prop_oneof![any::<(u32, u32)>().prop_map(|(a, b)| (ipv4(a), ipv4(b))), ipv6]
}

/// A key that a packet can have, and a state that a session of it can be in.
fn flow() -> impl Strategy<Value = (FlowKey, SessionState)> {
    let states = |from: usize, to: usize| prop::sample::select(&SessionState::ALL[from..=to]);
    let kind = prop_oneof![
        4 => (Just((6, 6)), Just(KeyClass::Ports), states(0, 9)),
        2 => (Just((17, 17)), Just(KeyClass::Ports), states(10, 11)),
        2 => (Just((1, 58)), prop::sample::select(&[
            KeyClass::EchoFromLow, KeyClass::EchoFromHigh, KeyClass::IcmpFromLow, KeyClass::IcmpFromHigh,
        ][..]), states(12, 12)),
        1 => (Just((47, 132)), Just(KeyClass::Addresses), states(13, 14)),
    ];
    (address(), any::<[u16; 2]>(), any::<u32>(), kind).prop_map(
        |((low, high), ports, domain, (protocols, class, state))| {
            let mut key = FlowKey {
                low,
                high,
                low_port: ports[0],
                high_port: ports[1],
                domain,
                class,
                ..FlowKey::default()
            };
            key.protocol = if key.is_ipv4() { protocols.0 } else { protocols.1 };
            match class {
                KeyClass::Ports => (),
                KeyClass::Addresses => (key.low_port, key.high_port) = (0, 0),
                _ => key.high_port = key.low_port,
            }
            (ordered(key), state)
        },
    )
}

fn links() -> impl Strategy<Value = [LinkHeader; 2]> {
    let known = any::<([u8; 16], [u8; 16])>().prop_map(|of| {
        let header = |bytes: [u8; 16]| {
            let mut of = [3; LinkHeader::SIZE];
            of[..16].copy_from_slice(&bytes);
            LinkHeader::from_bytes(&of)
        };
        [header(of.0), header(of.1)]
    });
    prop_oneof![3 => Just(Default::default()), 1 => known]
}

fn translation() -> impl Strategy<Value = Translation> {
    (any::<[u32; 3]>(), any::<u8>(), 0..8_u8, [0..15_u8, 0..15_u8]).prop_map(
        |(numbers, flags, mss, scales)| Translation {
            sequence: numbers[0],
            timestamp: numbers[1],
            cookie: numbers[2],
            flags,
            mss,
            told_scale: scales[0],
            client_scale: scales[1],
        },
    )
}

/// Times as they go from node to node: in microseconds, of 48 bits.
fn micros(bits: u64) -> Nanos {
    Nanos((bits >> 16) * 1000)
}

/// Any session as a node can have it.
pub(crate) fn image() -> impl Strategy<Value = Image> {
    let tcp = (flow(), [sender(), sender()], any::<u8>(), translation(), links());
    let numbers = (
        any::<[u64; 8]>(),
        any::<bool>(),
        [0..512_u16, 0..512_u16],
        any::<[u8; 2]>(),
    );
    (tcp, numbers).prop_map(|(tcp, numbers)| {
        let ((key, state), mut senders, flags, translation, links) = tcp;
        let ([birth, rule, a, b, c, d, age, idle], high, ports, icmp) = numbers;
        let is_tcp = state <= SessionState::Closed;
        if !is_tcp {
            let echo = |of: TcpSender| TcpSender {
                end: of.end & 0xffff,
                max_end: of.max_end & 0x7fff,
                ..TcpSender::default()
            };
            senders = senders.map(echo);
        }
        let flags = if is_tcp { flags & Image::FLAGS } else { 0 };
        Image {
            key,
            birth: Birth(birth),
            serial: (rule >> 16) as u32 ^ birth as u32,
            state,
            opener: if high {
                Direction::HighToLow
            } else {
                Direction::LowToHigh
            },
            ingress: PortId(ports[0]),
            egress: PortId(ports[1]),
            flags,
            icmp,
            rule,
            tcp: senders,
            translation: if flags & Session::PROXIED != 0 {
                translation
            } else {
                Translation::default()
            },
            links,
            bytes: [a, b],
            packets: [c, d],
            age: micros(age),
            idle: micros(idle),
        }
    })
}

/// Any news.
pub(crate) fn update() -> impl Strategy<Value = Update> {
    prop_oneof![
        3 => image().prop_map(Update::Session),
        1 => (flow(), any::<u64>()).prop_map(|((key, _), birth)| Update::Gone { key, birth: Birth(birth) }),
        1 => (any::<[u8; LinkHeader::SIZE]>(), any::<u16>()).prop_filter_map("a group's address", |(link, port)| {
            let link = LinkHeader::from_bytes(&link).of_source()?;
            Some(Update::Station(Station { link, port: PortId(port) }))
        }),
    ]
}

fn heartbeat() -> impl Strategy<Value = Frame> {
    const ROLES: [Role; 5] = [
        Role::Waiting,
        Role::Standby,
        Role::Leader,
        Role::Isolated,
        Role::Active,
    ];
    let progress = prop::collection::vec(any::<(u16, u32)>(), 0..20);
    let says = any::<[bool; 4]>();
    let of = (
        1..=2_u8,
        prop::sample::select(&ROLES[..]),
        any::<u8>(),
        any::<u16>(),
    );
    (of, says, any::<[u64; 5]>(), progress).prop_map(|(of, says, numbers, progress)| {
        let worker = |(worker, turns)| Progress { worker, turns };
        Frame::Heartbeat(Heartbeat {
            node: NodeId(of.0),
            role: of.1,
            lead: Lead(numbers[0]),
            priority: of.2,
            healthy: says[0],
            in_sync: says[1],
            yields: says[2],
            asks_to_lead: says[3],
            policy: numbers[1],
            layout: numbers[2],
            sent: Nanos(numbers[3]),
            heard: Nanos(numbers[4]),
            progress: progress.into_iter().map(worker).collect(),
            version: of.3,
        })
    })
}

fn buckets(at_least: usize) -> impl Strategy<Value = Vec<Bucket>> {
    prop::collection::btree_set(0..BUCKETS as u16, at_least..40)
        .prop_map(|of| of.into_iter().map(Bucket).collect())
}

/// Any message, of at most a few kilobytes.
pub(crate) fn frame() -> impl Strategy<Value = Frame> {
    let begin = (any::<(u64, u32, u64)>(), buckets(0)).prop_map(|((number, resync, sessions), buckets)| {
        Frame::ResyncBegin {
            number,
            resync,
            buckets,
            sessions,
        }
    });
    let barrier = (
        any::<(u64, u64)>(),
        0..400_u16,
        prop::collection::vec(any::<u64>(), 0..112),
    )
        .prop_map(|((number, barrier), first, digests)| Frame::Barrier {
            number,
            barrier,
            first: Bucket(first),
            digests,
        });
    let packet = (
        (0..5_usize, any::<(u16, u16, u32)>()),
        0..2_u8,
        0..9000_u16,
        prop::collection::vec(any::<u8>(), 1..200),
    )
        .prop_map(
            |((crossing, (port, worker, id)), cut, offset, bytes)| Frame::Packet {
                crossing: [
                    Crossing::Known,
                    Crossing::Unknown,
                    Crossing::SentBack,
                    Crossing::Return,
                    Crossing::ReturnMade,
                ][crossing],
                port: PortId(port),
                worker,
                part: (cut == 1).then_some(Part {
                    id,
                    offset,
                    total: offset + bytes.len() as u16 + (id % 100) as u16,
                }),
                bytes,
            },
        );
    prop_oneof![
        heartbeat(),
        packet,
        (any::<u64>(), prop::collection::vec(update(), 0..12))
            .prop_map(|(number, updates)| Frame::Sync { number, updates }),
        any::<(u64, u64)>().prop_map(|(highest, before)| Frame::Ack(Ack { highest, before })),
        begin,
        any::<(u64, u32)>().prop_map(|(number, resync)| Frame::ResyncEnd { number, resync }),
        barrier,
        (any::<u64>(), buckets(0))
            .prop_map(|(barrier, differ)| Frame::Digests(DigestReport { barrier, differ })),
        (1000..60_000_u16).prop_map(|kind| Frame::Unknown { kind }),
    ]
}
