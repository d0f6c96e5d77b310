//! The HA pair's messages as bytes: what version 1 writes is frozen (tests/data/ha/v1), what is read cannot do harm, and a later version
//! and this one understand each other.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop; so may what several tests share"
)]

#[path = "support/ha_images.rs"]
mod ha_images;
#[path = "support/ha_v2.rs"]
mod ha_v2;

use std::path::Path;

use ha_images::{established, frame, full, image, ordered, update};
use haechi::base::{Nanos, PortId};
use haechi::flow::image::{BUCKETS, Birth, Bucket, Image};
use haechi::flow::{FlowKey, KeyClass, Session, SessionState, TcpSender};
use haechi::ha::seal::OVERHEAD;
use haechi::ha::wire::{DATAGRAM, InvalidUpdate, Message, VERSION, WireError, Writer, decode, kind, session};
use haechi::ha::{Ack, Crossing, DigestReport, Frame, Heartbeat, Lead, NodeId, Part, Progress, Role, Update};
use proptest::prelude::*;

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, usize::from(u16::MAX));
    for frame in frames {
        assert!(writer.frame(frame), "{frame:?}");
    }
    out
}

fn frames_of(bytes: &[u8]) -> Vec<Frame> {
    let messages = decode(bytes).expect("it can be read");
    messages
        .map(|message| message.into_frame().expect("all of it is valid"))
        .collect()
}

/// The updates of the one Sync frame.
fn updates_of(bytes: &[u8]) -> Vec<Result<Update, InvalidUpdate>> {
    match decode(bytes).expect("it can be read").next() {
        Some(Message::Sync { updates, .. }) => updates.collect(),
        other => panic!("{other:?}"),
    }
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        node: NodeId(2),
        role: Role::Leader,
        lead: Lead(0x0102_0304_0506_0708),
        priority: 200,
        healthy: true,
        in_sync: false,
        yields: true,
        asks_to_lead: false,
        policy: 0x1112_1314_1516_1718,
        layout: 0x2122_2324_2526_2728,
        sent: Nanos(0x3132_3334_3536_3738),
        heard: Nanos(0x4142_4344_4546_4748),
        progress: vec![
            Progress {
                worker: 0,
                turns: 0x5152_5354,
            },
            Progress {
                worker: 0x0102,
                turns: u32::MAX,
            },
        ],
        version: VERSION,
    }
}

/// A frame of each kind, as the fixtures have them.
fn fixtures() -> Vec<(&'static str, Frame)> {
    let udp = Image {
        key: ordered(FlowKey {
            protocol: 17,
            ..established(9).key
        }),
        state: SessionState::UdpReplied,
        tcp: Default::default(),
        ..established(9)
    };
    let echo = Image {
        key: ordered(FlowKey {
            protocol: 1,
            class: KeyClass::EchoFromHigh,
            low_port: 77,
            high_port: 77,
            ..established(3).key
        }),
        state: SessionState::Icmp,
        icmp: [8, 0],
        tcp: [
            TcpSender::default(),
            TcpSender {
                end: 900,
                max_end: 32_768,
                ..TcpSender::default()
            },
        ],
        ..established(3)
    };
    let gone = Update::Gone {
        key: full().key,
        birth: Birth(0xfedc_ba98_7654_3210),
    };
    let updates = [established(1), full(), udp, echo].map(Update::Session);
    let buckets = vec![Bucket(0), Bucket(9), Bucket(511)];
    vec![
        ("heartbeat", Frame::Heartbeat(heartbeat())),
        (
            "sync",
            Frame::Sync {
                number: 0x0807_0605_0403_0201,
                updates: updates.into_iter().chain([gone]).collect(),
            },
        ),
        (
            "ack",
            Frame::Ack(Ack {
                highest: 1000,
                before: 0xff00_ff00_ff00_ff01,
            }),
        ),
        (
            "resync_begin",
            Frame::ResyncBegin {
                number: 5,
                resync: 3,
                buckets: buckets.clone(),
                sessions: 1_000_000,
            },
        ),
        (
            "resync_begin_all",
            Frame::ResyncBegin {
                number: 6,
                resync: 4,
                buckets: vec![],
                sessions: 0,
            },
        ),
        ("resync_end", Frame::ResyncEnd { number: 7, resync: 4 }),
        (
            "barrier",
            Frame::Barrier {
                number: 8,
                barrier: 9,
                first: Bucket(510),
                digests: vec![0x1122_3344_5566_7788, u64::MAX],
            },
        ),
        (
            "digests",
            Frame::Digests(DigestReport {
                barrier: 9,
                differ: buckets,
            }),
        ),
        ("redirect", packet(Crossing::Known, 1, 0x0203)),
        ("redirect_part", a_part()),
        ("return", packet(Crossing::Return, 1, 1)),
        ("return_made", packet(Crossing::ReturnMade, 0, 1)),
        ("sent_back", packet(Crossing::SentBack, 0, 1)),
    ]
}

fn packet(crossing: Crossing, port: u16, worker: u16) -> Frame {
    Frame::Packet {
        crossing,
        port: PortId(port),
        worker,
        part: None,
        bytes: [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], b"packet"].concat(),
    }
}

fn a_part() -> Frame {
    Frame::Packet {
        crossing: Crossing::Unknown,
        port: PortId(0),
        worker: 2,
        part: Some(Part {
            id: 0x0102_0304,
            offset: 1400,
            total: 1406,
        }),
        bytes: b"packet".to_vec(),
    }
}

/// What a frame of updates says whose sender waits: a later version 1 than the first, which passes it over.
#[test]
fn a_sender_that_waits_says_so() {
    let path = format!("{}/tests/data/ha/v1/sync_awaited.hex", env!("CARGO_MANIFEST_DIR"));
    let digits = std::fs::read_to_string(path).expect("the fixture");
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, 19);
    assert!(writer.sync(7) && !Writer::new(&mut Vec::new(), 100).hasten());
    assert!(writer.hasten() && !writer.hasten(), "it has room for one");
    assert_eq!(hex(&out), digits.trim());
    // With what is new behind it.
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, 1400);
    assert!(writer.sync(7) && writer.hasten() && writer.update(&Update::Session(established(1))));
    let messages: Vec<_> = decode(&out).expect("it can be read").collect();
    let [
        Message::Sync {
            number: 7,
            haste: true,
            updates,
        },
    ] = &messages[..]
    else {
        panic!("{messages:?}");
    };
    assert_eq!(
        updates.clone().flatten().collect::<Vec<_>>(),
        [Update::Session(established(1))]
    );
    assert!(matches!(
        decode(&bytes_of(
            &fixtures()[1..2]
                .iter()
                .map(|(_, frame)| frame.clone())
                .collect::<Vec<_>>()
        ))
        .expect("it can be read")
        .next(),
        Some(Message::Sync { haste: false, .. })
    ));
}

#[test]
fn packets_that_cannot_be_are_counted_by_their_kind() {
    let empty = Frame::Packet {
        crossing: Crossing::Return,
        port: PortId(1),
        worker: 0,
        part: None,
        bytes: vec![],
    };
    let mut beyond = a_part();
    if let Frame::Packet { part: Some(part), .. } = &mut beyond {
        part.total -= 1;
    }
    for (frame, of) in [(empty, kind::RETURN), (beyond, kind::REDIRECT)] {
        let bytes = bytes_of(&[frame]);
        let messages: Vec<_> = decode(&bytes).expect("its structure is right").collect();
        assert!(
            matches!(messages[..], [Message::Invalid { kind }] if kind == of),
            "{messages:?}"
        );
    }
    // A port of one byte, a part of seven.
    for (bytes, tag) in [
        (&[8, 0, 4, 0, 1, 1, 0, 9][..], 1),
        (&[9, 0, 10, 0, 4, 7, 0, 1, 2, 3, 4, 5, 6, 7], 4),
    ] {
        let kind = u16::from(bytes[0]);
        assert_eq!(decode(bytes).err(), Some(WireError::TooShort { kind, tag }));
    }
}

/// Version 1 is frozen: these files never change. (A later version adds files of its own beside them.)
#[test]
fn version_1_is_written_and_read_as_it_always_was() {
    let mut together = Vec::new();
    for (name, frame) in fixtures() {
        let path = format!("{}/tests/data/ha/v1/{name}.hex", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(Path::new(&path)).unwrap_or_default();
        let written = bytes_of(std::slice::from_ref(&frame));
        let digits: String = text.split_whitespace().collect();
        assert_eq!(hex(&written), digits, "{name}");
        assert_eq!(frames_of(&unhex(&digits)), [frame], "{name}");
        together.extend(written);
    }
    let all: Vec<_> = fixtures().into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(frames_of(&together), all);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(pair).collect()
}

#[test]
fn ten_established_sessions_fit_into_a_datagram() {
    let room = DATAGRAM - OVERHEAD;
    let mut out = vec![0; 40];
    let mut writer = Writer::new(&mut out, room);
    assert!(writer.is_empty() && writer.room() == room);
    assert!(
        !writer.update(&Update::Session(established(0))),
        "no frame takes it"
    );
    assert!(writer.sync(77));
    let packed = (0..).take_while(|number| writer.update(&Update::Session(established(*number))));
    assert_eq!(packed.count(), 10);
    assert!(writer.len() + writer.room() == room && writer.room() < 140);
    let acknowledged = writer.frame(&Frame::Ack(Ack::default()));
    assert!(!acknowledged, "{} bytes left", writer.room());
    let [Frame::Sync { number: 77, updates }] = &frames_of(&out[40..])[..] else {
        panic!("{out:?}");
    };
    let expected: Vec<_> = (0..10)
        .map(|number| Update::Session(established(number)))
        .collect();
    assert_eq!(*updates, expected);
}

#[test]
fn no_update_is_longer_than_said() {
    let longest = bytes_of(&[Frame::Sync {
        number: 1,
        updates: vec![Update::Session(full())],
    }]);
    assert_eq!(longest.len(), 4 + 3 + 8 + 3 + session::MAX);
}

#[test]
fn a_barrier_is_told_in_parts_that_fit() {
    let digests: Vec<u64> = (0..BUCKETS as u64).map(|n| n * n).collect();
    let (mut told, mut parts) = (Vec::new(), 0);
    while told.len() < digests.len() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, DATAGRAM - OVERHEAD);
        let first = Bucket(told.len() as u16);
        let count = writer.barrier(10 + parts, 3, first, &digests[told.len()..]);
        assert!(count > 0 && writer.room() < 8 || told.len() + count == digests.len());
        let [
            Frame::Barrier {
                number,
                barrier: 3,
                first: from,
                digests: part,
            },
        ] = &frames_of(&out)[..]
        else {
            panic!("{out:?}");
        };
        assert_eq!((*number, *from, part.len()), (10 + parts, first, count));
        told.extend_from_slice(part);
        parts += 1;
    }
    assert_eq!((told, parts), (digests, 4));
    let mut out = Vec::new();
    assert_eq!(Writer::new(&mut out, 37).barrier(1, 1, Bucket(0), &[5]), 0);
    assert!(out.is_empty());
    assert_eq!(Writer::new(&mut out, 42).barrier(1, 1, Bucket(0), &[5, 6]), 1);
}

/// Bytes of one session by themselves, and what of them is refused.
#[test]
fn sessions_that_cannot_be_are_left_out_and_the_rest_is_news() {
    let tcp = established(1);
    let with = |change: &dyn Fn(&mut Image)| {
        let mut image = tcp;
        change(&mut image);
        image
    };
    let cases = [
        (with(&|i| i.state = SessionState::UdpNew), InvalidUpdate::State),
        (with(&|i| i.key.protocol = 17), InvalidUpdate::State),
        (with(&|i| i.key.protocol = 47), InvalidUpdate::Key),
        (with(&|i| i.key.protocol = 1), InvalidUpdate::Key),
        (with(&|i| i.key.class = KeyClass::Addresses), InvalidUpdate::Key),
        (with(&|i| i.key.class = KeyClass::EchoFromLow), InvalidUpdate::Key),
        (
            with(&|i| std::mem::swap(&mut i.key.low, &mut i.key.high)),
            InvalidUpdate::Key,
        ),
        (
            with(&|i| (i.key.high, i.key.low_port, i.key.high_port) = (i.key.low, 2, 1)),
            InvalidUpdate::Key,
        ),
        (with(&|i| i.ingress = PortId(512)), InvalidUpdate::Port),
        (with(&|i| i.egress = PortId(u16::MAX)), InvalidUpdate::Port),
        (with(&|i| i.tcp[1].scale = 15), InvalidUpdate::Sender),
        (
            with(&|i| i.tcp[0].scale = TcpSender::NO_SCALE),
            InvalidUpdate::Sender,
        ),
        (
            with(&|i| {
                i.flags = Session::PROXIED;
                i.translation.mss = 8;
            }),
            InvalidUpdate::Translation,
        ),
        (
            with(&|i| {
                i.flags = Session::PROXIED;
                i.translation.told_scale = 15;
            }),
            InvalidUpdate::Translation,
        ),
        (
            with(&|i| {
                i.flags = Session::OUTLIVED;
                (i.key.protocol, i.state) = (17, SessionState::UdpNew);
            }),
            InvalidUpdate::Translation,
        ),
        (
            with(&|i| {
                (i.key.protocol, i.key.class, i.state) = (1, KeyClass::EchoFromLow, SessionState::Icmp);
                (i.key.low_port, i.key.high_port) = (5, 5);
                i.tcp[0].end = 0x1_0000;
            }),
            InvalidUpdate::Sender,
        ),
        (
            with(&|i| {
                (i.key.protocol, i.key.class, i.state) = (1, KeyClass::IcmpFromHigh, SessionState::Icmp);
                (i.key.low_port, i.key.high_port) = (5, 6);
            }),
            InvalidUpdate::Key,
        ),
    ];
    for (image, why) in cases {
        let bytes = bytes_of(&[Frame::Sync {
            number: 1,
            updates: [tcp, image, established(2)].map(Update::Session).to_vec(),
        }]);
        let expected = [Ok(tcp), Err(why), Ok(established(2))].map(|of| of.map(Update::Session));
        assert_eq!(updates_of(&bytes), expected, "{image:?}");
    }
    // What no value of this version's types can say: a state, an opener and a class of a later one.
    let bytes = bytes_of(&[Frame::Sync {
        number: 1,
        updates: vec![Update::Session(tcp)],
    }]);
    let (core, key) = (4 + 11 + 3 + 20 + 2, 4 + 11 + 3 + 2);
    for (at, value, why) in [
        (core + 24, 15, InvalidUpdate::State),
        (core + 24, 255, InvalidUpdate::State),
        (core + 25, 2, InvalidUpdate::Opener),
        (key + 17, 6, InvalidUpdate::Key),
    ] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        assert_eq!(updates_of(&bytes), [Err(why)], "byte {at}");
    }
    // A flag of a later version is passed over.
    let mut later = bytes.clone();
    later[core + 26] |= 0x80;
    assert_eq!(updates_of(&later), [Ok(Update::Session(tcp))]);
    // An end of a session that has no key.
    let gone = [2, 0, 13, 0, 3, 10, 0, 3, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(updates_of(&gone), [Err(InvalidUpdate::Key)]);
}

#[test]
fn a_proxied_session_has_its_translation() {
    let bytes = bytes_of(&[Frame::Sync {
        number: 1,
        updates: vec![Update::Session(full())],
    }]);
    // The tag of the translation becomes one that nobody knows.
    let at = bytes
        .windows(2)
        .position(|field| field == [7, 16])
        .expect("it is there");
    let mut without = bytes.clone();
    without[at] = 119;
    assert_eq!(updates_of(&bytes), [Ok(Update::Session(full()))]);
    assert_eq!(updates_of(&without), [Err(InvalidUpdate::Translation)]);
    // That of one that is not proxied means nothing.
    let core = bytes
        .windows(2)
        .position(|field| field == [3, 27])
        .expect("it is there");
    let mut plain = bytes;
    plain[core + 2 + 26] &= !Session::PROXIED;
    let expected = Image {
        flags: Session::OUTLIVED,
        translation: Default::default(),
        ..full()
    };
    assert_eq!(updates_of(&plain), [Ok(Update::Session(expected))]);
}

/// Microseconds of 48 bits: what is shorter is nothing, what is longer is the longest.
#[test]
fn times_go_by_the_microsecond() {
    for (sent, read) in [
        (999, 0),
        (1000, 1000),
        (1_234_567, 1_234_000),
        (u64::MAX, ((1 << 48) - 1) * 1000),
    ] {
        let image = Image {
            age: Nanos(sent),
            idle: Nanos(sent / 2),
            ..established(1)
        };
        let bytes = bytes_of(&[Frame::Sync {
            number: 1,
            updates: vec![Update::Session(image)],
        }]);
        let expected = Image {
            age: Nanos(read),
            idle: Nanos((sent / 2 / 1000).min((1 << 48) - 1) * 1000),
            ..image
        };
        assert_eq!(updates_of(&bytes), [Ok(Update::Session(expected))]);
    }
}

#[test]
fn messages_that_cannot_be_are_counted_by_their_kind() {
    let bytes = bytes_of(&[Frame::Heartbeat(heartbeat()), Frame::Ack(Ack::default())]);
    for (at, value) in [(4 + 3, 3), (4 + 3, 0), (4 + 4 + 3, 5)] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        let messages: Vec<_> = decode(&bytes).expect("it can be read").collect();
        let [
            Message::Invalid {
                kind: kind::HEARTBEAT,
            },
            Message::Other(Frame::Ack(_)),
        ] = &messages[..]
        else {
            panic!("{messages:?}");
        };
    }
    let beyond = bytes_of(&[Frame::Barrier {
        number: 1,
        barrier: 1,
        first: Bucket(BUCKETS as u16 - 1),
        digests: vec![1, 2],
    }]);
    let nothing = bytes_of(&[Frame::ResyncBegin {
        number: 1,
        resync: 1,
        buckets: vec![Bucket(BUCKETS as u16)],
        sessions: 1,
    }]);
    for (bytes, of) in [(beyond, kind::BARRIER), (nothing, kind::RESYNC_BEGIN)] {
        let messages: Vec<_> = decode(&bytes).expect("it can be read").collect();
        assert!(
            matches!(messages[..], [Message::Invalid { kind }] if kind == of),
            "{messages:?}"
        );
    }
}

/// What is not there has its default; what is there twice counts in its last form; the order means nothing.
#[test]
fn fields_may_be_missing_repeated_and_in_any_order() {
    let empty = [
        [1, 0, 0, 0],
        [3, 0, 0, 0],
        [5, 0, 0, 0],
        [6, 0, 0, 0],
        [7, 0, 0, 0],
    ]
    .concat();
    let kinds: Vec<_> = decode(&empty)
        .expect("it can be read")
        .map(Message::into_frame)
        .collect();
    let barrier = Frame::Barrier {
        number: 0,
        barrier: 0,
        first: Bucket(0),
        digests: vec![],
    };
    let ends = Frame::ResyncEnd { number: 0, resync: 0 };
    // (A heartbeat of no node is none.)
    let expected = [
        None,
        Some(Frame::Ack(Ack::default())),
        Some(ends),
        Some(barrier),
        Some(Frame::Digests(DigestReport::default())),
    ];
    assert_eq!(kinds, expected);
    let mut bytes = vec![3, 0, 33, 0];
    for (tag, value) in [(2_u8, 7_u64), (1, 1), (1, 900)] {
        bytes.extend([tag, 8, 0]);
        bytes.extend(value.to_le_bytes());
    }
    assert_eq!(
        frames_of(&bytes),
        [Frame::Ack(Ack {
            highest: 900,
            before: 7
        })]
    );
}

#[test]
fn lengths_that_run_over_and_values_that_are_short_refuse_all() {
    let ack = bytes_of(&[Frame::Ack(Ack::default())]);
    let cases: [(&[u8], WireError); 8] = [
        (&[3], WireError::Overrun { kind: 0 }),
        (&[3, 0, 1, 0], WireError::Overrun { kind: 0 }),
        (&[3, 0, 2, 0, 1, 8], WireError::Overrun { kind: 3 }),
        (&[3, 0, 4, 0, 1, 8, 0, 0], WireError::Overrun { kind: 3 }),
        (&[3, 0, 4, 0, 1, 1, 0, 0], WireError::TooShort { kind: 3, tag: 1 }),
        (&[2, 0, 5, 0, 2, 2, 0, 3, 1], WireError::Overrun { kind: 2 }),
        (
            &[2, 0, 5, 0, 2, 2, 0, 3, 0],
            WireError::TooShort { kind: 2, tag: 2 },
        ),
        (&[6, 0, 4, 0, 4, 1, 0, 9], WireError::TooShort { kind: 6, tag: 4 }),
    ];
    for (bytes, why) in cases {
        let bytes = [&ack[..], bytes].concat();
        assert_eq!(decode(&bytes).err(), Some(why), "{bytes:?}");
    }
    assert!(decode(&ack).is_ok() && decode(&[]).is_ok());
    // Of a kind that nobody knows the body may be anything.
    assert_eq!(frames_of(&[99, 0, 1, 0, 255]), [Frame::Unknown { kind: 99 }]);
}

proptest! {
    #[test]
    fn what_is_written_is_read(frames in prop::collection::vec(frame(), 0..6)) {
        prop_assert_eq!(frames_of(&bytes_of(&frames)), frames);
    }

    /// Whatever the room, a datagram holds it, and in it all that was taken.
    #[test]
    fn a_datagram_holds_what_it_took(
        frames in prop::collection::vec(frame(), 1..12), room in 0..2000_usize, more in update(),
    ) {
        let mut out = vec![0xaa; 3];
        let mut writer = Writer::new(&mut out, room);
        let mut taken = Vec::new();
        for frame in frames {
            if writer.frame(&frame) {
                taken.push(frame);
                if writer.update(&more) {
                    match taken.last_mut() {
                        Some(Frame::Sync { updates, .. }) => updates.push(more),
                        other => prop_assert!(false, "{:?} takes no updates", other),
                    }
                }
            }
        }
        prop_assert!(out.len() <= room + 3 && out[..3] == [0xaa; 3]);
        prop_assert_eq!(frames_of(&out[3..]), taken);
    }

    /// Cut anywhere: refused, or at the end of a frame, and then those before it.
    #[test]
    fn what_is_cut_is_refused(frames in prop::collection::vec(frame(), 1..4)) {
        let bytes = bytes_of(&frames);
        let mut whole = 0;
        for length in 0..bytes.len() {
            if let Ok(messages) = decode(&bytes[..length]) {
                let read: Vec<_> = messages.filter_map(Message::into_frame).collect();
                prop_assert_eq!(&read[..], &frames[..read.len()]);
                prop_assert_eq!(read.len(), whole);
                whole += 1;
            }
        }
        prop_assert_eq!(whole, frames.len());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(messages) = decode(&bytes) {
            prop_assert!(messages.filter_map(Message::into_frame).count() <= bytes.len());
        }
    }

    /// A few bytes of a datagram are others: what comes out of it can be written and read again, so it is valid.
    #[test]
    fn changed_bytes_make_nothing_that_cannot_be(
        updates in prop::collection::vec(update(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes_of(&[Frame::Sync { number: 1, updates }]);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(messages) = decode(&bytes) {
            let read: Vec<_> = messages.filter_map(Message::into_frame).collect();
            prop_assert_eq!(frames_of(&bytes_of(&read)), read);
        }
    }

    /// A node of this version understands all that it can of what one of a later version sends.
    #[test]
    fn version_1_understands_version_2(frames in prop::collection::vec(frame(), 1..5), front: bool) {
        let (bytes, added) = ha_v2::write(&bytes_of(&frames), front);
        let read = frames_of(&bytes);
        let unknown = Frame::Unknown { kind: ha_v2::NEWS };
        prop_assert_eq!(read.iter().filter(|frame| **frame == unknown).count(), added.news.len());
        let known: Vec<_> = read.into_iter().filter(|frame| *frame != unknown).collect();
        prop_assert_eq!(&known, &frames);
        prop_assert_eq!(ha_v2::read(&bytes), Ok((frames, added)));
    }

    /// And the other way round; what is not there has its default.
    #[test]
    fn version_2_understands_version_1(frames in prop::collection::vec(frame(), 1..5)) {
        prop_assert_eq!(ha_v2::read(&bytes_of(&frames)), Ok((frames, ha_v2::Added::default())));
    }

    /// What the digest is of arrives as it was sent.
    #[test]
    fn digests_outlive_the_way(image in image(), key: [u64; 2]) {
        let key = haechi::flow::image::DigestKey(key);
        let bytes = bytes_of(&[Frame::Sync { number: 1, updates: vec![Update::Session(image)] }]);
        let [Ok(Update::Session(read))] = updates_of(&bytes)[..] else {
            panic!("{bytes:?}");
        };
        prop_assert_eq!(read.digest(&key), image.digest(&key));
    }
}
