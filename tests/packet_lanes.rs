//! The straight path for eight frames against the one for one, and the flow keys that both lead to.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "support/consistent.rs"]
mod consistent;

use etherparse::{PacketBuilder, TcpOptionElement};
use haechi::base::simd::LANES;
use haechi::flow::HashSeed;
use haechi::packet::parse::parse_lanes;
use haechi::packet::{ChecksumStatus, RxChecksum};
use proptest::prelude::*;

/// What the builder is told.
#[derive(Clone, Debug)]
struct Wish {
    tcp: bool,
    addresses: ([u8; 4], [u8; 4]),
    ports: (u16, u16),
    options: usize,
    payload: Vec<u8>,
    padding: usize,
    /// UDP: send no checksum.
    unchecked: bool,
    /// Bytes to be changed, from the EtherType on.
    flips: Vec<(usize, u8)>,
    /// Change none: three frames of four are good ones.
    good: u8,
    cut: Option<usize>,
    device: (u8, u8),
}

fn wish() -> impl Strategy<Value = Wish> {
    let few = prop::sample::select(vec![
        [10, 0, 0, 1],
        [10, 0, 0, 2],
        [198, 18, 255, 1],
        [0, 0, 0, 10],
    ]);
    let port = prop::sample::select(vec![1_u16, 256, 443, 2152, 4790, 4792, 0x8000, 0xffff]);
    (
        (
            any::<bool>(),
            (few.clone(), few),
            (port.clone(), port),
            0..4_usize,
        ),
        (
            prop::collection::vec(any::<u8>(), 0..120),
            0..24_usize,
            prop::bool::weighted(0.1),
        ),
        prop::collection::vec((12..70_usize, any::<u8>()), 1..3),
        0..4_u8,
        prop::option::weighted(0.05, 0..100_usize),
        (0..3_u8, 0..3_u8),
    )
        .prop_map(
            |((tcp, addresses, ports, options), (payload, padding, unchecked), flips, good, cut, device)| {
                Wish {
                    tcp,
                    addresses,
                    ports,
                    options,
                    payload,
                    padding,
                    unchecked,
                    flips,
                    good,
                    cut,
                    device,
                }
            },
        )
}

fn frame(wish: &Wish) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(
        wish.addresses.0,
        wish.addresses.1,
        64,
    );
    let mut frame = Vec::new();
    if wish.tcp {
        let options: &[&[TcpOptionElement]] = &[
            &[],
            &[
                TcpOptionElement::Noop,
                TcpOptionElement::Noop,
                TcpOptionElement::Timestamp(7, 9),
            ],
            &[TcpOptionElement::MaximumSegmentSize(1460)],
            &[
                TcpOptionElement::Timestamp(7, 9),
                TcpOptionElement::Noop,
                TcpOptionElement::Noop,
            ],
        ];
        builder
            .tcp(wish.ports.0, wish.ports.1, 1, 1024)
            .ack(5)
            .options(options[wish.options])
            .unwrap()
            .write(&mut frame, &wish.payload)
            .unwrap();
    } else {
        builder
            .udp(wish.ports.0, wish.ports.1)
            .write(&mut frame, &wish.payload)
            .unwrap();
        if wish.unchecked {
            frame[40..42].fill(0);
        }
    }
    // What pads is not summed, whatever it is.
    frame.resize(frame.len() + wish.padding, 0xa5);
    if wish.good == 0 {
        for (at, with) in &wish.flips {
            if let Some(byte) = frame.get_mut(*at) {
                *byte ^= with;
            }
        }
    }
    if let Some(cut) = wish.cut {
        frame.truncate(cut);
    }
    frame
}

fn device(wish: &Wish) -> RxChecksum {
    let status = |n| match n {
        0 => ChecksumStatus::Unknown,
        1 => ChecksumStatus::Good,
        _ => ChecksumStatus::Bad,
    };
    // Software has to look, nearly always.
    match wish.device {
        (ip, l4) if wish.good < 2 => RxChecksum::new(status(ip), status(l4)),
        _ => RxChecksum::default(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn eight_frames_are_parsed_as_one(
        wishes in prop::array::uniform8(wish()), verify_l4: bool, domain: u32, seed: [u64; 4],
    ) {
        let frames: Vec<_> = wishes.iter().map(frame).collect();
        let frames: [&[u8]; LANES] = std::array::from_fn(|i| &*frames[i]);
        let devices: [RxChecksum; LANES] = std::array::from_fn(|i| device(&wishes[i]));
        consistent::three_paths(&frames, &devices, verify_l4, domain, HashSeed(seed));
    }
}

/// Frames as a network has them are taken: if they were not, the test above would still hold.
#[test]
fn ordinary_frames_are_taken() {
    for (tcp, options, payload) in [
        (false, 0, 18),
        (false, 0, 1400),
        (false, 0, 4),
        (true, 0, 0),
        (true, 1, 0),
        (true, 1, 1400),
        (true, 0, 1),
    ] {
        let wish = Wish {
            tcp,
            addresses: ([10, 0, 0, 1], [198, 18, 0, 1]),
            ports: (40_000, 443),
            options,
            payload: vec![0x5a; payload],
            padding: 60_usize.saturating_sub(14 + 20 + if tcp { 20 + 12 * options } else { 8 } + payload),
            unchecked: false,
            flips: Vec::new(),
            good: 3,
            cut: None,
            device: (0, 0),
        };
        let frame = frame(&wish);
        let lanes = parse_lanes(&[&frame[..]; LANES], &[RxChecksum::default(); LANES], true);
        assert!(lanes.taken.all(), "{wish:?}");
        assert_eq!(
            (lanes.tcp.plain.all(), lanes.tcp.plain.any()),
            (tcp, tcp),
            "{wish:?}"
        );
    }
}
